"""The contest of the components: whoever ranks recent labels better gets the weight, and a failing one gets none."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_service.domain.model_weighting import (
    BINS,
    DAYS,
    LOWEST,
    WIDTH,
    LabelledScore,
    ModelComparison,
    binned_average_precision,
)

FAST = settings(max_examples=60, deadline=None, derandomize=True)


def days(*each: list[LabelledScore], contest: ModelComparison | None = None) -> ModelComparison:
    """Judge one list a day, from day 100 or after the days of a contest."""
    contest = contest or ModelComparison()
    first = contest.tallies[-1].day + 1 if contest.tallies else 100
    for number, judged in enumerate(each):
        contest = contest.after(first + number, judged)
    return contest


def ranked(pretrained: float, online: float, genuine: float = -4.0, frauds: int = 70) -> list[LabelledScore]:
    """Make a day of frauds at these logits, among genuine payments at another and at 1."""
    return [
        *(LabelledScore(pretrained, online, is_fraud=True, weight=1.0) for _ in range(frauds)),
        *(LabelledScore(genuine, genuine, is_fraud=False, weight=1.0) for _ in range(500)),
        *(LabelledScore(1.0, 1.0, is_fraud=False, weight=1.0) for _ in range(60)),
    ]


BETTER = ranked(0.0, 3.0)
WORSE = ranked(3.0, 0.0)
EQUAL = ranked(3.0, 3.0)


def test_equal_components_share_equally():
    assert days(EQUAL, EQUAL).online_weight() == 0.5


def test_without_labels_they_share_equally():
    assert ModelComparison().online_weight() == 0.5


def test_a_few_frauds_decide_nothing():
    assert days(ranked(0.0, 3.0, frauds=19)).online_weight() == 0.5
    assert days(ranked(0.0, 3.0, frauds=20)).online_weight() > 0.99


def test_the_component_that_ranks_better_gets_nearly_all_the_weight():
    assert days(BETTER).online_weight() > 0.99


def test_an_online_model_that_ranks_worse_is_switched_off_and_comes_back_when_it_recovers():
    contest = days(EQUAL, EQUAL, WORSE)
    assert contest.online_weight() == 0.0
    recovered = days(*[BETTER] * DAYS, contest=contest)
    assert recovered.online_weight() > 0.99


def test_one_bad_day_after_many_good_ones_switches_it_off():
    good = days(*[BETTER] * (DAYS - 1))
    assert days(WORSE, contest=good).online_weight() == 0.0


def test_a_day_that_has_just_begun_is_judged_together_with_the_one_before():
    good = days(*[BETTER] * (DAYS - 2))
    assert days(WORSE, ranked(3.0, 3.0, frauds=2), contest=good).online_weight() == 0.0


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_an_online_model_that_is_not_finite_is_switched_off_within_a_day(logit):
    failed = [LabelledScore(one.pretrained, logit, one.is_fraud, 1.0) for one in EQUAL]
    assert days(*[EQUAL] * DAYS, failed).online_weight() == 0.0


def test_an_online_model_that_says_the_same_of_everything_is_switched_off_within_a_day():
    collapsed = [LabelledScore(one.pretrained, -1.0, one.is_fraud, 1.0) for one in EQUAL]
    assert days(*[EQUAL] * DAYS, collapsed).online_weight() == 0.0


def test_a_few_unlucky_frauds_of_a_day_that_has_just_begun_switch_nothing_off():
    good = days(*[BETTER] * (DAYS - 1))
    assert days(ranked(3.0, 0.0, frauds=25), contest=good).online_weight() > 0.99


def test_only_the_last_days_count():
    contest = days(WORSE, *[BETTER] * DAYS)
    assert len(contest.tallies) == DAYS
    assert contest == days(*[BETTER] * (DAYS + 1))


def test_a_day_without_labels_changes_nothing():
    contest = days(BETTER)
    assert contest.after(101, []) is contest


@FAST
@given(st.lists(st.tuples(st.floats(-40, 40), st.floats(-40, 40), st.booleans()), max_size=40), st.integers(0, 40))
def test_how_a_day_is_cut_into_hours_does_not_matter(drawn, cut):
    judged = [LabelledScore(pretrained, online, is_fraud, 1.0) for pretrained, online, is_fraud in drawn]
    assert days(judged) == ModelComparison().after(100, judged[:cut]).after(100, judged[cut:])


@FAST
@given(st.lists(st.tuples(st.integers(0, BINS - 1), st.booleans()), min_size=1, max_size=80))
def test_average_precision_is_that_of_scikit_learn_where_each_bin_is_one_score(drawn):
    metrics = pytest.importorskip("sklearn.metrics")
    if not any(is_fraud for _, is_fraud in drawn):
        return
    judged = [LabelledScore(LOWEST + (place + 0.5) * WIDTH, 0.0, is_fraud, 1.0) for place, is_fraud in drawn]
    (tally,) = days(judged).tallies
    expected = metrics.average_precision_score([f for _, f in drawn], [place for place, _ in drawn])
    assert binned_average_precision([tally.pretrained_frauds], [tally.pretrained_genuine]) == pytest.approx(expected)


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
def test_only_what_the_online_model_was_right_about_without_doubt_teaches_nothing(logit, is_fraud, weight, sure):
    assert LabelledScore(0.0, logit, is_fraud, weight).is_uninformative() is sure
