"""The same row has the same value in a file of any format and in a message, or is refused for the same field."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import MONDAY

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import decode_transaction
from fraud_service.models import artifact
from fraud_service.training import backtest
from fraud_service.training.history import History
from fraud_service.training.mapping import FileMapping

SECONDS = MONDAY // 1000
ROW = {
    "transaction_id": "t1",
    "timestamp": MONDAY,
    "card_id": "c1",
    "merchant_id": "m1",
    "amount": Decimal("51.80"),
    "currency": "EUR",
}
FORMATS = ("csv", "jsonl", "parquet")


def written_number(value):
    """Write a decimal as text, as a message does."""
    return str(value)


def saved(folder, suffix, *rows):
    """Write rows in one format, each value in the type that the format has for it."""
    path = folder / f"past.{suffix}"
    names = list(dict.fromkeys(name for row in rows for name in row))
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row, default=written_number) + "\n" for row in rows), encoding="utf-8")
    elif suffix == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, names)
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
    else:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return path


def of_file(path, **entries):
    """Return the transaction of the only row, or the field for which it is refused."""
    try:
        return next(iter(History.open(path, FileMapping(**entries)))).transaction
    except ConfigurationError as error:
        return re.search(r"row 1, column `(\w+)`", str(error))[1]


def of_message(row):
    """Return the transaction of a message, or the field for which it is refused."""
    try:
        return decode_transaction(json.dumps(row, default=written_number).encode())
    except InvalidEvent as error:
        return re.search(r"`(\w+)`", error.detail)[1]


IDENTIFIERS = st.sampled_from(
    ["c1", "27", "007", "4e15", "Café 7", "4.00E+15", "4,00E+15", "4E+15", "1.5e10", "", "nan", "a\u202eb", "x" * 129]
)
TEXTS = st.sampled_from([None, "", "NaN", "nan", "NA", "DE", "0742", "5.41E+03", "a b", "x" * 257])
TIMES = st.sampled_from(
    [
        MONDAY,
        "2023-11-13T01:00:00.0009+01:00",
        "2023-11-12T20:30:00-03:30",
        "2023-11-13 01:00:00+0100",
        "2023-11-13T00:00:00+00:00",
        "2023-11-13T00:00:00Z",
        SECONDS,
        MONDAY * 1000,
        MONDAY * 10**6,
        0,
        946_684_800_000,
        946_684_799_999,
        "1970-01-20T16:10:33Z",
        "1999-12-31T23:59:59Z",
        "2023-11-13T00:00:00",
        "2023-11-13",
        "soon",
        None,
    ]
)
AMOUNTS = (
    st.decimals(0, 10**9, places=2)
    | st.floats(0, 10**13).map(lambda amount: round(amount, 9))
    | st.integers(-1, 10**6)
    | st.sampled_from([None, Decimal("51.80"), 0.1 + 0.2, 10.0**14])
)
DEGREES = st.sampled_from([None, 0.0, -0.0, 52.5, -13.123457, 91.0, 180.5]) | st.floats(-90, 90).map(
    lambda degrees: round(degrees, 6)
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "transaction_id": IDENTIFIERS,
            "card_id": IDENTIFIERS,
            "merchant_id": IDENTIFIERS,
            "timestamp": TIMES,
            "utc_offset_min": st.sampled_from([None, 0, 60, -210, 1439, 1440, -2000]),
            "amount": AMOUNTS,
            "country": TEXTS,
            "merchant_category_code": TEXTS,
            "device_id": TEXTS,
            "latitude": DEGREES,
            "longitude": DEGREES,
        },
    )
)
def test_a_row_is_the_same_transaction_or_the_same_refusal_in_every_format(tmp_path_factory, changes):
    folder, row = tmp_path_factory.mktemp("formats"), ROW | changes
    expected = of_message(row)
    found = [of_file(saved(folder, suffix, row)) for suffix in FORMATS]
    if isinstance(expected, str):  # of several wrong fields, a format may name another one
        assert all(isinstance(one, str) for one in found)
        assert len(changes) > 1 or found == [expected] * 3
    else:
        assert [repr(one) for one in found] == [repr(expected)] * 3  # repr: minus zero, and every bit


@pytest.mark.parametrize("value", [27, 27.0, Decimal(27), Decimal("27.00"), "27"])
@pytest.mark.parametrize("field", ["transaction_id", "card_id", "merchant_id", "merchant_category_code", "device_id"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_an_id_is_the_same_text_whatever_number_it_is_written_as(tmp_path, suffix, field, value):
    path = saved(tmp_path, suffix, ROW | {field: value if suffix != "jsonl" or value == "27" else float(value)})
    assert getattr(of_file(path), field) == "27"


def test_ids_of_a_csv_column_with_gaps_are_whole_numbers(tmp_path):
    rows = [ROW | {"card_id": "27.0", "device_id": ""}, ROW | {"card_id": "28", "device_id": "5.0"}]
    history = [row.transaction for row in History.open(saved(tmp_path, "csv", *rows))]
    assert [(one.card_id, one.device_id) for one in history] == [("27", None), ("28", "5")]


def test_an_id_with_a_point_stays_where_the_column_has_other_text(tmp_path):
    rows = [ROW | {"card_id": "27.0"}, ROW | {"card_id": "c-28"}]
    history = History.open(saved(tmp_path, "csv", *rows))
    assert [row.transaction.card_id for row in history] == ["27.0", "c-28"]


def test_ids_of_mixed_numbers_and_text_in_json_are_equal_to_those_of_numbers(tmp_path):
    rows = [ROW | {"card_id": 27.0}, ROW | {"card_id": "c1"}, ROW | {"card_id": 27}]
    history = History.open(saved(tmp_path, "jsonl", *rows))
    assert [row.transaction.card_id for row in history] == ["27", "c1", "27"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_id_that_lost_its_digits_is_refused_with_the_cause(tmp_path, suffix):
    with pytest.raises(ConfigurationError, match="row 1, column `card_id`: a number with an exponent") as caught:
        History.open(saved(tmp_path, suffix, ROW | {"card_id": "4.00E+15"}))
    assert "4.00" not in str(caught.value)


def test_single_precision_of_parquet_is_the_number_that_its_text_says(tmp_path):
    columns = {name: [value] for name, value in ROW.items()} | {"amount": pa.array([51.8], pa.float32())}
    pq.write_table(pa.table(columns), tmp_path / "past.parquet")
    assert of_file(tmp_path / "past.parquet").amount == 51.8


def test_identifiers_of_parquet_may_be_bytes_or_long_decimals(tmp_path):
    columns = {name: [value] for name, value in ROW.items()}
    columns |= {"card_id": [b"c1"], "merchant_id": pa.array([Decimal(2**60 + 1)], pa.decimal128(20, 0))}
    pq.write_table(pa.table(columns), tmp_path / "past.parquet")
    assert of_file(tmp_path / "past.parquet").card_id == "c1"
    assert of_file(tmp_path / "past.parquet").merchant_id == str(2**60 + 1)
    pq.write_table(pa.table(columns | {"card_id": [b"\xff"]}), tmp_path / "past.parquet")
    with pytest.raises(ConfigurationError, match="column `card_id`: not UTF-8 text"):
        History.open(tmp_path / "past.parquet")


def test_a_folder_of_parquet_parts_is_one_file(tmp_path):
    folder = tmp_path / "spark.parquet"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for number in range(3):
        saved(folder, "parquet", ROW | {"transaction_id": f"t{number}"}).rename(folder / f"part-{number}.parquet")
    assert [row.transaction.transaction_id for row in History.open(folder)] == ["t0", "t1", "t2"]


def test_quoted_line_breaks_may_cross_the_blocks_of_a_large_csv(tmp_path):
    text = "\n".join(f't{n},{MONDAY},c1,"Shop {n} {"x" * 90}",5,EUR,"first\nsecond {"y" * 200}"' for n in range(10_000))
    path = tmp_path / "past.csv"
    path.write_text("transaction_id,timestamp,card_id,merchant_id,amount,currency,note\n" + text, encoding="utf-8")
    assert len(History.open(path)) == 10_000


# --- Times ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "number"),
    [("s", SECONDS), ("s", SECONDS + 0.25), ("ms", MONDAY), ("us", MONDAY * 1000), ("ns", MONDAY * 10**6)],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_unit_of_times_can_be_named(tmp_path, suffix, unit, number):
    path = saved(tmp_path, suffix, ROW | {"timestamp": number, "labelled_at": number, "is_fraud": 1})
    row = next(iter(History.open(path, FileMapping(time_unit=unit))))
    expected = MONDAY + (250 if isinstance(number, float) else 0)
    assert (row.transaction.timestamp, row.labelled_at) == (expected, expected)


@pytest.mark.parametrize(
    ("right", "name", "number"),
    [
        ("s", "seconds", SECONDS),
        ("s", "seconds", SECONDS + 0.5),
        ("us", "microseconds", MONDAY * 1000),
        ("ns", "nanoseconds", MONDAY * 10**6),
    ],
)
@pytest.mark.parametrize("column", ["timestamp", "labelled_at"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_time_in_another_unit_is_refused_with_the_unit_and_the_option(tmp_path, suffix, column, right, name, number):
    path = saved(tmp_path, suffix, ROW, ROW | {column: number})
    with pytest.raises(ConfigurationError) as caught:
        History.open(path)
    assert f"row 2, column `{column}`: `{column}` looks like {name}: add --time-unit {right}" in str(caught.value)
    assert str(number) not in str(caught.value)


def test_milliseconds_are_refused_where_the_option_says_seconds(tmp_path):
    with pytest.raises(ConfigurationError, match="looks like milliseconds: add --time-unit ms"):
        History.open(saved(tmp_path, "csv", ROW), FileMapping(time_unit="s"))


NAIVE = datetime(2023, 7, 13, 12, 30, 0, 123_000)  # noqa: DTZ001 - a time without a zone
SUMMER = int(datetime(2023, 7, 13, 10, 30, 0, 123_000, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("value", [NAIVE, date(2023, 7, 13)])
def test_times_without_a_zone_need_the_option_in_every_format(tmp_path, suffix, value):
    path = saved(tmp_path, suffix, ROW | {"timestamp": value if suffix == "parquet" else str(value)})
    with pytest.raises(ConfigurationError, match=r"`timestamp` has no offset: .*--time-zone UTC"):
        History.open(path)
    berlin, utc = (of_file(path, time_zone=zone).timestamp for zone in ("Europe/Berlin", "UTC"))
    assert utc - berlin == 2 * 3_600_000
    assert value is not NAIVE or berlin == SUMMER


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_hour_that_clocks_skip_is_refused_and_of_a_repeated_one_the_first_is_meant(tmp_path, suffix):
    for written, expected in [
        ("2023-03-26T02:30:00", "timestamp"),
        ("2023-10-29T02:30:00", int(datetime(2023, 10, 29, 0, 30, tzinfo=UTC).timestamp() * 1000)),
    ]:
        value = datetime.fromisoformat(written) if suffix == "parquet" else written
        found = of_file(saved(tmp_path, suffix, ROW | {"timestamp": value}), time_zone="Europe/Berlin")
        assert (found if isinstance(found, str) else found.timestamp) == expected


@pytest.mark.parametrize("suffix", FORMATS)
def test_times_of_a_zone_have_its_offset(tmp_path, suffix):
    for zone, expected in (("Europe/Berlin", 120), ("America/St_Johns", -150), ("UTC", None)):
        path = saved(tmp_path, suffix, ROW | {"timestamp": NAIVE if suffix == "parquet" else str(NAIVE)})
        assert of_file(path, time_zone=zone).utc_offset_min == expected
        other = ROW | {"timestamp": str(NAIVE.strftime("%d.%m.%Y %H:%M"))}
        found = of_file(saved(tmp_path, suffix, other), time_zone=zone, time_format="%d.%m.%Y %H:%M")
        assert found.utc_offset_min == expected
        mixed = saved(tmp_path, suffix, ROW | {"timestamp": "2023-07-13T12:30:00Z"})
        assert of_file(mixed, time_zone=zone).utc_offset_min is None
    assert of_file(saved(tmp_path, suffix, ROW), time_zone="Europe/Berlin").utc_offset_min is None


@pytest.mark.parametrize(
    ("zone", "expected"),
    [("Europe/Berlin", 120), ("+02:00", 120), ("-03:30", -210), ("UTC", None), ("+00:00", None), ("Etc/UTC", None)],
)
def test_a_zone_of_parquet_states_an_offset(tmp_path, zone, expected):
    columns = {name: [value] for name, value in ROW.items()} | {
        "timestamp": pa.array([SUMMER], pa.timestamp("ms", zone))
    }
    pq.write_table(pa.table(columns), tmp_path / "past.parquet")
    found = of_file(tmp_path / "past.parquet")
    assert (found.timestamp, found.utc_offset_min) == (SUMMER, expected)


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_of_offsets_precedes_the_offset_of_the_time(tmp_path, suffix):
    rows = [ROW | {"transaction_id": f"t{n}", "timestamp": "2023-07-13T12:30:00+02:00"} for n in range(2)]
    rows[0]["utc_offset_min"], rows[1]["utc_offset_min"] = 0, None
    found = [row.transaction.utc_offset_min for row in History.open(saved(tmp_path, suffix, *rows))]
    assert found == [0, 120]


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("13.11.2023 13:45", "%d.%m.%Y %H:%M"),
        ("11/13/2023 01:45 PM", "%m/%d/%Y %I:%M %p"),
        ("13-Nov-23 13:45:00", "%d-%b-%y %H:%M:%S"),
        ("2023-11-13T13:45:00Z", "%d.%m.%Y %H:%M"),
        ("202311131345", "%Y%m%d%H%M"),
        (202311131345, "%Y%m%d%H%M"),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_text_of_any_format_is_read_when_the_format_is_named(tmp_path, suffix, written, form):
    path = saved(tmp_path, suffix, ROW | {"timestamp": written})
    expected = int(datetime(2023, 11, 13, 13, 45, tzinfo=UTC).timestamp() * 1000)
    assert of_file(path, time_format=form, time_zone="UTC").timestamp == expected


@pytest.mark.parametrize("written", ["13.11.2023 13:45", "11/13/23", "13-Nov-2023", "20231113T134500Z"])
def test_a_date_of_an_unknown_format_is_refused_with_the_option(tmp_path, written):
    path = saved(tmp_path, "csv", ROW | {"timestamp": written})
    with pytest.raises(ConfigurationError, match="name its format, as in --time-format"):
        History.open(path)
    with pytest.raises(ConfigurationError, match="does not match --time-format '%d/%m/%Y'"):
        History.open(path, FileMapping(time_format="%d/%m/%Y"))


@pytest.mark.parametrize(
    ("unit", "number", "milliseconds"),
    [
        ("s", 86_400, 86_400_000),
        ("min", 90, 5_400_000),
        ("h", 1, 3_600_000),
        ("h", 1.5, 5_400_000),
        ("d", 7, 604_800_000),
        ("ms", 5, 5),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_numbers_count_from_the_origin_that_is_named(tmp_path, suffix, unit, number, milliseconds):
    path = saved(tmp_path, suffix, ROW | {"timestamp": number})
    found = of_file(path, time_unit=unit, time_origin=datetime.fromtimestamp(SECONDS, UTC))
    assert found.timestamp == MONDAY + milliseconds


def test_serial_days_of_a_spreadsheet_are_read(tmp_path):
    origin = datetime(1899, 12, 30, tzinfo=UTC)
    path = saved(tmp_path, "csv", ROW | {"timestamp": "45243.25"})
    assert of_file(path, time_unit="d", time_origin=origin).timestamp == MONDAY + 6 * 3_600_000
    with pytest.raises(ConfigurationError, match="looks like days of a spreadsheet: add --time-unit d --time"):
        History.open(path)
    with pytest.raises(ConfigurationError, match="are --time-unit d and --time-origin right"):
        History.open(saved(tmp_path, "csv", ROW | {"timestamp": "5"}), FileMapping(time_unit="d", time_origin=origin))


# --- Columns that are joined ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_columns_are_joined_to_an_id_with_a_hyphen_and_to_a_time_with_a_blank(tmp_path, suffix):
    parts = {"user": 7, "card": 0, "year": 2023, "month": 11, "day": 13, "time": "13:45"}
    rest = {name: value for name, value in ROW.items() if name not in {"card_id", "timestamp"}}
    found = of_file(
        saved(tmp_path, suffix, rest | parts),
        fields={"card_id": ("user", "card"), "timestamp": ("year", "month", "day", "time")},
        time_format="%Y %m %d %H:%M",
        time_zone="UTC",
    )
    assert found.card_id == "7-0"
    assert found.timestamp == int(datetime(2023, 11, 13, 13, 45, tzinfo=UTC).timestamp() * 1000)


def test_a_joined_id_is_missing_only_without_all_of_its_parts(tmp_path):
    mapping = FileMapping(fields={"card_id": ("country", "device_id"), "merchant_id": "merchant_id"})
    path = saved(tmp_path, "csv", ROW | {"country": "DE", "device_id": None}, ROW | {"country": None, "device_id": "d"})
    assert {row.transaction.card_id for row in History.open(path, mapping)} == {"DE-", "-d"}
    path = saved(tmp_path, "csv", ROW | {"country": "DE", "device_id": "d"}, ROW | {"country": None, "device_id": None})
    with pytest.raises(ConfigurationError, match="row 2, column `country`, `device_id`: `card_id` must not be missing"):
        History.open(path, mapping)


def test_only_ids_and_times_can_be_joined(tmp_path):
    with pytest.raises(ConfigurationError, match="only the columns of an id or a time can be joined; `amount` needs"):
        History.open(saved(tmp_path, "csv", ROW), FileMapping(fields={"amount": ("amount", "card_id")}))


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_label_from_before_its_payment_is_refused(tmp_path, suffix):
    late, early = (ROW | {"is_fraud": 1, "labelled_at": MONDAY + moved} for moved in (0, -1))
    with pytest.raises(ConfigurationError, match="row 2, column `labelled_at`: the label would be known before"):
        History.open(saved(tmp_path, suffix, late, early))
    assert len(History.open(saved(tmp_path, suffix, late, late | {"labelled_at": None}))) == 2


# --- Columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"fields": {"amount": "amount"}}])
def test_a_column_that_is_there_twice_is_refused_even_when_mapped(tmp_path, options):
    path = tmp_path / "past.csv"
    path.write_text(f"{','.join(ROW)},amount,extra,extra\nt1,{MONDAY},c1,m1,20,EUR,1,2,3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="2 columns are named `amount`"):
        History.open(path, FileMapping(**options))
    path.write_text(f"{','.join(ROW)},extra,extra\nt1,{MONDAY},c1,m1,20,EUR,2,3\n", encoding="utf-8")
    assert len(History.open(path)) == 1


@pytest.mark.parametrize(
    "rows",
    [
        [{"is_fraud": 0}, {"is_fraud": 1}],
        [{"is_fraud": 1}, {"is_fraud": 0}],
        [{"is_fraud": 0}, {"is_fraud": 1, "card_id": "c2"}],
        [{"is_fraud": None}, {"is_fraud": 1}],
    ],
)
def test_two_labels_with_equal_time_and_id_are_no_error_and_fraud_counts(tmp_path, rows):
    path = saved(tmp_path, "csv", *(ROW | row for row in rows), ROW | {"timestamp": MONDAY + 30 * 86_400_000})
    models = artifact.shipped_folder().parent
    plan = backtest.BacktestPlan(source="past.csv", models=models, label_delay_ms=86_400_000)
    table, found = backtest.backtest(History.open(path), plan, Settings(instance_id="test"))
    assert len(table) == (3 if "card_id" in rows[1] else 2)
    assert found.figures.frauds == 1


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_country_is_one_country_in_each_code_of_iso_3166(tmp_path, suffix):
    written = ["DE", "de", "DEU", "deu", "276", " DE", "Germany", "NA", "XX", None]
    rows = [ROW | {"transaction_id": f"t{n}", "country": country} for n, country in enumerate(written)]
    found = [event.transaction.country for event in History.open(saved(tmp_path, suffix, *rows))]
    assert found == [*["DE"] * 6, "Germany", "NA", "XX", None]
    messages = [decode_transaction(json.dumps(row, default=written_number).encode()) for row in rows]
    assert [message.country for message in messages] == found


@pytest.mark.parametrize(("given", "found"), [(276, "DE"), (276.0, "DE"), (4, "AF"), (None, None)])
def test_a_country_may_be_a_number(tmp_path, given, found):
    (event,) = History.open(saved(tmp_path, "parquet", ROW | {"country": given}))
    assert event.transaction.country == found


def test_a_label_time_of_all_rows_must_not_precede_a_payment(tmp_path):
    path = saved(tmp_path, "csv", ROW, ROW | {"timestamp": MONDAY + 2000})
    said = r"row 2, column `--set labelled_at`: the label would be known before its payment.* \(1 of 2 rows"
    with pytest.raises(ConfigurationError, match=said):
        History.open(path, FileMapping(constants={"labelled_at": MONDAY + 1000, "label": "1"}))
    assert len(History.open(path, FileMapping(constants={"labelled_at": MONDAY + 2000, "label": "1"}))) == 2


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("20240301100000", "%Y%m%d%H%M%S"),
        ("20240301100000123", "%Y%m%d%H%M%S%f"),
        ("202403011000", "%Y%m%d%H%M"),
        ("20240301", "%Y%m%d"),
    ],
)
@pytest.mark.parametrize("suffix", FORMATS)
def test_digits_of_a_date_name_their_format(tmp_path, suffix, written, form):
    day = 1_709_251_200_000
    for value in (written, int(written)):
        path = saved(tmp_path, suffix, ROW | {"timestamp": value})
        with pytest.raises(
            ConfigurationError, match=f"row 1, column `timestamp`: .*: add --time-format {form} "
        ) as raised:
            History.open(path, latest=day + 86_400_000)
        assert written not in str(raised.value)
        (event,) = History.open(path, FileMapping(time_format=form, time_zone="UTC"), latest=day + 86_400_000)
        assert event.transaction.timestamp - day in {0, 36_000_000, 36_000_123}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_history_has_no_payments_of_the_future(tmp_path, suffix):
    rows = [ROW | {"transaction_id": f"t{n}", "timestamp": MONDAY + n * 1000} for n in range(4)]
    path = saved(tmp_path, suffix, *rows)
    assert len(History.open(path, latest=MONDAY + 3000)) == 4
    with pytest.raises(
        ConfigurationError, match=r"row 4, column `timestamp`: the payment is in the future: .*\(1 of 4"
    ):
        History.open(path, latest=MONDAY + 2999)
    history = History.open(path, latest=MONDAY + 2999, skips=True)
    assert (len(history), list(history.skipped.faults)) == (3, [4])
    assert len(History.open(path, end=MONDAY + 2000, latest=MONDAY + 2999)) == 2


def test_labels_may_become_known_later_but_not_in_the_far_future(tmp_path):
    year = 365 * 86_400_000
    path = saved(tmp_path, "csv", ROW | {"label": "1", "labelled_at": MONDAY + year})
    assert len(History.open(path, latest=MONDAY)) == 1
    path = saved(tmp_path, "csv", ROW | {"label": "1", "labelled_at": MONDAY + 2 * year})
    with pytest.raises(
        ConfigurationError, match="row 1, column `labelled_at`: the label is of the far future: correct"
    ):
        History.open(path, latest=MONDAY)
    constants = {"label": "1", "labelled_at": MONDAY + 2 * year}
    with pytest.raises(ConfigurationError, match="row 1, column `--set labelled_at`: the label is of the far future"):
        History.open(saved(tmp_path, "csv", ROW), FileMapping(constants=constants), latest=MONDAY)


@pytest.mark.parametrize("field", ["card_id", "transaction_id", "device_id"])
@pytest.mark.parametrize("kind", [float, lambda number: Decimal(str(number)).quantize(Decimal("0.01"))])
def test_an_id_is_a_whole_number_in_each_type(tmp_path, field, kind):
    path = saved(tmp_path, "parquet", ROW | {field: kind(27)}, ROW | {field: kind(4)})
    assert {getattr(event.transaction, field) for event in History.open(path)} == {"27", "4"}
    path = saved(tmp_path, "parquet", ROW | {field: kind(27)}, ROW | {field: kind(28.5)})
    with pytest.raises(ConfigurationError, match=rf"row 2, column `{field}`: .*nor an integer \(1 of 2 rows"):
        History.open(path)
