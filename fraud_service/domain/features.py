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

import math
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import msgspec

from fraud_service.domain.profile import RECENT
from fraud_service.domain.risk import NO_RISK
from fraud_service.domain.time import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.profile import Profile
    from fraud_service.domain.risk import Risk

VERSION: Final = 3

# What grows for as long as the service runs is cut off: a model must not meet values larger than it was fitted on.
MAX_DAYS_OR_VISITS: Final = 30.0
MAX_AGE_H: Final = 720.0  # hours: "thirty days or more, or never"
EARTH_RADIUS_KM: Final = 6371.0088
MIN_TRIP_HOURS: Final = 1 / 60
MAX_SPEED_KMH: Final = 20_000.0
NIGHT_END_HOUR: Final = 6
SMALL_AMOUNT: Final = 2.0
FIRST_DAY_OF_EPOCH: Final = 3  # 1970-01-01 was a Thursday, day 3 of a week that begins on Monday
SATURDAY: Final = 5
CARD_NOT_PRESENT: Final = frozenset({"ecommerce", "keyed"})


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


def extract(transaction: Transaction, profile: Profile, merchant: Risk, card: Risk, as_of: int) -> Features:
    """Compute the features of a transaction from what was known before it.

    Parameters
    ----------
    profile
        The card's record, this transaction not folded in yet.
    merchant, card
        What labels said of them as of the boundary `as_of` (epoch milliseconds).
    """
    month = _month(profile, transaction.timestamp // DAY)
    return Features(
        *_transaction_features(transaction),
        *_activity_features(transaction, profile, month),
        *_amount_features(transaction, profile, month),
        *_merchant_device_and_place_features(transaction, profile),
        *_merchant_risk_features(transaction.timestamp, merchant, as_of),
        *_card_risk_features(transaction.timestamp, card, as_of),
    )


def _transaction_features(transaction: Transaction) -> tuple[float, ...]:
    hour = transaction.timestamp // HOUR % 24
    weekday = (transaction.timestamp // DAY + FIRST_DAY_OF_EPOCH) % 7
    return (
        transaction.amount,
        float(hour),
        float(hour < NIGHT_END_HOUR),
        float(weekday >= SATURDAY),
        float(transaction.entry_mode in CARD_NOT_PRESENT),
    )


class _Month(NamedTuple):
    """What the daily buckets of a card say of the thirty days up to a day."""

    count_7d: int = 0
    total_7d: float = 0.0
    count_30d: int = 0
    total_30d: float = 0.0
    largest: float = 0.0
    amount_outliers_3d: int = 0
    amount_outliers_14d: int = 0


def _month(profile: Profile, newest: int) -> _Month:
    days = profile.days
    month = days.window(newest, 30)
    largest = days.largest[month]
    if not largest:
        return _Month()
    week = days.window(newest, 7)
    amount_outliers_3d = amount_outliers_14d = 0
    if any(days.high):  # of few cards
        amount_outliers_3d, amount_outliers_14d = (
            sum(days.high[days.window(newest, 3)]),
            sum(days.high[days.window(newest, 14)]),
        )
    return _Month(
        sum(days.counts[week]),
        _total(days.totals[week]),
        sum(days.counts[month]),
        _total(days.totals[month]),
        max(largest),
        amount_outliers_3d,
        amount_outliers_14d,
    )


def _total(amounts: list[float]) -> float:
    """Add up in order; `sum` rounds otherwise from one release of Python to the next."""
    total = 0.0
    for amount in amounts:
        total += amount
    return total


def _activity_features(transaction: Transaction, profile: Profile, month: _Month) -> tuple[float, ...]:
    now = transaction.timestamp
    if profile.count == 0:
        return 0.0, MAX_AGE_H, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    age = min(max(now - profile.first_seen, 0) / DAY, MAX_DAYS_OR_VISITS)
    today = profile.hours.window(now // HOUR, 24)
    count_1d = sum(profile.hours.counts[today])
    span = min(age + 1.0, 30.0)
    return (
        age,
        _hours_since(now, profile.last_seen),
        *_last_hour(profile, now),
        float(count_1d),
        float(month.count_7d),
        float(month.count_30d),
        _total(profile.hours.totals[today]),
        month.total_7d / month.count_7d if month.count_7d else 0.0,
        month.total_30d / month.count_30d if month.count_30d else 0.0,
        count_1d * span / month.count_30d if month.count_30d else 0.0,
    )


def _last_hour(profile: Profile, now: int) -> tuple[float, float, float, float]:
    if now - profile.last_seen >= HOUR:  # and so is all the rest: most payments come alone
        return 0.0, 0.0, 0.0, 0.0
    count_10m = count_1h = small = 0
    merchants = set()
    for _, timestamp, amount, merchant, _ in RECENT.iter_unpack(profile.recent):
        age = now - timestamp
        if 0 <= age < HOUR:
            count_1h += 1
            count_10m += age < 10 * MINUTE
            small += amount <= SMALL_AMOUNT
            merchants.add(merchant)
    return float(count_10m), float(count_1h), float(small), float(len(merchants))


def _amount_features(transaction: Transaction, profile: Profile, month: _Month) -> tuple[float, ...]:
    amount = transaction.amount
    return (
        _ratio(amount * month.count_30d, month.total_30d),
        _ratio(amount, month.largest),
        min(max(profile.amount_zscore(amount), -20.0), 20.0),
        float(month.amount_outliers_3d),
        float(month.amount_outliers_14d),
    )


def _ratio(amount: float, of: float) -> float:
    return min(amount / of, 1000.0) if of > 0 else 1.0


def _merchant_device_and_place_features(transaction: Transaction, profile: Profile) -> tuple[float, ...]:
    distance, speed = _travel(transaction, profile)
    return (
        min(float(profile.visits(transaction.merchant_id)), MAX_DAYS_OR_VISITS),
        float(profile.is_new(transaction.country, profile.countries)),
        float(profile.is_new(transaction.device_id, profile.devices)),
        distance,
        speed,
    )


def _travel(transaction: Transaction, profile: Profile) -> tuple[float, float]:
    place = profile.place
    if place is None or transaction.latitude is None or transaction.longitude is None:
        return 0.0, 0.0
    distance = _great_circle(place.latitude, place.longitude, transaction.latitude, transaction.longitude)
    hours = max(abs(transaction.timestamp - place.timestamp) / HOUR, MIN_TRIP_HOURS)
    return distance, min(distance / hours, MAX_SPEED_KMH)


def _great_circle(latitude1: float, longitude1: float, latitude2: float, longitude2: float) -> float:
    """Distance in km between two places in degrees, by the haversine formula."""
    phi1, phi2 = math.radians(latitude1), math.radians(latitude2)
    half_phi = (phi2 - phi1) / 2
    half_lambda = math.radians(longitude2 - longitude1) / 2
    chord = math.sin(half_phi) ** 2 + math.cos(phi1) * math.cos(phi2) * math.sin(half_lambda) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(chord, 1.0)))


def _merchant_risk_features(now: int, risk: Risk, as_of: int) -> tuple[float, ...]:
    if risk is NO_RISK:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, MAX_AGE_H, MAX_AGE_H
    (labelled_1d, frauds_1d), (labelled_7d, frauds_7d), (labelled_30d, frauds_30d) = risk.labelled(as_of, 1, 7, 30)
    return (
        float(labelled_1d),
        float(labelled_7d),
        float(labelled_30d),
        frauds_1d / labelled_1d if labelled_1d else 0.0,
        frauds_7d / labelled_7d if labelled_7d else 0.0,
        frauds_30d / labelled_30d if labelled_30d else 0.0,
        float(min(risk.streak, 100)),
        float(min(risk.lowamount_frauds, 100)),
        0.0 if risk.streak_began is None else _hours_since(now, risk.streak_began),
        _hours_since(now, risk.last_genuine),
        _hours_since(now, risk.last_lowamount_fraud),
    )


def _card_risk_features(now: int, risk: Risk, as_of: int) -> tuple[float, ...]:
    if risk is NO_RISK:
        return 0.0, 0.0, MAX_AGE_H
    (_, frauds_7d), (_, frauds_30d) = risk.labelled(as_of, 7, 30)
    return (
        float(frauds_7d),
        float(frauds_30d),
        _hours_since(now, risk.last_fraud),
    )


def _hours_since(now: int, then: int | None) -> float:
    return MAX_AGE_H if then is None else min(max(now - then, 0) / HOUR, MAX_AGE_H)
