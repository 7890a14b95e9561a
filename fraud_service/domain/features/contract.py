"""The feature contract: what the models see of a transaction, computed from what was known before it.

Each field of `Features` is one feature; its annotation says what it means, in which unit, over which window, and what
it is for a card or merchant never seen. `docs/features.md` is generated from these annotations. Rules for all of them:

* *Before* means arrived before, on the card's partition. The transaction itself is never part of its own features. A
  repetition is not counted again: one of the card's last 16 transactions once more, with the same id, event time,
  amount, currency and merchant. Under a used id, anything else is a transaction of its own.
* Windows follow event time. A window of *n* hours or days is made of whole UTC buckets: the current one and the n - 1
  before it. Kept are the hour of the card's newest event time and the 23 before it, and its day and the 29 before it.
  What arrives for an older bucket, and what an older transaction looks back on, is not counted.
* A window of minutes is exact: later than n minutes before the transaction and not after it, among the card's last 16.
* The usual amount is a mean of log(1 + amount) that starts at the first payment, with a deviation that starts at 0.5
  (0.05 is the least that is divided by). The n-th payment moves both by the share max(1/n, 0.02), in order of arrival:
  the mean by that share of its distance, which counts at most 3 deviations; the deviation towards that distance.
* An amount is *unusually high* when it lies more than 3 such deviations above the mean, judged when it came by the
  payments before it, once there were five; it counts on its own day.
* Labels enter only through the snapshot the transaction is scored with: *today* is the day of the snapshot's boundary,
  and the *last* fraud or genuine payment is the one whose label became known last. Scorers hear of a merchant or card
  only while labelled fraud is in memory (a streak, or a fraud in 31 days); any other looks like one never seen.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

VERSION: Final = 3

MAX_DAYS_OR_VISITS: Final = 30.0
MAX_AGE_H: Final = 720.0  # hours: "thirty days or more, or never"


def _feature(description: str, unit: str, window: str = "", cold: float = 0.0) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"unit": unit, "window": window, "cold": cold})


class Features(msgspec.Struct, frozen=True, gc=False):
    """One transaction as the models see it. The order of the fields is the order of the model's columns."""

    amount: Annotated[float, _feature("Amount of the transaction.", "currency", "this transaction")]
    hour_of_day: Annotated[float, _feature("Hour of the event time, UTC.", "0-23", "this transaction")]
    is_night: Annotated[float, _feature("1 before 06:00 UTC.", "0/1", "this transaction")]
    is_weekend: Annotated[float, _feature("1 on Saturday and Sunday, UTC.", "0/1", "this transaction")]
    is_card_not_present: Annotated[
        float, _feature("1 when `entry_mode` is ecommerce or keyed; 0 otherwise or absent.", "0/1", "this transaction")
    ]

    card_age: Annotated[float, _feature("Time since the card's earliest transaction.", "days", "lifetime, at most 30")]
    hours_since_last: Annotated[
        float,
        _feature("Time since the card's newest transaction; 0 for a late one.", "hours", "at most 720", MAX_AGE_H),
    ]
    count_10m: Annotated[float, _feature("Transactions of the card in the 10 minutes before.", "count", "last 16")]
    count_1h: Annotated[float, _feature("Transactions of the card in the 60 minutes before.", "count", "last 16")]
    small_payments_1h: Annotated[
        float, _feature("Those of the last hour of at most 2.00: card testing.", "count", "last 16")
    ]
    distinct_merchants_1h: Annotated[
        float, _feature("Distinct merchants in the 60 minutes before.", "count", "last 16")
    ]
    count_1d: Annotated[float, _feature("Transactions of the card.", "count", "24 hours")]
    count_7d: Annotated[float, _feature("Transactions of the card.", "count", "7 days")]
    count_30d: Annotated[float, _feature("Transactions of the card.", "count", "30 days")]
    total_1d: Annotated[float, _feature("Amount spent with the card.", "currency", "24 hours")]
    mean_7d: Annotated[float, _feature("Mean amount; 0 without a transaction.", "currency", "7 days")]
    mean_30d: Annotated[float, _feature("Mean amount; 0 without a transaction.", "currency", "30 days")]
    velocity_ratio: Annotated[
        float,
        _feature(
            "`count_1d` over the card's transactions per day: `count_30d` / min(age in days + 1, 30); 0 without one.",
            "ratio",
            "24 hours over 30 days",
        ),
    ]

    amount_to_mean: Annotated[
        float, _feature("Amount over `mean_30d`; 1 where that is 0. At most 1000.", "ratio", "30 days", 1.0)
    ]
    amount_to_largest: Annotated[
        float,
        _feature("Amount over the largest of 30 days; 1 where there is none. At most 1000.", "ratio", "30 days", 1.0),
    ]
    amount_zscore: Annotated[
        float,
        _feature(
            "How many robust deviations log(1 + amount) lies above the card's robust mean of it. -20 to 20.",
            "deviations",
            "lifetime, fading",
        ),
    ]
    amount_outliers_3d: Annotated[float, _feature("Unusually high amounts (above 3 deviations).", "count", "3 days")]
    amount_outliers_14d: Annotated[float, _feature("Unusually high amounts (above 3 deviations).", "count", "14 days")]

    merchant_visits: Annotated[
        float,
        _feature(
            "Earlier visits of the card to this merchant, at most 30.",
            "count",
            "since it was last not among the 32 most recent",
        ),
    ]
    is_new_country: Annotated[
        float,
        _feature("1 when `country` is not among the card's last 8; 0 when absent or the first.", "0/1", "8 countries"),
    ]
    is_new_device: Annotated[
        float,
        _feature("1 when `device_id` is not among the card's last 8; 0 when absent or the first.", "0/1", "8 devices"),
    ]
    distance: Annotated[
        float,
        _feature(
            "Great-circle distance from the place that arrived last; 0 without coordinates.", "km", "last known place"
        ),
    ]
    speed: Annotated[
        float,
        _feature(
            "`distance` over the time between the two (at least a minute); 0 without coordinates.",
            "km/h",
            "at most 20000",
        ),
    ]

    merchant_labelled_1d: Annotated[
        float, _feature("Labels that became known for the merchant.", "count", "1 day + today")
    ]
    merchant_labelled_7d: Annotated[
        float, _feature("Labels that became known for the merchant.", "count", "7 days + today")
    ]
    merchant_labelled_30d: Annotated[
        float, _feature("Labels that became known for the merchant.", "count", "30 days + today")
    ]
    merchant_fraud_share_1d: Annotated[
        float, _feature("Frauds among those labels; 0 without one.", "share", "1 day + today")
    ]
    merchant_fraud_share_7d: Annotated[
        float, _feature("Frauds among those labels; 0 without one.", "share", "7 days + today")
    ]
    merchant_fraud_share_30d: Annotated[
        float, _feature("Frauds among those labels; 0 without one.", "share", "30 days + today")
    ]
    merchant_streak: Annotated[
        float,
        _feature(
            "Labelled frauds since the merchant's last genuine one, as labels came. At most 100.", "count", "lifetime"
        ),
    ]
    merchant_lowamount_frauds: Annotated[
        float, _feature("Frauds of the streak whose `amount_zscore` was at most 2. At most 100.", "count", "lifetime")
    ]
    merchant_streak_age: Annotated[
        float, _feature("Time since the first fraud of the streak; 0 without a streak.", "hours", "at most 720")
    ]
    merchant_since_genuine: Annotated[
        float, _feature("Time since the last genuine transaction there.", "hours", "at most 720", MAX_AGE_H)
    ]
    merchant_since_lowamount_fraud: Annotated[
        float, _feature("Time since the last such low-amount fraud there.", "hours", "at most 720", MAX_AGE_H)
    ]
    card_frauds_7d: Annotated[float, _feature("Confirmed frauds of the card.", "count", "7 days + today")]
    card_frauds_30d: Annotated[float, _feature("Confirmed frauds of the card.", "count", "30 days + today")]
    card_since_fraud: Annotated[
        float, _feature("Time since the card's last confirmed fraud.", "hours", "at most 720", MAX_AGE_H)
    ]

    def vector(self) -> tuple[float, ...]:
        """Return the values in contract order."""
        return msgspec.structs.astuple(self)


NAMES: Final[tuple[str, ...]] = Features.__struct_fields__
