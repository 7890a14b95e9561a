"""Invalid rows: the first one is an error with the number of its like, or all are skipped, counted and saved."""

from __future__ import annotations

import csv
import json

import pytest
from support.worlds import MONDAY

from fraud_service.domain.errors import ConfigurationError, InvalidFile
from fraud_service.training.history import History
from fraud_service.training.history_checks import CardDataCheck
from fraud_service.training.mapping import FileMapping

PAN = "4000000000000002"
ROW = {
    "transaction_id": "t",
    "timestamp": MONDAY,
    "card_id": "c1",
    "merchant_id": "m1",
    "amount": "5",
    "currency": "EUR",
    "is_fraud": "0",
    "labelled_at": MONDAY + 1000,
}


@pytest.fixture
def written(tmp_path):
    """Write rows as CSV or JSON Lines: the number of valid ones, with changes to some, by row number."""

    def build(rows, changes=(), suffix="csv", name="past"):
        path = tmp_path / f"{name}.{suffix}"
        changed = dict(changes)
        all_rows = [ROW | {"transaction_id": f"t{n}"} | changed.get(n, {}) for n in range(1, rows + 1)]
        with path.open("w", encoding="utf-8", newline="") as file:
            if suffix == "csv":
                writer = csv.DictWriter(file, list(ROW))
                writer.writeheader()
                writer.writerows(all_rows)
            else:
                file.writelines(json.dumps(row) + "\n" for row in all_rows)
        return path

    return build


BAD = {
    2: {"amount": "-5"},
    3: {"amount": "-7"},
    5: {"timestamp": "soon", "amount": "free"},
    8: {"labelled_at": MONDAY - 1},
    9: {"card_id": ""},
}


def test_the_first_invalid_row_stops_with_the_number_of_its_like_and_the_option(written):
    with pytest.raises(ConfigurationError) as caught:
        History.open(written(20, {2: {"amount": "-5"}, 7: {"amount": "-6"}}))
    assert "row 2, column `amount`: not an amount" in str(caught.value)
    assert str(caught.value).endswith("(2 of 20 rows; --skip-invalid leaves such rows out)")


def test_the_option_is_not_offered_where_it_would_be_refused(written):
    with pytest.raises(ConfigurationError) as caught:
        History.open(written(3, {1: {"amount": "free"}, 2: {"amount": "free"}}))
    assert str(caught.value).endswith("(2 of 3 rows)")


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_invalid_rows_are_skipped_and_counted_by_reason(written, suffix):
    history = History.open(written(20, BAD, suffix), skips=True)
    assert [row.transaction.transaction_id for row in history] == sorted(f"t{n}" for n in range(1, 21) if n not in BAD)
    assert [*history.skipped.faults] == [*BAD]
    said = str(history.skipped)
    assert said.startswith("5 of 20 rows: 2 × `amount`: not an amount from 0 to 1e+13: it is negative")
    assert "1 × `timestamp`: `timestamp` is not " in said
    assert "1 × `labelled_at`: the label would be known before its payment" in said
    assert "1 × `card_id`: `card_id` must not be missing" in said


def test_a_line_with_an_array_is_a_row_to_skip_unless_it_is_the_first(written, tmp_path):
    lines = written(5, {}, "jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path / "arrays.jsonl"
    path.write_text("\n".join([*lines[:3], "[1]", *lines[3:]]), encoding="utf-8")
    assert [*History.open(path, skips=True).skipped.faults] == [4]
    path.write_text("\n".join(["[1]", *lines]), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"row 1: not a JSON object; write one object a line$"):
        History.open(path, skips=True)


def test_a_history_without_invalid_rows_skips_none(written):
    assert str(History.open(written(3), skips=True).skipped) == "0 of 3 rows"


def test_rows_that_cannot_be_split_are_skipped_and_others_keep_their_numbers(written, tmp_path):
    path = written(20, {15: {"amount": "free"}})
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[4] += ",more"
    lines[10] = "short"
    path.write_text("\n\n".join(["# a comment", *lines]), encoding="utf-8")
    history = History.open(path, FileMapping(number_rows=True, fields={}), skips=True)
    assert {number: fault.reason.split(",")[0] for number, fault in history.skipped.faults.items()} == {
        4: "has 9 values",
        10: "has 1 values",
        15: "not an amount from 0 to 1e+13",
    }
    assert {row.transaction.transaction_id for row in history} == {
        f"past-row{n:09}" for n in range(1, 21) if n not in {4, 10, 15}
    }
    with pytest.raises(ConfigurationError, match="row 4: has 9 values, but there are 8 columns; --skip-invalid"):
        History.open(path)


def test_lines_that_are_not_json_are_skipped_and_others_keep_their_numbers(written):
    path = written(20, {15: {"amount": "free"}}, "jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = '{"card_id": "4'
    path.write_text("\n".join(lines), encoding="utf-8")
    history = History.open(path, skips=True)
    assert {number: fault.columns for number, fault in history.skipped.faults.items()} == {4: "", 15: "amount"}
    assert len(history) == 18


def test_numbers_count_through_the_parts_of_a_folder(written, tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("part-0", "part-1"):
        written(10, {7: {"amount": "free"}}, name=name).rename(folder / f"{name}.csv")
    assert [*History.open(folder, skips=True).skipped.faults] == [7, 17]


def test_skipped_rows_are_saved_with_their_reason_and_values_but_no_card_number(written, tmp_path):
    path = written(20, {2: {"amount": "-5"}, 6: {"merchant_id": f"{PAN} shop", "amount": "free"}})
    History.open(path, skips=True).skipped.save(tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open(encoding="utf-8", newline="") as file:
        saved = list(csv.DictReader(file))
    assert [(row["row"], row["column"], row["amount"]) for row in saved] == [
        ("2", "amount", "-5"),
        ("6", "amount", "free"),
    ]
    assert saved[0]["reason"].startswith("not an amount")
    assert saved[0]["transaction_id"] == "t2"
    assert saved[1]["merchant_id"] == "[card number] shop"
    assert PAN not in (tmp_path / "skipped.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize("bad", [11, 20])
def test_a_file_of_mostly_invalid_rows_is_refused(written, bad):
    with pytest.raises(InvalidFile, match=rf"row 1, column `amount`: .*{bad} of 20 rows are invalid, more than half"):
        History.open(written(20, {n: {"amount": "free"} for n in range(1, bad + 1)}), skips=True)
    several = {n: {"amount": "free"} if n % 2 else {"card_id": ""} for n in range(1, bad + 1)}
    with pytest.raises(InvalidFile, match=rf"{bad} of 20 rows are invalid, more than half"):
        History.open(written(20, several), skips=True)
    assert len(History.open(written(20, {n: {"amount": "free"} for n in range(1, 11)}), skips=True)) == 10


def test_card_data_is_refused_with_the_row_of_the_file_also_when_rows_are_skipped(written):
    path = written(20, {2: {"amount": "-5"}, 6: {"merchant_id": PAN}})
    with pytest.raises(ConfigurationError, match="row 6, column `merchant_id`: what seems to be a card number"):
        History.open(path, skips=True, check=CardDataCheck(path))
