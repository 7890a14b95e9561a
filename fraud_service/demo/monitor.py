"""Read the output topics while the demo runs, as any consumer can, and count their records."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from fraud_service.demo.ground_truth import ComponentLogits, LabelledDecisions
from fraud_service.domain.records import AlertRecord, decode_labelled, decode_score
from fraud_service.domain.snapshot import UNTRAINED, Snapshot, decode_snapshot
from fraud_service.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fraud_service.config.settings import Settings

RECENT_S: Final = 5.0  # the window of throughput and latency on the screen
MAX_ALERTS_KEPT: Final = 40  # for the screen
BATCH: Final = 2000

_alert_decoder = msgspec.json.Decoder(AlertRecord)


class Latency(NamedTuple):
    """Percentiles of a latency, in milliseconds."""

    median: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Latency:
        """Return the percentiles of latencies in seconds."""
        seconds = np.fromiter(values, np.float64)
        if not len(seconds):
            return cls(0.0, 0.0)
        median, p99 = np.percentile(seconds, (50, 99)) * 1000
        return cls(float(median), float(p99))


class TopicCounts:
    """Counts of the records on the output topics."""

    def __init__(self) -> None:
        self.scores = self.stale = self.alerts = self.dead_letters = self.labelled = self.snapshots = 0
        self.event_time = 0
        self.in_force = UNTRAINED
        self.latest: deque[AlertRecord] = deque(maxlen=MAX_ALERTS_KEPT)
        self.newest: Snapshot | None = None
        self.weights: list[float] = []
        self.truth = LabelledDecisions()
        self.scored: list[ComponentLogits] = []
        self._seen: deque[tuple[float, float]] = deque()  # time of reading and latency of each score
        self._latencies: list[float] = []

    def score(self, value: bytes, latency: float) -> None:
        """Count a score. `latency` is the time from the append of its transaction to this read, in seconds."""
        record = decode_score(value)
        self.scores += 1
        self.stale += record.is_stale
        if record.timestamp >= self.event_time:
            self.event_time, self.in_force = record.timestamp, record.snapshot
        scored = ComponentLogits.of(record)
        if scored is not None:
            self.scored.append(scored)
        self._latencies.append(latency)
        self._seen.append((time.monotonic(), latency))

    def alert(self, value: bytes) -> None:
        """Count an alert."""
        self.alerts += 1
        self.latest.append(_alert_decoder.decode(value))

    def label(self, value: bytes) -> None:
        """Count a labelled example."""
        self.labelled += 1
        self.truth.add(decode_labelled(value))

    def snapshot(self, value: bytes) -> None:
        """Count a snapshot."""
        self.snapshots += 1
        self.newest = decode_snapshot(value)
        self.weights.append(self.newest.online_weight)

    def dead_letter(self) -> None:
        """Count a dead letter."""
        self.dead_letters += 1

    @property
    def records(self) -> int:
        """Number of records read from all topics."""
        return self.scores + self.alerts + self.labelled + self.snapshots + self.dead_letters

    def now(self) -> tuple[float, Latency]:
        """Return the scores a second and their latency over the last `RECENT_S` seconds."""
        since = time.monotonic() - RECENT_S
        while self._seen and self._seen[0][0] < since:
            self._seen.popleft()
        return len(self._seen) / RECENT_S, Latency.of(latency for _, latency in self._seen)

    def overall(self) -> Latency:
        """Return the latency of all decisions."""
        return Latency.of(self._latencies)


class Observer:
    """Read committed records of the output topics into the counts. A context manager.

    It subscribes instead of assigning: a group that commits nothing disappears with its only member.
    """

    def __init__(self, settings: Settings, tally: TopicCounts) -> None:
        names = settings.topics
        self._handlers: dict[str, Callable[[bytes, float], None]] = {
            names.scores: tally.score,
            names.alerts: lambda value, _: tally.alert(value),
            names.labelled: lambda value, _: tally.label(value),
            names.snapshots: lambda value, _: tally.snapshot(value),
            names.dead_letters: lambda *_: tally.dead_letter(),
        }
        self._consumer = clients.reader(settings, f"{settings.scorer_group}-observer")
        self._consumer.subscribe(list(self._handlers))

    def __enter__(self) -> Observer:  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def is_assigned(self) -> bool:
        """Whether the consumer has partitions. Polls once."""
        self.read(0.1)
        return bool(self._consumer.assignment())

    def read(self, timeout: float) -> None:
        """Read what has arrived, and wait at most `timeout` seconds for the first record."""
        message = self._consumer.poll(timeout)
        if message is None:
            return
        # Only the poll may wait. With a timeout, `consume` would wait for a full batch.
        for each in [message, *self._consumer.consume(BATCH, timeout=0)]:
            if each.error() is None:
                _, written = each.timestamp()
                self._handlers[each.topic()](each.value() or b"", max(time.time() - written / 1000, 0.0))
