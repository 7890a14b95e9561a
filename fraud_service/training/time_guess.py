"""Guess how a file writes its times: unit, zone, format and origin, from a sample of the column."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from itertools import product
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.time import likely_unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?([eE][+]?[0-9]{1,2})?")
ISO: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?P<clock>[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(?P<offset>[Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
DATES: Final = (
    *("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%Y-%m-%d", "%Y%m%d", "%Y %m %d"),
    *("%d-%b-%Y", "%d %b %Y", "%d%b%Y", "%b %d, %Y", "%d.%m.%y", "%m/%d/%y", "%d/%m/%y", "%Y.%m.%d"),
)
SEPARATORS: Final = (" ", "T", ":", ", ", "")
CLOCKS: Final = ("%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M %p", "%H%M%S", "%H%M")
UTC_SUFFIXES: Final = ("Z", " UTC", " GMT", "+00")
SUFFIXES: Final = ("", *UTC_SUFFIXES, "%z")
EXCEL_DAYS: Final = (36_526, 73_051)  # 2000 to 2100 in days since the end of 1899
EXCEL_ORIGIN: Final = datetime(1899, 12, 30, tzinfo=UTC)
MADE_UP_ORIGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
DIRECTIVE: Final = re.compile("%[A-Za-z]")
NO_PUNCTUATION: Final = re.compile("[A-Za-z0-9]")
OFFSET: Final = frozenset("+-:.")  # what %z may match, beside letters and digits
COMPACT_DIGITS: Final = frozenset({8, 12, 14})  # as in 20260131, 202601311345 and 20260131134500
YEARS: Final = range(2000, 2100)
MAX_DAYS: Final = 400
MAX_HOURS: Final = 24 * MAX_DAYS
MONTH_FIRST: Final = str.maketrans("dm", "md")
ENOUGH: Final = 0.95  # of the values have the form that is proposed


class TimeGuess(msgspec.Struct, frozen=True):
    """How a column seems to write its times, and what about this is doubtful. None stands for the default."""

    unit: str | None = None
    zone: str | None = None
    format: str | None = None
    origin: datetime | None = None
    doubts: tuple[str, ...] = ()


def guess_times(values: Sequence[str]) -> TimeGuess | None:
    """Guess how times are written. Returns None for values that are not times.

    >>> guess_times(["31.01.2026 13:45"]).format, guess_times(["1709251200"]).unit
    ('%d.%m.%Y %H:%M', 's')
    >>> guess_times(["blue"]) is None
    True
    """
    numbers = [value for value in values if NUMBER.fullmatch(value)]
    texts = [value for value in values if ISO.fullmatch(value)]
    if not values or len(numbers) + len(texts) < ENOUGH * len(values):
        return _of_text(values)
    if not numbers:
        return _of_iso(texts)
    written = _of_text(values) if all(len(value) in COMPACT_DIGITS for value in numbers) else None
    guess = written or _of_numbers([float(value) for value in numbers])
    if guess is None or not texts:
        return guess
    other = _of_iso(texts)
    return msgspec.structs.replace(guess, zone=other.zone, doubts=guess.doubts + other.doubts)


def _of_numbers(numbers: list[float]) -> TimeGuess | None:
    units = Counter(likely_unit(number) for number in numbers)
    unit, count = units.most_common(1)[0]
    if unit is not None:
        mixed = f"{len(numbers) - count:,} of {len(numbers):,} sampled times have another unit" * (count < len(numbers))
        return TimeGuess(unit=None if unit == "ms" else unit, doubts=(mixed,) if mixed else ())
    if all(EXCEL_DAYS[0] <= number < EXCEL_DAYS[1] for number in numbers):
        return TimeGuess("d", origin=EXCEL_ORIGIN, doubts=("the times seem to be day numbers of a spreadsheet",))
    if min(numbers) < 0 or len(units) > 1:
        return None
    return _of_steps(max(numbers))


def _of_steps(last: float) -> TimeGuess:
    unit, name = ("d", "days") if last <= MAX_DAYS else ("h", "hours") if last <= MAX_HOURS else ("s", "seconds")
    doubt = (
        f"the times are numbers from 0 to {last:,.0f}. Perhaps they count {name} since the first payment: check "
        f"time_unit, and replace the made-up time_origin"
    )
    return TimeGuess(unit, origin=MADE_UP_ORIGIN, doubts=(doubt,))


def _of_iso(values: Sequence[str]) -> TimeGuess:
    found = [match for value in values if (match := ISO.fullmatch(value))]
    days = sum(match["clock"] is None for match in found)
    naive = any(match["offset"] is None for match in found)
    return TimeGuess(zone="UTC" if naive else None, doubts=_doubts(naive=naive, days=days > len(found) / 2))


def _of_text(values: Sequence[str]) -> TimeGuess | None:
    if not values:
        return None
    fitting = [one for one in _formats() if _may_fit(one, values[0]) and _fits(one, values[:1])]
    fitting = [one for one in fitting if _fits(one, values)]
    if not fitting:
        return None
    chosen = fitting[0]
    others = [one for one in fitting[1:] if one == chosen.translate(MONTH_FIRST)]
    ambiguous = f"day and month could be swapped: `{chosen}` and `{others[0]}` both fit" if others else None
    in_utc = chosen.endswith(UTC_SUFFIXES)
    naive = not in_utc and not chosen.endswith("%z")
    doubts = _doubts(naive=naive, days="%H" not in chosen and "%I" not in chosen)
    return TimeGuess(
        zone="UTC" if naive or in_utc else None, format=chosen, doubts=((ambiguous, *doubts) if ambiguous else doubts)
    )


def _formats() -> Iterator[str]:
    for date, separator, clock, suffix in product(DATES, SEPARATORS, CLOCKS, SUFFIXES):
        yield f"{date}{separator}{clock}{suffix}"
    yield from DATES


def _may_fit(written: str, value: str) -> bool:
    """Compare the punctuation first: to parse a time by an unknown format takes long."""
    expected, found = ({*NO_PUNCTUATION.sub("", text)} for text in (DIRECTIVE.sub("", written), value))
    return expected <= found and found - expected <= (OFFSET if "%z" in written else set())


def _fits(written: str, values: Sequence[str]) -> bool:
    misses = int(len(values) * (1 - ENOUGH))
    for value in values:
        try:
            moment = datetime.strptime(value, written)  # noqa: DTZ007 - the zone is another question
        except ValueError:
            moment = datetime.min.replace(tzinfo=UTC)
        misses -= moment.year not in YEARS
        if misses < 0:
            return False
    return True


def _doubts(*, naive: bool, days: bool) -> tuple[str, ...]:
    doubts = []
    if naive:
        doubts.append("the times have no time zone. UTC is a guess: write the zone of the file into time_zone")
    if days:
        doubts.append("the times are days without a time of day, so hours and bursts mean nothing")
    return tuple(doubts)
