"""Event time: units in milliseconds, and the calendar of learning."""

from __future__ import annotations

from typing import Final

import msgspec

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR


class LearningSchedule(msgspec.Struct, frozen=True):
    """The event-time rules of learning; all in milliseconds.

    `interval` lies between two snapshots. `lead` passes between the boundary up to which a snapshot knows and the
    moment it comes into force, so that it has reached every scorer by then. `maturity` is how long a transaction waits
    for a fraud label; `retention` how long its features are kept for a label that comes still later.
    """

    interval: int = HOUR
    activation_delay: int = HOUR // 4
    maturity: int = 7 * DAY
    retention: int = 60 * DAY

    def boundary(self, instant: int) -> int:
        """Return the number of the first boundary at or after an instant."""
        return -(-instant // self.interval)

    def is_forgotten(self, instant: int, closed: int) -> bool:
        """Whether an instant is older than the retention, once a boundary is closed."""
        return instant + self.retention <= closed * self.interval
