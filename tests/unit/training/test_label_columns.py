"""A file whose label has another name: the column is named, with the option that reads it, and without a value."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow")

from fraud_service.training.history_files import open_source
from fraud_service.training.label_columns import explain_missing_label
from fraud_service.training.mapping import FileMapping

COLUMNS = "transaction_id,timestamp,card_id,merchant_id,amount,currency"
ROWS = [f"t{n},2024-03-01T10:00:00Z,c{n % 3},m1,{n}.00,EUR" for n in range(12)]


def explained(tmp_path, **columns):
    path = tmp_path / "past.csv"
    lines = [",".join([COLUMNS, *columns])]
    lines += [
        ",".join([row, *(str(values[n % len(values)]) for values in columns.values())]) for n, row in enumerate(ROWS)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return explain_missing_label(open_source(path, FileMapping()))


@pytest.mark.parametrize(
    "name", ["Class", "isFraud", "TX_FRAUD", "fraud_flag", "chargeback", "FRAUD", "is_chargeback", "fraud_reported"]
)
@pytest.mark.parametrize("values", [(0, 1, 0), ("Yes", "No"), ("true", "false", "")])
def test_a_column_with_the_name_of_a_label_is_named(tmp_path, name, values):
    assert f"`{name}` seems to be" in (said := explained(tmp_path, **{name: values}))
    assert f"--map {name}=label" in said


def test_a_name_that_a_shell_would_split_is_quoted(tmp_path):
    assert "--map 'Is Fraud?=label'" in explained(tmp_path, **{"Is Fraud?": (0, 1)})


def test_the_name_decides_between_columns_of_two_values(tmp_path):
    said = explained(tmp_path, weekend=(0, 1, 1), isFlaggedFraud=(0, 0, 1), isFraud=(0, 1, 0))
    assert "--map isFraud=label" in said
    assert "Other columns that could be: `isFlaggedFraud`, `weekend`." in said


def test_a_single_row_is_enough_for_a_known_name(tmp_path):
    assert "--map Class=label" in explained(tmp_path, Class=(1,))


def test_a_column_of_two_values_without_a_known_name_is_the_last_resort(tmp_path):
    assert "--map bad=label" in explained(tmp_path, bad=(0, 0, 1), note=("a", "b", "c"))


def test_without_a_candidate_the_columns_are_listed(tmp_path):
    said = explained(tmp_path, note=("a", "b", "c"))
    assert "none seems to be" in said
    assert "`currency`, `note`. Name it with --map COLUMN=label" in said


def test_values_are_never_quoted(tmp_path):
    assert "4242" not in explained(tmp_path, Class=("4242424242424242", "1"), fraud=("x4242", "y"))


def test_the_counts_of_both_values_are_said(tmp_path):
    assert "two values, one of them in 4 of 12 rows" in explained(tmp_path, Class=(0, 1, 0))
