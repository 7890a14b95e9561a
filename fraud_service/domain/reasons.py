"""Reasons for a flagged transaction, in sentences for analysts that a letter to a customer can use, too.

A reason is given only if its sentence is true and counts against the payment. All other contributions are the rest:
base, contributions of the reasons and rest add up to the logit of the score.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.decision import Reason
from fraud_service.domain.features.contract import MAX_AGE_H
from fraud_service.domain.local_time import clock
from fraud_service.domain.text import money

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from fraud_service.domain.events import Transaction
    from fraud_service.domain.features import Features

    Sentence = Callable[[Features, Transaction], str]

MAX_REASONS: Final = 4
MIN_CONTRIBUTION: Final = 0.05  # logits; smaller contributions are not a reason
OVERALL_PATTERN: Final = "OVERALL_PATTERN"
OVERALL_TEXT: Final = "The payment as a whole resembles earlier fraud, but no single sign explains it."

# From these values on, a feature counts against a payment.
HIGH_RATIO: Final = 2.0  # of the amount to the mean, and of the payments of a day to those of an average day
HIGH_DEVIATIONS: Final = 3.0
BURST_10M, BURST_1H, BUSY_DAY = 2, 3, 3  # payments
FAR_KM: Final = 100.0
FAST_KMH: Final = 250.0
RISKY_SHARE: Final = 0.01  # of frauds among the labelled payments of a merchant
YOUNG_DAYS: Final = 14.0
# The features stop at these values, so the true number may be larger.
MAX_RECENT, MAX_RATIO, MAX_STREAK, MAX_KMH = 16, 1000.0, 100, 20_000.0


def reasons(transaction: Transaction, row: Features, contributions: Mapping[str, float]) -> tuple[Reason, ...]:
    """Return the reasons that add most to the score, the strongest first. The contributions are in logits.

    A sentence counts only if the features that it is about raise the score. If there is no reason, the payment as a
    whole is one.
    """
    found = []
    for code, (_, names, facts) in CODES.items():
        contribution = sum(contributions[name] for name in names)
        if contribution < MIN_CONTRIBUTION:
            continue
        raising = [sentence for used, sentence in facts.items() if sum(contributions[name] for name in used) > 0]
        # Only the first: a profile keeps the reasons of 16 decisions, and its size is bounded.
        if text := next(filter(None, (sentence(row, transaction) for sentence in raising)), ""):
            found.append(Reason(code, text, contribution))
    if not found and (whole := sum(contributions.values())) >= MIN_CONTRIBUTION:
        return (Reason(OVERALL_PATTERN, OVERALL_TEXT, whole),)
    found.sort(key=lambda reason: (-reason.contribution, reason.code))
    return tuple(found[:MAX_REASONS])


def rest(contributions: Iterable[float], of_reasons: Iterable[float]) -> float:
    """Return what the contributions of the reasons leave of all contributions to the score."""
    return math.fsum([*contributions, *(-one for one in of_reasons)])


# Each of these sentences is empty unless the features count against the payment.


def _amount(f: Features, paid: Transaction) -> str:
    amount = f"The amount of {money(f.amount, paid.currency)} is"
    if f.mean_30d > 0 and f.amount_to_mean >= HIGH_RATIO:
        times = f"at least {f.amount_to_mean:,.0f}" if f.amount_to_mean >= MAX_RATIO else f"{f.amount_to_mean:.1f}"
        return f"{amount} {times} times this card's average of {money(f.mean_30d, paid.currency)} in 30 days."
    if f.amount == 0 or abs(f.amount_zscore) < HIGH_DEVIATIONS:
        return ""
    return f"{amount} unusually {'high' if f.amount_zscore > 0 else 'low'} for this card."


def _high_amounts(f: Features, _: Transaction) -> str:
    for number, days in ((f.amount_outliers_3d, 3), (f.amount_outliers_14d, 14)):
        if number:
            return f"This card paid {_count(number, 'unusually high amount')} in the last {days} days."
    return ""


def _burst(f: Features, _: Transaction) -> str:
    for number, least, time in ((f.count_10m, BURST_10M, "10 minutes"), (f.count_1h, BURST_1H, "hour")):
        if number >= least:
            return f"This card made {_count(number, 'payment', MAX_RECENT)} in the {time} before this one."
    return ""


def _busy_day(f: Features, _: Transaction) -> str:
    if f.count_1d < BUSY_DAY or f.velocity_ratio < HIGH_RATIO:
        return ""
    times = f"{f.velocity_ratio:.1f} times as many as on its average day"
    return f"This card made {_count(f.count_1d, 'payment')} in 24 hours, {times}."


def _small_payments(f: Features, _: Transaction) -> str:
    if not f.small_payments_1h:
        return ""
    return (
        f"This card made {_count(f.small_payments_1h, 'very small payment', MAX_RECENT)} in the hour before this one."
    )


def _merchant(f: Features, _: Transaction) -> str:
    return "" if f.merchant_visits else "This card has not paid this merchant before, or not for a long time."


def _country(f: Features, _: Transaction) -> str:
    return "This card has not paid in this country before, or not for a long time." if f.is_new_country else ""


def _distance(f: Features, _: Transaction) -> str:
    if f.distance_km < FAR_KM:
        return ""
    place = f"The place of the payment is {f.distance_km:,.0f} km from the last known place of this card"
    if f.speed_kmh < FAST_KMH:
        return f"{place}."
    least = "at least " if f.speed_kmh >= MAX_KMH else ""
    return f"{place}, which means {least}{f.speed_kmh:,.0f} km/h."


def _device(f: Features, _: Transaction) -> str:
    return "This card has not been used on this device before, or not for a long time." if f.is_new_device else ""


def _not_present(f: Features, _: Transaction) -> str:
    return "The card was not present: its number was typed in or used online." if f.is_card_not_present else ""


def _merchant_frauds(f: Features, _: Transaction) -> str:
    frauds = round(f.merchant_fraud_share_30d * f.merchant_labelled_30d)
    if not frauds or f.merchant_fraud_share_30d < RISKY_SHARE:
        return ""
    payments = _count(f.merchant_labelled_30d, "payment")
    return (
        f"This merchant had {_count(frauds, 'fraud')} among {payments} whose outcome became known in the last 30 days."
    )


def _streak(f: Features, _: Transaction) -> str:
    if not f.merchant_streak:
        return ""
    if f.merchant_streak == 1:
        return "The last payment at this merchant with a known outcome was fraud."
    newest = _count(f.merchant_streak, "payment", MAX_STREAK)
    return f"The last {newest} at this merchant with a known outcome were all fraud."


def _card_frauds(f: Features, _: Transaction) -> str:
    frauds = _count(f.card_frauds_30d, "confirmed fraud")
    return f"This card had {frauds} in the last 30 days." if f.card_frauds_30d else ""


def _night(f: Features, paid: Transaction) -> str:
    if not f.is_night:
        return ""
    when = clock(paid.timestamp, paid.utc_offset_min or 0)
    return f"The payment was made at {when}, between midnight and 6 in the morning."


def _history(f: Features, _: Transaction) -> str:
    if f.hours_since_last >= MAX_AGE_H:
        before = "before" if f.card_age_days == 0 else f"in the {MAX_AGE_H / 24:.0f} days before this payment"
        return f"As far as we know, this card was not used {before}."
    if f.card_age_days >= YOUNG_DAYS:
        return ""
    age = _count(int(f.card_age_days), "day") if f.card_age_days >= 1 else "less than a day"
    return f"As far as we know, this card has been in use for {age}."


def _count(number: float, noun: str, limit: float = math.inf) -> str:
    least = "at least " if number >= limit else ""
    return f"{least}{number:,.0f} {noun}{'' if number == 1 else 's'}"


class Code(NamedTuple):
    """A reason code: its meaning, all its features, and the sentences with the features that each is about."""

    meaning: str
    features: tuple[str, ...]
    facts: dict[tuple[str, ...], Sentence]


# Each feature belongs to exactly one code. Consumers depend on the codes: add new ones, but rename or reuse none.
CODES: Final[dict[str, Code]] = {
    "UNUSUAL_AMOUNT": Code(
        "The amount, or another one of the last days, is not usual for the card.",
        (
            "amount",
            "total_1d",
            "mean_7d",
            "mean_30d",
            "amount_to_mean",
            "amount_to_largest",
            "amount_zscore",
            "amount_outliers_3d",
            "amount_outliers_14d",
        ),
        {
            ("amount", "mean_30d", "amount_to_mean", "amount_to_largest", "amount_zscore"): _amount,
            ("amount_outliers_3d", "amount_outliers_14d"): _high_amounts,
        },
    ),
    "HIGH_VELOCITY": Code(
        "The card pays more often than usual.",
        ("count_10m", "count_1h", "distinct_merchants_1h", "count_1d", "count_7d", "count_30d", "velocity_ratio"),
        {
            ("count_10m", "count_1h", "distinct_merchants_1h"): _burst,
            ("count_1d", "velocity_ratio"): _busy_day,
        },
    ),
    "CARD_TESTING": Code(
        "Very small payments came before this one. They can test whether a stolen card works.",
        ("small_payments_1h",),
        {("small_payments_1h",): _small_payments},
    ),
    "UNFAMILIAR_MERCHANT": Code(
        "The merchant is new for the card.", ("merchant_visits",), {("merchant_visits",): _merchant}
    ),
    "UNFAMILIAR_PLACE": Code(
        "The country is new for the card, or the place is far from the last one.",
        ("is_new_country", "distance_km", "speed_kmh"),
        {("is_new_country",): _country, ("distance_km", "speed_kmh"): _distance},
    ),
    "UNFAMILIAR_CHANNEL": Code("The device is new for the card.", ("is_new_device",), {("is_new_device",): _device}),
    "CARD_NOT_PRESENT": Code(
        "The payment was made without the card.", ("is_card_not_present",), {("is_card_not_present",): _not_present}
    ),
    "RISKY_MERCHANT": Code(
        "Payments at the merchant were fraud.",
        (
            "merchant_labelled_1d",
            "merchant_labelled_7d",
            "merchant_labelled_30d",
            "merchant_fraud_share_1d",
            "merchant_fraud_share_7d",
            "merchant_fraud_share_30d",
            "merchant_streak",
            "merchant_lowamount_frauds",
            "merchant_streak_age_hours",
            "merchant_hours_since_legitimate",
            "merchant_hours_since_lowamount_fraud",
        ),
        {
            (
                "merchant_labelled_30d",
                "merchant_fraud_share_1d",
                "merchant_fraud_share_7d",
                "merchant_fraud_share_30d",
            ): _merchant_frauds,
            (
                "merchant_streak",
                "merchant_lowamount_frauds",
                "merchant_streak_age_hours",
                "merchant_hours_since_legitimate",
                "merchant_hours_since_lowamount_fraud",
            ): _streak,
        },
    ),
    "DEFRAUDED_CARD": Code(
        "Other payments of the card were fraud.",
        ("card_frauds_7d", "card_frauds_30d", "card_hours_since_fraud"),
        {("card_frauds_7d", "card_frauds_30d", "card_hours_since_fraud"): _card_frauds},
    ),
    "UNUSUAL_TIME": Code(
        "The payment was made at night.",
        ("hour_of_day", "is_night", "is_weekend"),
        {("hour_of_day", "is_night"): _night},
    ),
    "SHORT_HISTORY": Code(
        "Little is known about the card, or nothing of the last 30 days.",
        ("card_age_days", "hours_since_last"),
        {("card_age_days", "hours_since_last"): _history},
    ),
}
