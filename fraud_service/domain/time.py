"""Event time: units in milliseconds, and the schedule of snapshot boundaries."""

from __future__ import annotations

from typing import Final

import msgspec

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


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
