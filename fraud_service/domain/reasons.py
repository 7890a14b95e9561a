"""Reasons for a flagged transaction, in words for analysts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fraud_service.domain.decision import Reason
from fraud_service.domain.features.contract import MAX_DAYS_OR_VISITS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fraud_service.domain.features import Features

MAX_REASONS: Final = 4
MIN_CONTRIBUTION: Final = 0.05  # logits; smaller contributions are not a reason


def reasons(features: Features, contributions: Mapping[str, float]) -> tuple[Reason, ...]:
    """Return the reasons that add most to the score, the strongest first. The contributions are in logits."""
    found = [
        Reason(code, text(features), contribution)
        for code, (names, text) in CODES.items()
        if (contribution := sum(contributions[name] for name in names)) >= MIN_CONTRIBUTION
    ]
    found.sort(key=lambda reason: (-reason.contribution, reason.code))
    return tuple(found[:MAX_REASONS])


def _amount(f: Features) -> str:
    if f.mean_30d > 0:
        return f"amount {f.amount:.2f} is {f.amount_to_mean:.1f} × this card's 30-day mean of {f.mean_30d:.2f}"
    return f"amount {f.amount:.2f} on a card without a payment in 30 days"


def _velocity(f: Features) -> str:
    counts = f"{f.count_1h:.0f} payments in the last hour and {f.count_1d:.0f} in a day"
    return f"{counts}, {f.velocity_ratio:.1f} × this card's usual rate"


def _merchant(f: Features) -> str:
    if f.merchant_visits == 0:
        return "first payment of this card to this merchant"
    least = "at least " if f.merchant_visits == MAX_DAYS_OR_VISITS else ""
    return f"{least}payment number {f.merchant_visits + 1:.0f} of this card to this merchant"


def _place(f: Features) -> str:
    country = "in a country new for this card, " if f.is_new_country else ""
    return f"{country}{f.distance_km:.0f} km from the card's last place, {f.speed_kmh:.0f} km/h"


def _channel(f: Features) -> str:
    device = "from a device new for this card" if f.is_new_device else "from a known device or none"
    return f"card {'not present' if f.is_card_not_present else 'present'}, {device}"


def _merchant_risk(f: Features) -> str:
    share = f"{100 * f.merchant_fraud_share_30d:.0f} % of this merchant's labelled payments of 30 days were fraud"
    return f"{share}, the last {f.merchant_streak:.0f} in a row" if f.merchant_streak else share


def _history(f: Features) -> str:
    least = "at least " if f.card_age_days == MAX_DAYS_OR_VISITS else ""
    return f"card known for {least}{f.card_age_days:.0f} days, {f.hours_since_last:.0f} hours since its last payment"


# Each feature belongs to exactly one code, so the contributions of all codes add up to the score.
CODES: Final[dict[str, tuple[tuple[str, ...], Callable[[Features], str]]]] = {
    "UNUSUAL_AMOUNT": (
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
        _amount,
    ),
    "HIGH_VELOCITY": (
        ("count_10m", "count_1h", "distinct_merchants_1h", "count_1d", "count_7d", "count_30d", "velocity_ratio"),
        _velocity,
    ),
    "CARD_TESTING": (
        ("small_payments_1h",),
        lambda f: f"{f.small_payments_1h:.0f} payments of at most 2.00 in the last hour",
    ),
    "UNFAMILIAR_MERCHANT": (("merchant_visits",), _merchant),
    "UNFAMILIAR_PLACE": (("is_new_country", "distance_km", "speed_kmh"), _place),
    "UNFAMILIAR_CHANNEL": (("is_card_not_present", "is_new_device"), _channel),
    "RISKY_MERCHANT": (
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
            "merchant_hours_since_genuine",
            "merchant_hours_since_lowamount_fraud",
        ),
        _merchant_risk,
    ),
    "DEFRAUDED_CARD": (
        ("card_frauds_7d", "card_frauds_30d", "card_hours_since_fraud"),
        lambda f: f"{f.card_frauds_30d:.0f} confirmed frauds on this card in 30 days",
    ),
    "UNUSUAL_TIME": (
        ("hour_of_day", "is_night", "is_weekend"),
        lambda f: f"at {f.hour_of_day:02.0f}:00 UTC{' on a weekend' if f.is_weekend else ''}",
    ),
    "SHORT_HISTORY": (("card_age_days", "hours_since_last"), _history),
}
