"""Amounts of several currencies, and account verifications of 0: they do not change what is usual for a card."""

from __future__ import annotations

import json

from support.field_cases import DAY_2, backtest, case, needs_field
from support.loop import looped

from fraud_service.domain.records import decode_score

pytestmark = needs_field


def rows_of_payments(tmp_path, amounts: list[tuple[str, str]]):
    """Score payments of one card, an hour after each other; return their features."""
    with looped(tmp_path) as loop:
        for number, (amount, currency) in enumerate(amounts):
            message = {"transaction_id": f"t{number}", "timestamp": 1_709_280_000_000 + number * 3_600_000}
            message |= {"card_id": "c1", "merchant_id": "m1", "amount": amount, "currency": currency}
            loop.raw(json.dumps(message).encode(), b"c1")
        loop.tick()
        assert loop.on("dead_letters") == []
        return [decode_score(one.value).features for one in loop.on("scores")]


@case("14-currencies-mixed")
def test_amounts_are_compared_within_one_currency(folder, tmp_path, command, generated):
    usual, fraud = [("40.00", "EUR")] * 12, ("900.00", "EUR")
    plain = rows_of_payments(tmp_path / "plain", [*usual, fraud])[-1]
    mixed = rows_of_payments(tmp_path / "mixed", [*usual, *[("6400", "JPY")] * 10, fraud])
    for row in mixed[12:22]:
        assert row.amount_to_mean <= 1.01
        assert abs(row.amount_zscore) < 1
    assert mixed[-1].amount_to_mean == plain.amount_to_mean > 20
    assert mixed[-1].amount_zscore == plain.amount_zscore > 5
    assert backtest(command, generated / "currencies_mixed.csv", "--to", DAY_2, "--no-online").returncode == 0


@case("15-account-verification")
def test_an_account_verification_counts_as_a_payment_and_not_in_what_is_usual(folder, tmp_path):
    (alone,) = rows_of_payments(tmp_path / "alone", [("60.00", "EUR")])
    verified = rows_of_payments(tmp_path / "verified", [("0.00", "EUR"), ("60.00", "EUR")])[-1]
    assert verified.amount_zscore == alone.amount_zscore == 0
    assert (verified.amount_to_mean, verified.amount_to_largest) == (1, 1)
    assert verified.count_1d == 1
