"""What the demo says of its own quality: computed from the newest label of each transaction."""

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
    """What `Truth` reads of a labelled record."""

    def __init__(self, name: str, outcome: Outcome, *, is_fraud: bool) -> None:
        self.transaction_id, self.outcome, self.is_fraud = name, outcome, is_fraud
        self.weight, self.source = 1.0, LabelSource.CHARGEBACK


def test_a_later_label_takes_the_place_of_the_one_before():
    truth = LabelledDecisions()
    assert truth.precision is None
    assert truth.recall is None
    for name, outcome, is_fraud in [
        ("a", Outcome.DECLINE, True),
        ("b", Outcome.REVIEW, False),
        ("c", Outcome.APPROVE, False),
    ]:
        truth.add(Labelled(name, outcome, is_fraud=is_fraud))
    assert (truth.precision, truth.recall) == (0.5, 1.0)
    truth.add(Labelled("c", Outcome.APPROVE, is_fraud=True))
    assert (truth.precision, truth.recall) == (0.5, 0.5)
    truth.add(Labelled("b", Outcome.REVIEW, is_fraud=True))
    assert (truth.flagged_frauds, truth.flagged, truth.frauds) == (2, 2, 3)


def test_a_grade_is_average_precision_and_log_loss():
    grade = ModelQuality.of([True, False, True, False], [0.0, 0.0, 0.0, 0.0])
    assert grade.log_loss == pytest.approx(0.693147)
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
