from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import (
    DAY,
    HOUR,
    MINUTE,
    MONDAY,
    BrokenModel,
    LinearModel,
    UndecidedModel,
    online_model,
    snapshot,
    transaction,
)

from fraud_service.domain.decision import NO_MODEL, Decision, Outcome, Policy
from fraud_service.domain.detector import Assessment, Detector
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.reasons import (
    CODES,
    MIN_CONTRIBUTION,
    OVERALL_PATTERN,
    reasons,
)
from fraud_service.domain.records import (
    alert_id,
    alert_record,
    decode_score,
    encode_record,
    score_record,
)
from fraud_service.domain.risk import NO_RISK, encode_risk, merchant_key
from fraud_service.domain.scoring import NEUTRAL_LOGIT, blend, probability
from fraud_service.domain.snapshot import SnapshotStore, untrained

if TYPE_CHECKING:
    from fraud_service.domain.online_model import OnlineModel
    from fraud_service.domain.scoring import Contributions

FAST = settings(max_examples=80, deadline=None, derandomize=True)
WARY = Policy(review=0.0, decline=0.9)
SUSPICIOUS = {"amount": 2.0, "count_1h": 40.0, "merchant_streak": 30.0, "is_new_country": 300.0, "card_age_days": -8.0}


def empty_store() -> SnapshotStore:
    return SnapshotStore(untrained("model-1", online_model()))


def trained_store(online: OnlineModel, online_weight: float = 0.5) -> SnapshotStore:
    """Return a store with one snapshot, active from Monday on, in which merchant-1 has frauds."""
    snapshots = empty_store()
    row = NO_RISK.with_label(MONDAY - HOUR, MONDAY - DAY, is_fraud=True, amount_is_anomalous=False)
    rows: dict[str, bytes | None] = {merchant_key("merchant-1"): encode_risk(row)}
    newest = snapshot(MONDAY - HOUR // 4, rows, {}, online=online, online_weight=online_weight)
    snapshots.receive_snapshot(newest)
    for key, value in rows.items():
        snapshots.receive_risk(newest.version, key, value)
    snapshots.apply_received()
    assert snapshots.newest == newest
    return snapshots


def total(explanation: Contributions) -> float:
    return explanation.base + sum(explanation.features.values())


def logit(score: float) -> float:
    return math.log(score) - math.log1p(-score)


WEIGHTS = st.lists(st.floats(-0.3, 0.3), min_size=len(NAMES), max_size=len(NAMES)).map(tuple)
ONLINE = st.builds(
    lambda weights, leaf_weights, pretrained_weight, intercept: online_model(
        weights=weights, leaf_weights=leaf_weights, pretrained_weight=pretrained_weight, intercept=intercept
    ),
    WEIGHTS,
    st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    st.floats(-0.5, 1.5),
    st.floats(-2, 2),
)
PAYMENTS = st.lists(
    st.builds(
        lambda number, card, minutes, cents, country: transaction(
            f"t{number}",
            MONDAY + minutes * MINUTE,
            card_id=f"card-{card}",
            merchant_id=f"merchant-{number % 3}",
            amount=cents / 100,
            country=country,
        ),
        st.integers(0, 12),
        st.integers(0, 2),
        st.integers(-60, 3000),
        st.integers(0, 50_000),
        st.sampled_from([None, "DE", "FR"]),
    ),
    min_size=8,
    max_size=40,
)


def cut(payments: list, places: list[int]) -> list[list]:
    edges = [0, *sorted(place % (len(payments) + 1) for place in places), len(payments)]
    return [payments[start:end] for start, end in itertools.pairwise(edges)]


@FAST
@given(PAYMENTS, st.lists(st.integers(0, 40), max_size=6), ONLINE)
def test_the_split_into_batches_changes_neither_assessments_nor_profiles(payments, places, online):
    detector, snapshots = Detector(LinearModel(**SUSPICIOUS), WARY), trained_store(online)
    whole: dict[str, Profile] = {}
    assessments = detector.assess(payments, whole, snapshots)
    stored: dict[str, bytes] = {}
    in_parts: list[Assessment] = []
    for part in cut(payments, places):  # between two batches, profiles lie in the store as bytes
        profiles = {card: decode_profile(data) for card, data in stored.items()}
        in_parts += detector.assess(part, profiles, snapshots)
        stored = {card: encode_profile(profile) for card, profile in profiles.items()}
    assert in_parts == assessments
    assert stored == {card: encode_profile(profile) for card, profile in whole.items()}


def test_the_pretrained_model_gets_one_batch_without_duplicates():
    model = LinearModel()
    detector = Detector(model, Policy())
    detector.assess([transaction("a"), transaction("b"), transaction("a")], {}, empty_store())
    assert model.batches == [2]


def test_an_empty_batch_calls_no_model():
    model = LinearModel()
    assert Detector(model, Policy()).assess([], {}, empty_store()) == []
    assert model.batches == []


@FAST
@given(PAYMENTS, ONLINE)
def test_a_duplicate_gets_the_first_decision_and_does_not_change_the_profile(payments, online):
    payments = list({payment.transaction_id: payment for payment in payments}.values())
    profiles: dict[str, Profile] = {}
    first = Detector(LinearModel(**SUSPICIOUS), WARY).assess(payments, profiles, trained_store(online))
    before = {card: encode_profile(profile) for card, profile in profiles.items()}
    other = Detector(LinearModel(base=5.0), Policy(0.0, 0.0))  # meanwhile everything else has changed
    again = other.assess(payments[::-1], profiles, empty_store())[::-1]
    assert [assessment.decision for assessment in again] == [assessment.decision for assessment in first]
    assert all(assessment.is_duplicate and assessment.contributions is None for assessment in again)
    assert {card: encode_profile(profile) for card, profile in profiles.items()} == before


def test_a_duplicate_within_a_batch_gets_the_decision_of_the_first():
    profiles: dict[str, Profile] = {}
    payment = transaction(amount=900.0)
    detector = Detector(LinearModel(**SUSPICIOUS), WARY)
    assessments = detector.assess([payment, payment, transaction("t2"), payment], profiles, empty_store())
    assert [assessment.is_duplicate for assessment in assessments] == [False, True, False, True]
    assert assessments[1].decision == assessments[3].decision == assessments[0].decision
    assert profiles["card-1"].count == 2


def test_the_same_transaction_id_on_another_card_is_another_transaction():
    assessments = Detector(LinearModel(), Policy()).assess(
        [transaction(), transaction(card_id="card-2")], {}, empty_store()
    )
    assert not any(assessment.is_duplicate for assessment in assessments)


def test_a_duplicate_is_recognised_among_the_last_sixteen_of_its_card():
    detector, profiles = Detector(LinearModel(), Policy()), dict[str, Profile]()
    detector.assess([transaction(f"t{number}") for number in range(16)], profiles, empty_store())
    assert detector.assess([transaction("t0")], profiles, empty_store())[0].is_duplicate
    detector.assess([transaction("t16")], profiles, empty_store())
    assert not detector.assess([transaction("t0")], profiles, empty_store())[0].is_duplicate


@FAST
@given(PAYMENTS, ONLINE, st.floats(0, 1), st.sampled_from([LinearModel, BrokenModel, UndecidedModel]))
def test_contributions_add_up_to_the_logit_of_the_score(payments, online, share, kind):
    assessments = Detector(kind(**SUSPICIOUS), WARY).assess(payments, {}, trained_store(online, share))
    explained = [
        assessment
        for assessment in assessments
        if not assessment.is_duplicate and NO_MODEL not in assessment.decision.reasons
    ]
    for assessment in explained:
        assert assessment.contributions is not None
        assert total(assessment.contributions) == pytest.approx(logit(assessment.decision.score), abs=1e-6)


def test_contributions_add_up_when_a_logit_is_limited():
    assessment = Detector(LinearModel(), WARY).assess(
        [transaction()], {}, trained_store(online_model(intercept=50.0), 0.2)
    )[0]
    assert assessment.contributions is not None
    assert total(assessment.contributions) == pytest.approx(logit(assessment.decision.score), abs=1e-6)


@FAST
@given(PAYMENTS, ONLINE)
def test_only_flagged_transactions_are_explained(payments, online):
    policy = Policy(review=0.05, decline=0.5)
    for assessment in Detector(LinearModel(**SUSPICIOUS), policy).assess(payments, {}, trained_store(online)):
        assert assessment.decision.is_flagged == (
            assessment.decision.score >= policy.review or assessment.decision.is_id_reused
        )
        if not assessment.is_duplicate:
            assert (assessment.contributions is not None) == assessment.decision.is_flagged
        if not assessment.decision.is_flagged:
            assert assessment.decision.reasons == ()


def test_if_the_pretrained_score_is_not_a_number_the_online_model_decides():
    online = online_model(intercept=1.0, pretrained_weight=0.5)
    decision = (
        Detector(UndecidedModel(prior=-4.0), Policy())
        .assess([transaction()], {}, trained_store(online, 0.1))[0]
        .decision
    )
    assert decision.pretrained_logit is None
    assert decision.online_logit == 1.0 + 0.5 * -4.0  # the prior replaces the missing logit
    assert decision.online_weight == 1.0
    assert decision.score == probability(-1.0)


def test_if_the_online_score_is_not_a_number_the_pretrained_model_decides():
    online = online_model(intercept=math.nan)
    snapshots = SnapshotStore(untrained("model-1", online))
    decision = Detector(LinearModel(base=-1.5), Policy()).assess([transaction()], {}, snapshots)[0].decision
    assert decision.online_logit is None
    assert decision.pretrained_logit == -1.5
    assert decision.online_weight == 0.0
    assert decision.score == probability(-1.5)


@pytest.mark.parametrize(
    "online", [online_model(leaf_weights=()), online_model(weights=(0.0,))], ids=["no leaves", "short"]
)
def test_if_the_online_model_raises_the_pretrained_model_decides(online):
    snapshots = SnapshotStore(untrained("model-1", online))
    decision = Detector(LinearModel(base=-1.5), Policy()).assess([transaction()], {}, snapshots)[0].decision
    assert decision.online_logit is None
    assert decision.score == probability(-1.5)


def test_the_online_model_cannot_decide_without_encoded_inputs():
    decision = Detector(BrokenModel(), Policy()).assess([transaction()], {}, trained_store(online_model()))[0].decision
    assert decision.pretrained_logit is decision.online_logit is None
    assert decision.outcome is Outcome.REVIEW


@pytest.mark.parametrize("kind", [BrokenModel, UndecidedModel])
@pytest.mark.parametrize("policy", [Policy(), Policy(1.0, 1.0), Policy(0.0, 0.0)])
def test_without_any_score_the_transaction_is_reviewed(kind, policy):
    snapshots = SnapshotStore(untrained("model-1", online_model(intercept=math.nan)))
    assessment = Detector(kind(prior=-4.0), policy).assess([transaction()], {}, snapshots)[0]
    assert assessment.decision.outcome is Outcome.REVIEW
    assert assessment.decision.reasons == (NO_MODEL,)
    assert assessment.decision.pretrained_logit is assessment.decision.online_logit is None
    assert assessment.decision.score == probability(-4.0)
    record = score_record(assessment)
    assert decode_score(encode_record(record)) == record
    assert alert_record(assessment).contributions == {}


class PickyModel(LinearModel):
    """Raises for one amount."""

    def logits(self, rows):
        if any(row.amount == 13.0 for row in rows):
            raise ValueError("thirteen")
        return super().logits(rows)


def test_a_row_that_breaks_the_pretrained_model_does_not_affect_other_rows():
    payments = [transaction("t1", amount=12.0), transaction("t2", amount=13.0)]
    detector = Detector(PickyModel(), Policy())
    together = detector.assess(payments, {}, empty_store())
    profiles: dict[str, Profile] = {}
    apart = [assessment for payment in payments for assessment in detector.assess([payment], profiles, empty_store())]
    assert together == apart


class SilentModel(LinearModel):
    """Scores, but raises when it should explain."""

    def logits(self, rows):
        return [self.base] * len(rows)

    def contributions(self, row):
        raise RuntimeError(f"cannot explain {row.amount}")


def test_a_decision_is_kept_when_its_explanation_fails():
    assessment = Detector(SilentModel(base=2.0), Policy()).assess([transaction()], {}, empty_store())[0]
    assert assessment.decision.outcome is Outcome.REVIEW
    assert assessment.contributions is None


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_logit_counts_as_a_failure(value):
    assert blend(value, -1.0, 0.3, -4.0) == blend(math.nan, -1.0, 0.3, -4.0)
    assert blend(-1.0, value, 0.3, -4.0) == blend(-1.0, math.nan, 0.3, -4.0)


def test_the_online_model_has_its_full_weight_where_either_model_sees_risk():
    for pair in ((3.0, -9.0), (-9.0, 3.0)):
        assert 0.4995 < blend(*pair, 0.5, -4.0).online_weight <= 0.5


@given(st.floats(-30, NEUTRAL_LOGIT), st.floats(-30, NEUTRAL_LOGIT), st.floats(0, 1))
def test_the_pretrained_model_ranks_where_neither_model_sees_risk(pretrained, online, weight):
    result = blend(pretrained, online, weight, -4.0)
    assert result.online_weight <= weight / 2
    lower, higher = sorted((pretrained, online))
    assert probability(lower) <= result.score <= probability(higher)


@given(st.floats(-30, 30), st.floats(-30, 30), st.floats(0, 1), st.floats(0, 5))
def test_more_online_risk_never_lowers_a_score(pretrained, online, weight, more):
    before, after = (blend(pretrained, logit, weight, -4.0).score for logit in (online, online + more))
    assert after >= before - 1e-12


@FAST
@given(PAYMENTS, st.floats(-40, 40))
def test_the_untrained_snapshot_gives_exactly_the_pretrained_score(payments, base):
    for assessment in Detector(LinearModel(base=base, **SUSPICIOUS), Policy()).assess(payments, {}, empty_store()):
        assert assessment.decision.pretrained_logit is not None
        assert assessment.decision.score == probability(assessment.decision.pretrained_logit)
        assert assessment.decision.snapshot == "untrained"
        assert not assessment.decision.is_stale


def test_each_transaction_is_scored_with_the_snapshot_of_its_event_time():
    snapshots, table = empty_store(), dict[str, bytes]()
    for hour in (1, 2, 4):
        newest = snapshot(MONDAY + hour * HOUR, {}, table, online=online_model(intercept=float(hour)))
        snapshots.receive_snapshot(newest)
    snapshots.apply_received()
    used = {}
    for minutes in (0, 74, 75, 134, 135, 194, 195, 254, 255, 315):
        payment = transaction(f"t{minutes}", MONDAY + minutes * MINUTE)
        decision = Detector(LinearModel(base=-1.0), Policy()).assess([payment], {}, snapshots)[0].decision
        used[minutes] = decision.online_logit + 1.0, decision.is_stale
    # In force a quarter past the hour; the one of three o'clock is missing, so that of two o'clock goes stale.
    assert used == {
        0: (0, False),
        74: (0, False),
        75: (1, False),
        134: (1, False),
        135: (2, False),
        194: (2, False),
        195: (2, True),
        254: (2, True),
        255: (4, False),
        315: (4, True),
    }


def test_a_late_transaction_sees_no_label_that_was_unknown_at_its_time():
    snapshots = trained_store(online_model())
    late, punctual = transaction("t1", MONDAY - 1), transaction("t2", MONDAY)
    assessments = Detector(LinearModel(), Policy()).assess([punctual, late], {}, snapshots)
    assert [assessment.features.merchant_streak for assessment in assessments] == [1.0, 0.0]
    assert [assessment.decision.snapshot for assessment in assessments] == [snapshots.newest.version, "untrained"]


@FAST
@given(PAYMENTS, ONLINE)
def test_reasons_come_strongest_first_and_without_negligible_ones(payments, online):
    for assessment in Detector(LinearModel(**SUSPICIOUS), WARY).assess(payments, {}, trained_store(online)):
        if assessment.contributions is None:
            continue
        marks = int(assessment.decision.is_id_reused)
        given_reasons = assessment.decision.reasons[marks:]
        by_code = {
            code: sum(assessment.contributions.features[name] for name in names)
            for code, (_, names, _) in CODES.items()
        } | {OVERALL_PATTERN: sum(assessment.contributions.features.values())}
        worth = [reason.contribution for reason in given_reasons]
        assert worth == sorted(worth, reverse=True)
        assert all(reason.contribution == by_code[reason.code] >= MIN_CONTRIBUTION for reason in given_reasons)
        record = alert_record(assessment)
        assert record.base + sum(worth) + record.rest == pytest.approx(logit(record.score), abs=1e-6)


@FAST
@given(PAYMENTS, ONLINE)
def test_every_reason_reads_as_a_sentence_about_the_transaction(payments, online):
    for assessment in Detector(LinearModel(), Policy()).assess(payments, {}, trained_store(online)):
        if assessment.features is not None:
            texts = [
                reasons(assessment.transaction, assessment.features, {name: float(name in names) for name in NAMES})
                for _, names, _ in CODES.values()
            ]
            for (reason,) in texts:
                assert reason.text
                assert "nan" not in reason.text


def test_a_score_at_a_threshold_gets_the_stricter_outcome():
    policy = Policy(review=0.3, decline=0.9)
    assert [policy.outcome(score) for score in (0.0, 0.2999, 0.3, 0.8999, 0.9, 1.0)] == [
        Outcome.APPROVE,
        Outcome.APPROVE,
        Outcome.REVIEW,
        Outcome.REVIEW,
        Outcome.DECLINE,
        Outcome.DECLINE,
    ]


@FAST
@given(PAYMENTS, ONLINE)
def test_score_records_keep_every_bit(payments, online):
    for assessment in Detector(LinearModel(**SUSPICIOUS), WARY).assess(payments, {}, trained_store(online)):
        record = score_record(assessment)
        assert decode_score(encode_record(record)) == record
        assert record.is_duplicate == (record.features is None)
        if not assessment.is_duplicate:
            alert = msgspec.json.decode(encode_record(alert_record(assessment)))
            total = alert["base"] + sum(alert["contributions"].values())
            assert total == pytest.approx(logit(record.score), abs=1e-6)


def test_duplicates_have_the_same_alert_id():
    assert alert_id(transaction()) == alert_id(transaction(device_id="d", country="FR", ip="192.0.2.1"))


@pytest.mark.parametrize(
    "facts",
    [
        {"transaction_id": "t2"},
        {"card_id": "card-2"},
        {"merchant_id": "merchant-2"},
        {"amount": 9.0},
        {"timestamp": MONDAY + 1},
        {"currency": "USD"},
    ],
)
def test_another_payment_has_another_alert_id(facts):
    assert alert_id(transaction(**facts)) != alert_id(transaction())


def test_separators_in_ids_do_not_make_two_alert_ids_equal():
    moved = [transaction("a/1/b", card_id="c"), transaction("b", card_id="c/1/a"), transaction("a", card_id="c/5/b")]
    assert len({alert_id(one) for one in moved}) == len(moved)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"transaction_id": 1}'])
def test_bytes_that_are_not_a_score_record_are_rejected(data):
    with pytest.raises(InvalidRecord, match="scores topic"):
        decode_score(data)


def test_a_profile_that_lacks_the_decision_on_its_transaction_is_a_bug():
    profile = Profile()
    profile.update(transaction())
    with pytest.raises(AssertionError, match="no decision on a transaction"):
        Detector(LinearModel(), Policy()).assess([transaction()], {"card-1": profile}, empty_store())


def test_a_decision_survives_the_store():
    decision = Decision(
        Outcome.REVIEW, 0.5, None, 0.1, 1.0, "model-1", "untrained", is_stale=False, reasons=(NO_MODEL,)
    )
    profile = Profile()
    profile.update(transaction())
    profile.add_decision(decision)
    assert decode_profile(encode_profile(profile)).decision(1) == decision
