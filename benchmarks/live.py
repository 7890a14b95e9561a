"""Measure the whole service under load: the delay from a label to the scorer, and the pause when a model is promoted.

Simulated payments and labels come faster than their event time, so that hourly snapshots follow each other within
seconds.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from confluent_kafka import TopicPartition
from harness import LEAST, PATIENCE, Broker, Results, aside, broker, history, percentile, scorers
from support.processes import Service, fresh_settings

from fraud_service.admin import models
from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.records import decode_score
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.kafka import clients
from fraud_service.models import artifact

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import LabelledTransaction
    from fraud_service.models.artifact import Artifact

NEW_MODEL: Final = "bench-promoted"
AROUND: Final = 5.0  # seconds compared: before the promotion, and after the switch


class Sizes(msgspec.Struct, frozen=True):
    """The rate of payments per second, and the length in seconds."""

    rate: float = 1_500.0
    seconds: float = 40.0


class Seen(NamedTuple):
    """A score that the reader received. Times are epoch milliseconds; `event` is the event time of the payment."""

    read: float
    appended: float
    event: int
    model: str
    snapshot: str
    is_stale: bool


class Learned(NamedTuple):
    """A snapshot that the reader received. Times are epoch milliseconds."""

    read: float
    as_of: int
    version: str


def feed(settings: Settings, count: int, rate: float) -> None:
    """Send payments, and each label when event time reaches it."""
    with HistoryProducer(settings) as out:
        out.produce(first(count), 0, rate)


def first(count: int) -> list[LabelledTransaction]:
    """Return the first payments of the shared history."""
    return [event for _, event in zip(range(count), history(), strict=False)]


class Watch:
    """Read scores and snapshots as they become visible."""

    def __init__(self, settings: Settings) -> None:
        self._snapshots = settings.topics.snapshots
        self._consumer = clients.reader(settings, f"bench-{time.monotonic_ns()}")
        places = [TopicPartition(settings.topics.scores, number, 0) for number in range(settings.partitions)]
        self._consumer.assign([*places, TopicPartition(self._snapshots, 0, 0)])
        self.scores: list[Seen] = []
        self.snapshots: list[Learned] = []

    def read(self, until: float) -> None:
        """Read until a time (monotonic seconds)."""
        while time.monotonic() < until:
            message = self._consumer.poll(0.05)
            if message is None or message.error() is not None:
                continue
            now = time.time() * 1000
            try:
                self._take(message, now)
            except InvalidRecord as error:
                raise SystemExit(f"a record of the service cannot be read: {error}") from error

    def _take(self, message: Any, now: float) -> None:
        if message.topic() == self._snapshots:
            snapshot = decode_snapshot(message.value())
            self.snapshots.append(Learned(now, snapshot.as_of, snapshot.version))
            return
        record = decode_score(message.value())
        appended = message.timestamp()[1]
        self.scores.append(Seen(now, appended, record.timestamp, record.model, record.snapshot, record.is_stale))

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()


def measure(place: Broker, sizes: Sizes) -> dict[str, Any]:
    """Run scorer and learner under load, and promote a model in the middle."""
    settings = fresh_settings(place.bootstrap, place.folder)
    count, challenger = int(sizes.rate * sizes.seconds), _challenger(settings)
    with (
        ThreadPoolExecutor(1) as aside_of_reading,  # a promotion in this thread would delay the reads
        scorers(settings, place.folder / "live", LEAST) as (scorer,),
        Service(settings, "learn", place.folder / "live-learner", is_forked=False) as learner,
    ):
        scorer.await_ready()
        learner.await_ready()
        watch = Watch(settings)
        feeder = aside(feed, settings, count, sizes.rate)
        try:
            _await_first(watch)
            watch.read(time.monotonic() + sizes.seconds / 2)
            promotion = aside_of_reading.submit(_promote, settings, challenger)
            watch.read(time.monotonic() + sizes.seconds / 2 + AROUND)
            promoted = promotion.result()
        finally:
            feeder.kill()
            feeder.join()
            watch.close()
    return {"to_scorer": to_scorer(watch), "swap": swap(watch.scores, promoted), "scores": len(watch.scores)}


def _await_first(watch: Watch) -> None:
    deadline = time.monotonic() + PATIENCE
    while not watch.scores:
        watch.read(time.monotonic() + 0.5)
        if time.monotonic() > deadline:
            raise SystemExit("no score became visible")


def _challenger(settings: Settings) -> Artifact:
    """Return the shipped model under another name, so that only the switch itself is measured."""
    shipped = artifact.read(settings.model_dir or artifact.shipped_folder())
    return msgspec.structs.replace(shipped, manifest=msgspec.structs.replace(shipped.manifest, version=NEW_MODEL))


def _promote(settings: Settings, challenger: Artifact) -> float:
    """Promote a model; returns the time of the promotion (epoch milliseconds)."""
    began = time.time() * 1000
    models.promote(settings, challenger)
    return began


def to_scorer(watch: Watch) -> dict[str, float]:
    """Return the delays (ms) from the payment that passes a boundary to its snapshot, and to the first score by it."""
    by_append = sorted(watch.scores, key=lambda score: score.appended)
    visible, used = [], []
    for snapshot in watch.snapshots:
        passed = next((score.appended for score in by_append if score.event >= snapshot.as_of), None)
        if passed is None:
            continue
        visible.append(snapshot.read - passed)
        scored = next((score.read for score in watch.scores if score.snapshot == snapshot.version), None)
        if scored is not None:
            used.append(scored - passed)
    found = {"snapshots": float(len(visible)), "stale": sum(s.is_stale for s in watch.scores) / len(watch.scores)}
    for name, values in (("visible", visible), ("used", used)):
        if values:
            found |= {f"{name}_p50": percentile(values, 0.5), f"{name}_p99": percentile(values, 0.99)}
    return found


def swap(scores: Sequence[Seen], promoted: float) -> dict[str, float | None]:
    """Return the largest gap between scores and the largest latency (ms), before and after the promotion."""
    switched = next((score.read for score in scores if score.model == NEW_MODEL), None)
    end = (promoted if switched is None else switched) + AROUND * 1000
    before = [score for score in scores if promoted - AROUND * 1000 <= score.read < promoted]
    during = [score for score in scores if promoted <= score.read < end]
    return {
        "switched_ms": None if switched is None else switched - promoted,
        "gap_before_ms": _gap(before),
        "gap_ms": _gap(during),
        "latency_before_ms": max((score.read - score.appended for score in before), default=None),
        "latency_ms": max((score.read - score.appended for score in during), default=None),
    }


def _gap(scores: Sequence[Seen]) -> float | None:
    return max((later.read - sooner.read for sooner, later in itertools.pairwise(scores)), default=None)


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure the service under load."""
    found = Results("live", msgspec.to_builtins(sizes))
    if "live" not in found.found:
        with broker() as place:
            found.measured("live", lambda: measure(place, sizes))
    return found.found
