"""The simulated world is the same on every machine, plausible, and has frauds of every pattern."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from fraud_service.demo.simulator import DAY, HOUR, MINUTE, Pattern, World, simulate, write
from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history import History

SMALL = World(seed=7, cards=300, merchants=120, days=30)
DRIFTING = World(seed=7, cards=300, merchants=120, days=30, drift_day=15)
BEFORE_DRIFT = (Pattern.CARD_TESTING, Pattern.SKIMMER, Pattern.TAKEOVER, Pattern.IMPOSSIBLE_TRAVEL)


@pytest.fixture(scope="module")
def small():
    return simulate(SMALL)


@pytest.fixture(scope="module")
def drifting():
    return simulate(DRIFTING)


def known(column):
    """Python values, NaN as None."""
    return [None if value != value else value for value in column.tolist()]  # noqa: PLR0124 - only NaN is not itself


def rows_of(simulation):
    """Rows as tuples, in which equal rows are equal."""
    return list(zip(*map(known, simulation.columns.values()), strict=True))


def legitimate_mean(simulation):
    """Mean legitimate amount by card."""
    legitimate = simulation.pattern == Pattern.LEGITIMATE
    amounts = {}
    for card, amount in zip(
        simulation.columns["card_id"][legitimate].tolist(),
        simulation.columns["amount"][legitimate].tolist(),
        strict=True,
    ):
        amounts.setdefault(card, []).append(amount)
    return {card: sum(values) / len(values) for card, values in amounts.items()}


def test_the_same_seed_gives_the_same_rows_on_every_machine(small):
    digest = hashlib.sha256("\n".join(map(repr, rows_of(small))).encode()).hexdigest()
    assert digest == "8d1cb2a2ddfc89e3d34e01520064590a6c4270fd5f609bafabbafb2ab3a479d5"


def test_another_seed_gives_other_rows(small):
    other = simulate(World(seed=8, cards=300, merchants=120, days=30))
    assert rows_of(other)[:10] != rows_of(small)[:10]


def test_columns_are_those_of_the_file_in_event_order_with_running_ids(small):
    columns = small.columns
    assert list(columns) == [
        *("transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency", "merchant_category_code"),
        *("country", "entry_mode", "device_id", "latitude", "longitude", "utc_offset_min"),
        *("is_fraud", "labelled_at", "label_source"),
    ]
    assert (np.diff(columns["timestamp"]) >= 0).all()
    assert columns["transaction_id"][[0, 1, -1]].tolist() == [
        "t-000000000",
        "t-000000001",
        f"t-{len(small.pattern) - 1:09d}",
    ]
    assert SMALL.start <= columns["timestamp"][0]
    assert columns["timestamp"][-1] < SMALL.start + SMALL.days * DAY


def test_amounts_are_positive_cents(small):
    amount = small.columns["amount"]
    assert amount.min() > 0
    assert (amount == amount.round(2)).all()


@pytest.mark.parametrize("seed", range(1, 6))
def test_about_one_payment_in_a_hundred_is_a_fraud(seed):
    columns = simulate(World(seed=seed, cards=600, merchants=300, days=40)).columns
    assert 0.005 <= columns["is_fraud"].mean() <= 0.015


@pytest.mark.parametrize("pattern", BEFORE_DRIFT)
def test_each_pattern_occurs_and_is_labelled_fraud(small, pattern):
    chosen = small.pattern == pattern
    assert chosen.any()
    assert small.columns["is_fraud"][chosen].all()


def test_payments_without_a_pattern_are_legitimate_and_without_drift_there_are_no_lookalikes(small):
    assert not small.columns["is_fraud"][small.pattern == Pattern.LEGITIMATE].any()
    assert not (small.pattern == Pattern.LOOKALIKE).any()


def test_card_testing_starts_with_tiny_payments_minutes_apart_and_ends_with_large_ones(small):
    chosen = small.pattern == Pattern.CARD_TESTING
    columns = {name: column[chosen] for name, column in small.columns.items()}
    assert set(columns["entry_mode"]) == {"ecommerce"}
    for device in set(columns["device_id"]):  # one device per campaign
        of_campaign = columns["device_id"] == device
        amount, time = columns["amount"][of_campaign], columns["timestamp"][of_campaign]
        tests = int((amount <= 3).sum())
        assert 3 <= tests <= 8
        assert (amount[:tests] <= 3).all()
        assert (amount[tests:] > 3).all()
        assert time[tests - 1] - time[0] <= 15 * MINUTE


def test_most_payments_at_a_skimmed_terminal_are_frauds_while_it_is_compromised(small):
    merchant, chosen = small.columns["merchant_id"], small.pattern == Pattern.SKIMMER
    assert "ecommerce" not in small.columns["entry_mode"][chosen]
    busiest = max(set(merchant[chosen]), key=lambda name: (merchant[chosen] == name).sum())
    first, *_, last = np.flatnonzero(chosen & (merchant == busiest))
    there = merchant[first : last + 1] == busiest
    assert 0.5 < chosen[first : last + 1][there].mean() < 1
    assert small.columns["timestamp"][last] - small.columns["timestamp"][first] <= 28 * DAY


def test_a_takeover_spends_multiples_of_the_usual_amount_of_the_card(small):
    usual, chosen = legitimate_mean(small), small.pattern == Pattern.TAKEOVER
    cards, amounts = small.columns["card_id"][chosen].tolist(), small.columns["amount"][chosen].tolist()
    ratios = [amount / usual[card] for card, amount in zip(cards, amounts, strict=True) if card in usual]
    assert 3 < np.median(ratios) < 8


def test_impossible_travel_follows_a_legitimate_payment_within_the_hour_an_ocean_away(small):
    columns = small.columns
    terminal = (small.pattern == Pattern.LEGITIMATE) & (columns["entry_mode"] != "ecommerce")
    skimmed = small.pattern == Pattern.SKIMMER  # the payment before may itself have gone wrong
    for row in np.flatnonzero(small.pattern == Pattern.IMPOSSIBLE_TRAVEL):
        assert columns["entry_mode"][row] in {"magstripe", "keyed"}
        assert columns["country"][row] in {"US", "BR", "TH"}
        before = (terminal | skimmed) & (columns["card_id"] == columns["card_id"][row])
        gap = columns["timestamp"][row] - columns["timestamp"][before]
        near = (gap > 0) & (gap <= HOUR)
        assert (columns["country"][before][near] != columns["country"][row]).any()


def test_rows_before_the_drift_day_do_not_depend_on_the_drift(small, drifting):
    end = DRIFTING.start + 15 * DAY
    before = int((drifting.columns["timestamp"] < end).sum())
    assert before > 1_000
    assert rows_of(drifting)[:before] == rows_of(small)[:before]
    assert (drifting.pattern[:before] == small.pattern[:before]).all()


def test_the_drift_replaces_card_testing_and_takeover_by_lookalikes(drifting):
    after = drifting.columns["timestamp"] >= DRIFTING.start + 15 * DAY
    assert Pattern.LOOKALIKE not in drifting.pattern[~after]
    assert Pattern.LOOKALIKE in drifting.pattern[after]
    assert not {Pattern.CARD_TESTING, Pattern.TAKEOVER} & set(drifting.pattern[after].tolist())
    assert 0.005 <= drifting.columns["is_fraud"][after].mean() <= 0.015


def test_a_lookalike_shops_at_night_from_a_known_device_at_merchants_new_to_the_card(drifting):
    columns, chosen = drifting.columns, drifting.pattern == Pattern.LOOKALIKE
    legitimate = drifting.pattern == Pattern.LEGITIMATE
    visited = set(zip(columns["card_id"][legitimate], columns["merchant_id"][legitimate], strict=True))
    assert not visited & set(zip(columns["card_id"][chosen], columns["merchant_id"][chosen], strict=True))
    assert (columns["timestamp"][chosen] % DAY < 5 * HOUR).all()
    known = np.isin(columns["device_id"][chosen].astype(str), columns["device_id"][legitimate].astype(str))
    assert known.mean() > 0.8  # a card that never shopped online shows its device for the first time


def test_no_label_comes_before_its_transaction_nor_a_month_later(drifting):
    delay = drifting.columns["labelled_at"] - drifting.columns["timestamp"]
    assert delay.min() > 0
    assert delay.max() <= 30 * DAY


def test_legitimate_payments_settle_after_exactly_seven_days(small):
    legitimate = ~small.columns["is_fraud"]
    assert set(small.columns["label_source"][legitimate]) == {"settlement"}
    assert ((small.columns["labelled_at"] - small.columns["timestamp"])[legitimate] == 7 * DAY).all()


def test_frauds_are_found_by_analysts_within_hours_customers_within_days_and_chargebacks_later(small):
    delay, source = small.columns["labelled_at"] - small.columns["timestamp"], small.columns["label_source"]
    fraud = small.columns["is_fraud"]
    assert set(source[fraud]) == {"chargeback", "customer", "analyst"}
    assert delay[fraud & (source == "analyst")].max() <= 6 * HOUR
    assert delay[fraud & (source == "customer")].max() <= 2 * DAY
    assert 3 * DAY < np.median(delay[fraud & (source == "chargeback")]) < 8 * DAY


def test_online_payments_have_a_device_and_others_a_place(small):
    online = small.columns["entry_mode"] == "ecommerce"
    assert all(device is not None for device in small.columns["device_id"][online])
    assert all(device is None for device in small.columns["device_id"][~online])
    assert np.isnan(small.columns["latitude"][online]).all()
    assert not np.isnan(small.columns["longitude"][~online]).any()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_written_world_reads_back_without_a_mapping(tmp_path, small, suffix):
    path = tmp_path / f"world{suffix}"
    assert write(SMALL, path) == len(small.pattern)
    history = History.open(path)
    assert len(history) == len(small.pattern)
    for row, expected in zip(history, rows_of(small), strict=True):
        transaction = row.transaction
        seen = (
            *(transaction.transaction_id, transaction.timestamp, transaction.card_id, transaction.merchant_id),
            *(transaction.amount, transaction.currency, transaction.merchant_category_code, transaction.country),
            *(transaction.entry_mode, transaction.device_id, transaction.latitude, transaction.longitude),
            *(transaction.utc_offset_min, row.is_fraud, row.labelled_at),
        )
        assert seen == expected[:-1]


def test_a_world_without_payments_is_written_as_an_empty_file(tmp_path):
    worlds = [World(seed=seed, cards=1, merchants=40, days=1) for seed in range(20)]
    empty = next(world for world in worlds if not len(simulate(world).pattern))
    write(empty, tmp_path / "empty.parquet")
    assert list(History.open(tmp_path / "empty.parquet")) == []


def test_a_file_name_without_a_known_format_is_rejected_before_the_simulation(tmp_path):
    with pytest.raises(ConfigurationError, match=r"world\.xlsx.*\.parquet, \.csv, \.jsonl"):
        write(SMALL, tmp_path / "world.xlsx")


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"seed": -1}, "seed=-1: must be at least 0"),
        ({"cards": 0}, "cards=0: must be at least 1"),
        ({"merchants": 39}, "merchants=39: must be at least 40"),
        ({"days": 0}, "days=0: must be at least 1"),
        ({"days": 10, "drift_day": 10}, "drift_day=10: must be from 0 to 9"),
    ],
)
def test_an_impossible_world_is_rejected(figures, message):
    with pytest.raises(ConfigurationError, match=message):
        World(**figures)
