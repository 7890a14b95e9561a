"""Wait for a condition, but never longer than a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

WAIT_POLL_S: Final = 0.05


class Deadline:
    """A point in time a number of seconds from now. `restart` moves it when there was progress."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.restart()

    def restart(self) -> None:
        """Set the deadline again, counted from now."""
        self._at = time.monotonic() + self._timeout_s

    def has_passed(self) -> bool:
        """Say whether the time is over."""
        return time.monotonic() >= self._at


def wait_until(
    condition: Callable[[], T],
    timeout_s: float,
    poll_s: float = WAIT_POLL_S,
    pause: Callable[[float], object] | None = None,
) -> T:
    """Call a condition until its result is true or the time is over, and return its last result.

    The condition is always called at least once. As with `threading.Condition.wait_for`, a false result means that
    the time is over, and the caller decides which error that is.

    >>> states = iter([None, None, "ready"])
    >>> wait_until(lambda: next(states), timeout_s=1.0, poll_s=0.0)
    'ready'

    Parameters
    ----------
    pause
        Waits between two calls. The default sleeps; `Event.wait` ends the pause early.
    """
    deadline = Deadline(timeout_s)
    while True:
        result = condition()
        if result or deadline.has_passed():
            return result
        (pause or time.sleep)(poll_s)
