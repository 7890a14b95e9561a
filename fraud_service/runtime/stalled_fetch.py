"""Detect a partition that the client should read but never fetches. Only the client's statistics show that.

librdkafka can lose the command to fetch a partition that is paused at the same moment (its issue 5591). That partition
then stalls without an error, while all others continue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

STALL_TIMEOUT_S: Final = 60.0  # an open transaction can delay a fetch for ten seconds


class StalledFetchDetector:
    """Finds stalled partitions in the statistics that a consumer reports every few seconds."""

    def __init__(self) -> None:
        self._idle_since: dict[str, float] = {}

    def find(self, topics: Mapping[str, Any], now: float) -> str | None:
        """Return the name of a partition that has not been fetched for `STALL_TIMEOUT_S`, or None.

        Parameters
        ----------
        topics
            The topics of the statistics. Pass an empty mapping while no broker answers, because then none are fetched.
        now
            Seconds of a monotonic clock.
        """
        idle = [
            f"{topic}[{number}]"
            for topic, found in topics.items()
            for number, partition in found["partitions"].items()
            if partition["desired"] and partition["fetch_state"] == "none"
        ]
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        return next((name for name, since in self._idle_since.items() if now - since >= STALL_TIMEOUT_S), None)
