"""Labels are read from a file, each row checked as a single label is."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pyarrow")

import pyarrow as pa
from pyarrow import parquet

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import Label, LabelSource
from fraud_service.training.history_checks import CardDataCheck
from fraud_service.training.label_file import LabelDefaults, read_labels
from fraud_service.training.mapping import FileMapping

MOMENT = 1_767_225_600_000
DEFAULTS = LabelDefaults(None, LabelSource.CHARGEBACK, MOMENT)
ROWS = [
    {"transaction_id": "t1", "card_id": "c1", "label": "true", "labelled_at": "2026-01-03T00:00:00Z"},
    {"transaction_id": "t2", "card_id": "c2", "label": "0", "labelled_at": "2026-01-02T00:00:00Z", "source": "Analyst"},
]
DAY = 86_400_000


def write(path, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".csv":
        lines = [",".join(columns), *(",".join(str(row.get(name, "")) for name in columns) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        parquet.write_table(pa.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows]), path)
    return path


def read(path, mapping=FileMapping(), defaults=DEFAULTS):  # noqa: B008 - immutable
    return read_labels(path, mapping, defaults, CardDataCheck(path))


def label(transaction, card, *, is_fraud, at, source="chargeback"):
    return Label(
        transaction_id=transaction, card_id=card, is_fraud=is_fraud, labelled_at=at, source=LabelSource(source)
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_labels_in_the_order_in_which_they_became_known(tmp_path, suffix):
    found = read(write(tmp_path / f"labels{suffix}", ROWS))
    assert found.labels == [
        label("t2", "c2", is_fraud=False, at=MOMENT + DAY, source="analyst"),
        label("t1", "c1", is_fraud=True, at=MOMENT + 2 * DAY),
    ]
    assert (found.rows, found.repeated) == ([2, 1], 0)


def test_ids_are_enough_if_all_rows_have_one_label(tmp_path):
    path = write(tmp_path / "chargebacks.csv", [{"txn": "7", "card_id": "c1"}])
    mapping = FileMapping(fields={"transaction_id": "txn"})
    found = read(path, mapping, DEFAULTS._replace(is_fraud=True))
    assert found.labels == [label("7", "c1", is_fraud=True, at=MOMENT)]


def test_repeated_rows_are_counted_and_a_later_label_corrects_an_earlier_one(tmp_path):
    first, later = ROWS[0], ROWS[0] | {"label": "false", "labelled_at": "2026-01-09T00:00:00Z"}
    found = read(write(tmp_path / "labels.csv", [later, first, first]))
    assert [one.is_fraud for one in found.labels] == [True, False]
    assert found.repeated == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"label": ""}, "row 2: the label is missing"),
        ({"label": "maybe"}, "row 2, column `label`: not a label"),
        ({"card_id": ""}, "row 2, column `card_id`"),
        ({"labelled_at": "1767225600"}, "looks like seconds"),
        ({"labelled_at": "2026-01-03T00:00:00"}, "row 2, column `labelled_at`"),
        ({"source": "rumour"}, "row 2, column `source`: write one of chargeback, analyst, customer, settlement"),
        ({"card_id": "4242424242424242"}, "row 2, column `card_id`: what seems to be a card number"),
        ({"transaction_id": "t1", "card_id": "c1", "label": "0", "labelled_at": "2026-01-03T00:00:00Z"},
         "row 2: it contradicts row 1"),
    ],
)  # fmt: skip
def test_a_row_that_the_learner_would_reject_is_named_without_its_value(tmp_path, change, complaint):
    with pytest.raises(ConfigurationError) as caught:
        read(write(tmp_path / "labels.csv", [ROWS[0], ROWS[1] | {"source": "analyst"} | change]))
    assert complaint in str(caught.value)
    assert "4242424242424242" not in str(caught.value)
    assert "rumour" not in str(caught.value)


def test_a_label_from_the_future_is_refused_with_its_row(tmp_path):
    found = read(write(tmp_path / "labels.csv", ROWS))
    found.require_known_by(MOMENT + 2 * DAY)
    with pytest.raises(ConfigurationError, match=r"row 1: the label became known on 2026-01-03.*in the future"):
        found.require_known_by(MOMENT + 2 * DAY - 1)


def test_missing_columns_are_named_with_the_option_that_helps(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no column for `card_id`, `label`; .*--map"):
        read(write(tmp_path / "labels.csv", [{"transaction_id": "t1"}]))
    path = tmp_path / "empty.csv"
    path.write_text("transaction_id,card_id,label\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no rows"):
        read(path)


def test_invalid_rows_are_skipped_and_others_keep_their_numbers(tmp_path):
    bad = [{"card_id": ""}, {"label": "maybe"}, {"source": "rumour"}]
    rows = [ROWS[0] | {"transaction_id": f"t{n}", "source": "analyst"} for n in range(5)]
    path = write(tmp_path / "labels.csv", [rows[0] | bad[0], *rows, rows[0] | bad[1], rows[0] | bad[2], ROWS[1]])
    found = read_labels(path, FileMapping(), DEFAULTS, CardDataCheck(path), skips=True)
    assert found.rows == [9, 2, 3, 4, 5, 6]
    assert {number: fault.columns for number, fault in found.skipped.faults.items()} == {
        1: "card_id",
        7: "label",
        8: "source",
    }
