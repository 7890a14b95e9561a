"""Statistics of amounts: without payments of 0.00, and in one currency."""

from __future__ import annotations

import pytest
from support.worlds import DAY, HOUR, MONDAY, transaction

from fraud_service.domain.features import extract
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.risk import NO_RISK

COLD = {"total_1d": 0, "mean_7d": 0, "mean_30d": 0, "amount_to_mean": 1, "amount_to_largest": 1, "amount_zscore": 0}


def paid(*amounts, currency="EUR", profile=None, start=MONDAY, every=HOUR):
    """Add payments to a profile."""
    profile = Profile() if profile is None else profile
    for number, amount in enumerate(amounts):
        at = start + number * every
        profile.update(transaction(f"t{at}-{currency}", at, amount=amount, currency=currency))
    return profile


def row(profile, amount, currency="EUR", at=MONDAY + 20 * HOUR):
    return extract(transaction("now", at, amount=amount, currency=currency), profile, NO_RISK, NO_RISK, 0)


def of_amounts(features):
    return {name: getattr(features, name) for name in COLD}


def test_a_verification_before_the_first_payment_changes_no_statistic_of_amounts():
    verified, fresh = paid(0.0), Profile()
    assert of_amounts(row(verified, 60.0)) == of_amounts(row(fresh, 60.0)) == COLD
    verified.update(transaction("t1", MONDAY + HOUR, amount=60.0))
    fresh.update(transaction("t1", MONDAY + HOUR, amount=60.0))
    assert of_amounts(row(verified, 70.0)) == of_amounts(row(fresh, 70.0))
    assert row(verified, 70.0).amount_zscore == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("position", range(6))
def test_verifications_count_in_velocity_and_card_testing_alone(position):
    amounts = [30.0, 20.0, 50.0, 35.0, 25.0]
    plain = paid(*amounts, every=5 * 60_000)
    verified = paid(*amounts[:position], 0.0, 0.0, *amounts[position:], every=5 * 60_000)
    now = MONDAY + 50 * 60_000
    found, expected = row(verified, 40.0, at=now), row(plain, 40.0, at=now)
    assert of_amounts(found) == of_amounts(expected)
    assert (found.count_1d, found.count_1h, found.count_30d) == (7, 7, 7)
    assert (found.small_payments_1h, expected.small_payments_1h) == (2, 0)


def test_verifications_do_not_count_towards_the_payments_to_judge_an_amount():
    judged, unjudged = paid(20.0, 21.0, 22.0, 20.0, 21.0, 900.0), paid(20.0, 21.0, 22.0, 20.0, 0.0, 900.0)
    assert (row(judged, 20.0).amount_outliers_3d, row(unjudged, 20.0).amount_outliers_3d) == (1, 0)


def test_a_verification_itself_is_not_compared():
    assert of_amounts(row(paid(30.0, 20.0, 50.0), 0.0)) == COLD


def test_a_card_with_verifications_only_has_no_mean_and_no_largest_amount():
    assert of_amounts(row(paid(0.0, 0.0, 0.0), 30.0)) == COLD


USUAL = (30.0, 24.0, 41.0, 28.0, 35.0, 22.0, 33.0)


def test_payments_in_yen_do_not_hide_a_later_fraud_in_euro():
    profile = paid(*USUAL)
    expected = of_amounts(row(profile, 900.0))
    paid(*[3000.0] * 10, currency="JPY", profile=profile, start=MONDAY + 8 * HOUR)
    found = row(profile, 900.0)
    assert of_amounts(found) == expected
    assert (found.amount_zscore > 5, found.amount_to_mean > 20, found.count_1d) == (True, True, 17)


def test_a_payment_in_yen_is_not_compared_with_amounts_in_euro():
    found = row(paid(*USUAL), 6400.0, "JPY")
    assert of_amounts(found) == COLD
    assert (found.amount, found.count_1d) == (6400.0, 7)


def test_a_card_that_pays_in_yen_only_is_compared_in_yen():
    found = row(paid(*[100 * amount for amount in USUAL], currency="JPY"), 90_000.0, "JPY")
    assert found.amount_zscore > 5


def test_after_thirty_days_without_the_currency_the_next_one_starts_the_statistics_again():
    profile = paid(*USUAL)
    paid(3000.0, 3100.0, currency="JPY", profile=profile, start=MONDAY + 31 * DAY)
    assert (profile.currency, profile.amounts) == ("JPY", 2)
    found = row(profile, 6100.0, "JPY", MONDAY + 31 * DAY + 2 * HOUR)
    assert (found.mean_30d, found.amount_to_mean) == (3050, 2)
    assert of_amounts(row(profile, 30.0, "EUR", MONDAY + 31 * DAY + 2 * HOUR)) == COLD


def test_a_first_payment_abroad_does_not_set_the_currency_for_long():
    profile = paid(50.0, currency="USD")
    for number in range(6):
        paid(30.0, profile=profile, start=MONDAY + (number + 1) * HOUR)
        assert profile.currency == ("USD" if number < 3 else "EUR")
        profile = decode_profile(encode_profile(profile))
    assert row(profile, 60.0).amount_to_mean == 2


def test_a_subscription_in_another_currency_does_not_keep_that_currency():
    profile = paid(10.0, currency="USD")
    for month in range(1, 4):
        paid(*USUAL, profile=profile, start=MONDAY + (30 * month - 10) * DAY)
        paid(10.0, currency="USD", profile=profile, start=MONDAY + (30 * month - 1) * DAY)
    assert profile.currency == "EUR"


def test_verifications_in_another_currency_never_change_the_currency():
    profile = paid(*USUAL)
    paid(*[0.0] * 50, currency="JPY", profile=profile, start=MONDAY + 8 * HOUR, every=1000)
    paid(3000.0, currency="JPY", profile=profile, start=MONDAY + 9 * HOUR)
    assert (profile.currency, profile.amounts) == ("EUR", 7)
