"""Reading back what the service itself has written."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

import msgspec

from fraud_service.domain.errors import InvalidRecord

ENUM_COMPLAINT: Final = "Invalid enum value"
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # what bytes can make msgspec raise

EARLIEST: Final = 0
LATEST: Final = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z: the last instant that RFC 3339 can write

# JSON has numbers of any length. A number too large for a float or a date would crash the code that shows it.
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
Moment = Annotated[int, msgspec.Meta(ge=EARLIEST, le=LATEST)]  # epoch milliseconds
ModelVersion = Annotated[str, msgspec.Meta(pattern=r"\A[!-~]{1,64}\Z")]  # it goes to logs and metrics

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes, what: str) -> T:
    """Decode a record, whatever bytes lie there.

    Parameters
    ----------
    what
        Names the record in the error: ``a row of the ledger``.

    Raises
    ------
    InvalidRecord
        When the bytes are no such record.
    """
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        raise InvalidRecord(f"{what} cannot be read: {_without_value(str(error))}") from error


def _without_value(complaint: str) -> str:
    """Leave out the only value that msgspec ever quotes: that of an unknown enum member, however long it is."""
    if not complaint.startswith(ENUM_COMPLAINT):
        return complaint
    return f"{ENUM_COMPLAINT} - at {complaint.rpartition(' - at ')[2]}"
