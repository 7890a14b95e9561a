"""Latency under a load that does not wait: from the broker's append of a transaction to its score, and to its alert.

Read with `read_committed`, counted to the moment the reader has the record in hand. Payments come on schedule whatever
the service does, so that a stall is counted for all that it delays (no coordinated omission).
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

# Flagged transactions are too rare to tell a high percentile of. A lower threshold flags one in forty: that is enough,
# and not so many that the load is one of reasons (0.15 would flag one in fifteen, the default, 0.3, one in 200).
REVIEW: Final = "0.2"
GUARANTEES: Final = {"at-least-once": {**LEAST, "FRAUD_COMMIT_INTERVAL": "100ms"}, "exactly-once": ONCE}  # the default
SHARES: Final = (0.1, 0.5, 0.8)
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
FULL: Final = 100_000  # payments on the topic by which it is found how much is too much
TOO_MUCH: Final = 1.25  # times what the scorer takes from a full topic, alone with the broker
OVERLOADED: Final = 8.0  # seconds
BEYOND: Final = 2  # records, at least, above a percentile that is reported
SETTLE: Final = 3.0  # seconds of load that only warm up


class Sizes(msgspec.Struct, frozen=True):
    """How long each load is measured, and how often."""

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
        """Read until there are as many scores; alerts that are still under way follow within a second."""
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
        """Return scores a second that arrived between two moments (epoch milliseconds)."""
        return sum(begin <= read < end for _, read in self.seen[self._scores]) / (end - begin) * 1000

    def figures(self, since: float) -> dict[str, Any]:
        """Return percentiles, in milliseconds, of what was appended after a moment (epoch milliseconds)."""
        found: dict[str, Any] = {}
        for what, topic in (("score", self._scores), ("alert", self._alerts)):
            delays = [read - appended for appended, read in self.seen[topic] if appended >= since]
            found[what] = {name: percentile(delays, share) for name, share in PERCENTILES.items()} if delays else {}
            found[what] |= {"count": len(delays), "max": max(delays, default=None)}
        return found


def measure(place: Broker, guarantee: str, rate: float, seconds: float) -> dict[str, Any]:
    """Measure one load on a service and topics of its own."""
    settings = fresh_settings(place.bootstrap, place.folder)
    topics.create(clients.admin(settings), topics.topic_specs(settings), 1)
    count = int(rate * (SETTLE + seconds))
    options = {**GUARANTEES[guarantee], "FRAUD_REVIEW_THRESHOLD": REVIEW}
    told, asked = get_context("spawn").Pipe()
    feeder = aside(feed, settings, count, rate, asked)
    try:
        with scorers(settings, place.folder / f"latency-{time.monotonic_ns()}", options) as (service,):
            service.await_ready()  # before the first payment: what waits for a start is no latency under load
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
        raise SystemExit(f"the feeder has said nothing for {PATIENCE:.0f} s")
    return told.recv()


def capacity(place: Broker, alone: dict[str, float]) -> dict[str, float]:
    """Measure transactions a second that get their scores while more than that is fed, under both guarantees.

    Feeder and reader take their part of the cores, as they do under every load that is a share of this one.

    Parameters
    ----------
    alone
        What the scorer takes from a full topic, alone with the broker.
    """
    return {one: measure(place, one, rate * TOO_MUCH, OVERLOADED)["scored"] for one, rate in alone.items()}


def _alone(place: Broker) -> dict[str, float]:
    settings = fresh_settings(place.bootstrap, place.folder)
    send(settings, payments(FULL))
    rungs = [rung._replace(share=1.0) for rung in ladder.RUNGS if rung.scorer is not None]
    return ladder.capacity({f"{rung.name} #0": ladder.measure(rung, settings, place, FULL)._asdict() for rung in rungs})


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure all loads under both guarantees, each round of them as shares of a capacity found just before it."""
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
