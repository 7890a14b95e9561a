"""The registry of a process, and the metrics that all roles have. The tokenizer has only one more."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter as Tally
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from fraud_service.domain.errors import DeadLetterReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_TO_100_MS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
FAST_BUCKETS_S: Final = (0.0001, 0.00025, 0.0005, *_TO_100_MS, 0.25, 0.5, 1.0, 2.5, 10.0)
LATENCY_BUCKETS_S: Final = (*_TO_100_MS, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0)


class BatchHistogram(Histogram):
    """A histogram that observes a whole batch at once; one call a value costs a twentieth of the stream."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Observe each of the values, none of them NaN."""
        # Private names of prometheus_client; a test compares the result with that of `observe`.
        self._sum.inc(sum(values))
        for bucket, count in Tally(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(count)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        # The `_created` series would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def render(self) -> bytes:
        """Return the exposition of all metrics. Reads neither state nor Kafka."""
        return generate_latest(self.registry)

    def counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        """Make a counter whose exposed name ends in `_total`; `labels` are the closed sets of values of its labels.

        It exposes every series from the start, because `increase` misses the first count of a new series. Pass an
        empty set where the values are not known in advance.
        """
        made = Counter(name, text, labels, registry=self.registry)
        for values in product(*labels.values()) if labels else ():
            made.labels(*values)
        return made

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Make a gauge."""
        return Gauge(name, text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> BatchHistogram:
        """Make a histogram with explicit buckets."""
        return BatchHistogram(name, text, labels, buckets=buckets, registry=self.registry)

    def info(self, name: str, text: str) -> Info:
        """Make an info metric."""
        return Info(name, text, registry=self.registry)


class LagTracker:
    """Measure how far a stream is behind, and how long its newest recovery took.

    The stream thread replaces whole fields, because the HTTP thread reads them. The tracker computes both figures at
    each read, so the lag of a stream that hangs grows.
    """

    def __init__(self) -> None:
        self._current_at = time.time()
        self._received = False
        self._assigned_at = self._recovered_at = 0.0

    def record_received(self, timestamp: float) -> None:
        """Record that the stream processes a message of this time (Unix seconds)."""
        self._current_at, self._received = timestamp, True

    def record_idle(self, *, is_connected: bool) -> None:
        """Record that a tick of the loop begins: state is recovered, and a tick without messages means no lag."""
        if not self._recovered_at:
            self._recovered_at = time.time()
        if is_connected and not self._received:
            self._current_at = time.time()
        self._received = False

    def record_assigned(self) -> None:
        """Record that partitions were assigned; the recovery of their state begins."""
        self._assigned_at, self._recovered_at = time.time(), 0.0

    def lag_s(self) -> float:
        """Return the age in seconds of the oldest message in work; near 0 when there is none."""
        return max(time.time() - self._current_at, 0.0)

    def recovery_s(self) -> float:
        """Return the duration in seconds of the newest recovery, or its duration so far; 0 before the first."""
        return max((self._recovered_at or time.time()) - self._assigned_at, 0.0) if self._assigned_at else 0.0


class StreamMetrics:
    """Metrics that every role has."""

    ROLE: ClassVar[str] = ""

    def __init__(self, metrics: Metrics) -> None:
        self.dead_letters = metrics.counter(
            "fraud_dead_letters", "Rejected messages, by reason.", reason=DeadLetterReason
        )
        self.assigned = metrics.gauge("fraud_assigned_partitions", "Input partitions assigned to this process.")
        self.ready = metrics.gauge(
            "fraud_ready", "1 when connected, assigned and recovered, with models loaded.", "role"
        ).labels(self.ROLE)
        self.signed = metrics.gauge(
            "fraud_signatures_demanded", "1 when models, snapshots and risk must be signed, 0 when no key is set."
        )
        self.event_time = metrics.gauge("fraud_event_time_seconds", "Newest event time processed, Unix seconds.")
        self.rebalances = metrics.counter(
            "fraud_rebalances", "Times this process was assigned partitions; the first is its start."
        )
        self.interruptions = metrics.counter(
            "fraud_interruptions",
            "Times the cluster was unavailable or too slow, and the stream restarted from its last checkpoint.",
        )
        self.checkpoints = metrics.histogram(
            "fraud_checkpoint_seconds", "Time to commit state, output and offsets of one checkpoint.", LATENCY_BUCKETS_S
        )
        self.state = metrics.gauge("fraud_state_bytes", "Size of the local state on disk.")
        self.volume = metrics.gauge("fraud_state_volume_bytes", "Size of the volume that holds the local state.")
        self.free = metrics.gauge("fraud_state_volume_free_bytes", "Free space of that volume.")
        self.lag_tracker = LagTracker()
        metrics.gauge(
            "fraud_lag_seconds", "Age of the oldest message that is being processed. Near 0 when there is none."
        ).set_function(self.lag_tracker.lag_s)
        metrics.gauge(
            "fraud_recovery_seconds",
            "Time from the newest assignment to recovered state. During a recovery, the time so far.",
        ).set_function(self.lag_tracker.recovery_s)


class TokenizerMetrics(StreamMetrics):
    """Metrics of the tokenizer."""

    ROLE = "tokenizer"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.messages = metrics.counter(
            "fraud_tokenized",
            "Messages forwarded, by kind, and whether the tokenizer replaced anything.",
            kind=("transaction", "label"),
            replaced=("true", "false"),
        )
