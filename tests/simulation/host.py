"""Where a client runs: its broker, its luck, and its time. Clients find theirs through `here`."""

from __future__ import annotations

import random
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation.broker import Broker

Result = TypeVar("Result")


class Host:
    """A process that nothing ever happens to: calls are answered at once, and waiting moves the clock.

    Attributes
    ----------
    calm : bool
        Whether messages travel as soon as they can.
    """

    calm: bool = True

    def __init__(self, broker: Broker, luck: random.Random | None = None) -> None:
        self.broker = broker
        self.luck = luck or random.Random(0)

    def call(self, name: str, effect: Callable[[], Result], answers: Sequence[Callable[[], Exception]] = ()) -> Result:
        """Ask the broker for something; `answers` make the errors that this call can end with."""
        return effect()

    def pause(self, seconds: float) -> None:
        """Wait."""
        self.broker.advance(self.broker.now + seconds)

    def is_beating(self) -> bool:
        """Whether the heartbeats of this process reach the broker."""
        return True


here: ContextVar[Host] = ContextVar("here")
