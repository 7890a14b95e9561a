"""Read the output topics while the demo runs, as any consumer can, and count their records."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import msgspec
import numpy as np

from fraud_service.demo.ground_truth import ComponentLogits, LabelledDecisions
from fraud_service.domain.records import AlertRecord, decode_labelled, decode_score
from fraud_service.domain.snapshot import UNTRAINED, Snapshot, decode_snapshot
from fraud_service.kafka import clients
from fraud_service.kafka.topic_reader import poll_available

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings

RECENT_S: Final = 5.0  # the window of throughput and latency on the screen
MAX_ALERTS_KEPT: Final = 40  # for the screen
MAX_MESSAGES: Final = 2000  # at once

_alert_decoder = msgspec.json.Decoder(AlertRecord)


class Latency(NamedTuple):
    """Percentiles of a latency, in milliseconds."""

    median: float
    p99: float

    @classmethod
    def of(cls, seconds: list[float]) -> Latency:
        """Return the percentiles of latencies in seconds."""
        if not seconds:
            return cls(0.0, 0.0)
        median, p99 = np.percentile(seconds, (50, 99)) * 1000
        return cls(float(median), float(p99))


class TopicMonitor:
    """Counts the committed records of the output topics. A context manager.

    It subscribes instead of assigning, because Kafka removes a group without offsets when its only member leaves.
    """

    def __init__(self, settings: Settings) -> None:
        self.scores = self.stale = self.alerts = self.dead_letters = self.examples = self.snapshots = 0
        self.event_time = 0  # the newest, epoch milliseconds
        self.active_snapshot = UNTRAINED
        self.newest_alerts: deque[AlertRecord] = deque(maxlen=MAX_ALERTS_KEPT)
        self.newest_snapshot: Snapshot | None = None
        self.online_weights: list[float] = []
        self.decisions = LabelledDecisions()
        self.logits: list[ComponentLogits] = []
        self._read_at: list[float] = []  # of each score, on the monotonic clock
        self._latencies: list[float] = []  # of each score, in seconds
        names = settings.topics
        self._handlers: dict[str, Callable[[bytes, float], None]] = {
            names.scores: self._count_score,
            names.alerts: self._count_alert,
            names.labelled: self._count_example,
            names.snapshots: self._count_snapshot,
            names.dead_letters: self._count_dead_letter,
        }
        self._consumer = clients.reader(settings, f"{settings.scorer_group}-observer")
        self._consumer.subscribe(list(self._handlers))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def is_assigned(self) -> bool:
        """Whether the consumer has partitions. Polls once."""
        self.read(0.1)
        return bool(self._consumer.assignment())

    def read(self, timeout_s: float) -> None:
        """Count what has arrived, and wait at most `timeout_s` for the first record."""
        for message in poll_available(self._consumer, MAX_MESSAGES, timeout_s):
            if message.error() is None:
                _, appended_at = message.timestamp()
                latency = max(time.time() - appended_at / 1000, 0.0)
                self._handlers[message.topic()](message.value() or b"", latency)

    @property
    def records(self) -> int:
        """Number of records read from all topics."""
        return self.scores + self.alerts + self.examples + self.snapshots + self.dead_letters

    def recent(self) -> tuple[float, Latency]:
        """Return the scores a second and their latency over the last `RECENT_S` seconds.

        A latency is the time from the append of a transaction to the moment at which this consumer reads its score.
        """
        first = bisect_left(self._read_at, time.monotonic() - RECENT_S)
        return (len(self._read_at) - first) / RECENT_S, Latency.of(self._latencies[first:])

    def overall(self) -> Latency:
        """Return the latency of all scores."""
        return Latency.of(self._latencies)

    def _count_score(self, value: bytes, latency_s: float) -> None:
        record = decode_score(value)
        self.scores += 1
        self.stale += record.is_stale
        if record.timestamp >= self.event_time:
            self.event_time, self.active_snapshot = record.timestamp, record.snapshot
        logits = ComponentLogits.of(record)
        if logits is not None:
            self.logits.append(logits)
        self._latencies.append(latency_s)
        self._read_at.append(time.monotonic())

    def _count_alert(self, value: bytes, _: float) -> None:
        self.alerts += 1
        self.newest_alerts.append(_alert_decoder.decode(value))

    def _count_example(self, value: bytes, _: float) -> None:
        self.examples += 1
        self.decisions.add(decode_labelled(value))

    def _count_snapshot(self, value: bytes, _: float) -> None:
        self.snapshots += 1
        self.newest_snapshot = decode_snapshot(value)
        self.online_weights.append(self.newest_snapshot.online_weight)

    def _count_dead_letter(self, _value: bytes, _: float) -> None:
        self.dead_letters += 1
