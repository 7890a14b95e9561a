"""`inspect` looks at each file of ../shared/field and of its generators, whatever is wrong with it."""

from __future__ import annotations

import pytest
from support.field_cases import FIELD, needs_field

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.inspection import inspect
from fraud_service.training.known_sets import known_sets

pytestmark = needs_field
SUFFIXES = {".csv", ".gz", ".jsonl", ".parquet", ".tsv", ".txt", ".json"}
FILES = sorted(path for path in FIELD.glob("[0-9]*/*") if path.suffix in SUFFIXES)
PUBLIC = {"ieee": "ieee-cis"} | {known.name: known.name for known in known_sets() if known.name != "ieee-cis"}
NOT_LINES = {"array.jsonl", "own.json"}  # JSON, but not one object a line
NO_ROWS = {  # files without a readable row, and the words of the message
    "all_refunds.csv": "it is negative, as of a refund",
    "header_only.csv": "",
    "header_twice.csv": "2 columns are named `amount`",
    "ids_excel.csv": "its last digits are lost",
    "labelled_at_before.csv": "the label would be known before its payment",
    "labelled_at_s.csv": "looks like seconds",
    "nan.jsonl": "not a JSON object",
    "nested.jsonl": "values within values",
    "nested.parquet": "values within values",
}


def look(path):
    return inspect(path, 10_000, None, lambda mapping: mapping)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_file_of_a_case_is_inspected(path):
    found = look(path)
    assert found.rows > 0
    assert found.accepted or found.refused or found.doubts


def test_a_card_number_of_a_case_is_named_by_its_column():
    (one,) = look(FIELD / "06-card-numbers-fed" / "sparkov_like.csv").card_data
    assert (one.column, one.kind) == ("cc_num", "card_number")


@pytest.mark.parametrize("stem", PUBLIC)
def test_a_public_data_set_is_recognised(generated, stem):
    found = look(generated / f"{stem}.csv")
    assert found.looks_like == PUBLIC[stem]
    assert found.accepted > found.rows * 0.9


def test_each_generated_file_is_read_or_it_is_said_why_not(generated):
    for path in sorted(path for path in generated.iterdir() if path.suffix in SUFFIXES):
        if path.name in NOT_LINES:
            with pytest.raises(ConfigurationError, match=f"^{path}"):
                look(path)
            continue
        found = look(path)
        said = [*found.doubts, *(one.reason for one in found.refused)]
        assert found.accepted or path.name in NO_ROWS or said, path.name
        if path.name in NO_ROWS:
            assert not found.accepted, path.name
            assert any(NO_ROWS[path.name] in one for one in [*said, ""]), (path.name, said)


@pytest.mark.parametrize(
    "name",
    [f"time_{tag}.csv" for tag in ("de_date", "us_date", "epoch_s", "epoch_us", "excel_serial", "compact", "naive")],
)
def test_times_of_any_form_are_those_of_the_same_history(generated, name):
    plain, found = look(generated / "own.csv"), look(generated / name)
    assert found.accepted == plain.accepted == 3000
    assert found.facts.begin[:13] == plain.facts.begin[:13]
    assert found.facts.end[:13] == plain.facts.end[:13]
