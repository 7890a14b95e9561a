"""Columns of any type become fields, or an error names them; parts of ids are joined as in CSV."""

from __future__ import annotations

import csv
import json
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from support.worlds import MONDAY

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history import History
from fraud_service.training.history_arrow import pa, parquet
from fraud_service.training.inspection import inspect
from fraud_service.training.mapping import FileMapping, load_mapping

ID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
DICTIONARY = pa.dictionary(pa.int8(), pa.large_string())
TEXTS = {
    "string": ("a", pa.string()),
    "large string": ("a", pa.large_string()),
    "string view": ("a", pa.string_view()),
    "dictionary": ("a", DICTIONARY),
    "bytes": (b"a", pa.binary()),
    "bytes view": (b"a", pa.binary_view()),
}
NESTED = {
    "list": ([1], pa.list_(pa.int8())),
    "list view": ([1], pa.list_view(pa.int8())),
    "map": ([("a", 1)], pa.map_(pa.string(), pa.int8())),
    "struct": ({"a": 1}, pa.struct({"a": pa.int8()})),
}
OTHERS = {
    "duration": (timedelta(1), pa.duration("s")),
    "time": (time(1), pa.time32("s")),
    "decimal": (Decimal(1), pa.decimal128(5, 2)),
    "bool": (True, pa.bool_()),
    "date": (date(2026, 1, 1), pa.date32()),
    "instant": (datetime(2026, 1, 1, tzinfo=UTC), pa.timestamp("ns", "UTC")),
    "half": (1.5, pa.float16()),
    "null": (None, pa.null()),
    "json": ("{}", pa.json_()),
}
FIELDS = ("transaction_id", "timestamp", "card_id", "amount", "currency", "country", "latitude", "label", "joined")


@pytest.fixture
def saved(tmp_path):
    """Write one payment to Parquet, and columns of other types."""

    def build(**columns):
        row = {
            "transaction_id": "t1",
            "timestamp": MONDAY,
            "card_id": "c1",
            "merchant_id": "m1",
            "amount": 1.5,
            "currency": "EUR",
        }
        arrays = {name: pa.array([value]) for name, value in row.items()}
        arrays |= {name: pa.array([value]).cast(kind) if kind == DICTIONARY else pa.array([value], kind)
                   for name, (value, kind) in columns.items()}  # fmt: skip
        path = tmp_path / "past.parquet"
        parquet.write_table(pa.table(arrays), path)
        return path

    return build


@pytest.mark.parametrize("kind", TEXTS)
def test_text_of_every_type_is_an_id_a_country_and_part_of_an_id(saved, kind):
    path = saved(card_id=TEXTS[kind], country=TEXTS[kind], device_id=TEXTS[kind])
    mapping = FileMapping(fields={"merchant_id": ("device_id", "country")})
    found = next(iter(History.open(path, mapping))).transaction
    assert (found.card_id, found.country, found.merchant_id) == ("a", "a", "a-a")
    assert inspect(path, 10, None, lambda one: one).accepted == 1


def test_a_uuid_is_the_text_of_it(saved):
    found = next(iter(History.open(saved(card_id=(ID.bytes, pa.uuid()))))).transaction
    assert found.card_id == str(ID)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("kind", [*NESTED, *OTHERS])
def test_a_column_of_any_type_is_read_or_refused(saved, kind, field):
    is_joined = field == "joined"
    path = saved(**{field: (NESTED | OTHERS)[kind]})
    mapping = FileMapping(fields={"card_id": ("card_id", "joined")} if is_joined else {})
    try:
        list(History.open(path, mapping))
    except ConfigurationError as error:
        assert field in str(error)  # noqa: PT017 - either is right
    assert inspect(path, 10, mapping, lambda one: one).rows == 1


@pytest.mark.parametrize("kind", NESTED)
def test_values_within_values_are_no_part_of_an_id(saved, kind):
    path = saved(a=NESTED[kind])
    with pytest.raises(ConfigurationError, match=r"row 1, column `a`, `merchant_id`: not text of 1 to 128"):
        History.open(path, FileMapping(fields={"card_id": ("a", "merchant_id")}))


def test_an_object_of_json_is_no_part_of_an_id(tmp_path):
    path = tmp_path / "past.jsonl"
    row = {"transaction_id": "t1", "timestamp": MONDAY, "a": {"b": 1}, "merchant_id": "m1", "amount": 1}
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"row 1, column `a`, `merchant_id`: not text of 1 to 128"):
        History.open(path, FileMapping(fields={"card_id": ("a", "merchant_id")}, constants={"currency": "EUR"}))


def test_the_parts_of_an_id_are_the_numbers_that_csv_has(tmp_path):
    rows = [
        {"Time": 0.0, "V1": -1.35, "V2": -0.07, "Amount": 149.62, "Class": 0},
        {"Time": 1.0, "V1": 1e-07, "V2": float("inf"), "Amount": 2.69, "Class": 0},
        {"Time": 2.0, "V1": 3.0, "V2": 12345678.9, "Amount": 3.67, "Class": 0},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "past.parquet")
    (tmp_path / "past.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["V2"] < 9e9))
    with (tmp_path / "past.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)

    def cards(suffix):
        mapping = load_mapping("creditcard")
        return [one.transaction.card_id for one in History.open(tmp_path / f"past.{suffix}", mapping)]

    assert cards("csv") == cards("parquet") == ["0--1.35--0.07", "1-1e-07-inf", "2-3.0-12345678.9"]
    assert cards("jsonl") == [cards("csv")[0], cards("csv")[2]]
