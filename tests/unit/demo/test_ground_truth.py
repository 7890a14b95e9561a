"""The quality that the demo shows is computed from the newest label of each transaction."""

from __future__ import annotations

import pytest

from fraud_service.demo.ground_truth import (
    MIN_FRAUDS,
    ComponentLogits,
    LabelledDecisions,
    ModelComparison,
    ModelQuality,
)
from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import LabelSource


class Labelled:
    """The fields of a labelled record that `LabelledDecisions` reads."""

    def __init__(self, name: str, outcome: Outcome, *, is_fraud: bool) -> None:
        self.transaction_id, self.outcome, self.is_fraud = name, outcome, is_fraud
        self.weight, self.source = 1.0, LabelSource.CHARGEBACK


def test_a_later_label_replaces_the_earlier_one():
    decisions = LabelledDecisions()
    assert decisions.precision is None
    assert decisions.recall is None
    for name, outcome, is_fraud in [
        ("a", Outcome.DECLINE, True),
        ("b", Outcome.REVIEW, False),
        ("c", Outcome.APPROVE, False),
    ]:
        decisions.add(Labelled(name, outcome, is_fraud=is_fraud))
    assert (decisions.precision, decisions.recall) == (0.5, 1.0)
    decisions.add(Labelled("c", Outcome.APPROVE, is_fraud=True))
    assert (decisions.precision, decisions.recall) == (0.5, 0.5)
    decisions.add(Labelled("b", Outcome.REVIEW, is_fraud=True))
    assert (decisions.flagged_frauds, decisions.flagged, decisions.frauds) == (2, 2, 3)


def test_quality_is_average_precision_and_log_loss():
    quality = ModelQuality.of([True, False, True, False], [0.0, 0.0, 0.0, 0.0])
    assert quality.log_loss == pytest.approx(0.693147)
    assert ModelQuality.of([False, True, False, True], [3.0, 2.0, 1.0, 0.0]).average_precision == pytest.approx(0.5)
    assert ModelQuality.of([False, True], [-1.0, 1.0]).average_precision == 1.0


def test_two_models_are_compared_on_days_with_enough_frauds():
    scored = [ComponentLogits(str(number), number, -1.0, float(number % 2)) for number in range(4 * MIN_FRAUDS)]
    truth = {each.transaction_id: each.timestamp % 2 == 1 for each in scored}
    assert ModelComparison.between(scored, 0, 2 * MIN_FRAUDS - 1, truth) is None
    comparison = ModelComparison.between(scored, 0, 2 * MIN_FRAUDS, truth)
    assert comparison is not None
    assert comparison.frauds == MIN_FRAUDS
    assert comparison.online.average_precision == 1.0
    assert comparison.online.log_loss < comparison.pretrained.log_loss
