"""Decodes the records that the service itself wrote."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from fraud_service.domain.errors import InvalidRecord

ENUM_COMPLAINT: Final = "Invalid enum value"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what msgspec raises for bad bytes

EARLIEST: Final = 0
LATEST: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z: the last instant that RFC 3339 can write

# JSON numbers can have any length. Without a bound, code that formats a number as a float or date could crash.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Moment = Annotated[int, msgspec.Meta(ge=EARLIEST, le=LATEST)]  # epoch milliseconds
ModelVersion = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,64}\Z")]  # appears in logs and metrics

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes, what: str) -> T:
    """Decode a record from untrusted bytes.

    Parameters
    ----------
    what
        The name of the record in the error, as ``a snapshot record``.

    Raises
    ------
    InvalidRecord
        If the bytes are not such a record.
    """
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidRecord(f"{what} cannot be read: {_without_value(str(error))}") from error


def _without_value(complaint: str) -> str:
    """Remove the value of an unknown enum member, the only value that msgspec quotes, at any length."""
    if not complaint.startswith(ENUM_COMPLAINT):
        return complaint
    return f"{ENUM_COMPLAINT} - at {complaint.rpartition(' - at ')[2]}"
