"""Rate-limited logging, so that many bad records do not fill the log."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S: Final = 60.0  # between two lines of one kind


class RateLimitedLog:
    """Write the first line of each kind at once, then at most one a minute, with the number of lines it replaces.

    `write` is a method of a logger, and `event` the name of the log event.
    """

    def __init__(self, write: Callable[..., Any], event: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._event = event
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held: dict[str, tuple[int, dict[str, Any]]] = {}
        self._lock = Lock()

    def __call__(self, kind: str, **details: Any) -> None:
        """Write a line now, or count it. Use few kinds, such as members of an enumeration: each stays in memory."""
        with self._lock:
            count, _ = self._held.get(kind, (0, {}))
            self._held[kind] = count + 1, details
        self.flush()

    def flush(self, *, final: bool = False) -> None:
        """Write the lines whose minute is over; with `final`, write all. Without regular calls, counts appear late."""
        now = self._clock()
        with self._lock:
            for kind in [kind for kind in self._held if final or self._next.get(kind, now) <= now]:
                count, details = self._held.pop(kind)
                self._next[kind] = now + PERIOD_S
                self._write(self._event, kind=kind, **details, **({"count": count} if count > 1 else {}))
