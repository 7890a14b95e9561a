"""A reused transaction id with other content is another payment, and is scored."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import DAY, MINUTE, MONDAY, LinearModel, online_model, transaction

from fraud_service.domain import profile as profiles_module
from fraud_service.domain.decision import ID_REUSED, NO_MODEL, Outcome, Policy
from fraud_service.domain.detector import Assessment, Detector
from fraud_service.domain.events import Transaction, decode_transaction, facts
from fraud_service.domain.features import extract
from fraud_service.domain.profile import (
    NOT_LEGACY,
    RECENT,
    SCHEMA,
    UNKNOWN_CURRENCY,
    Profile,
    decode_profile,
    encode_profile,
    fingerprint,
    fingerprint32,
)
from fraud_service.domain.reasons import MAX_REASONS
from fraud_service.domain.records import ScoreRecord, decode_score, encode_record, score_record
from fraud_service.domain.risk import NO_RISK
from fraud_service.domain.snapshot import SnapshotStore, untrained

pytestmark = pytest.mark.attack

FAST = settings(max_examples=150, deadline=None, derandomize=True)
LENIENT = Policy(review=1.0, decline=1.0)  # approves whatever a model says
OF_SCHEMA = {n: json.loads((Path(__file__).parent / f"profile_v{n}.json").read_text()) for n in (4, 5)}
OLD = OF_SCHEMA[4]
DIFFERENCES: list[dict[str, Any]] = [
    {"amount": 9999.0},
    {"timestamp": MONDAY + 1},
    {"currency": "USD"},
    {"merchant_id": "merchant-2"},
]


def assessed(*payments: Transaction, policy: Policy = LENIENT, profiles: dict[str, Profile] | None = None):
    snapshots = SnapshotStore(untrained("model-1", online_model()))
    return Detector(LinearModel(), policy).assess(payments, {} if profiles is None else profiles, snapshots)


@pytest.mark.parametrize("other", DIFFERENCES, ids=lambda other: next(iter(other)))
def test_another_payment_under_a_used_id_is_scored_counted_and_reviewed(other):
    profiles: dict[str, Profile] = {}
    first, second = assessed(transaction(), transaction(**other), profiles=profiles)
    assert (first.decision.is_id_reused, second.decision.is_id_reused, second.is_duplicate) == (False, True, False)
    assert second.features is not None
    assert second.features.count_1h == 1
    assert second.decision.outcome is Outcome.REVIEW
    assert second.decision.reasons[0] == ID_REUSED
    assert second.contributions is not None
    assert profiles["card-1"].count == 2


def test_a_high_score_under_a_used_id_is_declined_and_keeps_its_other_reasons():
    *_, second = assessed(transaction(), transaction(amount=9.0), policy=Policy(0.0, 0.0))
    assert second.decision.outcome is Outcome.DECLINE
    assert second.decision.reasons[0] == ID_REUSED
    assert len(second.decision.reasons) <= MAX_REASONS


def test_a_reused_id_without_a_score_has_both_reasons():
    snapshots = SnapshotStore(untrained("model-1", online_model()))
    broken = Detector(LinearModel(base=float("nan"), prior=float("nan")), LENIENT)
    *_, second = broken.assess([transaction(), transaction(amount=9.0)], {}, snapshots)
    assert second.decision.reasons == (ID_REUSED, NO_MODEL)


def test_the_same_payment_is_a_duplicate_even_if_other_fields_differ():
    *_, again = assessed(
        transaction(), transaction(device_id="other", ip="192.0.2.9", country="US", latitude=1.0, longitude=2.0)
    )
    assert (again.is_duplicate, again.decision.is_id_reused) == (True, False)


@pytest.mark.parametrize(
    "spelled",
    [
        {"amount": "10.00"},
        {"amount": 10},
        {"timestamp": "2026-01-01T02:00:00+02:00"},
        {"timestamp": 1767225600000},
    ],
)
def test_equal_values_in_another_notation_are_a_duplicate(spelled):
    said = {
        "transaction_id": "t",
        "timestamp": "2026-01-01T00:00:00Z",
        "card_id": "card-1",
        "merchant_id": "m",
        "amount": "10.0",
        "currency": "EUR",
    }
    *_, again = assessed(*(decode_transaction(json.dumps(one).encode()) for one in (said, said | spelled)))
    assert again.is_duplicate


@pytest.mark.parametrize("other", ["T1", "t1 ", "t\N{FULLWIDTH DIGIT ONE}", "t1\N{COMBINING ACUTE ACCENT}"])
def test_an_id_that_only_looks_the_same_is_another_id(other):
    *_, second = assessed(transaction(), transaction(other))
    assert (second.is_duplicate, second.decision.is_id_reused) == (False, False)


def test_the_same_id_on_another_card_is_not_reused():
    *_, second = assessed(transaction(), transaction(card_id="card-2", amount=9.0))
    assert (second.is_duplicate, second.decision.is_id_reused) == (False, False)


def test_a_duplicate_gets_the_decision_of_its_own_payment_among_several_under_one_id():
    payments = [transaction(amount=amount) for amount in (1.0, 2.0, 3.0)]
    assessments = assessed(*payments, *payments[::-1])
    assert [one.is_duplicate for one in assessments] == [False] * 3 + [True] * 3
    assert [one.decision for one in assessments[3:]] == [one.decision for one in assessments[2::-1]]
    assert [one.decision.is_id_reused for one in assessments[3:]] == [True, True, False]


USES = st.lists(
    st.builds(
        lambda number, minute, amount, currency, merchant, device: transaction(
            f"t{number}",
            MONDAY + minute * MINUTE,
            amount=amount,
            currency=currency,
            merchant_id=merchant,
            device_id=device,
        ),
        st.integers(0, 3),
        st.integers(0, 1),
        st.sampled_from([1.0, 9999.0]),
        st.sampled_from(["EUR", "USD"]),
        st.sampled_from(["merchant-1", "merchant-2"]),
        st.sampled_from([None, "device-1"]),
    ),
    max_size=16,
)


@FAST
@given(USES, st.lists(st.integers(0, 16), max_size=3))
def test_each_payment_is_scored_once_and_each_duplicate_repeats_its_decision(payments, cuts):
    profiles: dict[str, Profile] = {}
    assessments: list[Assessment] = []
    edges = [0, *sorted(cut % (len(payments) + 1) for cut in cuts), len(payments)]
    for begin, end in itertools.pairwise(edges):
        assessments += assessed(*payments[begin:end], profiles=profiles)
    decided: dict[object, Any] = {}
    ids: set[str] = set()
    for payment, assessment in zip(payments, assessments, strict=True):
        known = decided.get(facts(payment))
        assert assessment.is_duplicate == (known is not None)
        if known is not None:
            assert assessment.decision == known
            continue
        assert assessment.decision.is_id_reused == assessment.decision.is_flagged == (payment.transaction_id in ids)
        decided[facts(payment)] = assessment.decision
        ids.add(payment.transaction_id)
    assert sum(profile.count for profile in profiles.values()) == len(decided)


def test_is_id_reused_is_in_the_record_only_if_it_is_true():
    first, second = map(score_record, assessed(transaction(), transaction(amount=9.0)))
    assert b"is_id_reused" not in encode_record(first)
    assert b'"is_id_reused":true' in encode_record(second)
    assert decode_score(encode_record(first)).is_id_reused is False
    assert ScoreRecord.__struct_defaults__ == (False, 0)


# Profiles of schemas 4 and 5


def old_profile(schema: int = 4) -> Profile:
    return decode_profile(base64.b64decode(OF_SCHEMA[schema]["profile"]))


def payments(name: str) -> list[Transaction]:
    return [decode_transaction(json.dumps(one).encode()) for one in OLD[name]]


@pytest.mark.parametrize("schema", [4, 5])
def test_a_profile_of_an_old_schema_continues_with_the_same_features(schema):
    profile = old_profile(schema)
    for payment, expected in zip(payments("after"), OF_SCHEMA[schema]["features"], strict=True):
        assert extract(payment, profile, NO_RISK, NO_RISK, 0).vector() == tuple(expected)
        profile.update(payment)
        profile = decode_profile(encode_profile(profile))
    assert profile.schema == SCHEMA == 6


def test_a_profile_of_schema_5_takes_the_most_frequent_currency_of_its_last_payments():
    assert (old_profile(5).currency, old_profile(5).amounts) == ("EUR", 60)
    assert old_profile().currency == ""  # schema 4 has no currencies: the next payment sets it
    old = msgspec.structs.replace(Profile(), schema=5, count=4)
    for currency, amount in (("JPY", 9.0), ("EUR", 9.0), ("USD", 0.0), ("EUR", 9.0)):
        old.recent += RECENT.pack(b"identity", MONDAY, amount, 7, currency.encode())
    assert decode_profile(encode_profile(old)).currency == "EUR"


def test_a_profile_of_schema_4_takes_the_currency_of_the_next_amount_and_keeps_its_statistics():
    profile = old_profile()
    amounts, usual = profile.amounts, profile.usual_log_amount
    profile.update(transaction("zero", MONDAY + 800 * DAY, amount=0.0, currency="USD"))
    profile.update(transaction("next", MONDAY + 800 * DAY, amount=9.0, currency="EUR"))
    assert (profile.currency, profile.amounts) == ("EUR", amounts + 1)
    assert abs(profile.usual_log_amount - usual) < 0.1


def test_old_fingerprints_of_schema_4_are_replaced_when_they_recur():
    profile = old_profile()
    assert max(profile.merchants) < NOT_LEGACY
    for payment in payments("after"):
        profile.update(payment)
        assert fingerprint(payment.merchant_id) in profile.merchants
        assert fingerprint32(payment.merchant_id) not in profile.merchants
    assert min(row[3] for row in RECENT.iter_unpack(profile.recent)) >= NOT_LEGACY
    assert min(profile.countries + profile.devices) >= NOT_LEGACY


def test_transactions_of_schema_4_match_any_currency_but_no_other_content():
    profile, last = old_profile(), payments("before")[-1]
    assert [*RECENT.iter_unpack(profile.recent)][-1][4] == UNKNOWN_CURRENCY

    def change(**said: object) -> Transaction:
        return transaction(**({name: getattr(last, name) for name in last.__struct_fields__} | said))

    assert profile.find_duplicate(change(currency="USD")) == (1, False)
    assert profile.find_duplicate(change(amount=last.amount + 1)) == (0, True)
    assert profile.find_duplicate(change(merchant_id="elsewhere")) == (0, True)


def test_a_merchant_or_device_with_the_same_crc_as_a_known_one_is_new(monkeypatch):
    monkeypatch.setattr(profiles_module, "fingerprint32", lambda _: 7)  # as an attacker would have it
    profile = Profile()
    profile.update(transaction(merchant_id="known", device_id="known", country="DE"))
    row = extract(transaction("t2", merchant_id="evil", device_id="evil", country="FR"), profile, NO_RISK, NO_RISK, 0)
    assert (row.merchant_visits, row.is_new_device, row.is_new_country) == (0, 1, 1)
    assert not profile.find_duplicate(transaction(merchant_id="evil")).age
