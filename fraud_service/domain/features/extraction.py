"""Compute the features of one transaction from what was known before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.entry_modes import CARD_NOT_PRESENT, entry_mode
from fraud_service.domain.features.contract import MAX_AGE_H, MAX_DAYS_OR_VISITS, Features
from fraud_service.domain.profile import RECENT
from fraud_service.domain.risk import NO_RISK
from fraud_service.domain.time import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.profile import Profile
    from fraud_service.domain.risk import Risk

EARTH_RADIUS_KM: Final = 6371.0088
MIN_TRIP_HOURS: Final = 1 / 60
MAX_SPEED_KMH: Final = 20_000.0
NIGHT_END_HOUR: Final = 6
SMALL_AMOUNT: Final = 2.0
FIRST_DAY_OF_EPOCH: Final = 3  # 1970-01-01 was a Thursday, day 3 of a week that begins on Monday
SATURDAY: Final = 5


def extract(transaction: Transaction, profile: Profile, merchant: Risk, card: Risk, as_of: int) -> Features:
    """Compute the features of a transaction from what was known before it.

    Parameters
    ----------
    transaction
        A transaction with its local time; without `utc_offset_min`, that is UTC.
    profile
        The card's profile, without this transaction.
    merchant, card
        Label counts as of the snapshot boundary `as_of` (epoch milliseconds).

    >>> from fraud_service.domain.events import Transaction
    >>> from fraud_service.domain.profile import Profile
    >>> payment = Transaction(
    ...     transaction_id="t-1", timestamp=0, card_id="c-1", merchant_id="m-1", amount=25.0, currency="EUR"
    ... )
    >>> features = extract(payment, Profile(), NO_RISK, NO_RISK, as_of=0)
    >>> features.amount, features.count_1d, features.hours_since_last
    (25.0, 0.0, 720.0)
    """
    month = _month(profile, transaction.timestamp // DAY)
    is_comparable = profile.can_compare(transaction)
    return Features(
        *_transaction_features(transaction),
        *_activity_features(transaction, profile, month, is_comparable=is_comparable),
        *_amount_features(transaction, profile, month, is_comparable=is_comparable),
        *_merchant_device_and_place_features(transaction, profile),
        *_merchant_risk_features(transaction.timestamp, merchant, as_of),
        *_card_risk_features(transaction.timestamp, card, as_of),
    )


def _transaction_features(transaction: Transaction) -> tuple[float, ...]:
    local = transaction.timestamp + (transaction.utc_offset_min or 0) * MINUTE
    hour = local // HOUR % 24
    weekday = (local // DAY + FIRST_DAY_OF_EPOCH) % 7
    return (
        transaction.amount,
        float(hour),
        float(hour < NIGHT_END_HOUR),
        float(weekday >= SATURDAY),
        float(entry_mode(transaction.entry_mode) in CARD_NOT_PRESENT),
    )


class _Month(NamedTuple):
    """The daily buckets of the last 30 days, summed up."""

    count_7d: int = 0
    amounts_7d: int = 0
    total_7d: float = 0.0
    count_30d: int = 0
    amounts_30d: int = 0
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
    if any(days.outliers):  # few cards have one
        amount_outliers_3d, amount_outliers_14d = (
            sum(days.outliers[days.window(newest, 3)]),
            sum(days.outliers[days.window(newest, 14)]),
        )
    return _Month(
        sum(days.counts[week]),
        sum(days.amounts[week]),
        _total(days.totals[week]),
        sum(days.counts[month]),
        sum(days.amounts[month]),
        _total(days.totals[month]),
        max(largest),
        amount_outliers_3d,
        amount_outliers_14d,
    )


def _total(amounts: list[float]) -> float:
    """Add in order: the rounding of `sum` differs between releases of Python."""
    total = 0.0
    for amount in amounts:
        total += amount
    return total


def _activity_features(
    transaction: Transaction, profile: Profile, month: _Month, *, is_comparable: bool
) -> tuple[float, ...]:
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
        _total(profile.hours.totals[today]) if is_comparable else 0.0,
        month.total_7d / month.amounts_7d if is_comparable and month.amounts_7d else 0.0,
        month.total_30d / month.amounts_30d if is_comparable and month.amounts_30d else 0.0,
        count_1d * span / month.count_30d if month.count_30d else 0.0,
    )


def _last_hour(profile: Profile, now: int) -> tuple[float, float, float, float]:
    if now - profile.last_seen >= HOUR:  # most payments: the card was idle, so every count is 0
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


def _amount_features(
    transaction: Transaction, profile: Profile, month: _Month, *, is_comparable: bool
) -> tuple[float, ...]:
    amount, outliers = transaction.amount, (float(month.amount_outliers_3d), float(month.amount_outliers_14d))
    if not is_comparable:
        return 1.0, 1.0, 0.0, *outliers
    return (
        _ratio(amount * month.amounts_30d, month.total_30d),
        _ratio(amount, month.largest),
        min(max(profile.amount_zscore(amount), -20.0), 20.0),
        *outliers,
    )


def _ratio(amount: float, reference: float) -> float:
    return min(amount / reference, 1000.0) if reference > 0 else 1.0


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
    """Return the distance in km between two places in degrees, by the haversine formula.

    >>> round(_great_circle(52.52, 13.405, 48.8566, 2.3522))  # Berlin to Paris
    877
    """
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
        0.0 if risk.streak_started_at is None else _hours_since(now, risk.streak_started_at),
        _hours_since(now, risk.last_legitimate),
        _hours_since(now, risk.last_lowamount_fraud),
    )


def _card_risk_features(now: int, risk: Risk, as_of: int) -> tuple[float, ...]:
    if risk is NO_RISK:
        return 0.0, 0.0, MAX_AGE_H
    (_, frauds_7d), (_, frauds_30d) = risk.labelled(as_of, 7, 30)
    return (float(frauds_7d), float(frauds_30d), _hours_since(now, risk.last_fraud))


def _hours_since(now: int, then: int | None) -> float:
    return MAX_AGE_H if then is None else min(max(now - then, 0) / HOUR, MAX_AGE_H)
