"""Event time: units in milliseconds, plausible times, and the schedule of snapshot boundaries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import LATEST

if TYPE_CHECKING:
    from decimal import Decimal

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
FIRST_EVENT: Final = 946_684_800_000  # 2000-01-01T00:00:00Z: an earlier event time has another unit, or stands for none
MAX_GAP_MS: Final = 3650 * DAY  # without any transaction; a longer gap shows that the first one had a wrong time


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
