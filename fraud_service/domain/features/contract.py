"""The feature contract: the inputs of the models, computed from the state before the transaction.

Each field of `Features` is one feature. Its annotation gives the meaning, the unit, the window, and the value for a
card or merchant without history. `docs/features.md` comes from these annotations.

* *Before* means earlier in the card's partition. A transaction is never part of its own features.
* A duplicate has the id, event time, amount, currency and merchant of one of the card's last 16 transactions. The
  profile does not count it again. Any other payment under a used id is a new transaction.
* Windows use event time. A window of *n* hours or days consists of whole UTC buckets: the current one and the n - 1
  before it. A profile keeps the buckets of its newest 24 hours and 30 days. It ignores transactions before its oldest
  bucket. A late transaction uses only the buckets that the profile still keeps.
* A window of minutes is exact, but counts only the card's last 16 transactions. It excludes its start and includes its
  end.
* The card's *amounts* are those of its payments above 0.00 in one currency, that of its first such payment. All means,
  totals and largest amounts are over them. A payment of 0.00 or in another currency counts in every other feature, but
  changes no statistic of amounts. Its own features from them have the value of a card without history.
* If less than a quarter of the card's payments above 0.00 in its 30 kept days is in its currency, the payment's own
  among them, the currency of the next such payment becomes that of the card. Its amounts then start again.
* `amount` is the plain number, whatever its currency. So is the limit of `small_payments_1h`. In a currency with small
  units, such as JPY, an amount looks large to a model that learned from EUR.
* The usual amount is a mean of log(1 + amount) that starts at the first amount. Its deviation starts at 0.5, and is
  at least 0.05 as a divisor. The n-th amount moves both by the share max(1/n, 0.02), in order of arrival. The mean
  moves towards the amount, as if it were at most 3 deviations away. The deviation moves towards that distance.
* An amount is *unusually high* if it is more than 3 deviations above the mean of the card's earlier amounts, and
  the card has at least five of them. It counts on the day of its own event time.
* `hour_of_day`, `is_night` and `is_weekend` are in the [local time](#local-time) of the payment. Windows are in UTC.
* `country` is the ISO 3166 code of two letters, in capitals. Codes of three letters or three digits, small letters and
  blanks around it change nothing. Any other text is a country of its own.
* Labels take effect only through the active snapshot of the transaction. *Today* is the day of the snapshot boundary.
  The *last* fraud or legitimate payment is the one whose label became known last. Scorers keep a merchant or card only
  while it has a streak, or a fraud in 31 days. The features of every other one are those without history.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

VERSION: Final = 4

MAX_DAYS_OR_VISITS: Final = 30.0
MAX_AGE_H: Final = 720.0  # hours: "thirty days or more, or never"


def _feature(description: str, unit: str, window: str = "", cold: float = 0.0) -> msgspec.Meta:
    return msgspec.Meta(description=description, extra={"unit": unit, "window": window, "cold": cold})


def _hours_since(event: str) -> msgspec.Meta:
    return _feature(f"Time since the {event}.", "hours", "at most 720", MAX_AGE_H)


def _labels(window: str) -> msgspec.Meta:
    return _feature("Labels that became known for the merchant.", "count", window)


def _fraud_share(window: str) -> msgspec.Meta:
    return _feature("Frauds among those labels; 0 without one.", "share", window)


class Features(msgspec.Struct, frozen=True, gc=False):
    """The features of one transaction. The order of the fields is the order of the model's columns."""

    amount: Annotated[float, _feature("Amount of the transaction.", "currency", "this transaction")]
    hour_of_day: Annotated[float, _feature("Hour of the local time.", "0-23", "this transaction")]
    is_night: Annotated[float, _feature("1 before 06:00, local time.", "0/1", "this transaction")]
    is_weekend: Annotated[float, _feature("1 on Saturday and Sunday, local time.", "0/1", "this transaction")]
    is_card_not_present: Annotated[
        float, _feature("1 when `entry_mode` means ecommerce or keyed; 0 otherwise.", "0/1", "this transaction")
    ]

    card_age_days: Annotated[
        float, _feature("Time since the card's earliest transaction.", "days", "lifetime, at most 30")
    ]
    hours_since_last: Annotated[float, _hours_since("card's newest transaction; 0 for a late one")]
    count_10m: Annotated[float, _feature("Transactions of the card in the 10 minutes before.", "count", "last 16")]
    count_1h: Annotated[float, _feature("Transactions of the card in the 60 minutes before.", "count", "last 16")]
    small_payments_1h: Annotated[
        float,
        _feature(
            "Transactions of at most 2.00, also 0.00, in the 60 minutes before: a sign of card testing.",
            "count",
            "last 16",
        ),
    ]
    distinct_merchants_1h: Annotated[
        float, _feature("Distinct merchants in the 60 minutes before.", "count", "last 16")
    ]
    count_1d: Annotated[float, _feature("Transactions of the card.", "count", "24 hours")]
    count_7d: Annotated[float, _feature("Transactions of the card.", "count", "7 days")]
    count_30d: Annotated[float, _feature("Transactions of the card.", "count", "30 days")]
    total_1d: Annotated[float, _feature("Sum of the card's amounts.", "currency", "24 hours")]
    mean_7d: Annotated[float, _feature("Mean of the card's amounts; 0 without one.", "currency", "7 days")]
    mean_30d: Annotated[float, _feature("Mean of the card's amounts; 0 without one.", "currency", "30 days")]
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
            "log(1 + amount) minus the card's usual log amount, in deviations. -20 to 20.",
            "deviations",
            "lifetime, fading",
        ),
    ]
    amount_outliers_3d: Annotated[float, _feature("Unusually high amounts (above 3 deviations).", "count", "3 days")]
    amount_outliers_14d: Annotated[float, _feature("Unusually high amounts (above 3 deviations).", "count", "14 days")]

    merchant_visits: Annotated[
        float,
        _feature(
            "Earlier visits of the card to this merchant, at most 30.", "count", "while it is among the 32 most recent"
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
    distance_km: Annotated[
        float,
        _feature("Great-circle distance from the card's last place; 0 without coordinates.", "km", "last known place"),
    ]
    speed_kmh: Annotated[
        float,
        _feature(
            "`distance_km` over the time between the two (at least a minute); 0 without coordinates.",
            "km/h",
            "at most 20000",
        ),
    ]

    merchant_labelled_1d: Annotated[float, _labels("1 day + today")]
    merchant_labelled_7d: Annotated[float, _labels("7 days + today")]
    merchant_labelled_30d: Annotated[float, _labels("30 days + today")]
    merchant_fraud_share_1d: Annotated[float, _fraud_share("1 day + today")]
    merchant_fraud_share_7d: Annotated[float, _fraud_share("7 days + today")]
    merchant_fraud_share_30d: Annotated[float, _fraud_share("30 days + today")]
    merchant_streak: Annotated[
        float,
        _feature(
            "Labelled frauds since the merchant's last label as legitimate, in the order of labels. At most 100.",
            "count",
            "lifetime",
        ),
    ]
    merchant_lowamount_frauds: Annotated[
        float, _feature("Frauds of the streak whose `amount_zscore` was at most 2. At most 100.", "count", "lifetime")
    ]
    merchant_streak_age_hours: Annotated[
        float, _feature("Time since the first fraud of the streak; 0 without a streak.", "hours", "at most 720")
    ]
    merchant_hours_since_legitimate: Annotated[
        float, _hours_since("last transaction there that was labelled legitimate")
    ]
    merchant_hours_since_lowamount_fraud: Annotated[float, _hours_since("last low-amount fraud there")]
    card_frauds_7d: Annotated[float, _feature("Confirmed frauds of the card.", "count", "7 days + today")]
    card_frauds_30d: Annotated[float, _feature("Confirmed frauds of the card.", "count", "30 days + today")]
    card_hours_since_fraud: Annotated[float, _hours_since("card's last confirmed fraud")]

    def vector(self) -> tuple[float, ...]:
        """Return the values in contract order."""
        return msgspec.structs.astuple(self)


NAMES: Final[tuple[str, ...]] = Features.__struct_fields__
