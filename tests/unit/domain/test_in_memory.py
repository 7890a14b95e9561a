"""The service in memory: no label takes effect early, and a history gives the same assessments in any parts."""

from __future__ import annotations

from functools import cache

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import DAY, HOUR, MINUTE, MONDAY, LinearModel, online_model, transaction

from fraud_service.domain.decision import Policy
from fraud_service.domain.snapshot import UNTRAINED

pytest.importorskip("pyarrow")

from support.simulated import rehearsal, simulated

from fraud_service.domain.events import LabelledTransaction
from fraud_service.domain.in_memory import InMemoryService

FEW = settings(max_examples=12, deadline=None, derandomize=True)
LEAD = 15 * MINUTE
WATCHFUL = Policy(review=0.05, decline=0.5)


def model():
    """Return a model of amounts and of the label counts of merchants and cards."""
    return LinearModel(base=-4.0, amount=2.0, merchant_fraud_share_30d=300.0, card_frauds_30d=100.0)


def begun(policy=WATCHFUL):
    return rehearsal(model(), online_model(), policy)


def played(history):
    return list(begun().run(history))


@cache
def world():
    return simulated(seed=2, cards=20, merchants=40, days=16)


@cache
def assessments():
    return played(world())


def event(name, timestamp, known=None, **facts):
    """Make a payment, with a fraud label if `known` is the time at which it became known."""
    return LabelledTransaction(
        transaction(name, timestamp, card_id=f"card-{name}", **facts), None if known is None else True, known
    )


def in_force_at(assessment):
    return assessment.decision.snapshot


def test_there_is_one_assessment_per_transaction_in_order():
    assert [assessment.transaction for assessment in assessments()] == [event.transaction for event in world()]


def test_two_runs_are_equal():
    assert played(world()) == assessments()


def test_the_test_data_contains_the_cases_of_these_tests():
    assert len({in_force_at(assessment) for assessment in assessments()}) > 100
    assert sum(event.is_fraud for event in world()) > 5
    assert any(assessment.decision.is_flagged and assessment.contributions is not None for assessment in assessments())
    assert assessments()[-1].decision.online_logit != assessments()[-1].decision.pretrained_logit


def test_a_snapshot_becomes_active_exactly_at_its_effective_time():
    boundary = MONDAY + 5 * HOUR
    history = [
        event("defrauded", MONDAY, known=boundary - MINUTE),
        event("a", boundary - 1),
        event("b", boundary),
        event("c", boundary + LEAD - 1),
        event("d", boundary + LEAD),
    ]
    before, *at = played(history)
    assert in_force_at(before) == UNTRAINED
    assert [in_force_at(assessment)[:13] for assessment in at] == ["20231113T0400"] * 3 + ["20231113T0500"]
    assert [assessment.features.merchant_streak for assessment in at] == [0, 0, 0, 1]


@pytest.mark.parametrize(("late", "streak"), [(0, 1), (1, 0)])
def test_a_snapshot_contains_the_labels_known_at_its_boundary_and_none_later(late, streak):
    boundary = MONDAY + 5 * HOUR
    history = [
        event("defrauded", MONDAY, known=boundary + late),
        event("first", MONDAY + HOUR, known=boundary),  # so that there is a snapshot in any case
        event("then", boundary + LEAD, merchant_id="merchant-1"),
    ]
    assert played(history)[-1].features.merchant_streak == 1 + streak


def test_a_label_known_in_the_hour_of_its_transaction_is_in_the_next_snapshot():
    history = [
        event("defrauded", MONDAY + 10 * MINUTE, known=MONDAY + 20 * MINUTE),
        event("then", MONDAY + HOUR + LEAD),
    ]
    assert played(history)[-1].features.merchant_streak == 1


def test_a_label_waits_for_the_next_boundary_through_any_idle_time():
    history = [event("defrauded", MONDAY, known=MONDAY + DAY), event("then", MONDAY + 3 * DAY)]
    assert played(history)[-1].features.merchant_streak == 1


def test_the_decision_names_the_snapshot_that_its_features_used():
    finished = begun()
    for assessment in finished.run(world()):
        view = finished.snapshots.at(assessment.transaction.timestamp)
        assert assessment.decision.snapshot == view.snapshot.version
        assert view.snapshot.label_horizon <= view.snapshot.as_of <= assessment.transaction.timestamp - LEAD or (
            view.snapshot.version == UNTRAINED
        )


def changed(history, index, **facts):
    return [*history[:index], msgspec.structs.replace(history[index], **facts), *history[index + 1 :]]


def untouched_until(history, moment):
    """Return the number of assessments before a label known at this time can be active."""
    boundary = -(-moment // HOUR) * HOUR
    return sum(event.transaction.timestamp < boundary + LEAD for event in history)


@FEW
@given(st.data())
def test_a_later_label_changes_no_earlier_assessment(data):
    history = list(world())
    index = data.draw(st.integers(0, len(history) - 1))
    event = history[index]
    later = data.draw(st.integers(0, 20 * DAY))
    other = data.draw(
        st.sampled_from(
            [
                {"is_fraud": not event.is_fraud},
                {"is_fraud": None, "labelled_at": None},
                {"labelled_at": event.labelled_at + later},
                {"is_fraud": not event.is_fraud, "labelled_at": event.labelled_at + later},
            ]
        )
    )
    same = untouched_until(history, event.labelled_at)
    assert played(changed(history, index, **other))[:same] == assessments()[:same]


@FEW
@given(st.integers(0, 15 * DAY))
def test_the_opposite_of_all_later_labels_changes_no_earlier_assessment(offset):
    history, moment = world(), world()[0].transaction.timestamp + offset
    opposite = [
        msgspec.structs.replace(event, is_fraud=not event.is_fraud) if event.labelled_at > moment else event
        for event in history
    ]
    same = untouched_until(history, moment)
    assert played(opposite)[:same] == assessments()[:same]


@FEW
@given(st.data())
def test_later_transactions_change_no_earlier_assessment(data):
    cut = data.draw(st.integers(0, len(world())))
    assert played(world()[:cut]) == assessments()[:cut]


def test_a_label_changes_later_assessments():
    history = world()
    index = next(n for n, event in enumerate(history) if event.is_fraud)
    same = untouched_until(history, history[index].labelled_at)
    other = played(changed(history, index, is_fraud=False))
    assert other[:same] == assessments()[:same]
    assert other[same:] != assessments()[same:]


@FEW
@given(st.data())
def test_a_history_in_two_parts_equals_one_run(data):
    cut = data.draw(st.integers(0, len(world())))
    finished = begun()
    first = list(finished.run(world()[:cut]))
    assert first + list(finished.run(world()[cut:])) == assessments()


def test_an_empty_history_changes_nothing():
    finished = begun()
    assert list(finished.run([])) == []
    assert finished.progress.closed == -1
    assert list(finished.run(world()[:50])) == assessments()[:50]


def test_a_label_without_a_time_becomes_known_after_the_delay():
    undated = LabelledTransaction(transaction("t1", MONDAY), is_fraud=True, labelled_at=None)
    before, after = MONDAY + 7 * DAY + LEAD - 1, MONDAY + 7 * DAY + LEAD
    history = [undated, event("before", before), event("after", after)]
    assert [assessment.features.merchant_streak for assessment in played(history)] == [0, 0, 1]


def test_a_duplicate_gets_the_first_decision_and_is_trained_once():
    frauds = [event(f"f{n}", MONDAY + n, known=MONDAY + HOUR) for n in range(3)]
    last = event("last", MONDAY + 2 * HOUR)
    once, twice = played([*frauds, last]), played([*frauds, *frauds, last])
    assert [assessment.is_duplicate for assessment in twice] == [False] * 3 + [True] * 3 + [False]
    assert [assessment.decision for assessment in twice[3:6]] == [assessment.decision for assessment in once[:3]]
    assert twice[-1].features == once[-1].features


def test_payments_under_one_id_with_labels_of_one_instant_are_all_trained():
    uses = [event("f", MONDAY + n, known=MONDAY + HOUR, amount=10.0 + n, merchant_id="m") for n in range(3)]
    unlike = [msgspec.structs.replace(uses[1], is_fraud=False), *uses[2:]]
    last = event("last", MONDAY + 2 * HOUR, merchant_id="m")
    assessments = played([uses[0], *unlike, last])
    assert [assessment.is_duplicate for assessment in assessments] == [False] * 4
    assert [assessment.decision.is_id_reused for assessment in assessments] == [False, True, True, False]
    assert assessments[-1].features.merchant_labelled_1d == 3


def test_a_gap_of_centuries_closes_no_boundary_that_changes_nothing():
    closed = []
    soon = [event("defrauded", MONDAY, known=MONDAY + HOUR), event("soon", MONDAY + 3 * HOUR, merchant_id="m2")]
    history = [*soon, event("far", MONDAY + 400 * 365 * DAY)]
    finished = begun()
    far = list(finished.run([*history, event("next", MONDAY + 400 * 365 * DAY + HOUR)], closed.append))[-1]
    assert len(closed) < 61 * 24
    assert finished.progress.closed == (MONDAY + 400 * 365 * DAY + HOUR) // HOUR
    assert far.features.merchant_streak == 1


def test_skipping_a_silence_gives_the_state_of_closing_each_boundary(monkeypatch):
    history = [
        event("defrauded", MONDAY, known=MONDAY + HOUR),
        event("late", MONDAY + HOUR, known=MONDAY + 150 * DAY),
        *(event(f"p{n}", MONDAY + 200 * DAY + n * HOUR, known=MONDAY + 201 * DAY) for n in range(40)),
    ]
    skipping, counted = begun(), []
    skipped = list(skipping.run(history, counted.append))
    monkeypatch.setattr(InMemoryService, "_skip_silence", lambda *_: None)
    closing, all_of_them = begun(), []
    assert list(closing.run(history, all_of_them.append)) == skipped
    assert closing.progress == skipping.progress
    assert len(counted) < len(all_of_them) - 80 * 24


def test_a_first_transaction_of_a_wrong_time_does_not_start_the_schedule_as_in_the_learner():
    closed = []
    history = [event("placeholder", MONDAY - 20 * 365 * DAY), *(event(f"p{n}", MONDAY + n * HOUR) for n in range(3))]
    finished = begun()
    list(finished.run(history, closed.append))
    assert [result.as_of for result in closed] == [MONDAY, MONDAY + HOUR, MONDAY + 2 * HOUR]
    assert finished.progress.start == MONDAY // HOUR - 1
    list(finished.run([event("far", MONDAY + 400 * 365 * DAY)], closed.append))
    assert len(closed) < 70 * 24
