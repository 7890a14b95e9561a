"""Files of past transactions: what is read, in which order, and the errors of invalid files."""

from __future__ import annotations

import csv
import importlib
import sys
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import LabelledTransaction, Transaction
from fraud_service.domain.text import HIDDEN, SURROGATES
from fraud_service.training.history import History
from fraud_service.training.mapping import FileMapping

BASE = 1_700_000_000_000
ROWS = [
    {
        "transaction_id": "b",
        "timestamp": BASE + 2_000,
        "card_id": "c1",
        "merchant_id": "m1",
        "amount": 5.0,
        "currency": "EUR",
    },
    {
        "transaction_id": "a",
        "timestamp": BASE + 2_000,
        "card_id": "c2",
        "merchant_id": "m2",
        "amount": 7.5,
        "currency": "EUR",
    },
    {
        "transaction_id": "c",
        "timestamp": BASE + 1_000,
        "card_id": "c1",
        "merchant_id": "m2",
        "amount": 0.0,
        "currency": "EUR",
    },
]
SUFFIXES = (".parquet", ".csv", ".jsonl")


def save(path, rows):
    """Write rows in the format of the suffix."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows]), path)
    return path


@pytest.fixture
def saved(tmp_path):
    """Save the three rows with changes to all of them, or to one."""

    def build(suffix=".parquet", row=None, without=(), **changes):
        rows = [
            {
                name: value
                for name, value in (old | (changes if row in {None, place} else {})).items()
                if name not in without
            }
            for place, old in enumerate(ROWS)
        ]
        return save(tmp_path / f"past{suffix}", rows)

    return build


def only(path, **entries):
    """Open a file with the entries of a mapping and give its first row in event order."""
    return next(iter(History.open(path, FileMapping(**entries))))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_rows_come_in_order_of_time_and_then_of_id(saved, suffix):
    history = History.open(saved(suffix))
    assert [row.transaction.transaction_id for row in history] == ["c", "a", "b"]
    assert len(history) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_row_becomes_a_transaction_and_missing_columns_become_none(saved, suffix):
    assert only(saved(suffix)) == LabelledTransaction(Transaction(**ROWS[2]), None, None)


def test_a_history_can_be_iterated_again(saved):
    history = History.open(saved())
    assert list(history) == list(history)


def test_rows_equal_in_time_and_id_keep_the_order_of_the_file(tmp_path):
    rows = [ROWS[0] | {"amount": float(amount)} for amount in range(100)]
    history = History.open(save(tmp_path / "twice.parquet", rows))
    assert [row.transaction.amount for row in history] == list(range(100))


def test_rows_beyond_one_batch_are_all_read_in_order(tmp_path):
    count = 70_000
    rows = [ROWS[0] | {"transaction_id": f"t{n:06d}", "timestamp": BASE + count - n} for n in range(count)]
    history = History.open(save(tmp_path / "many.jsonl", rows))
    assert [row.transaction.timestamp for row in history] == list(range(BASE + 1, BASE + count + 1))


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 3), st.text("ab9é😀", min_size=1, max_size=3)), max_size=30))
def test_the_order_is_that_of_python(tmp_path_factory, keys):
    rows = [ROWS[0] | {"timestamp": BASE + time, "transaction_id": key} for time, key in keys]
    path = save(tmp_path_factory.mktemp("order") / "past.jsonl", [*rows, ROWS[2]])
    seen = [(row.transaction.timestamp, row.transaction.transaction_id) for row in History.open(path)]
    assert seen == sorted([*((BASE + time, key) for time, key in keys), (BASE + 1_000, "c")])


def test_only_transactions_from_start_to_before_end_are_kept(saved):
    assert len(History.open(saved(), start=BASE + 1_000, end=BASE + 2_000)) == 1
    assert len(History.open(saved(), start=BASE + 1_001)) == 2
    assert len(History.open(saved(), end=BASE + 1_000)) == 0


# --- Columns and constants --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_columns_are_mapped_and_constants_set(tmp_path, suffix):
    foreign = [
        {
            "transaction_id": 12,
            "timestamp": BASE,
            "customer_id": 3,
            "terminal_id": 4,
            "amount": 1,
            "is_fraud": 1,
            "extra": "x",
        }
    ]
    row = only(
        save(tmp_path / f"foreign{suffix}", foreign),
        fields={"card_id": "customer_id", "merchant_id": "terminal_id", "label": "is_fraud"},
        constants={"currency": "EUR"},
    )
    expected = Transaction(
        transaction_id="12", timestamp=BASE, card_id="3", merchant_id="4", amount=1.0, currency="EUR"
    )
    assert row == LabelledTransaction(expected, is_fraud=True, labelled_at=None)


@pytest.mark.parametrize("name", ["label", "is_fraud"])
def test_the_label_column_may_have_either_name(saved, name):
    assert only(saved(**{name: True})).is_fraud is True
    assert only(saved(kind=1), fields={name: "kind"}).is_fraud is True


def test_two_columns_for_the_label_need_a_choice(saved):
    path = saved(label=True, is_fraud=False)
    with pytest.raises(
        ConfigurationError, match="`label` and `is_fraud` both map to the field `label`; choose with `--map"
    ):
        History.open(path)
    assert only(path, fields={"label": "is_fraud"}).is_fraud is False


def test_a_mapped_column_takes_precedence_over_a_column_with_the_name_of_the_field(saved):
    assert only(saved(alias="other"), fields={"card_id": "alias"}).transaction.card_id == "other"


def test_a_constant_takes_precedence_over_the_column_of_its_name(saved):
    assert only(saved(), constants={"currency": "USD"}).transaction.currency == "USD"


def test_the_error_names_all_missing_fields_the_columns_and_the_options(saved):
    with pytest.raises(ConfigurationError) as caught:
        History.open(saved(without=("currency", "card_id")))
    message = str(caught.value)
    assert "no column for `card_id`, `currency`" in message
    assert "the file has transaction_id, timestamp, merchant_id, amount" in message
    assert "--map COLUMN=FIELD" in message
    assert "--set FIELD=VALUE" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": {"card_id": "custmer"}}, "`--map custmer=card_id`.*no column `custmer`; did you mean `customer`"),
        ({"fields": {"card": "customer"}}, "no field `card`; did you mean `card_id`"),
        ({"fields": {"zzz": "customer"}}, r"no field `zzz`\. Known are transaction_id, timestamp"),
        (
            {"constants": {"curency": "EUR"}},
            "`--set curency=EUR`: there is no field `curency`; did you mean `currency`",
        ),
        ({"constants": {"currency": "euro"}}, "`--set currency=euro`: not an ISO 4217 code"),
        ({"constants": {"timestamp": "5"}}, "`--set timestamp=5`: `timestamp` differs from row to row"),
        (
            {"fields": {"currency": "customer"}, "constants": {"currency": "EUR"}},
            "already provides the field `currency`",
        ),
        ({"fields": {"label": "customer", "is_fraud": "amount"}}, "already provides the field `label`"),
    ],
)
def test_an_invalid_option_is_rejected_with_the_nearest_valid_one(saved, options, message):
    with pytest.raises(ConfigurationError, match=message):
        only(saved(customer="x"), **options)


# --- Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_parquet_timestamps_of_any_unit_are_read(tmp_path, unit, zone):
    moments = pa.array([1_700_000_000]).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
    moments = pa.compute.assume_timezone(moments, "UTC").cast(pa.timestamp(unit, zone))
    table = pa.Table.from_pylist(ROWS[:1]).drop_columns("timestamp").append_column("timestamp", moments)
    pq.write_table(table, tmp_path / "past.parquet")
    assert only(tmp_path / "past.parquet").transaction.timestamp == 1_700_000_000_000


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("written", ["2024-03-01T12:00:00.123Z", "2024-03-01T13:00:00.123+01:00", 1_709_294_400_123])
def test_times_may_be_rfc_3339_or_epoch_milliseconds(saved, suffix, written):
    instant = int(datetime(2024, 3, 1, 12, tzinfo=UTC).timestamp()) * 1000 + 123
    row = only(saved(suffix, timestamp=written, labelled_at=written))
    assert (row.transaction.timestamp, row.labelled_at) == (instant, instant)


@pytest.mark.parametrize("value", [7, 7.0, "7"])
def test_integer_ids_become_text(saved, value):
    assert only(saved(card_id=value)).transaction.card_id == "7"


def test_ids_written_as_text_and_as_numbers_are_equal(tmp_path):
    rows = [ROWS[0] | {"card_id": 7}, ROWS[0] | {"card_id": "7"}]
    assert {row.transaction.card_id for row in History.open(save(tmp_path / "past.jsonl", rows))} == {"7"}


def test_leading_zeros_and_the_country_na_survive_csv(saved):
    transaction = only(saved(".csv", merchant_category_code="0742", country="NA")).transaction
    assert (transaction.merchant_category_code, transaction.country) == ("0742", "NA")


@pytest.mark.parametrize(
    ("written", "label"),
    [(1, True), (0, False), (1.0, True), ("true", True), ("False", False), ("0", False), (None, None)],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_labels_may_be_booleans_or_zero_and_one(saved, written, label, suffix):
    assert only(saved(suffix, label=written)).is_fraud is label


@pytest.mark.parametrize("missing", [None, float("nan")])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_missing_and_nan_optional_values_are_none(saved, missing, suffix):
    row = only(saved(suffix, row=2, latitude=missing, device_id=missing, labelled_at=missing))
    assert (row.transaction.latitude, row.transaction.device_id, row.labelled_at) == (None, None, None)


def test_a_field_that_only_some_lines_have_is_read(tmp_path):
    rows = [ROWS[2], ROWS[0] | {"latitude": 1.5, "longitude": 2.5}]
    assert [row.transaction.latitude for row in History.open(save(tmp_path / "past.jsonl", rows))] == [None, 1.5]


def test_decimals_and_dictionaries_of_parquet_are_read(saved):
    assert only(saved(amount=Decimal("12.34"))).transaction.amount == 12.34
    table = pa.Table.from_pylist(ROWS[:1])
    path = saved()
    pq.write_table(table.set_column(2, "card_id", table["card_id"].dictionary_encode()), path)
    assert only(path).transaction.card_id == "c1"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("amount", -1.0, "not an amount from 0 to"),
        ("amount", 1e14, "not an amount"),
        ("amount", None, "`amount` must not be missing"),
        ("card_id", None, "`card_id` must not be missing"),
        ("card_id", "x" * 129, "not text of 1 to 128 characters"),
        ("currency", "eur", "not an ISO 4217 code"),
        ("timestamp", -5, "`timestamp` is outside the years 2000 to 9999"),
        ("latitude", 91.0, "not a number of degrees from -90 to 90"),
        ("label", 2, "not a label"),
        ("labelled_at", 10**15, "`labelled_at` looks like microseconds: add --time-unit us"),
    ],
)
def test_an_invalid_row_is_named_with_its_column(saved, suffix, column, value, message):
    with pytest.raises(ConfigurationError, match=rf"past\{suffix}, row 2, column `{column}`: .*{message}"):
        History.open(saved(suffix, row=1, **{column: value}))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("amount", "12,50"),
        ("amount", "inf"),
        ("timestamp", "2024-03-01T12:00:00"),
        ("timestamp", "soon"),
        ("label", "maybe"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_invalid_text_is_rejected_without_quoting_it(saved, suffix, column, value):
    with pytest.raises(ConfigurationError, match=f"row 3, column `{column}`") as caught:
        History.open(saved(suffix, row=2, **{column: value}))
    assert value not in str(caught.value)


@pytest.mark.parametrize("column", ["transaction_id", "card_id", "merchant_id", "device_id", "ip"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_no_identifier_of_a_file_may_have_a_hidden_character(saved, suffix, column):
    for first, last in HIDDEN:
        for point in {first, last} - {*range(SURROGATES, 0xE000)}:
            if point in {0, 0x0A, 0x0D} and suffix == ".csv":
                continue  # these end a row
            with pytest.raises(ConfigurationError, match=f"row 3, column `{column}`: not text of"):
                History.open(saved(suffix, row=2, **{column: f"a{chr(point)}b"}))


def test_the_row_is_counted_from_the_beginning_of_the_file_and_the_foreign_column_named(tmp_path):
    rows = [ROWS[0]] * 40_000 + [ROWS[0] | {"amount": -1.0}]
    table = pa.Table.from_pylist(rows).rename_columns({"amount": "value"})
    pq.write_table(table, tmp_path / "past.parquet")
    with pytest.raises(ConfigurationError, match="row 40001, column `value`"):
        only(tmp_path / "past.parquet", fields={"amount": "value"})


@pytest.mark.parametrize("value", [True, [1], datetime(2024, 1, 1, tzinfo=UTC)])
def test_a_column_of_the_wrong_type_is_an_invalid_row(saved, value):
    with pytest.raises(ConfigurationError, match="row 1, column `card_id`: not text"):
        History.open(saved(card_id=value))
    with pytest.raises(ConfigurationError, match="row 1, column `amount`: not an amount"):
        History.open(saved(amount=value))


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named_in_the_error(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.csv: this file does not exist"):
        History.open(tmp_path / "gone.csv")


def test_an_unknown_suffix_is_rejected_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigurationError, match=r"must end in \.parquet, \.csv, \.jsonl, \.ndjson"):
        History.open(tmp_path / "past.xlsx")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\xff\xfe not what it says"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_with_other_content_than_its_suffix_is_rejected(tmp_path, suffix, content):
    path = tmp_path / f"past{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"past\{suffix}"):
        History.open(path)


def test_a_broken_line_of_json_is_named_by_its_row_without_quoting_it(saved):
    path = saved(".jsonl")
    path.write_bytes(path.read_bytes() + b'\n{"card_id": "4111')
    with pytest.raises(ConfigurationError, match="row 4: not a JSON object") as caught:
        History.open(path)
    assert "4111" not in str(caught.value)


def test_a_csv_row_of_another_length_is_named_without_quoting_it(saved):
    path = saved(".csv")
    path.write_text(path.read_text() + "4111,5\n")
    with pytest.raises(ConfigurationError, match="row 4: has 2 values, but there are 6 columns") as caught:
        History.open(path)
    assert "4111" not in str(caught.value)


def test_a_csv_file_may_begin_with_a_byte_order_mark(saved):
    path = saved(".csv")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(History.open(path)) == 3


def test_without_pyarrow_the_message_names_the_command_that_installs_it(monkeypatch):
    for name in [name for name in sys.modules if name == "pyarrow" or name.startswith("pyarrow.")]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in [name for name in sys.modules if name.startswith("fraud_service.training.history")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match=r"pip install 'fraud-service\[data\]'"):
        importlib.import_module("fraud_service.training.history")
