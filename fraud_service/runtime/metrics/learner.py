"""Metrics of the learner."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import LabelSource
from fraud_service.domain.label_join import Ignored
from fraud_service.runtime.metrics.stream import FAST_BUCKETS_S, StreamMetrics
from fraud_service.security.signatures import RejectReason

if TYPE_CHECKING:
    from fraud_service.domain.label_join_rows import Example
    from fraud_service.domain.records import RefitRecord
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.runtime.metrics.stream import Metrics

IS_FRAUD_VALUES: Final = ("true", "false")
DELAY_BUCKETS_S: Final = tuple(86_400 * day for day in (0.01, 0.1, 0.5, 1, 2, 3, 5, 7, 10, 14, 21, 30, 60))


class LearnerMetrics(StreamMetrics):
    """Metrics of the learner."""

    ROLE = "learner"

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics)
        self._make_input_metrics(metrics)
        self._make_example_metrics(metrics)
        self._make_snapshot_metrics(metrics)
        self._make_refit_metrics(metrics)
        self.rejected = metrics.counter(
            "fraud_rejected_models", "Promoted models that failed their check.", rejection=RejectReason
        )
        self.closing = metrics.histogram("fraud_boundary_seconds", "Time to close one boundary.", FAST_BUCKETS_S)

    def _make_input_metrics(self, metrics: Metrics) -> None:
        self.scores = metrics.counter("fraud_scores_received", "Score records added to the label join.")
        self.labels = metrics.counter(
            "fraud_labels_received",
            "Labels received, by content and source.",
            is_fraud=IS_FRAUD_VALUES,
            source=LabelSource,
        )
        self.early = metrics.counter("fraud_labels_early", "Labels that arrived before their transaction.")
        self.predated = metrics.counter(
            "fraud_labels_predated", "Labels dated at or before their payment. They count from the payment on."
        )
        self.ignored = metrics.counter(
            "fraud_label_join_ignored", "Scores and labels without effect on learning, by cause.", cause=Ignored
        )
        self.unlearned = metrics.counter(
            "fraud_unlearned_payments", "Payments not learned, because their transaction id already has eight payments."
        )

    def _make_example_metrics(self, metrics: Metrics) -> None:
        self.examples = metrics.counter(
            "fraud_labelled_examples", "Labelled examples published.", is_fraud=IS_FRAUD_VALUES
        )
        self.corrections = metrics.counter("fraud_corrections", "Labelled examples that contradicted an earlier one.")
        self.confusion = metrics.counter(
            "fraud_labelled_decisions",
            "Labelled examples by decision and label, for precision and recall.",
            outcome=Outcome,
            is_fraud=IS_FRAUD_VALUES,
        )
        self.amounts = metrics.counter(
            "fraud_labelled_fraud_amount", "Amount of labelled frauds, by the decision that was made.", outcome=Outcome
        )
        self.delay = metrics.histogram(
            "fraud_label_delay_seconds", "From transaction to label, event time.", DELAY_BUCKETS_S
        )

    def _make_snapshot_metrics(self, metrics: Metrics) -> None:
        self.snapshots = metrics.counter("fraud_snapshots_published", "Snapshots published.")
        self.snapshot_as_of = metrics.gauge(
            "fraud_learner_snapshot_as_of_seconds",
            "Boundary of the last published snapshot, event time in Unix seconds.",
        )
        self.online_weight = metrics.gauge(
            "fraud_learner_online_weight", "Share of the online model in the last published snapshot."
        )
        self.model = metrics.info("fraud_learner_model", "Active pretrained model of the learner.")

    def _make_refit_metrics(self, metrics: Metrics) -> None:
        self.champion = metrics.gauge(
            "fraud_refit_champion_average_precision",
            "Average precision of the model that was active, on the holdout days of the newest re-fit.",
        )
        self.challenger = metrics.gauge(
            "fraud_refit_challenger_average_precision", "The same of the best challenger, promoted or not."
        )
        self.champion.set(math.nan)  # until the first re-fit
        self.challenger.set(math.nan)
        self.margin = metrics.gauge(
            "fraud_refit_margin", "Average precision by which a challenger had to be better to be promoted."
        )
        self.refit_at = metrics.gauge("fraud_refit_seconds", "Event time of the newest re-fit, Unix seconds.")

    def count_rejected(self, reason: str) -> None:
        """Count a record that failed its check."""
        self.rejected.labels(reason).inc()

    def observe(self, example: Example) -> None:
        """Count one labelled example."""
        scored, truth = example.scored, str(example.is_fraud).lower()
        self.examples.labels(truth).inc()
        self.confusion.labels(scored.outcome, truth).inc()
        self.delay.observe(max(example.known_at - scored.timestamp, 0) / 1000)
        if example.source is not None and example.known_at <= scored.timestamp:  # never earlier, that would leak
            self.predated.inc()
        if example.corrects:
            self.corrections.inc()
        if example.is_fraud:
            self.amounts.labels(scored.outcome).inc(scored.amount)

    def show_refit(self, found: RefitRecord) -> None:
        """Show the result of the newest re-fit. A figure that could not be computed is NaN."""
        self.champion.set(math.nan if found.champion is None else found.champion)
        self.challenger.set(math.nan if found.challenger is None else found.challenger)
        self.margin.set(found.margin)
        self.refit_at.set(found.at / 1000)

    def show_snapshot(self, snapshot: Snapshot) -> None:
        """Count a published snapshot, and show it."""
        self.snapshots.inc()
        self.snapshot_as_of.set(snapshot.as_of / 1000)
        self.online_weight.set(snapshot.online_weight)
