"""The fields of a transaction, and how columns of many types are converted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.codec import EARLIEST, LATEST
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import MAX_AMOUNT, instant
from fraud_service.domain.text import HIDDEN, SURROGATES
from fraud_service.training.history_files import pa, pc, types

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

EXACT_IN_A_FLOAT: Final = 2.0**53
# With more digits, Arrow may reject the number as too large.
NUMBER: Final = r"^[+-]?(\d{1,99}\.?\d{0,99}|\.\d{1,99})([eE][+-]?\d{1,2})?$"


class Field(NamedTuple):
    """The conversion of a field, the complaint about an invalid value, and whether the field is required.

    `convert` takes a column as `_plain` returns it. A value that it cannot convert becomes null.
    """

    convert: Callable[[pa.ChunkedArray], pa.ChunkedArray]
    complaint: str
    required: bool = False


def convert(path: Path, name: str, column: str, given: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert a column to a field. The error names the first invalid row, not its value: it may be card data."""
    field, given = FIELDS[name], _plain(given)
    values = field.convert(given)
    bad = values.is_null() if field.required else pc.and_not(values.is_null(), given.is_null())
    position = pc.index(bad, value=True).as_py()
    if position < 0:
        return values
    complaint = field.complaint if given[position].is_valid else f"`{name}` must not be missing"
    raise ConfigurationError(f"{path}, row {position + 1}, column `{column}`: {complaint}")


def between(values: pa.ChunkedArray, lowest: float, highest: float) -> pa.ChunkedArray:
    """Return the mask of the values in [lowest, highest]."""
    return pc.and_(pc.greater_equal(values, lowest), pc.less_equal(values, highest))


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Reduce equivalent types to one. NaN becomes null, because pandas writes missing values as NaN."""
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_large_string(column.type) or types.is_string_view(column.type):
        return column.cast(pa.string())
    if types.is_floating(column.type) or types.is_decimal(column.type):
        column = column.cast(pa.float64())
        return _where(pc.invert(pc.is_nan(column)), column)
    return column


def _where(condition: pa.ChunkedArray, column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(condition, column, None)


def _is_number(column: pa.ChunkedArray) -> bool:
    return bool(types.is_integer(column.type) or types.is_floating(column.type))


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert numbers to integers; fractions become null."""
    if types.is_floating(column.type):
        whole = pc.and_(pc.equal(pc.floor(column), column), pc.less(pc.abs(column), EXACT_IN_A_FLOAT))
        return _where(whole, column).cast(pa.int64())
    return column


HIDDEN_CHARACTERS: Final = "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in HIDDEN if first != SURROGATES)


def _text(pattern: str) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if not (types.is_string(column.type) or _is_number(column)):
            return pa.nulls(len(column), pa.string())
        # Pandas turns integers into floats to make room for NaN.
        text = _whole(column).cast(pa.string())
        is_hidden = pc.match_substring_regex(text, f"[{HIDDEN_CHARACTERS}]")
        return _where(pc.and_not(pc.match_substring_regex(text, pattern), is_hidden), text)

    return convert


def _number(lowest: float, highest: float) -> Callable[[pa.ChunkedArray], pa.ChunkedArray]:
    def convert(column: pa.ChunkedArray) -> pa.ChunkedArray:
        if types.is_string(column.type):
            column = _where(pc.match_substring_regex(column, NUMBER), column)
        elif not _is_number(column):
            return pa.nulls(len(column), pa.float64())
        numbers = column.cast(pa.float64(), safe=False)
        return pc.add(_where(between(numbers, lowest, highest), numbers), 0.0)  # minus zero becomes zero

    return convert


def _time(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if types.is_string(column.type):
        times = _times(column)
    elif types.is_timestamp(column.type) or types.is_date(column.type):
        # Arrow stores instants in UTC, and treats naive times as UTC.
        times = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    elif _is_number(column):
        times = _whole(column).cast(pa.int64(), safe=False)  # numbers that are too large become negative
    else:
        return pa.nulls(len(column), pa.int64())
    return _where(between(times, EARLIEST, LATEST), times)


def _times(text: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return text.cast(pa.int64())
    except pa.ArrowInvalid:  # not all of them are milliseconds
        return pa.array([_moment(value) for value in text.to_pylist()], pa.int64())


def _moment(text: str | None) -> int | None:
    try:
        return None if text is None else instant(int(text) if text.isdecimal() else text, "timestamp")
    except (InvalidEvent, ValueError, OverflowError):
        return None


def _label(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not (types.is_string(column.type) or types.is_boolean(column.type) or _is_number(column)):
        return pa.nulls(len(column), pa.bool_())
    text = pc.utf8_lower(_whole(column).cast(pa.string()))
    fraud, legitimate = (pc.is_in(text, pa.array(words)) for words in (["true", "1", "1.0"], ["false", "0", "0.0"]))
    return _where(pc.or_(fraud, legitimate), fraud)


VISIBLE: Final = " without control or invisible characters"
_ID: Final = Field(_text("(?s)^.{1,128}$"), f"not text of 1 to 128 characters{VISIBLE}, nor an integer", required=True)
_TEXT: Final = Field(_text("(?s)^.{0,256}$"), f"not text of at most 256 characters{VISIBLE}, nor an integer")
_WHEN: Final = "not a time from 1970 to 9999: write epoch milliseconds, or RFC 3339 with an offset (Z or +hh:mm)"

# The fields of `Transaction`, then those of its label.
FIELDS: Final[Mapping[str, Field]] = {
    "transaction_id": _ID,
    "timestamp": Field(_time, _WHEN, required=True),
    "card_id": _ID,
    "merchant_id": _ID,
    "amount": Field(_number(0, MAX_AMOUNT), f"not an amount from 0 to {MAX_AMOUNT:.0e}", required=True),
    "currency": Field(_text("^[A-Z]{3}$"), "not an ISO 4217 code such as EUR", required=True),
    "merchant_category_code": _TEXT,
    "country": _TEXT,
    "entry_mode": _TEXT,
    "device_id": _TEXT,
    "ip": _TEXT,
    "latitude": Field(_number(-90, 90), "not a number of degrees from -90 to 90"),
    "longitude": Field(_number(-180, 180), "not a number of degrees from -180 to 180"),
    "label": Field(_label, "not a label: write true or false, 1 or 0"),
    "labelled_at": Field(_time, _WHEN),
}
