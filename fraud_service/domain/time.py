"""Event time: units in milliseconds, reading and writing of times, and the schedule of snapshot boundaries."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent

if TYPE_CHECKING:
    from decimal import Decimal

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
FIRST_EVENT: Final = 946_684_800_000  # 2000-01-01T00:00:00Z: an earlier event time has another unit, or stands for none
MAX_GAP_MS: Final = 3650 * DAY  # without any transaction; a longer gap shows that the first one had a wrong time
DIGITS: Final = re.compile(r"[+-]?[0-9]{1,40}(\.[0-9]{0,40})?")


class TimeUnit(NamedTuple):
    """A unit in which producers count the time since 1970."""

    name: str
    per_second: int


UNITS: Final = {
    "s": TimeUnit("seconds", 1),
    "ms": TimeUnit("milliseconds", 10**3),
    "us": TimeUnit("microseconds", 10**6),
    "ns": TimeUnit("nanoseconds", 10**9),
}


def likely_unit(number: float | Decimal) -> str | None:
    """Return the unit in which a number is a time from 2000 to 9999. At most one is; None if none is.

    >>> likely_unit(1_709_251_200), likely_unit(1_709_251_200_000_000), likely_unit(0)
    ('s', 'us', None)
    """
    for symbol, unit in UNITS.items():
        if FIRST_EVENT * unit.per_second <= number * 1000 <= LATEST * unit.per_second:
            return symbol
    return None


def instant(value: str | int, field: str) -> int:
    """Convert RFC 3339 text or epoch milliseconds to epoch milliseconds from 2000 to 9999. Raises `InvalidEvent`.

    >>> instant("2000-01-01T01:00:00.250+01:00", "timestamp")
    946684800250
    >>> instant(1_767_225_600, "--at")
    Traceback (most recent call last):
        ...
    fraud_service.domain.errors.InvalidEvent: invalid_timestamp: `--at` looks like seconds: write epoch milliseconds
    >>> instant("2026-01-01T00:00:00", "timestamp")
    Traceback (most recent call last):
        ...
    fraud_service.domain.errors.InvalidEvent: invalid_timestamp: `timestamp` has no offset: write Z or +hh:mm
    """
    advice: str | None = "write epoch milliseconds"
    if isinstance(value, str):
        if DIGITS.fullmatch(value):
            raise _number_as_text(float(value), field)
        value, advice = _rfc3339(value, field), None
    if not FIRST_EVENT <= value <= LATEST:
        raise implausible_time(value, field, advice)
    return value


def stated_offset_min(value: str | int) -> int | None:
    """Return the offset of a valid time, in minutes. None for UTC: producers write it for payments of any place.

    >>> stated_offset_min("2026-01-01T01:00:00-03:30"), stated_offset_min("2026-01-01T00:00:00Z")
    (-210, None)
    """
    if isinstance(value, int) or value[-1] in "Zz":
        return None
    offset = msgspec.convert(value, datetime).utcoffset()
    return None if offset is None else offset // timedelta(minutes=1) or None


def implausible_time(number: float | Decimal, field: str, advice: str | None = None) -> InvalidEvent:
    """Return the error of a time outside the years 2000 to 9999. It names the unit that the number seems to have.

    `advice` says how to send or read that unit. Without it, the number was text or a timestamp in milliseconds.
    """
    unit = likely_unit(number)
    if unit is None:
        problem = "is outside the years 2000 to 9999"
    elif advice is None:
        problem = f"is outside the years 2000 to 9999, like {UNITS[unit].name} that were read as milliseconds"
    else:
        problem = f"looks like {UNITS[unit].name}: {advice}"
    return InvalidEvent(DeadLetterReason.INVALID_TIMESTAMP, f"`{field}` {problem}")


def _number_as_text(number: float, field: str) -> InvalidEvent:
    unit = likely_unit(number)
    kind = "a number" if unit is None else UNITS[unit].name
    return InvalidEvent(
        DeadLetterReason.INVALID_TIMESTAMP, f"`{field}` looks like {kind} as text: write epoch milliseconds as a number"
    )


def rfc3339(milliseconds: int) -> str:
    """Format epoch milliseconds as RFC 3339 in UTC.

    >>> rfc3339(1_767_225_600_250)
    '2026-01-01T00:00:00.250Z'
    """
    moment = EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _rfc3339(text: str, field: str) -> int:
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        raise InvalidEvent(DeadLetterReason.INVALID_TIMESTAMP, f"`{field}` is not an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise InvalidEvent(DeadLetterReason.INVALID_TIMESTAMP, f"`{field}` has no offset: write Z or +hh:mm")
    return epoch_ms(moment)


def epoch_ms(moment: datetime) -> int:
    """Convert a time with a zone to epoch milliseconds."""
    since = moment - EPOCH  # integers, because a float of seconds would round some milliseconds down
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


class LearningSchedule(msgspec.Struct, frozen=True):
    """The event-time rules of learning, in milliseconds."""

    interval_ms: int = HOUR  # between two snapshot boundaries
    activation_delay_ms: int = (
        HOUR // 4
    )  # from a boundary until its snapshot is active; it reaches all scorers meanwhile
    label_maturity_ms: int = 7 * DAY  # until a transaction without a fraud label counts as legitimate
    label_retention_ms: int = 60 * DAY  # until the learner drops the features of a transaction

    def boundary(self, instant: int) -> int:
        """Return the number of the first boundary at or after an instant.

        >>> schedule = LearningSchedule(interval_ms=HOUR)
        >>> schedule.boundary(2 * HOUR), schedule.boundary(2 * HOUR + 1)
        (2, 3)
        """
        return -(-instant // self.interval_ms)

    def is_forgotten(self, instant: int, closed: int) -> bool:
        """Whether an instant is beyond label retention once the boundary `closed` is closed."""
        return instant + self.label_retention_ms <= closed * self.interval_ms
