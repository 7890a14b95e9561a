"""Measure one, two and (with more than four cores) four scorers of one group on a topic that is already full."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import Consumer, TopicPartition
from harness import LEAST, PAUSE, Broker, Results, broker, payments, pid_of, processor_time, scorers, send
from support.processes import fresh_settings

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings

CORES: Final = os.cpu_count() or 1
ENOUGH: Final = 0.95  # share of a scorer's messages after which it may soon run out of work
LONGEST: Final = 12.0  # seconds of measuring
FEWEST: Final = 4  # commits seen; a rate from fewer is too inexact


class Sizes(msgspec.Struct, frozen=True):
    """The number of payments on the topic, and the number of runs."""

    payments: int = 400_000
    runs: int = 2


def counts() -> list[int]:
    """Return the numbers of scorers to measure on this machine. The broker needs a core too."""
    return [1, 2, *([4] if CORES > 4 else [])]  # noqa: PLR2004


def measure(place: Broker, count: int, waiting: int) -> dict[str, float]:
    """Measure from the moment all scorers are ready until one of them has nearly finished its partitions."""
    settings = fresh_settings(place.bootstrap, place.folder)
    send(settings, payments(waiting))
    with scorers(settings, place.folder / f"fleet-{time.monotonic_ns()}", LEAST, count) as services:
        for service in services:
            service.await_ready()
        pids = [pid_of(service) for service in services]
        places = _Places(settings, count)
        before, deadline = places.done(), time.monotonic() + LONGEST
        seen: list[tuple[float, float, int]] = []  # when a commit was seen, processor time, payments
        while not places.is_nearly_through() and time.monotonic() < deadline:
            done = places.done()
            if done != before:
                seen.append((time.monotonic(), sum(map(processor_time, pids)), done))
            before = done
            time.sleep(PAUSE)
    if len(seen) < FEWEST:
        raise SystemExit(f"{waiting} payments are too few for {count} scorers, which finished too early to be measured")
    (began, cpu, first), (ended, cpu_then, last) = seen[0], seen[-1]
    return {"rate": (last - first) / (ended - began), "cpu": (cpu_then - cpu) / (last - first) * 1e6}


class _Places:
    """The committed offsets of the group in each partition."""

    def __init__(self, settings: Settings, members: int) -> None:
        self._share = settings.partitions // members
        options = {"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.scorer_group, "log_level": 0}
        self._group = Consumer(options)
        self._asked = [TopicPartition(settings.topics.transactions, number) for number in range(settings.partitions)]
        self._ends = [self._group.get_watermark_offsets(place, timeout=30)[1] for place in self._asked]
        self._offsets = [0] * len(self._asked)

    def done(self) -> int:
        """Return the number of payments whose offsets are committed."""
        self._offsets = [max(place.offset, 0) for place in self._group.committed(self._asked, timeout=30)]
        return sum(self._offsets)

    def is_nearly_through(self) -> bool:
        """Whether a scorer may soon run out of work. Each has neighbouring partitions (Quix's range assignor)."""
        starts = range(0, len(self._ends), self._share)
        blocks = [slice(start, start + self._share) for start in starts]
        return any(sum(self._offsets[block]) >= ENOUGH * sum(self._ends[block]) for block in blocks)


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure each number of scorers, interleaved."""
    found = Results("fleet", msgspec.to_builtins(sizes))
    names = {f"{count} #{number}": count for number in range(sizes.runs) for count in counts()}
    if not names.keys() <= found.found.keys():
        with broker() as place:
            for name, count in names.items():
                found.measured(name, lambda count=count: measure(place, count, sizes.payments))
    return found.found
