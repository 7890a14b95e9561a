"""The ready mappings read the files of their data sets. All rows are made up."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from support.public_sets import ROWS, START, card_number, payments, write_set

from fraud_service.domain.time import epoch_ms
from fraud_service.training.history import History
from fraud_service.training.known_sets import known_sets, recognise
from fraud_service.training.mapping import load_mapping

PAYMENTS = list(payments())


def read(name, folder):
    """Read the made-up file of a data set as `train` and `backtest` do."""
    return list(History.open(write_set(name, folder), load_mapping(name), skips=name == "tabformer"))


def test_each_data_set_has_a_mapping_and_made_up_rows():
    assert {known.name for known in known_sets()} == set(ROWS)
    assert all(known.title and known.note for known in known_sets())


@pytest.mark.parametrize("name", ROWS)
def test_a_data_set_is_told_from_the_others(name):
    (row, *_) = (ROWS[name](one) for one in PAYMENTS)
    assert recognise(list(row)).name == name
    assert (
        recognise(
            [column for column in row if column not in {"Amount", "amount", "amt", "TX_AMOUNT", "TransactionAmt"}]
        )
        is None
    )


@pytest.mark.parametrize("name", ROWS)
def test_the_values_of_a_data_set_are_right(name, tmp_path):
    found = [
        (one.timestamp, one.card_id, one.merchant_id, one.currency, one.amount, row.is_fraud)
        for row in read(name, tmp_path)
        for one in [row.transaction]
    ]
    expected = [expectation(name, one) for one in PAYMENTS if name != "tabformer" or not is_refund(one)]
    assert sorted(found) == sorted(expected)  # payments of one instant are in the order of their ids


def is_refund(one):
    return one["n"] % 20 == 19


def expectation(name, one):
    """Return time, card, merchant, currency, amount and label of a row, as its data set means them."""
    moment, steps = START + one["after"], one["after"]
    minute = timedelta(minutes=1)
    card, merchant, amount = one["card"], one["merchant"], one["amount"]
    noise = [f"{value:.14f}" for value in one["noise"][:2]]
    ieee_card = f"{1000 + card}-{'' if card == 3 else 321}-visa"
    facts = {
        "banksim": ("2012-11-01", timedelta(days=steps.days), f"C{1000 + card}", f"M{2000 + merchant}", "EUR"),
        "creditcard": ("2013-09-01", steps, "-".join([f"{steps.total_seconds():.0f}", *noise]), "unknown", "EUR"),
        "handbook": ("2024-03-01", steps, str(card), str(merchant), "EUR"),
        "ieee-cis": ("2017-12-02", steps, ieee_card, "WCRHS"[merchant % 5], "USD"),
        "paysim": (
            *("2020-01-01", timedelta(hours=1 + int(steps / timedelta(hours=1)))),
            *(f"C{1000 + card}", f"M{2000 + merchant}", "XXX"),
        ),
        "sparkov": ("2024-03-01", steps, card_number(card), f"fraud_Shop {merchant}, Sons and Co", "USD"),
        "tabformer": (
            *("2024-03-01", (moment - START) // minute * minute),
            *(f"{card}-0", str(-3_000_000_000_000_000_000 + 987_654_321 * merchant), "USD"),
        ),
    }
    day, after, *rest = facts[name]
    begin = epoch_ms(datetime.fromisoformat(f"{day}T00:00:00Z"))
    return (begin + int(after.total_seconds()) * 1000, *rest, amount, bool(one["fraud"]))
