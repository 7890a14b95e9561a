"""Virtual time: Quix and our code read the broker's clock, and no call really sleeps."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simulation.host import here

if TYPE_CHECKING:
    from collections.abc import Iterator

OURS = ("quixstreams.", "fraud_service.")


class VirtualTime:
    """Replaces the module `time` in modules with virtual time."""

    @staticmethod
    def monotonic() -> float:
        return here.get().broker.now

    time = perf_counter = monotonic

    @staticmethod
    def sleep(seconds: float) -> None:
        here.get().pause(seconds)


STANDS_FOR = {
    time: VirtualTime,
    time.monotonic: VirtualTime.monotonic,
    time.time: VirtualTime.monotonic,
    time.perf_counter: VirtualTime.monotonic,
    time.sleep: VirtualTime.sleep,
}


@contextmanager
def virtual() -> Iterator[None]:
    """Replace the real time in these modules, under any imported name."""
    replaced = [
        (module, name, value)
        for module_name, module in list(sys.modules.items())
        if module_name.startswith(OURS)
        for name, value in list(vars(module).items())
        if _is_time(value)
    ]
    for module, name, value in replaced:
        setattr(module, name, STANDS_FOR[value])
    try:
        yield
    finally:
        for module, name, value in replaced:
            setattr(module, name, value)


def _is_time(value: object) -> bool:
    return any(value is known for known in STANDS_FOR)
