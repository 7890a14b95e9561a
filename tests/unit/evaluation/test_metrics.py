"""Metrics: equal to those of scikit-learn and to a slow card precision, and None where the data is not enough."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import DAY, HOUR, MONDAY

pytest.importorskip("sklearn")

from sklearn import metrics

from fraud_service.domain.decision import Policy
from fraud_service.evaluation.alerts import Scores
from fraud_service.evaluation.metrics import WEEK, evaluate
from fraud_service.evaluation.ranking import card_precision

FAST = settings(max_examples=60, deadline=None, derandomize=True)
ROWS = st.lists(
    st.tuples(st.integers(0, 20 * 24), st.integers(0, 6), st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])),
    min_size=1,
    max_size=60,
).map(sorted)


def scored(rows, blended=None, **components) -> Scores:
    """Make scores of (hour, card, is_fraud, score)."""
    given = np.array([score for *_, score in rows]) if blended is None else np.array(blended)
    return Scores(
        timestamps=np.array([MONDAY + hour * HOUR for hour, *_ in rows]),
        cards=np.array([card for _, card, *_ in rows]),
        is_fraud=np.array([is_fraud for _, _, is_fraud, _ in rows], dtype=bool),
        is_labelled=np.ones(len(rows), dtype=bool),
        amounts=np.array([10.0 * (place + 1) for place in range(len(rows))]),
        currencies=np.array(["EUR"] * len(rows)),
        components={"blended": given, **components},
        flagged=np.array([score >= 0.5 for *_, score in rows], dtype=bool),
        ids=[f"t{place}" for place in range(len(rows))],
        reasons=["HIGH" if score >= 0.5 else "" for *_, score in rows],
        policy=Policy(review=0.5, decline=0.9),
    )


def slow_card_precision(rows, looked_at: int) -> float:
    """Follow the definition word by word."""
    found, shares = set(), []
    for day in sorted({hour // 24 for hour, *_ in rows}):
        today = [(card, is_fraud, score) for hour, card, is_fraud, score in rows if hour // 24 == day]
        known = {card for card, *_ in today} - found
        highest = {one: max(score for card, _, score in today if card == one) for one in known}
        chosen = sorted(known, key=lambda one: (-highest[one], one))[:looked_at]
        caught = {one for one in chosen if any(is_fraud for card, is_fraud, _ in today if card == one)}
        found |= caught
        shares.append(len(caught) / looked_at)
    return sum(shares) / len(shares)


@FAST
@given(ROWS)
def test_card_precision_equals_its_definition(rows):
    scores = scored(rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fraud_service.evaluation.ranking.CARDS_A_DAY", 3)
        days = scores.timestamps // DAY
        fast = card_precision(days, scores.cards, scores.is_fraud, scores.components["blended"])
    assert fast == pytest.approx(slow_card_precision(rows, 3))


@FAST
@given(ROWS)
def test_ranking_metrics_equal_those_of_scikit_learn(rows):
    scores = scored(rows)
    found = evaluate(scores).components["blended"]
    truth, given_scores = scores.is_fraud, scores.components["blended"]
    if truth.any():
        expected = metrics.average_precision_score(truth, given_scores)
        assert found.average_precision == pytest.approx(expected, abs=1e-6)
    if truth.any() and not truth.all():
        assert found.auc_roc == pytest.approx(metrics.roc_auc_score(truth, given_scores), abs=1e-6)


@FAST
@given(ROWS)
def test_a_metric_that_the_data_does_not_determine_is_none(rows):
    figures = evaluate(scored(rows))
    found = figures.components["blended"]
    assert figures.rows == len(rows) == sum(week.rows for week in found.weeks)
    assert (found.average_precision is None) is (figures.frauds == 0)
    assert (found.auc_roc is None) is (figures.frauds in {0, len(rows)})
    assert sum(found.distribution.legitimate) + sum(found.distribution.frauds) == len(rows)
    assert sum(group.rows for group in found.calibration) == len(rows)


def test_without_transactions_there_are_no_metrics():
    figures = evaluate(scored([]))
    assert (figures.rows, figures.components) == (0, {})


def test_a_score_that_failed_ranks_lowest_and_is_counted():
    rows = [(0, 1, True, 0.9), (1, 2, False, 0.5), (2, 3, True, 0.9)]
    online = evaluate(scored(rows, online=np.array([0.9, 0.5, math.nan]))).components["online"]
    assert online.failed == 1
    assert online.average_precision == pytest.approx((1 + 2 / 3) / 2, abs=1e-6)


def test_weeks_begin_at_midnight_of_the_first_day_and_empty_ones_are_left_out():
    rows = [(5, 1, True, 0.9), (24 * 7 - 1, 2, False, 0.1), (24 * 22, 1, False, 0.1)]
    weeks = evaluate(scored(rows)).components["blended"].weeks
    assert [(week.start, week.rows, week.frauds) for week in weeks] == [(MONDAY, 2, 1), (MONDAY + 3 * WEEK, 1, 0)]


def test_the_operating_point_counts_alerts_and_fraud_amount():
    rows = [(0, 1, True, 0.9), (1, 2, False, 0.6), (25, 3, True, 0.1)]  # amounts 10, 20, 30
    operating = evaluate(scored(rows)).operating
    assert (operating.alerts_a_day, operating.precision, operating.recall) == (1.0, 0.5, 0.5)
    assert operating.value_recall == 0.25


def test_the_sum_of_two_currencies_is_never_formed():
    rows = [(0, 1, True, 0.9), (1, 2, True, 0.1), (2, 3, True, 0.9)]  # amounts 10, 20, 30
    mixed = msgspec.structs.replace(scored(rows), currencies=np.array(["JPY", "EUR", "EUR"]))
    figures = evaluate(mixed)
    assert figures.operating.value_recall is None
    assert {name: (one.frauds, one.caught, one.share) for name, one in figures.operating.money.items()} == {
        "EUR": (50.0, 30.0, 0.6),
        "JPY": (10.0, 10.0, 1.0),
    }
    assert list(figures.largest) == ["EUR", "JPY"]
    assert [one.transaction_id for one in figures.largest["EUR"].caught] == ["t2"]
    assert [one.transaction_id for one in figures.largest["EUR"].missed] == ["t1"]


def test_a_payment_without_a_label_counts_only_as_an_alert():
    rows = [(0, 1, True, 0.9), (1, 2, False, 0.6), (2, 3, False, 0.9), (3, 4, True, 0.1)]
    figures = evaluate(msgspec.structs.replace(scored(rows), is_labelled=np.array([True, True, False, True])))
    assert (figures.rows, figures.unlabelled, figures.frauds) == (3, 1, 2)
    found = figures.operating
    assert (found.alerts, found.unlabelled, found.caught, found.cards_bothered) == (3, 1, 1, 1)
    assert (found.precision, found.recall) == (0.5, 0.5)


def test_without_any_label_only_alerts_are_counted():
    rows = [(0, 1, False, 0.9), (1, 2, False, 0.6)]
    figures = evaluate(msgspec.structs.replace(scored(rows), is_labelled=np.zeros(2, dtype=bool)))
    assert (figures.rows, figures.components, figures.thresholds, figures.largest) == (0, {}, [], {})
    assert (figures.operating.alerts, figures.operating.precision) == (2, None)


@FAST
@given(ROWS)
def test_the_row_of_the_review_threshold_is_the_alerts_of_the_policy(rows):
    figures = evaluate(scored(rows))
    of = {one.setting: one for one in figures.thresholds}
    assert of["review"] == figures.operating
    thresholds = [one.threshold for one in figures.thresholds]
    assert thresholds == sorted(thresholds) == [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98]
    assert of["decline"].threshold == 0.9


def test_an_alert_of_a_reused_id_stays_at_each_threshold():
    scores = scored([(0, 1, True, 0.1), (1, 2, False, 0.9)])
    reviewed = msgspec.structs.replace(scores, flagged=np.array([True, True]))
    assert [one.caught for one in evaluate(reviewed).thresholds] == [1] * 9


def test_groups_of_the_calibration_are_bands_of_the_score():
    rows = [(0, 1, False, 0.0), (1, 2, False, 0.005), (2, 3, True, 0.6), (3, 4, False, 0.5), (4, 5, True, 1.0)]
    groups = evaluate(scored(rows)).components["blended"].calibration
    assert [(one.low, one.high, one.rows, one.fraud_share) for one in groups] == [
        (0.0, 0.01, 2, 0.0),
        (0.5, 0.7, 2, 0.5),
        (0.9, 1.0, 1, 1.0),
    ]


def test_more_alerts_find_no_less_fraud():
    rng = np.random.default_rng(1)
    rows = sorted((int(hour), int(hour) % 50, bool(rng.random() < 0.1), float(rng.random())) for hour in range(400))
    volume = evaluate(scored(rows)).components["blended"].volume
    assert [one.recall for one in volume] == sorted(one.recall for one in volume)
    assert [one.threshold for one in volume] == sorted((one.threshold for one in volume), reverse=True)
