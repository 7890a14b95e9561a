"""The process in which a client runs: its broker, random generator and time. Clients find theirs through `here`."""

from __future__ import annotations

import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation.broker import Broker

Result = TypeVar("Result")


class Host:
    """A process without faults: calls return at once, and waiting moves the clock.

    Attributes
    ----------
    calm : bool
        Whether messages travel without delay.
    """

    calm: bool = True

    def __init__(self, broker: Broker, luck: random.Random | None = None) -> None:
        self.broker = broker
        self.luck = luck or random.Random(0)

    def call(self, name: str, effect: Callable[[], Result], answers: Sequence[Callable[[], Exception]] = ()) -> Result:
        """Call the broker. `answers` create the errors that this call can raise."""
        return effect()

    def pause(self, seconds: float) -> None:
        """Wait."""
        self.broker.advance(self.broker.now + seconds)

    def is_beating(self) -> bool:
        """Whether the heartbeats of this process reach the broker."""
        return True


here: ContextVar[Host] = ContextVar("here")
