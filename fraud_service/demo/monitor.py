"""What the topics show while the demo runs: read as anyone could read them, and counted."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from fraud_service.demo.ground_truth import Scored, Truth
from fraud_service.domain.records import AlertRecord, decode_labelled, decode_score
from fraud_service.domain.snapshot import UNTRAINED, Snapshot, decode_snapshot
from fraud_service.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fraud_service.config.settings import Settings

RECENT: Final = 5.0  # seconds over which speed and latency are shown
ALERTS: Final = 40  # kept for the screen
BATCH: Final = 2000

_alert_decoder = msgspec.json.Decoder(AlertRecord)


class Latency(NamedTuple):
    """Percentiles, in milliseconds."""

    median: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Latency:
        """Take the percentiles of seconds."""
        seconds = np.fromiter(values, np.float64)
        if not len(seconds):
            return cls(0.0, 0.0)
        median, p99 = np.percentile(seconds, (50, 99)) * 1000
        return cls(float(median), float(p99))


class Tally:
    """Everything counted from the output topics."""

    def __init__(self) -> None:
        self.scores = self.stale = self.alerts = self.dead_letters = self.labelled = self.snapshots = 0
        self.event_time = 0
        self.in_force = UNTRAINED
        self.latest: deque[AlertRecord] = deque(maxlen=ALERTS)
        self.newest: Snapshot | None = None
        self.weights: list[float] = []
        self.truth = Truth()
        self.scored: list[Scored] = []
        self._seen: deque[tuple[float, float]] = deque()  # when a score was seen, and how long it took
        self._latencies: list[float] = []

    def score(self, value: bytes, latency: float) -> None:
        """Count a decision that became visible so many seconds after its transaction reached the broker."""
        record = decode_score(value)
        self.scores += 1
        self.stale += record.is_stale
        if record.timestamp >= self.event_time:
            self.event_time, self.in_force = record.timestamp, record.snapshot
        scored = Scored.of(record)
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
        self.truth.learn(decode_labelled(value))

    def snapshot(self, value: bytes) -> None:
        """Count a snapshot."""
        self.snapshots += 1
        self.newest = decode_snapshot(value)
        self.weights.append(self.newest.online_weight)

    def dead_letter(self) -> None:
        """Count a message that could not be read."""
        self.dead_letters += 1

    @property
    def records(self) -> int:
        """How many records were read of all topics."""
        return self.scores + self.alerts + self.labelled + self.snapshots + self.dead_letters

    def now(self) -> tuple[float, Latency]:
        """Return the decisions a second and their latency of the last seconds."""
        since = time.monotonic() - RECENT
        while self._seen and self._seen[0][0] < since:
            self._seen.popleft()
        return len(self._seen) / RECENT, Latency.of(latency for _, latency in self._seen)

    def overall(self) -> Latency:
        """Return the latency of all decisions."""
        return Latency.of(self._latencies)


class Observer:
    """Read the output topics, committed records only, into a tally. A context.

    It subscribes rather than being assigned: a group that commits nothing vanishes with its only member.
    """

    def __init__(self, settings: Settings, tally: Tally) -> None:
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
        """Whether the topics are being read; polls."""
        self.read(0.1)
        return bool(self._consumer.assignment())

    def read(self, timeout: float) -> None:
        """Take in what is there, waiting for it so many seconds at most."""
        message = self._consumer.poll(timeout)
        if message is None:
            return
        # One poll may wait; the rest is taken only as far as it is there already: a full batch would be waited for.
        for each in [message, *self._consumer.consume(BATCH, timeout=0)]:
            if each.error() is None:
                _, written = each.timestamp()
                self._handlers[each.topic()](each.value() or b"", max(time.time() - written / 1000, 0.0))
