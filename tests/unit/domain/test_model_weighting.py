"""The model that ranks recently labelled transactions better gets the weight; a failing online model gets none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_service.domain.model_weighting import (
    BIN_WIDTH,
    BINS,
    DAYS,
    MIN_LOGIT,
    LabelledScore,
    ModelComparison,
    binned_average_precision,
)

FAST = settings(max_examples=60, deadline=None, derandomize=True)


def days(*each: list[LabelledScore], comparison: ModelComparison | None = None) -> ModelComparison:
    """Add one list per day, from day 100 or after the last day of a comparison."""
    comparison = comparison or ModelComparison()
    first = comparison.histograms[-1].day + 1 if comparison.histograms else 100
    for number, judged in enumerate(each):
        comparison = comparison.with_scores(first + number, judged)
    return comparison


def ranked(pretrained: float, online: float, legitimate: float = -4.0, frauds: int = 70) -> list[LabelledScore]:
    """Make a day of frauds at these logits, among legitimate payments at another and at 1."""
    return [
        *(LabelledScore(pretrained, online, is_fraud=True, weight=1.0) for _ in range(frauds)),
        *(LabelledScore(legitimate, legitimate, is_fraud=False, weight=1.0) for _ in range(500)),
        *(LabelledScore(1.0, 1.0, is_fraud=False, weight=1.0) for _ in range(60)),
    ]


BETTER = ranked(0.0, 3.0)
WORSE = ranked(3.0, 0.0)
EQUAL = ranked(3.0, 3.0)


def test_models_that_rank_equally_well_weigh_the_same():
    assert days(EQUAL, EQUAL).online_weight() == 0.5


def test_without_labels_both_models_weigh_the_same():
    assert ModelComparison().online_weight() == 0.5


def test_fewer_than_twenty_frauds_do_not_change_the_weight():
    assert days(ranked(0.0, 3.0, frauds=19)).online_weight() == 0.5
    assert days(ranked(0.0, 3.0, frauds=20)).online_weight() > 0.99


def test_a_clearly_better_online_model_gets_nearly_all_the_weight():
    assert days(BETTER).online_weight() > 0.99


def test_an_online_model_that_ranks_worse_is_switched_off_until_it_recovers():
    comparison = days(EQUAL, EQUAL, WORSE)
    assert comparison.online_weight() == 0.0
    recovered = days(*[BETTER] * DAYS, comparison=comparison)
    assert recovered.online_weight() > 0.99


def test_one_bad_day_after_many_good_ones_switches_the_online_model_off():
    good = days(*[BETTER] * (DAYS - 1))
    assert days(WORSE, comparison=good).online_weight() == 0.0


def test_a_day_with_few_frauds_is_compared_together_with_the_day_before():
    good = days(*[BETTER] * (DAYS - 2))
    assert days(WORSE, ranked(3.0, 3.0, frauds=2), comparison=good).online_weight() == 0.0


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_an_online_model_that_is_not_finite_is_switched_off_within_a_day(logit):
    failed = [LabelledScore(one.pretrained, logit, one.is_fraud, 1.0) for one in EQUAL]
    assert days(*[EQUAL] * DAYS, failed).online_weight() == 0.0


def test_an_online_model_with_one_score_for_everything_is_switched_off_within_a_day():
    collapsed = [LabelledScore(one.pretrained, -1.0, one.is_fraud, 1.0) for one in EQUAL]
    assert days(*[EQUAL] * DAYS, collapsed).online_weight() == 0.0


def test_a_few_badly_ranked_frauds_early_in_a_day_do_not_switch_the_online_model_off():
    good = days(*[BETTER] * (DAYS - 1))
    assert days(ranked(3.0, 0.0, frauds=25), comparison=good).online_weight() > 0.99


def test_only_the_last_seven_days_count():
    comparison = days(WORSE, *[BETTER] * DAYS)
    assert len(comparison.histograms) == DAYS
    assert comparison == days(*[BETTER] * (DAYS + 1))


def test_a_day_without_labels_changes_nothing():
    comparison = days(BETTER)
    assert comparison.with_scores(101, []) is comparison


@FAST
@given(st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.booleans()), max_size=40), st.integers(0, 40))
def test_the_split_of_a_day_into_boundaries_does_not_matter(drawn, cut):
    judged = [LabelledScore(pretrained, online, is_fraud, 1.0) for pretrained, online, is_fraud in drawn]
    assert days(judged) == ModelComparison().with_scores(100, judged[:cut]).with_scores(100, judged[cut:])


@FAST
@given(st.lists(st.tuples(st.integers(0, BINS - 1), st.booleans()), min_size=1, max_size=80))
def test_binned_average_precision_equals_that_of_scikit_learn(drawn):
    metrics = pytest.importorskip("sklearn.metrics")
    if not any(is_fraud for _, is_fraud in drawn):
        return
    judged = [LabelledScore(MIN_LOGIT + (place + 0.5) * BIN_WIDTH, 0.0, is_fraud, 1.0) for place, is_fraud in drawn]
    (histogram,) = days(judged).histograms
    expected = metrics.average_precision_score([f for _, f in drawn], [place for place, _ in drawn])
    assert binned_average_precision([histogram.pretrained_frauds], [histogram.pretrained_legitimate]) == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    ("logit", "is_fraud", "weight", "sure"),
    [
        (-6.3, False, 1.0, True),
        (-6.1, False, 1.0, False),
        (6.3, True, 1.0, True),
        (-9.0, True, 1.0, False),
        (-6.3, False, 4.0, False),
        (-7.7, False, 4.0, True),
        (math.nan, False, 1.0, False),
    ],
)
def test_only_a_correct_and_certain_score_is_uninformative(logit, is_fraud, weight, sure):
    assert LabelledScore(0.0, logit, is_fraud, weight).is_uninformative() is sure
