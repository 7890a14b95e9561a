"""Decodes the records that the service itself wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec

from fraud_service.domain.complaints import VERSION_PATTERN, in_words
from fraud_service.domain.errors import InvalidRecord

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what msgspec raises for bad bytes

EARLIEST: Final = 0
LATEST: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z: the last instant that RFC 3339 can write

# JSON numbers can have any length. Without a bound, code that formats a number as a float or date could crash.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Moment = Annotated[int, msgspec.Meta(ge=EARLIEST, le=LATEST)]  # epoch milliseconds
ModelVersion = Annotated[str, msgspec.Meta(pattern=VERSION_PATTERN)]  # appears in logs and metrics

T = TypeVar("T")
Decode = Callable[[bytes | None], T]  # raises `InvalidRecord` if the bytes are not such a record


def json_decoder(kind: type[T], what: str) -> Decode[T]:
    """Return a decoder of untrusted JSON. `what` names the record in the error, as ``a snapshot record``."""
    decoder = msgspec.json.Decoder(kind)
    return lambda data: decode(decoder, data or b"", what)


def msgpack_decoder(kind: type[T], what: str) -> Decode[T]:
    """Return a decoder of untrusted msgpack. `what` names the record in the error."""
    decoder = msgspec.msgpack.Decoder(kind)
    return lambda data: decode(decoder, data or b"", what)


def decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes, what: str) -> T:
    """Decode untrusted bytes. `what` names the record in the error. Raises `InvalidRecord`."""
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidRecord(f"{what} cannot be read: {in_words(str(error))}") from error
