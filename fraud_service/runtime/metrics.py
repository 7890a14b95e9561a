"""Prometheus metrics of scorer and learner. They read values that others made and decide nothing.

Label values come from closed sets: never a card, merchant or transaction. The model version stands in one info metric.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections import Counter as Tally
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from fraud_service.domain.decision import ID_REUSED, NO_MODEL, Outcome
from fraud_service.domain.events import DeadLetterReason, LabelSource
from fraud_service.domain.reasons import CODES
from fraud_service.security.signatures import RejectReason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fraud_service.domain.detector import Assessment
    from fraud_service.domain.label_join_rows import Example
    from fraud_service.domain.records import RefitRecord
    from fraud_service.domain.snapshot import Snapshot

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

MAX_CURRENCIES: Final = 16
FAST: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
LATENCY: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 600.0)
SCORES: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
IS_FRAUD_VALUES: Final = ("true", "false")
DAYS: Final = tuple(86_400 * day for day in (0.01, 0.1, 0.5, 1, 2, 3, 5, 7, 10, 14, 21, 30, 60))


class BatchHistogram(Histogram):
    """A histogram that takes the observations of a batch at once: one by one they cost a twentieth of the stream."""

    def observe_all(self, values: Sequence[float]) -> None:
        """Observe each of the values, none of them NaN."""
        # Names that the client does not promise; a test compares with `observe`.
        self._sum.inc(sum(values))
        for bucket, count in Tally(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(count)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the series, for a time nobody asks for
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def render(self) -> bytes:
        """Return the exposition of all metrics; touches neither state nor Kafka."""
        return generate_latest(self.registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Make a counter; the name ends in `_total` when shown."""
        return Counter(name, text, labels, registry=self.registry)

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
    """How far a stream is behind, and how long its newest recovery took; both are told whenever somebody asks.

    Written by the stream, read by the HTTP thread; each field is replaced, never changed. Because the clock goes on
    between two turns of the loop, a stream that stands still is seen to fall behind.
    """

    def __init__(self) -> None:
        self._current_at = time.time()
        self._took = False
        self._given_at = self._recovered_at = 0.0

    def record_received(self, timestamp: float) -> None:
        """Say that a message is in work that has been waiting since `timestamp`, Unix seconds."""
        self._current_at, self._took = timestamp, True

    def record_idle(self, *, is_connected: bool) -> None:
        """Say that a turn of the loop begins: state is recovered, and a turn that found nothing had caught up."""
        if not self._recovered_at:
            self._recovered_at = time.time()
        if is_connected and not self._took:
            self._current_at = time.time()
        self._took = False

    def record_assigned(self) -> None:
        """Say that partitions were assigned, whose state is now to be recovered."""
        self._given_at, self._recovered_at = time.time(), 0.0

    def lag(self) -> float:
        """Return the seconds for which the oldest message in work has been waiting; near 0 when none is."""
        return max(time.time() - self._current_at, 0.0)

    def recovery(self) -> float:
        """Return the seconds that the newest recovery took, or takes so far; 0 before the first."""
        return max((self._recovered_at or time.time()) - self._given_at, 0.0) if self._given_at else 0.0


class StreamMetrics:
    """What scorer and learner have in common."""

    ROLE: ClassVar[str] = ""

    def __init__(self, metrics: Metrics) -> None:
        self.dead_letters = metrics.counter(
            "fraud_dead_letters", "Messages that could not be read, by reason.", "reason"
        )
        _begin(self.dead_letters, DeadLetterReason)
        self.assigned = metrics.gauge("fraud_assigned_partitions", "Input partitions this process works on.")
        self.ready = metrics.gauge(
            "fraud_ready", "1 when assigned, recovered and models loaded; the role says what it is.", "role"
        ).labels(self.ROLE)
        self.signed = metrics.gauge(
            "fraud_signatures_demanded", "1 when models, snapshots and risk must be signed, 0 when no key is set."
        )
        self.event_time = metrics.gauge("fraud_event_time_seconds", "Newest event time processed, Unix seconds.")
        self.rebalances = metrics.counter(
            "fraud_rebalances", "Times this process was given partitions; the first is its start."
        )
        self.interruptions = metrics.counter(
            "fraud_interruptions", "Times the cluster was away or too slow, and work began anew at the last checkpoint."
        )
        self.checkpoints = metrics.histogram(
            "fraud_checkpoint_seconds", "Time to commit state, output and offsets of one checkpoint.", LATENCY
        )
        self.state = metrics.gauge("fraud_state_bytes", "Size of the local state on disk.")
        self.volume = metrics.gauge("fraud_state_volume_bytes", "Size of the volume the local state lies on.")
        self.free = metrics.gauge("fraud_state_volume_free_bytes", "What is free of that volume.")
        self.pace = LagTracker()
        metrics.gauge(
            "fraud_lag_seconds", "For how long the oldest message in work has been waiting; near 0 when none is."
        ).set_function(self.pace.lag)
        metrics.gauge(
            "fraud_recovery_seconds", "Time from the newest assignment to recovered state, or so far."
        ).set_function(self.pace.recovery)


def _begin(counter: Counter, *values: Iterable[str]) -> None:
    """Show every series of a closed label set from the start: of a counter that begins at 1, nobody sees it rise."""
    for labels in product(*values):
        counter.labels(*labels)


class ScorerMetrics(StreamMetrics):
    """Metrics of the scorer."""

    ROLE = "scorer"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.transactions = metrics.counter("fraud_transactions", "Transactions assessed, by outcome.", "outcome")
        self.duplicates = metrics.counter("fraud_duplicate_transactions", "Transactions that had been decided before.")
        self.cards = metrics.gauge("fraud_cards", "Cards in the local state, as RocksDB estimates.", "partition")
        self.cards_limit = metrics.gauge(
            "fraud_cards_limit", "Cards of one partition above which an alert fires, 0 for no limit."
        )
        self.reused = metrics.counter(
            "fraud_reused_transaction_ids", "Payments under a transaction id that an earlier payment of the card has."
        )
        self.processing = metrics.histogram(
            "fraud_processing_seconds", "Time to decode, assess and encode one transaction.", FAST
        )
        self.latency = metrics.histogram(
            "fraud_latency_seconds", "From the broker's timestamp of a transaction to its decision.", LATENCY
        )
        self.scores = metrics.histogram("fraud_score", "Blended scores.", SCORES)
        self.failures = metrics.counter(
            "fraud_component_failures", "Scores of one component that were not finite or failed.", "component"
        )
        _begin(self.failures, ("pretrained", "online"))
        self.stale = metrics.counter(
            "fraud_stale_decisions", "Decisions for which a newer snapshot should have been in force."
        )
        self.reasons = metrics.counter("fraud_reasons", "Reasons given with flagged transactions.", "code")
        _begin(self.reasons, (*CODES, NO_MODEL.code, ID_REUSED.code))
        self.unexplained = metrics.counter(
            "fraud_unexplained_alerts", "Flagged transactions whose reasons could not be given, though a model scored."
        )
        self.flagged_amount = metrics.counter("fraud_flagged_amount", "Amount of flagged transactions.", "currency")
        self.snapshot_examples = metrics.gauge(
            "fraud_snapshot_examples", "Labelled examples behind the newest snapshot."
        )
        self.snapshot_as_of = metrics.gauge(
            "fraud_snapshot_as_of_seconds", "Boundary of the newest snapshot, event time in Unix seconds."
        )
        self.online_weight = metrics.gauge("fraud_online_weight", "Share of the online model in the newest snapshot.")
        self.incomplete = metrics.gauge(
            "fraud_incomplete_snapshots",
            "Snapshots passed over: rows were missing, or they were taught beside another pretrained model.",
        )
        self.refused = metrics.counter(
            "fraud_refused_snapshots", "Records of snapshots, risk and models that failed their check.", "refusal"
        )
        _begin(self.refused, RejectReason)
        self.online = metrics.gauge("fraud_online_switch", "1 unless an operator switched the online model off.")
        self.online.set(1)
        self.model = metrics.info("fraud_model", "Pretrained model in use.")
        # Looked up once: every transaction counts in one of them.
        self._decided = {outcome: self.transactions.labels(outcome) for outcome in Outcome}
        self._currencies: set[str] = set()

    def observe(self, verdicts: Sequence[Assessment]) -> None:
        """Count the verdicts of a batch."""
        for outcome, count in Tally(verdict.decision.outcome for verdict in verdicts).items():
            self._decided[outcome].inc(count)
        decided = [verdict for verdict in verdicts if not verdict.is_duplicate]
        self.duplicates.inc(len(verdicts) - len(decided))
        self.scores.observe_all([verdict.decision.score for verdict in decided])
        for verdict in decided:
            decision = verdict.decision
            if decision.is_stale:
                self.stale.inc()
            if decision.pretrained_logit is None:
                self.failures.labels("pretrained").inc()
            if decision.online_logit is None:
                self.failures.labels("online").inc()
            if decision.is_flagged:
                if decision.is_id_reused:
                    self.reused.inc()
                self.flagged_amount.labels(self._currency(verdict.transaction.currency)).inc(verdict.transaction.amount)
                for reason in decision.reasons:
                    self.reasons.labels(reason.code).inc()
                if verdict.contributions is None and NO_MODEL not in decision.reasons:
                    self.unexplained.inc()

    def _currency(self, currency: str) -> str:
        """Keep the label's values few, whatever currencies messages claim."""
        if len(self._currencies) < MAX_CURRENCIES:
            self._currencies.add(currency)
        return currency if currency in self._currencies else "other"

    def show_cards(self, counts: dict[int, int]) -> None:
        """Show how many cards each partition has."""
        for partition, count in counts.items():
            self.cards.labels(str(partition)).set(count)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Show the newest snapshot."""
        self.snapshot_examples.set(snapshot.examples)
        self.snapshot_as_of.set(snapshot.as_of / 1000)
        self.online_weight.set(snapshot.online_weight)
        self.model.info({"pretrained": snapshot.model})


class TokenizerMetrics(StreamMetrics):
    """Metrics of the tokenizer."""

    ROLE = "tokenizer"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.messages = metrics.counter(
            "fraud_tokenized", "Messages passed on, by kind and whether anything became a token.", "kind", "replaced"
        )
        _begin(self.messages, ("transaction", "label"), IS_FRAUD_VALUES)

    def passed(self, *, is_label: bool, is_changed: bool) -> None:
        """Count one message."""
        self.messages.labels("label" if is_label else "transaction", str(is_changed).lower()).inc()


class LearnerMetrics(StreamMetrics):
    """Metrics of the learner."""

    ROLE = "learner"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self.scores = metrics.counter("fraud_scores_received", "Score records taken into the ledger.")
        self.labels = metrics.counter(
            "fraud_labels_received", "Labels received, by what they say and from whom.", "is_fraud", "source"
        )
        _begin(self.labels, IS_FRAUD_VALUES, LabelSource)
        self.early = metrics.counter("fraud_labels_early", "Labels whose transaction was not known (yet).")
        self.untaught = metrics.counter(
            "fraud_untaught_payments",
            "Payments that the learner leaves out, because their transaction id already has eight.",
        )
        self.examples = metrics.counter("fraud_labelled_examples", "Labelled examples published.", "is_fraud")
        _begin(self.examples, IS_FRAUD_VALUES)
        self.corrections = metrics.counter("fraud_corrections", "Labelled examples that contradicted an earlier one.")
        self.confusion = metrics.counter(
            "fraud_labelled_decisions",
            "Labelled examples by decision and truth: precision and recall derive from it.",
            "outcome",
            "is_fraud",
        )
        _begin(self.confusion, Outcome, IS_FRAUD_VALUES)
        self.amounts = metrics.counter(
            "fraud_labelled_fraud_amount", "Amount of labelled frauds, by the decision that was made.", "outcome"
        )
        _begin(self.amounts, Outcome)
        self.delay = metrics.histogram("fraud_label_delay_seconds", "From transaction to label, event time.", DAYS)
        self.snapshots = metrics.counter("fraud_snapshots_published", "Snapshots published.")
        self.snapshot_as_of = metrics.gauge(
            "fraud_learner_snapshot_as_of_seconds",
            "Boundary of the last published snapshot, event time in Unix seconds.",
        )
        self.online_weight = metrics.gauge(
            "fraud_learner_online_weight", "Share of the online model in the last published snapshot."
        )
        self.model = metrics.info("fraud_learner_model", "Pretrained model beside which is taught.")
        self.champion = metrics.gauge(
            "fraud_refit_champion_average_precision",
            "Average precision of the model that reigned, on the labelled days that judged the newest re-fit.",
        )
        self.challenger = metrics.gauge(
            "fraud_refit_challenger_average_precision", "The same of the best challenger, promoted or not."
        )
        self.champion.set(math.nan)  # until something is judged
        self.challenger.set(math.nan)
        self.margin = metrics.gauge(
            "fraud_refit_margin", "Average precision by which a challenger had to be better to be promoted."
        )
        self.refit_at = metrics.gauge("fraud_refit_seconds", "Event time of the newest re-fit, Unix seconds.")
        self.refused = metrics.counter("fraud_refused_models", "Promoted models that failed their check.", "refusal")
        _begin(self.refused, RejectReason)
        self.closing = metrics.histogram("fraud_boundary_seconds", "Time to close one boundary.", FAST)

    def observe(self, example: Example) -> None:
        """Count one labelled example."""
        scored, truth = example.scored, str(example.is_fraud).lower()
        self.examples.labels(truth).inc()
        self.confusion.labels(scored.outcome, truth).inc()
        self.delay.observe(max(example.known_at - scored.timestamp, 0) / 1000)
        if example.corrects:
            self.corrections.inc()
        if example.is_fraud:
            self.amounts.labels(scored.outcome).inc(scored.amount)

    def show_model(self, version: str) -> None:
        """Show the pretrained model that reigns."""
        self.model.info({"pretrained": version})

    def refit(self, found: RefitRecord) -> None:
        """Show what the newest re-fit found. A figure that could not be judged is not a number."""
        self.champion.set(math.nan if found.champion is None else found.champion)
        self.challenger.set(math.nan if found.challenger is None else found.challenger)
        self.margin.set(found.margin)
        self.refit_at.set(found.at / 1000)

    def snapshot(self, snapshot: Snapshot) -> None:
        """Count a published snapshot."""
        self.snapshots.inc()
        self.snapshot_as_of.set(snapshot.as_of / 1000)
        self.online_weight.set(snapshot.online_weight)
