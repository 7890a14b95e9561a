"""The times of a file: numbers of one unit, text, and the timestamps of Parquet.

Arrow converts columns of numbers. All other times are converted one by one, so that text and the timestamps of Parquet
have the same value.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.local_time import offset_min, zone_names
from fraud_service.domain.time import (
    DAY,
    FIRST_EVENT,
    HOUR,
    MINUTE,
    UNITS,
    epoch_ms,
    implausible_time,
    instant,
    likely_unit,
)
from fraud_service.training.history_arrow import pa, pc, types

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from fraud_service.training.mapping import FileMapping

NUMBER: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
NAIVE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?)?")
RFC_3339: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9:.]{5,18}([Zz]|[+-][0-9]{2}:[0-9]{2})")
SHEET_DAYS: Final = (36_526, 73_050)  # from 2000 to 2099, since 1899-12-30
OTHER_DATE: Final = re.compile(
    r"^[0-9]{8}[T ]?[0-9]*Z?$|^[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{2,4}|^[0-9]{1,2}[ -]?[A-Za-z]{3}"
)
MILLISECONDS: Final = {"s": 1000, "min": MINUTE, "h": HOUR, "d": DAY}  # in a unit that may have fractions
DIGITS_FORMAT: Final = "%Y%m%d%H%M%S"
DATE_DIGITS: Final = re.compile(
    r"(?P<whole>(19|20)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(([01][0-9]|2[0-3])[0-5][0-9]([0-5][0-9])?)?)"
    r"(?P<fraction>(?<=[0-9]{14})([0-9]{3}|[0-9]{6}))?(\.0*)?"
)
MAX_INT: Final = 2**63 - 1


class TimeFormat(NamedTuple):
    """How a file writes its times: the unit and origin of numbers, the zone of times without an offset, the text."""

    unit: str = "ms"
    zone: ZoneInfo | None = None
    text: str | None = None
    origin_ms: int = 0

    @classmethod
    def of(cls, mapping: FileMapping) -> TimeFormat:
        """Read the entries of a mapping."""
        origin = 0 if mapping.time_origin is None else epoch_ms(mapping.time_origin)
        return cls(mapping.time_unit, mapping.zone, mapping.time_format, origin)


def convert_times(column: pa.ChunkedArray, times: TimeFormat) -> pa.ChunkedArray:
    """Convert a column to epoch milliseconds from 2000 to 9999. All other values become null."""
    if times.text is not None and types.is_integer(column.type):  # such as 20260131
        column = column.cast(pa.string())
    if types.is_string(column.type):
        try:
            return _one_by_one(column, times) if times.text else _of_numbers(column.cast(pa.int64()), times)
        except pa.ArrowInvalid:  # not all of them are whole numbers
            return _one_by_one(column, times)
    if types.is_timestamp(column.type) or types.is_date(column.type):
        moments = column.cast(pa.timestamp("ms", getattr(column.type, "tz", None)), safe=False)
        instants = _within(moments.cast(pa.int64()), FIRST_EVENT, LATEST)
        return instants if moments.type.tz else _one_by_one(instants.cast(moments.type), times)
    if types.is_integer(column.type) or types.is_floating(column.type):
        return _of_numbers(column, times)
    return pa.nulls(len(column), pa.int64())


STATED: Final = r"[Tt ][0-9:.]+(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})\s*$"


def utc_offsets(column: pa.ChunkedArray, instants: pa.ChunkedArray, times: TimeFormat) -> pa.ChunkedArray:
    """Return the offset of each time of a column in minutes, as `stated_offset_min` does for messages.

    Times without an offset have that of the zone of the file. Numbers have none.
    """
    own = getattr(column.type, "tz", None)
    of_file = None if times.zone is None else times.zone.key
    if types.is_string(column.type):
        parts = pc.extract_regex(column, STATED)
        hours, minutes = (pc.cast(pc.struct_field(parts, name), pa.int64()) for name in ("hours", "minutes"))
        size = pc.add(pc.multiply(hours, 60), minutes)
        found = pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(size), size)
        absolute = r"[Zz]\s*$" if times.text else rf"^\s*{NUMBER.pattern}\s*$|[Zz]\s*$"
        naive = pc.and_(found.is_null(), pc.invert(pc.match_substring_regex(column, absolute)))
        found = pc.if_else(naive, _zone_offsets(instants, of_file), found)
    elif own is not None and (fixed := FIXED.fullmatch(own)):
        minutes = int(f"{fixed[1]}{int(fixed[2]) * 60 + int(fixed[3])}")
        found = pc.if_else(instants.is_valid(), minutes, None)
    elif types.is_timestamp(column.type) or types.is_date(column.type):
        found = _zone_offsets(instants, own or of_file)
    else:
        found = _zone_offsets(instants, None)
    return pc.if_else(pc.equal(found, 0), None, found)


FIXED: Final = re.compile(r"([+-])([0-9]{2}):([0-9]{2})")  # the name of a zone that is one offset


def _zone_offsets(instants: pa.ChunkedArray, name: str | None) -> pa.ChunkedArray:
    if name is None or name not in zone_names():  # as Parquet may name a zone
        return pa.chunked_array([pa.nulls(len(instants), pa.int64())])
    return pa.chunked_array(
        [[None if one is None else offset_min(name, one) for one in instants.to_pylist()]], pa.int64()
    )


def explain_time(value: pa.Scalar, field: str, times: TimeFormat) -> str:
    """Say what is wrong with one value of a column, without quoting it."""
    try:
        if types.is_timestamp(value.type):  # Python has no nanoseconds
            value = value.cast(pa.timestamp("us", value.type.tz), safe=False)
        _read(value.as_py(), field, times)
    except InvalidEvent as error:
        return error.detail
    except OverflowError:  # beyond the years of Python
        return implausible_time(-1, field).detail
    return f"`{field}` is not a time"


def explain_future(field: str, value: pa.Scalar | None) -> str:
    """Say that a time is later than a history can have, without quoting it. `value` is what the file has."""
    what = "the payment is in the future" if field == "timestamp" else "the label is of the far future"
    advice = None if value is None else _advice_for_digits(str(value))
    return f"{what}: {advice or 'correct it, or the options that say how to read times'}"


def _advice_for_digits(written: str) -> str | None:
    """Return the advice for digits that are a date and mostly a time. None for other text."""
    found = DATE_DIGITS.fullmatch(written)
    if found is None:
        return None
    form = DIGITS_FORMAT[: len(found["whole"]) - 2] + ("%f" if found["fraction"] else "")
    return f"its digits look like year, month and day: add --time-format {form}"


def _of_numbers(column: pa.ChunkedArray, times: TimeFormat) -> pa.ChunkedArray:
    if times.unit in MILLISECONDS:
        scale = MILLISECONDS[times.unit]
        column = _within(column, (FIRST_EVENT - times.origin_ms) // scale, (LATEST - times.origin_ms) // scale)
        if types.is_floating(column.type):  # of seconds, it is exact to a microsecond
            microseconds = pc.round(pc.multiply(column, scale * 1000.0))
            column = pc.floor(pc.divide(microseconds, 1000.0)).cast(pa.int64())
        else:
            column = pc.multiply(column.cast(pa.int64(), safe=False), scale)
        return _within(pc.add(column, times.origin_ms), FIRST_EVENT, LATEST)
    parts = UNITS[times.unit].per_second // 1000
    last = min((LATEST - times.origin_ms) * parts, MAX_INT)
    column = _within(column, (FIRST_EVENT - times.origin_ms) * parts, last)
    if types.is_floating(column.type):
        column = pc.if_else(pc.equal(pc.floor(column), column), column, None)
    return pc.add(pc.divide(column.cast(pa.int64(), safe=False), parts), times.origin_ms)


def _within(column: pa.ChunkedArray, first: int, last: int) -> pa.ChunkedArray:
    size = column.cast(pa.float64(), safe=False)  # integers of all widths
    return pc.if_else(pc.and_(pc.greater_equal(size, float(first)), pc.less_equal(size, float(last))), column, None)


def _one_by_one(column: pa.ChunkedArray, times: TimeFormat) -> pa.ChunkedArray:
    def read(value: str | datetime | None) -> int | None:
        try:
            return None if value is None else _read(value, "timestamp", times)
        except (InvalidEvent, OverflowError):
            return None

    return pa.chunked_array([[read(value) for value in chunk.to_pylist()] for chunk in column.chunks], pa.int64())


def _read(value: Any, field: str, times: TimeFormat) -> int:
    """Convert one value to epoch milliseconds. Raises `InvalidEvent`."""
    if isinstance(value, str):
        value = value.strip()
        if times.text is not None and not RFC_3339.fullmatch(value):
            value = _of_text(value, field, times.text)
        elif NAIVE.fullmatch(value):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise _invalid(f"`{field}` is not a day of the calendar or not a time of a day") from None
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)  # noqa: DTZ001 - the zone follows
        return _of_moment(moment, field, times)
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        return _of_iso(value, field)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return _of_number(Decimal(str(value)), field, times)
    raise _invalid(f"`{field}` is not a time: write epoch milliseconds, or RFC 3339 with an offset (Z or +hh:mm)")


def _of_iso(value: str, field: str) -> int:
    try:
        return instant(value, field)
    except InvalidEvent:
        if OTHER_DATE.search(value):
            raise _invalid(
                f"`{field}` is not RFC 3339: name its format, as in --time-format '%d.%m.%Y %H:%M'"
            ) from None
        raise


def _of_text(value: str, field: str, form: str) -> datetime:
    try:
        return datetime.strptime(value, form)  # noqa: DTZ007 - the zone follows
    except ValueError:
        raise _invalid(f"`{field}` does not match --time-format '{form}'") from None


def _of_number(number: Decimal, field: str, times: TimeFormat) -> int:
    if times.unit in MILLISECONDS:
        milliseconds = number * MILLISECONDS[times.unit]
    else:
        milliseconds = number * 1000 / UNITS[times.unit].per_second
    milliseconds += times.origin_ms
    if not FIRST_EVENT <= milliseconds <= LATEST:
        if times.origin_ms or times.unit not in UNITS:
            raise _invalid(
                f"`{field}` is outside the years 2000 to 9999: are --time-unit {times.unit} and --time-origin right?"
            )
        if advice := _advice_for_digits(str(number)):
            raise _invalid(f"`{field}` is outside the years 2000 to 9999: {advice}")
        if SHEET_DAYS[0] <= number <= SHEET_DAYS[1]:
            raise _invalid(
                f"`{field}` looks like days of a spreadsheet: add --time-unit d --time-origin 1899-12-30T00:00:00Z"
            )
        raise implausible_time(number, field, f"add --time-unit {likely_unit(number)} if all of the column are")
    if times.unit not in MILLISECONDS and number != int(number):
        raise _invalid(f"`{field}` has a fraction of {UNITS[times.unit].name}: write whole ones")
    return int(milliseconds)


def _of_moment(moment: datetime, field: str, times: TimeFormat) -> int:
    """Convert a time of a clock. Of two instants with the same time of the clock, in autumn, it is the first."""
    if moment.tzinfo is None:
        if times.zone is None:
            raise _invalid(
                f"`{field}` has no offset: write Z or +hh:mm, or name the zone of the file, as in --time-zone UTC"
            )
        local = moment.replace(tzinfo=times.zone)
        moment = local.astimezone(UTC)
        if moment.astimezone(times.zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            raise _invalid(f"`{field}` is in the hour that clocks skip in spring: is --time-zone {times.zone} right?")
    milliseconds = epoch_ms(moment)
    if not FIRST_EVENT <= milliseconds <= LATEST:
        raise implausible_time(milliseconds, field, None)
    return milliseconds


def _invalid(detail: str) -> InvalidEvent:
    return InvalidEvent(DeadLetterReason.INVALID_TIMESTAMP, detail)
