"""Card data does not enter with a file, and payments that a file has more than once are counted."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.card_numbers import is_card_number

from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.tokens import Tokenizer
from fraud_service.training.history import History
from fraud_service.training.history_checks import CardDataCheck, check_entry_modes, count_repeats
from fraud_service.training.mapping import FileMapping

PAN = "4000000000000002"
TOKENIZER = Tokenizer({"k1": b"0" * 32}, "k1")
ROW = {"timestamp": 1_700_000_000_000, "card_id": "c1", "merchant_id": "m1", "amount": 5.0, "currency": "EUR"}


@pytest.fixture
def opened(tmp_path):
    """Open rows as a history; the options are those of the check."""

    def build(*rows, suffix=".jsonl", entries=None, **options):
        path = tmp_path / f"past{suffix}"
        if suffix == ".jsonl":
            path.write_text("".join(json.dumps({"transaction_id": f"t{n}", **ROW, **row}) + "\n" for n, row in rows))
        else:
            names = ["transaction_id", *ROW]
            lines = [[str({"transaction_id": f"t{n}", **ROW, **row}[name]) for name in names] for n, row in rows]
            path.write_text("\n".join(",".join(line) for line in [names, *lines]) + "\n")
        return History.open(path, FileMapping(**entries or {}), check=CardDataCheck(path, **options))

    return build


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
@pytest.mark.parametrize("field", ["card_id", "merchant_id", "transaction_id"])
@pytest.mark.parametrize("spelling", [PAN, "4000 0000 0000 0002", "4000-0000-0000-0002"])
def test_a_card_number_is_rejected_with_its_row_and_column_and_without_its_value(opened, suffix, field, spelling):
    with pytest.raises(ConfigurationError) as raised:
        opened((1, {}), (2, {field: spelling}), (3, {}), suffix=suffix)
    said = str(raised.value)
    assert f"row 2, column `{field}`" in said
    assert "1 of 3 rows (33.3%)" in said
    assert f"--tokenize {field}" in said
    assert "FRAUD_REJECT_PAN=false" in said
    assert "0002" not in said


def test_a_card_number_that_is_a_number_in_the_file_is_rejected_too(opened):
    with pytest.raises(ConfigurationError, match="row 1, column `card_id`"):
        opened((1, {"card_id": int(PAN)}))


def test_the_error_names_the_column_of_the_file_not_the_field(opened):
    row = {"cc_num": PAN, "card_id": "other"}
    with pytest.raises(ConfigurationError, match=r"column `cc_num`.*--tokenize cc_num"):
        opened((1, row), entries={"fields": {"card_id": "cc_num"}})


def test_a_value_for_all_rows_is_checked(opened):
    with pytest.raises(ConfigurationError, match="`--set device_id`: what seems to be a card number"):
        opened((1, {}), entries={"constants": {"device_id": PAN}})


def test_a_column_that_is_not_read_may_have_card_numbers(opened):
    assert len(opened((1, {"note": PAN}))) == 1


def test_long_ids_are_accepted_if_the_setting_allows_them(opened):
    assert is_card_number(b"4000000000000000014")
    with pytest.raises(ConfigurationError, match="FRAUD_REJECT_PAN=false, here and for scorers and learner"):
        opened((1, {"merchant_id": "4000000000000000014"}))
    assert len(opened((1, {"merchant_id": "4000000000000000014"}), rejects_numbers=False)) == 1


def test_security_codes_are_rejected_whatever_the_setting(opened):
    with pytest.raises(ConfigurationError, match="row 1, column `device_id`: sensitive authentication data"):
        opened((1, {"device_id": "cvv=123"}), rejects_numbers=False)


def test_tokens_of_a_file_are_those_of_the_tokenizer(opened):
    rows = [(1, {"card_id": PAN}), (2, {"card_id": "4000 0000 0000 0002"}), (3, {"card_id": "c9"})]
    history = opened(*rows, tokenized=frozenset({"card_id"}), tokenizer=TOKENIZER)
    live = [json.loads(TOKENIZER.tokenize(json.dumps({**ROW, **row}).encode(), None)[0])["card_id"] for _, row in rows]
    assert [event.transaction.card_id for event in history] == live
    assert live[0] == live[1] != live[2]


def test_in_another_column_only_card_numbers_become_tokens(opened):
    rows = [(1, {"device_id": f"pos {PAN}"}), (2, {"device_id": "pos 7"}), (3, {"device_id": None})]
    history = opened(*rows, tokenized=frozenset({"device_id"}), tokenizer=TOKENIZER)
    token = TOKENIZER.token(PAN.encode(), "k1").decode()
    assert [event.transaction.device_id for event in history] == [f"pos {token}", "pos 7", None]


def test_a_column_to_tokenize_that_is_not_read_is_an_error(opened):
    with pytest.raises(ConfigurationError, match=r"--tokenize cc: .* has no such column"):
        opened((1, {}), tokenized=frozenset({"cc"}), tokenizer=TOKENIZER)


@pytest.mark.parametrize("part", ["device_id", "merchant_id"])
def test_one_column_of_a_joined_field_names_the_field_to_tokenize(opened, part):
    entries = {"fields": {"card_id": ("device_id", "merchant_id")}}
    row = {"device_id": PAN[:6], "merchant_id": PAN[6:]}
    with pytest.raises(ConfigurationError, match="--tokenize device_id, with the key"):
        opened((1, row | {"device_id": PAN, "merchant_id": "x"}), entries=entries)
    history = opened((1, row), entries=entries, tokenized=frozenset({part}), tokenizer=TOKENIZER)
    assert PAN not in next(iter(history)).transaction.card_id.replace("-", "")


def test_repeated_payments_and_reused_ids_are_counted(opened):
    again, captured = {"transaction_id": "t1"}, {"transaction_id": "t1", "amount": 6.0}
    history = opened((1, {}), (2, again), (3, captured), (4, again), (5, {"transaction_id": "t1", "card_id": "c2"}))
    assert count_repeats(history) == (2, 1)


def entry_modes(*values):
    return pa.table({"entry_mode": pa.chunked_array([pa.array(values, pa.string())])})


def row_of(file):
    return lambda position: f"{file}, row {position + 1}"


def test_unknown_entry_modes_of_a_file_are_named_with_row_column_and_count(tmp_path):
    file, table = tmp_path / "past.csv", entry_modes("E-Commerce", None, "pigeon", "81", "owl", "pigeon")
    warning = check_entry_modes(table, {"entry_mode": "pos"}, row_of(file), rejects=False)
    assert warning.startswith(f"{file}, row 3, column `pos`: an entry mode without a known meaning, in 3 of 6 rows. ")
    assert "pigeon" not in warning
    with pytest.raises(ConfigurationError, match=r"row 3, column `pos`.*FRAUD_REJECT_UNKNOWN_ENTRY_MODES=false"):
        check_entry_modes(table, {"entry_mode": "pos"}, row_of(file), rejects=True)
    with pytest.raises(ConfigurationError, match=r"^`--set entry_mode`: "):
        check_entry_modes(entry_modes("owl"), {}, row_of(file), rejects=True)


@pytest.mark.parametrize(
    "table", [entry_modes("E-Commerce", "81", "", None), entry_modes(), pa.table({"amount": [1.0]})]
)
def test_a_file_without_unknown_entry_modes_has_no_warning(tmp_path, table):
    assert check_entry_modes(table, {"entry_mode": "entry_mode"}, row_of(tmp_path), rejects=True) is None


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_card_data_in_a_folder_is_named_with_its_part_and_the_row_there(tmp_path, suffix):
    for part in range(3):
        rows = [{"transaction_id": f"t{part}-{n}"} | ROW for n in range(2)]
        rows[1]["merchant_id"] = PAN if part == 1 else "m1"
        path = tmp_path / f"part-{part}{suffix}"
        if suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            parquet.write_table(pa.Table.from_pylist(rows), path)
    with pytest.raises(
        ConfigurationError, match=rf"^{tmp_path}/part-1{suffix}, row 2, column `merchant_id`: .* 1 of 6"
    ):
        History.open(tmp_path, check=CardDataCheck(tmp_path))


def test_the_row_of_card_data_counts_the_rows_that_are_left_out(tmp_path):
    path = tmp_path / "past.jsonl"
    rows = [json.dumps({"transaction_id": f"t{n}"} | ROW) for n in range(4)]
    rows[3] = rows[3].replace("m1", PAN)
    path.write_text("\n".join(["broken", *rows]))
    with pytest.raises(ConfigurationError, match="row 5, column `merchant_id`"):
        History.open(path, check=CardDataCheck(path), skips=True)
