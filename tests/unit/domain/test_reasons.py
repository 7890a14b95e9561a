"""Reasons: each sentence is true, counts against the payment, and reads well. Base, reasons and rest add up."""

from __future__ import annotations

import random
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.worlds import HOUR, MINUTE, MONDAY, features, transaction

from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.reasons import CODES, MAX_REASONS, MIN_CONTRIBUTION, OVERALL_PATTERN, reasons, rest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PAID = transaction(timestamp=MONDAY + 3 * HOUR + 12 * MINUTE, amount=249.0, currency="EUR")
KNOWN = {"card_age_days": 30.0, "hours_since_last": 5.0, "merchant_visits": 4.0, "mean_30d": 36.41, "amount": 30.0}


def given_for(code: str, currency: str = "EUR", **values: float) -> str:
    """Return the sentences of a code for a known card with these features; "" if the code is no reason."""
    row = features(**(KNOWN | values))
    raising = {name: float(name in CODES[code].features) for name in NAMES}
    found = reasons(msgspec.structs.replace(PAID, currency=currency), row, raising)
    assert [one.code for one in found] in ([code], [OVERALL_PATTERN])
    return found[0].text if found[0].code == code else ""


SENTENCES: list[tuple[str, dict[str, Any], str]] = [
    (
        "UNUSUAL_AMOUNT",
        {"amount": 249.0, "amount_to_mean": 6.8389},
        "The amount of 249.00 EUR is 6.8 times this card's average of 36.41 EUR in 30 days.",
    ),
    (
        "UNUSUAL_AMOUNT",
        {"amount": 40_000.0, "mean_30d": 0.01, "amount_to_mean": 1000.0},
        "The amount of 40,000.00 EUR is at least 1,000 times this card's average of 0.01 EUR in 30 days.",
    ),
    (
        "UNUSUAL_AMOUNT",
        {"currency": "JPY", "amount": 9000.0, "mean_30d": 3000.0, "amount_to_mean": 3.0},
        "The amount of 9,000 JPY is 3.0 times this card's average of 3,000 JPY in 30 days.",
    ),
    (
        "UNUSUAL_AMOUNT",
        {"amount": 50.0, "amount_to_mean": 1.4, "amount_zscore": 3.2},
        "The amount of 50.00 EUR is unusually high for this card.",
    ),
    (
        "UNUSUAL_AMOUNT",
        {"amount": 1.22, "amount_to_mean": 0.03, "amount_zscore": -4.0},
        "The amount of 1.22 EUR is unusually low for this card.",
    ),
    ("UNUSUAL_AMOUNT", {"amount_outliers_14d": 1.0}, "This card paid 1 unusually high amount in the last 14 days."),
    (
        "UNUSUAL_AMOUNT",
        {"amount_outliers_3d": 2.0, "amount_outliers_14d": 5.0},
        "This card paid 2 unusually high amounts in the last 3 days.",
    ),
    (
        "HIGH_VELOCITY",
        {"count_10m": 2.0, "count_1h": 3.0},
        "This card made 2 payments in the 10 minutes before this one.",
    ),
    ("HIGH_VELOCITY", {"count_10m": 1.0, "count_1h": 4.0}, "This card made 4 payments in the hour before this one."),
    ("HIGH_VELOCITY", {"count_10m": 16.0}, "This card made at least 16 payments in the 10 minutes before this one."),
    (
        "HIGH_VELOCITY",
        {"count_1d": 6.0, "velocity_ratio": 2.96},
        "This card made 6 payments in 24 hours, 3.0 times as many as on its average day.",
    ),
    ("CARD_TESTING", {"small_payments_1h": 1.0}, "This card made 1 very small payment in the hour before this one."),
    ("CARD_TESTING", {"small_payments_1h": 3.0}, "This card made 3 very small payments in the hour before this one."),
    (
        "UNFAMILIAR_MERCHANT",
        {"merchant_visits": 0.0},
        "This card has not paid this merchant before, or not for a long time.",
    ),
    (
        "UNFAMILIAR_PLACE",
        {"is_new_country": 1.0},
        "This card has not paid in this country before, or not for a long time.",
    ),
    (
        "UNFAMILIAR_PLACE",
        {"distance_km": 877.4, "speed_kmh": 20.0},
        "The place of the payment is 877 km from the last known place of this card.",
    ),
    (
        "UNFAMILIAR_PLACE",
        {"distance_km": 5970.0, "speed_kmh": 20_000.0},
        (
            "The place of the payment is 5,970 km from the last known place of this card, "
            "which means at least 20,000 km/h."
        ),
    ),
    (
        "UNFAMILIAR_CHANNEL",
        {"is_new_device": 1.0},
        "This card has not been used on this device before, or not for a long time.",
    ),
    (
        "CARD_NOT_PRESENT",
        {"is_card_not_present": 1.0},
        "The card was not present: its number was typed in or used online.",
    ),
    (
        "RISKY_MERCHANT",
        {"merchant_labelled_30d": 21.0, "merchant_fraud_share_30d": 3 / 21},
        "This merchant had 3 frauds among 21 payments whose outcome became known in the last 30 days.",
    ),
    (
        "RISKY_MERCHANT",
        {"merchant_labelled_30d": 1.0, "merchant_fraud_share_30d": 1.0, "merchant_streak": 1.0},
        "This merchant had 1 fraud among 1 payment whose outcome became known in the last 30 days.",
    ),
    ("RISKY_MERCHANT", {"merchant_streak": 1.0}, "The last payment at this merchant with a known outcome was fraud."),
    (
        "RISKY_MERCHANT",
        {"merchant_streak": 2.0},
        "The last 2 payments at this merchant with a known outcome were all fraud.",
    ),
    ("DEFRAUDED_CARD", {"card_frauds_30d": 1.0}, "This card had 1 confirmed fraud in the last 30 days."),
    ("DEFRAUDED_CARD", {"card_frauds_30d": 2.0}, "This card had 2 confirmed frauds in the last 30 days."),
    (
        "UNUSUAL_TIME",
        {"is_night": 1.0, "hour_of_day": 3.0},
        "The payment was made at 03:12 UTC, between midnight and 6 in the morning.",
    ),
    (
        "SHORT_HISTORY",
        {"card_age_days": 0.0, "hours_since_last": 720.0},
        "As far as we know, this card was not used before.",
    ),
    (
        "SHORT_HISTORY",
        {"card_age_days": 30.0, "hours_since_last": 720.0},
        "As far as we know, this card was not used in the 30 days before this payment.",
    ),
    ("SHORT_HISTORY", {"card_age_days": 0.4}, "As far as we know, this card has been in use for less than a day."),
    ("SHORT_HISTORY", {"card_age_days": 1.9}, "As far as we know, this card has been in use for 1 day."),
    ("SHORT_HISTORY", {"card_age_days": 13.0}, "As far as we know, this card has been in use for 13 days."),
]


@pytest.mark.parametrize(("code", "values", "expected"), SENTENCES)
def test_a_reason_says_what_counts_against_the_payment(code, values, expected):
    assert given_for(code, **values) == expected


# What the old sentences said although it denies their code.
HARMLESS: list[tuple[str, dict[str, float]]] = [
    ("UNUSUAL_AMOUNT", {"amount": 1.22, "amount_to_mean": 0.03}),
    ("UNUSUAL_AMOUNT", {"amount": 50.0, "amount_to_mean": 1.4}),
    ("UNUSUAL_AMOUNT", {"amount": 376.03, "mean_30d": 0.0, "amount_to_mean": 1.0}),
    ("HIGH_VELOCITY", {}),
    ("HIGH_VELOCITY", {"count_10m": 1.0, "count_1h": 1.0, "count_1d": 1.0, "velocity_ratio": 5.0}),
    ("CARD_TESTING", {}),
    ("UNFAMILIAR_MERCHANT", {"merchant_visits": 30.0}),
    ("UNFAMILIAR_PLACE", {}),
    ("UNFAMILIAR_PLACE", {"distance_km": 12.0, "speed_kmh": 720.0}),
    ("UNFAMILIAR_CHANNEL", {}),
    ("CARD_NOT_PRESENT", {}),
    ("RISKY_MERCHANT", {"merchant_labelled_30d": 50.0}),
    ("RISKY_MERCHANT", {"merchant_labelled_30d": 5000.0, "merchant_fraud_share_30d": 1 / 5000}),
    ("DEFRAUDED_CARD", {}),
    ("UNUSUAL_TIME", {"hour_of_day": 14.0, "is_weekend": 1.0}),
    ("SHORT_HISTORY", {}),
]


@pytest.mark.parametrize(("code", "values"), HARMLESS)
def test_a_code_without_anything_against_the_payment_is_no_reason(code, values):
    assert given_for(code, **values) == ""


def test_every_code_has_a_case_of_both_kinds():
    assert {code for code, *_ in SENTENCES} == {code for code, _ in HARMLESS} == set(CODES)


def test_a_sentence_whose_features_lower_the_score_is_left_out():
    row = features(**(KNOWN | {"is_new_country": 1.0, "distance_km": 900.0}))
    worth = dict.fromkeys(NAMES, 0.0) | {"is_new_country": -0.5, "distance_km": 1.0}
    (reason,) = reasons(PAID, row, worth)
    assert reason.text == "The place of the payment is 900 km from the last known place of this card."
    assert reason.contribution == 0.5


def test_without_a_sentence_the_payment_as_a_whole_is_the_reason():
    (reason,) = reasons(PAID, features(**KNOWN), dict.fromkeys(NAMES, 0.1))
    assert reason.code == OVERALL_PATTERN
    assert reason.contribution == pytest.approx(0.1 * len(NAMES))
    assert reasons(PAID, features(**KNOWN), dict.fromkeys(NAMES, -0.1)) == ()


def test_every_feature_belongs_to_exactly_one_code_and_is_used_in_at_most_one_of_its_sentences():
    assert Counter(name for code in CODES.values() for name in code.features) == Counter(NAMES)
    for code in CODES.values():
        used = Counter(name for names in code.facts for name in names)
        assert set(used) <= set(code.features)
        assert set(used.values()) == {1}


CODES_OF_THE_FIRST_VERSION = {
    *("UNUSUAL_AMOUNT", "HIGH_VELOCITY", "CARD_TESTING", "UNFAMILIAR_MERCHANT", "UNFAMILIAR_PLACE"),
    *("UNFAMILIAR_CHANNEL", "CARD_NOT_PRESENT", "RISKY_MERCHANT", "DEFRAUDED_CARD", "UNUSUAL_TIME", "SHORT_HISTORY"),
}


def test_no_code_that_consumers_know_disappears():
    assert set(CODES) >= CODES_OF_THE_FIRST_VERSION


# --- Many rows --------------------------------------------------------------------------------------------------------

# Values at which a sentence begins, ends or changes.
COUNTS = (0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 7.0, 16.0, 40.0)
SHARES = (0.0, 0.0, 0.001, 0.0099, 0.01, 1 / 3, 1.0)
HOURS = (0.0, 0.3, 5.0, 335.9, 719.9, 720.0)
RATIOS = (0.0, 0.04, 0.96, 1.0, 1.04, 1.96, 2.0, 6.84, 999.99, 1000.0)
VALUES: dict[str, Sequence[float]] = {
    "amount": (0.0, 0.01, 1.22, 25.0, 1234.567, 1e13),
    "mean_30d": (0.0, 0.01, 36.41, 1e12),
    "amount_to_mean": RATIOS,
    "amount_to_largest": RATIOS,
    "velocity_ratio": (0.0, 0.5, 1.0, 1.96, 2.0, 30.0),
    "amount_zscore": (-20.0, -3.0, -2.9, 0.0, 2.9, 3.0, 20.0),
    "card_age_days": (0.0, 0.5, 1.0, 1.9, 2.0, 13.9, 14.0, 30.0),
    "distance_km": (0.0, 0.4, 12.0, 99.9, 100.0, 5970.0, 20_015.0),
    "speed_kmh": (0.0, 249.9, 250.0, 1200.0, 20_000.0),
    "hour_of_day": range(24),
    "merchant_labelled_30d": (1.0, 3.0, 100.0, 5000.0),
}
WORTH = (-1.0, -0.01, 0.0, 0.0, 0.01, 0.04, 0.3, 2.5)  # logits

# Numbers that deny what a sentence says, and plurals of one.
DENIALS = re.compile(
    r"(?<![\d.,])0 (?!JPY)|\b[01]\.\d times|nan\b|inf\b|known device|"
    r"\b1 (?:payment|fraud|day|very small payment|unusually high amount|confirmed fraud)s\b"
)
SENTENCE = re.compile(r"[A-Z][^.]*(?:\.\d[^.]*)*\.(?: |$)")
# For each code: what must hold for a row where it is given.
HOLDS: dict[str, Callable[[Features], bool]] = {
    "UNUSUAL_AMOUNT": lambda f: (
        f.amount_to_mean >= 2 or abs(f.amount_zscore) >= 3 or f.amount_outliers_14d + f.amount_outliers_3d > 0
    ),
    "HIGH_VELOCITY": lambda f: f.count_10m >= 2 or f.count_1h >= 3 or (f.count_1d >= 3 and f.velocity_ratio >= 2),
    "CARD_TESTING": lambda f: f.small_payments_1h > 0,
    "UNFAMILIAR_MERCHANT": lambda f: f.merchant_visits == 0,
    "UNFAMILIAR_PLACE": lambda f: f.is_new_country == 1 or f.distance_km >= 100,
    "UNFAMILIAR_CHANNEL": lambda f: f.is_new_device == 1,
    "CARD_NOT_PRESENT": lambda f: f.is_card_not_present == 1,
    "RISKY_MERCHANT": lambda f: f.merchant_fraud_share_30d * f.merchant_labelled_30d > 0.5 or f.merchant_streak > 0,
    "DEFRAUDED_CARD": lambda f: f.card_frauds_30d > 0,
    "UNUSUAL_TIME": lambda f: f.is_night == 1,
    "SHORT_HISTORY": lambda f: f.card_age_days < 14 or f.hours_since_last == 720,
    OVERALL_PATTERN: lambda _: True,
}


def values(name: str) -> Sequence[float]:
    if name.startswith("is_"):
        return (0.0, 1.0)
    return VALUES.get(name) or (SHARES if "share" in name else HOURS if "hours" in name else COUNTS)


@pytest.fixture(scope="module")
def rows():
    dice = random.Random(27)
    drawn = []
    for _ in range(5_000):
        row = Features(**{name: float(dice.choice(values(name))) for name in NAMES})
        drawn.append((row, {name: dice.choice(WORTH) for name in NAMES}, dice.choice(["EUR", "JPY", "KWD", "XXX"])))
    return drawn


def test_no_sentence_denies_its_code(rows):
    seen = Counter()
    for row, worth, currency in rows:
        for reason in reasons(msgspec.structs.replace(PAID, currency=currency), row, worth):
            seen[reason.code] += 1
            assert not DENIALS.search(reason.text), reason
            assert "".join(SENTENCE.findall(reason.text)) == reason.text, reason
            assert HOLDS[reason.code](row), reason
    assert set(seen) == set(HOLDS)


def test_reasons_and_rest_add_up_and_the_strongest_comes_first(rows):
    for row, worth, _ in rows:
        found = reasons(PAID, row, worth)
        parts = [one.contribution for one in found]
        assert len(parts) <= MAX_REASONS
        assert parts == sorted(parts, reverse=True)
        assert all(part >= MIN_CONTRIBUTION for part in parts)
        assert sum(parts) + rest(worth.values(), parts) == pytest.approx(sum(worth.values()), abs=1e-9)
        for reason in found:
            if reason.code != OVERALL_PATTERN:
                assert reason.contribution == sum(worth[name] for name in CODES[reason.code].features)
