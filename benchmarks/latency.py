"""Measure latency under an open load: from the broker's append of a transaction to its score, and to its alert.

Latency ends when a `read_committed` consumer receives the record. Payments come on a fixed schedule, so a stall counts
for every payment that it delays (no coordinated omission).
"""

from __future__ import annotations

import itertools
import time
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import ladder
import msgspec
from confluent_kafka import TopicPartition
from feeder import feed
from harness import LEAST, ONCE, PATIENCE, Broker, Results, aside, broker, payments, percentile, say, scorers, send
from support.processes import fresh_settings

from fraud_service.kafka import clients, topics

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fraud_service.config.settings import Settings

# Flagged transactions are too rare for a high percentile. This lower threshold flags one in forty, which is enough. The
# default of 0.3 flags one in 200. With 0.15, one in fifteen, explanations would dominate the load.
REVIEW: Final = "0.2"
GUARANTEES: Final = {"at-least-once": {**LEAST, "FRAUD_COMMIT_INTERVAL": "100ms"}, "exactly-once": ONCE}  # the default
SHARES: Final = (0.1, 0.5, 0.8)
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
FULL: Final = 100_000  # payments on the full topic that gives the rate of an overload
TOO_MUCH: Final = 1.25  # overload, as a multiple of the scorer's rate on a full topic with only the broker beside it
OVERLOADED: Final = 8.0  # seconds
BEYOND: Final = 2  # minimum number of records above a reported percentile
SETTLE: Final = 3.0  # seconds of load as a warm-up


class Sizes(msgspec.Struct, frozen=True):
    """The seconds of each load, and the number of runs."""

    seconds: float = 15.0
    runs: int = 2


class Reader:
    """Read scores and alerts as they become visible."""

    def __init__(self, settings: Settings) -> None:
        self._scores, self._alerts = settings.topics.scores, settings.topics.alerts
        self._consumer = clients.reader(settings, f"bench-{time.monotonic_ns()}")
        numbers = range(settings.partitions)
        asked = [TopicPartition(topic, number, 0) for topic in (self._scores, self._alerts) for number in numbers]
        self._consumer.assign(asked)
        self.seen: dict[str, list[tuple[float, float]]] = {self._scores: [], self._alerts: []}

    def read(self, wanted: int, deadline: float) -> None:
        """Read until there are `wanted` scores, then one second more for the last alerts."""
        poll, seen, scores = self._consumer.poll, self.seen, self.seen[self._scores]
        while len(scores) < wanted and time.monotonic() < deadline:
            message = poll(0.1)
            if message is not None and message.error() is None:
                seen[message.topic()].append((message.timestamp()[1], time.time() * 1000))
        rest = time.monotonic() + 1
        while time.monotonic() < rest:
            message = poll(0.1)
            if message is not None and message.error() is None:
                seen[message.topic()].append((message.timestamp()[1], time.time() * 1000))
        self._consumer.close()

    def rate(self, begin: float, end: float) -> float:
        """Return the scores per second that arrived between two times (epoch milliseconds)."""
        return sum(begin <= read < end for _, read in self.seen[self._scores]) / (end - begin) * 1000

    def figures(self, since: float) -> dict[str, Any]:
        """Return the latency percentiles (ms) of records appended after a time (epoch milliseconds)."""
        found: dict[str, Any] = {}
        for what, topic in (("score", self._scores), ("alert", self._alerts)):
            delays = [read - appended for appended, read in self.seen[topic] if appended >= since]
            found[what] = {name: percentile(delays, share) for name, share in PERCENTILES.items()} if delays else {}
            found[what] |= {"count": len(delays), "max": max(delays, default=None)}
        return found


def measure(place: Broker, guarantee: str, rate: float, seconds: float) -> dict[str, Any]:
    """Measure one load on a new service with new topics."""
    settings = fresh_settings(place.bootstrap, place.folder)
    topics.create(clients.admin(settings), topics.topic_specs(settings), 1)
    count = int(rate * (SETTLE + seconds))
    options = {**GUARANTEES[guarantee], "FRAUD_REVIEW_THRESHOLD": REVIEW}
    told, asked = get_context("spawn").Pipe()
    feeder = aside(feed, settings, count, rate, asked)
    try:
        with scorers(settings, place.folder / f"latency-{time.monotonic_ns()}", options) as (service,):
            service.await_ready()  # before the first payment, so that the start does not count as latency
            reader = Reader(settings)
            told.send("begin")
            began = _hear(told)
            reader.read(count, time.monotonic() + SETTLE + 2 * seconds + 30)
        late = _hear(told)
    finally:
        feeder.kill()
        feeder.join()
    found = reader.figures((began + SETTLE) * 1000)
    scored = reader.rate((began + SETTLE) * 1000, (began + SETTLE + seconds) * 1000)
    lost = count - len(reader.seen[settings.topics.scores])
    return {**found, "rate": rate, "scored": scored, "late": late, "lost": lost}


def _hear(told: Connection) -> Any:
    if not told.poll(PATIENCE):
        raise SystemExit(f"the feeder sent no message for {PATIENCE:.0f} s")
    return told.recv()


def capacity(place: Broker, alone: dict[str, float]) -> dict[str, float]:
    """Measure the scores per second under overload, for both guarantees.

    Feeder and reader use part of the cores, as they do in every load that is a share of this capacity.

    Parameters
    ----------
    alone
        The scorer's transactions per second from a full topic, with only the broker beside it, by guarantee.
    """
    return {one: measure(place, one, rate * TOO_MUCH, OVERLOADED)["scored"] for one, rate in alone.items()}


def _alone(place: Broker) -> dict[str, float]:
    settings = fresh_settings(place.bootstrap, place.folder)
    send(settings, payments(FULL))
    rungs = [rung._replace(share=1.0) for rung in ladder.RUNGS if rung.scorer is not None]
    return ladder.capacity({f"{rung.name} #0": ladder.measure(rung, settings, place, FULL)._asdict() for rung in rungs})


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure all loads under both guarantees. Each round takes shares of the capacity measured just before it."""
    found = Results("latency", msgspec.to_builtins(sizes))
    if "done" not in found.found:
        with broker() as place:
            say(f"latency: on {place.kind}")
            alone = found.measured("alone", lambda: _alone(place))
            for number in range(sizes.runs):
                rates = found.measured(f"capacity #{number}", lambda: capacity(place, alone))
                for share, (guarantee, rate) in itertools.product(SHARES, rates.items()):
                    found.measured(
                        f"{guarantee} at {share:.0%} #{number}",
                        lambda guarantee=guarantee, rate=rate * share: measure(place, guarantee, rate, sizes.seconds),
                    )
        found.measured("done", lambda: True)
    return found.found
