"""Whatever one card, one merchant or a stream of names never seen before does, what is kept of it stays small."""

from __future__ import annotations

import math
import string
from itertools import product

import msgspec
import pytest
from support.loop import looped
from support.malformed import MALFORMED
from support.worlds import (
    DAY,
    HOUR,
    MINUTE,
    MONDAY,
    CountingLearner,
    DictStore,
    LinearModel,
    features,
    label,
    online_model,
    score,
    transaction,
)

from fraud_service.domain import reasons
from fraud_service.domain.decision import ID_REUSED, Policy, Reason
from fraud_service.domain.detector import Detector
from fraud_service.domain.events import MAX_AMOUNT
from fraud_service.domain.features import NAMES
from fraud_service.domain.features.contract import MAX_AGE_H
from fraud_service.domain.label_join import LabelJoin, examples_due
from fraud_service.domain.online_training import LearnerState, NegativeSampler, OnlineTrainer
from fraud_service.domain.profile import RECENT_KEPT, Profile, encode_profile
from fraud_service.domain.risk import decode_risk, merchant_key
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.domain.time import LearningSchedule

pytestmark = pytest.mark.attack

CURRENCIES = ["".join(letters) for letters in product(string.ascii_uppercase, repeat=3)]


def series(loop) -> int:
    """Count the series that Prometheus would get."""
    shown = loop.scorer_registry.render() + loop.learner_registry.render()
    return sum(not line.startswith(b"#") for line in shown.splitlines())


def test_names_never_seen_before_make_no_new_series(tmp_path):
    with looped(tmp_path, review_threshold=0.0, decline_threshold=0.5) as loop:
        shown = []
        for number in range(300):
            paid = transaction(
                f"t-{number}",
                MONDAY + number * HOUR,
                card_id=f"card-{number}",
                merchant_id=f"merchant-{number}",
                currency=CURRENCIES[number],
                country=f"country-{number}",
                entry_mode=f"mode-{number}",
                device_id=f"device-{number}",
                merchant_category_code=f"code-{number}",
            )
            loop.transaction(paid)
            loop.label(label(paid.transaction_id, paid.timestamp + DAY, card_id=paid.card_id))
            value, key, _ = MALFORMED[number % len(MALFORMED)]
            loop.raw(value, key)
            if number % 100 == 99:
                loop.tick()
                shown.append(series(loop))
        assert loop.scorer_metrics.flagged_amount.labels("other")._value.get() > 0
        assert shown[0] == shown[1] == shown[2]


def hot_profile() -> Profile:
    """Return the profile of a card that pays for a month, each time at another merchant, in another country."""
    detector, knowledge = Detector(LinearModel(base=5.0), Policy()), SnapshotStore(untrained("model-1", online_model()))
    profiles: dict[str, Profile] = {}
    for number in range(3000):
        paid = transaction(
            f"t-{number}",
            MONDAY + number * 15 * MINUTE,
            merchant_id=f"merchant-{number}",
            country=f"country-{number}",
            device_id=f"device-{number}",
            amount=5.0 + number,
        )
        detector.assess([paid], profiles, knowledge)
    (profile,) = profiles.values()
    return profile


def longest_sentences() -> list[Reason]:
    """Return the longest sentence that each code can have."""
    extremes = dict.fromkeys(NAMES, 10.0**6) | {
        "amount": MAX_AMOUNT,
        "mean_30d": MAX_AMOUNT / reasons.MAX_RATIO,
        "amount_to_mean": reasons.MAX_RATIO,
        "velocity_ratio": reasons.MAX_RATIO,
        "merchant_visits": 0.0,
        "distance_km": 20_037.0,
        "speed_kmh": reasons.MAX_KMH,
        "merchant_fraud_share_30d": 1.0,
        "hours_since_last": MAX_AGE_H,
    }
    row, paid = features(**extremes), transaction("t", MONDAY, amount=MAX_AMOUNT)
    found = {
        code: max((sentence(row, paid) for sentence in facts.values()), key=len)
        for code, (_, _, facts) in reasons.CODES.items()
    }
    assert all(found.values())
    return [Reason(code, text, -math.pi * 10**9) for code, text in found.items()]


def test_a_hot_card_keeps_a_small_profile():
    assert len(encode_profile(hot_profile())) < 8 * 1024


def test_a_hot_card_whose_decisions_all_have_the_longest_reasons_keeps_a_small_profile():
    profile = hot_profile()
    longest = sorted([ID_REUSED, *longest_sentences()], key=lambda reason: -len(reason.code + reason.text))
    most = msgspec.structs.replace(profile.decision(1), reasons=tuple(longest[: reasons.MAX_REASONS]), model="m" * 64)
    for _ in profile.decisions.copy():
        profile.add_decision(most)
    assert len(profile.decisions) == RECENT_KEPT
    assert 12 * 1024 < len(encode_profile(profile)) < 16 * 1024


def test_a_hot_merchant_keeps_a_small_row():
    store, progress = DictStore(), LearnerState.starting_at(MONDAY // HOUR)
    teacher = OnlineTrainer(store, LearningSchedule(), NegativeSampler(), LinearModel())
    for day in range(90):
        ledger, now = LabelJoin(DictStore(), LearningSchedule()), MONDAY + day * DAY
        for number in range(50):
            ledger.add_scored(score(f"t-{day}-{number}", now, card_id=f"card-{number}"), -1)
            ledger.add_label(label(f"t-{day}-{number}", now + 1, card_id=f"card-{number}"), -1)
        boundary = now // HOUR + 1
        progress = teacher.close(boundary, progress, examples_due([ledger], boundary), CountingLearner()).progress
    assert decode_risk(store[merchant_key("merchant-1")]).streak == 90 * 50
    assert len(store[merchant_key("merchant-1")]) < 512
