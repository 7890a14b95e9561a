"""Detect a partition that the client should read and never began to read; only its statistics show that.

librdkafka can lose the order to begin reading a partition that is paused at the same moment (its issue 5591). That
partition then stalls without an error, while all others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

STALL_TIMEOUT_S: Final = (
    60.0  # seconds; offsets in an open transaction keep a partition from being read for ten of them
)


class StalledFetchDetector:
    """Looks at the statistics of a consumer, every few seconds."""

    def __init__(self) -> None:
        self._idle_since: dict[str, float] = {}

    def look(self, topics: Mapping[str, Any], now: float) -> str | None:
        """Name a partition that should be read and has not been for a minute.

        Parameters
        ----------
        topics
            What the statistics say of topics; empty while no broker answers, when nothing is to be expected.
        now
            Seconds of a clock that never goes back.
        """
        idle = [
            f"{topic}[{number}]"
            for topic, found in topics.items()
            for number, partition in found["partitions"].items()
            if partition["desired"] and partition["fetch_state"] == "none"
        ]
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        return next((name for name, since in self._idle_since.items() if now - since >= STALL_TIMEOUT_S), None)
