"""Metrics of the scorer."""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING, Final

from fraud_service.domain.decision import ID_REUSED, NO_MODEL, Outcome
from fraud_service.domain.entry_modes import entry_mode
from fraud_service.domain.reasons import CODES, OVERALL_PATTERN
from fraud_service.runtime.metrics.stream import FAST_BUCKETS_S, LATENCY_BUCKETS_S, StreamMetrics
from fraud_service.security.signatures import RejectReason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.domain.detector import Assessment
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.runtime.metrics.stream import Metrics

MAX_CURRENCIES: Final = 16
ALL_CODES: Final = (*CODES, OVERALL_PATTERN, NO_MODEL.code, ID_REUSED.code)
SCORE_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


class ScorerMetrics(StreamMetrics):
    """Metrics of the scorer."""

    ROLE = "scorer"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self._make_transaction_metrics(metrics)
        self._make_alert_metrics(metrics)
        self._make_snapshot_metrics(metrics)
        # Looked up once: every transaction counts in one of them.
        self._decided = {outcome: self.transactions.labels(outcome) for outcome in Outcome}
        self._currencies: set[str] = set()

    def _make_transaction_metrics(self, metrics: Metrics) -> None:
        self.transactions = metrics.counter("fraud_transactions", "Transactions assessed, by outcome.", outcome=Outcome)
        self.duplicates = metrics.counter(
            "fraud_duplicate_transactions", "Duplicates: transactions that already had a decision."
        )
        self.misplaced = metrics.counter(
            "fraud_misplaced_transactions", "Transactions outside the partition of their card, rejected or not."
        )
        self.cards = metrics.gauge("fraud_cards", "Cards in the local state, as RocksDB estimates.", "partition")
        self.cards_limit = metrics.gauge(
            "fraud_cards_limit", "Cards of one partition above which an alert fires, 0 for no limit."
        )
        self.reused = metrics.counter(
            "fraud_reused_transaction_ids", "Payments under the transaction id of an earlier payment of the card."
        )
        self.unknown_modes = metrics.counter(
            "fraud_unknown_entry_modes", "Payments whose entry mode has no known meaning. It counts as absent."
        )
        self.processing = metrics.histogram(
            "fraud_processing_seconds", "Time to decode, assess and encode one transaction.", FAST_BUCKETS_S
        )
        self.latency = metrics.histogram(
            "fraud_latency_seconds",
            "Time from the broker's timestamp of a transaction to its decision.",
            LATENCY_BUCKETS_S,
        )
        self.scores = metrics.histogram("fraud_score", "Blended scores.", SCORE_BUCKETS)
        self.failures = metrics.counter(
            "fraud_component_failures",
            "Scores of one component that were not finite or failed.",
            component=("pretrained", "online"),
        )
        self.stale = metrics.counter(
            "fraud_stale_decisions", "Decisions for which a newer snapshot should have been active."
        )

    def _make_alert_metrics(self, metrics: Metrics) -> None:
        self.reasons = metrics.counter("fraud_reasons", "Reasons given with flagged transactions.", code=ALL_CODES)
        self.unexplained = metrics.counter(
            "fraud_unexplained_alerts",
            "Flagged transactions with a score but without reasons, because the explanation failed.",
        )
        self.flagged_amount = metrics.counter("fraud_flagged_amount", "Amount of flagged transactions.", currency=())

    def _make_snapshot_metrics(self, metrics: Metrics) -> None:
        self.snapshot_examples = metrics.gauge(
            "fraud_snapshot_examples", "Labelled examples behind the newest snapshot."
        )
        self.snapshot_as_of = metrics.gauge(
            "fraud_snapshot_as_of_seconds", "Boundary of the newest snapshot, event time in Unix seconds."
        )
        self.online_weight = metrics.gauge("fraud_online_weight", "Share of the online model in the newest snapshot.")
        self.incomplete = metrics.gauge(
            "fraud_incomplete_snapshots", "Snapshots skipped: rows were missing, or their pretrained model is unknown."
        )
        self.rejected = metrics.counter(
            "fraud_rejected_snapshots",
            "Records of snapshots, risk and models that failed their check.",
            rejection=RejectReason,
        )
        self.online = metrics.gauge("fraud_online_switch", "1 unless an operator switched the online model off.")
        self.online.set(1)
        self.model = metrics.info("fraud_model", "Active pretrained model of the scorer.")

    def count_rejected(self, reason: str) -> None:
        """Count a record that failed its check."""
        self.rejected.labels(reason).inc()

    def observe(self, assessments: Sequence[Assessment]) -> None:
        """Count the assessments of a batch."""
        for outcome, count in Tally(assessment.decision.outcome for assessment in assessments).items():
            self._decided[outcome].inc(count)
        decided = [assessment for assessment in assessments if not assessment.is_duplicate]
        self.duplicates.inc(len(assessments) - len(decided))
        self.scores.observe_all([assessment.decision.score for assessment in decided])
        for assessment in decided:
            decision = assessment.decision
            if entry_mode(assessment.transaction.entry_mode) is None:
                self.unknown_modes.inc()
            if decision.is_stale:
                self.stale.inc()
            if decision.pretrained_logit is None:
                self.failures.labels("pretrained").inc()
            if decision.online_logit is None:
                self.failures.labels("online").inc()
            if decision.is_flagged:
                self._observe_flagged(assessment)

    def _observe_flagged(self, assessment: Assessment) -> None:
        decision = assessment.decision
        if decision.is_id_reused:
            self.reused.inc()
        self.flagged_amount.labels(self._currency(assessment.transaction.currency)).inc(assessment.transaction.amount)
        for reason in decision.reasons:
            self.reasons.labels(reason.code).inc()
        if assessment.contributions is None and NO_MODEL not in decision.reasons:
            self.unexplained.inc()

    def _currency(self, currency: str) -> str:
        """Bound the number of label values, whatever currencies messages contain."""
        if len(self._currencies) < MAX_CURRENCIES:
            self._currencies.add(currency)
        return currency if currency in self._currencies else "other"

    def show_cards(self, counts: dict[int, int]) -> None:
        """Show the number of cards of each partition."""
        for partition, count in counts.items():
            self.cards.labels(str(partition)).set(count)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Show the newest snapshot."""
        self.snapshot_examples.set(snapshot.examples)
        self.snapshot_as_of.set(snapshot.as_of / 1000)
        self.online_weight.set(snapshot.online_weight)
        self.model.info({"pretrained": snapshot.model})
