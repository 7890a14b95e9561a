"""The ready mappings read the files of their data sets. All rows are made up."""

from __future__ import annotations

import pytest
from support.public_sets import ROWS, payments, write_set

from fraud_service.training.history import History
from fraud_service.training.known_sets import known_sets, recognise
from fraud_service.training.mapping import load_mapping

PAYMENTS = list(payments())
COUNTED = {"creditcard": "2013-09-01T00:00:00.000Z", "ieee-cis": "2017-12-02T00:00:00.000Z"}  # from which Time counts


def read(name, folder):
    """Read the made-up file of a data set as `train` and `backtest` do; gives its rows in the order of the file."""
    return list(History.open(write_set(name, folder), load_mapping(name)))


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
