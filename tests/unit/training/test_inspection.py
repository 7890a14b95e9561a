"""`inspect` proposes how to read a file, and says what is doubtful about it."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from support.public_sets import ROWS, card_number, write_set

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history_arrow import pa, parquet
from fraud_service.training.inspection import inspect
from fraud_service.training.mapping import FileMapping, load_mapping
from fraud_service.training.mapping_text import to_toml

HEADER = ("transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency", "is_fraud")
DAY_MS = 86_400_000
BEGIN = 1_709_251_200_000


def good(n, **changes):
    """Make one of many payments that no one would doubt."""
    row = {
        "transaction_id": f"t{n}",
        "timestamp": BEGIN + n * DAY_MS // 8,
        "card_id": f"c{n % 5}",
        "merchant_id": f"m{n % 7}",
        "amount": f"{10 + n % 13}.50",
        "currency": "EUR",
        "is_fraud": int(n % 12 == 0),
        "labelled_at": BEGIN + n * DAY_MS // 8 + 9 * DAY_MS,
    }
    return {
        name: value(n) if callable(value) else value for name, value in (row | changes).items() if value is not None
    }


@pytest.fixture
def look(tmp_path):
    """Write rows to a CSV file, and inspect it."""

    def build(rows, limit=10_000, given=None, override=lambda mapping: mapping):
        path = tmp_path / "payments.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        return inspect(path, limit, given, override)

    return build


@pytest.mark.parametrize(
    ("amount", "meaning"), [("1,100", "thousands"), ("1.100", "decimals"), ("EUR 12,345", "thousands"), ("500", None)]
)
def test_three_digits_after_the_only_sign_of_amounts_are_a_doubt(look, amount, meaning):
    found = look([good(n, amount=amount if n % 2 else "1.100" if meaning == "decimals" else "7") for n in range(240)])
    said = [doubt for doubt in found.doubts if "three digits after it: thousands or decimals?" in doubt]
    assert len(said) == bool(meaning)
    assert all(f"They are read as {meaning}." in doubt for doubt in said)


@pytest.mark.parametrize("other", ["1,100.50", "0.125", "1234.567", "1.100.000", "12.50"])
def test_one_amount_that_is_clear_ends_the_doubt(look, other):
    found = look([good(n, amount="1.100" if n else other) for n in range(240)])
    assert not any("thousands or decimals" in doubt for doubt in found.doubts)


def test_amounts_that_are_numbers_in_the_file_raise_no_doubt(tmp_path):
    path = tmp_path / "past.parquet"
    parquet.write_table(pa.Table.from_pylist([good(n, amount=1.125) for n in range(240)]), path)
    assert not any("thousands" in doubt for doubt in inspect(path, 1000, None, lambda one: one).doubts)


def test_a_good_file_raises_no_doubt(look):
    found = look([good(n) for n in range(240)])
    assert (found.rows, found.accepted, found.is_whole_file, found.looks_like) == (240, 240, True, None)
    assert (found.doubts, found.refused, found.card_data, found.leaks, found.unused) == ([], [], [], {}, [])
    facts = found.facts
    assert (facts.cards, facts.merchants, facts.median_payments_per_card, facts.frauds) == (5, 7, 48, 20)
    assert facts.label_delay_days == (9, 9, 9)
    assert (facts.days, facts.split) == (29.9, "2024-03-22")


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"is_fraud": 0}, "no payment is labelled as fraud"),
        ({"is_fraud": lambda n: int(n % 3 == 0)}, "33.3% of the labels are fraud"),
        ({"is_fraud": lambda n: int(n == 5)}, "1 fraud: too few"),
        ({"is_fraud": lambda n: 0 if n % 2 else ""}, "120 of 240 rows have no label"),
        ({"is_fraud": None, "labelled_at": None}, "no row has a label"),
        ({"labelled_at": None}, "no column says when labels became known"),
        ({"labelled_at": lambda n: BEGIN + n * DAY_MS // 8 + 1000}, "half of the labels are known within an hour"),
        ({"transaction_id": "t"}, "235 rows with the id of another payment"),
        ({"currency": lambda n: ("EUR", "JPY")[n % 2]}, "several currencies (EUR 120, JPY 120)"),
        ({"card_id": lambda n: f"c{n}"}, "half of the cards have at most 1 payment,"),
        ({"card_id": "c"}, "all payments have the same card"),
        ({"timestamp": lambda n: BEGIN + n}, "the payments cover 0 days"),
        (
            {"entry_mode": lambda n: ("chip", "carrier pigeon")[n % 2]},
            "120 rows with an entry mode without a known meaning",
        ),
    ],
)
def test_what_is_hard_to_believe_is_a_doubt(look, changes, doubt):
    found = look([good(n, **changes) for n in range(240)])
    assert [one for one in found.doubts if one.startswith(doubt)], found.doubts


def test_rows_that_repeat_a_payment_are_counted(look):
    found = look([good(n // 2) for n in range(240)])
    assert "120 rows with a payment that an earlier row has: they count once" in found.doubts


def test_rows_that_a_command_would_refuse_are_counted_with_their_reasons(look):
    bad = {3: {"amount": "free"}, 4: {"amount": "-5"}, 5: {"merchant_id": ""}, 6: {"timestamp": 1_709_251_200}}
    bad[7] = {"labelled_at": BEGIN - DAY_MS}
    found = look([good(n, **bad.get(n, {})) for n in range(240)])
    assert found.accepted == 235
    assert [(one.column, one.rows, one.first_row) for one in found.refused] == [
        ("timestamp", 1, 7),
        ("merchant_id", 1, 6),
        ("amount", 1, 4),
        ("amount", 1, 5),
        ("labelled_at", 1, 8),
    ]
    assert "looks like seconds" in found.refused[0].reason


def test_card_data_is_named_by_column_and_never_shown(look):
    number = card_number(1)
    found = look([good(n, card_id=number, cvv="123", note=f"paid with {number}") for n in range(240)])
    assert [(one.column, one.kind, one.rows) for one in found.card_data] == [
        ("card_id", "card_number", 240),
        ("cvv", "sensitive_data", 240),
        ("note", "card_number", 240),
    ]
    assert number not in str(found)
    assert found.sample[0]["card_id"] == "[card data]"


def test_long_numbers_are_told_apart_from_card_numbers(look):
    found = look([good(n, merchant_id=4_000_000_000_000_000_000 + n) for n in range(240)])
    (one,) = found.card_data
    assert (one.column, one.kind, one.is_long_number) == ("merchant_id", "card_number", True)
    assert 0 < one.rows < 60


def test_names_of_columns_that_hold_card_data_stop_the_command(look):
    with pytest.raises(ConfigurationError, match="names of its columns have card data") as failure:
        look([{**good(n), card_number(2): "x"} for n in range(3)])
    assert card_number(2) not in str(failure.value)


def test_columns_that_would_tell_the_label_are_named(look):
    found = look(
        [
            good(
                n,
                chargeback_date=lambda n: "" if n % 12 else "2024-05-01",
                case=lambda n: "closed" if n % 12 else "open",
                closed_by=lambda n: "" if n % 12 else f"analyst {n}",
                shop=lambda n: f"s{n % 4}",
            )
            for n in range(240)
        ]
    )
    assert set(found.leaks) == {"chargeback_date", "case", "closed_by"}
    assert set(found.unused) == {*found.leaks, "shop"}


def test_a_file_under_other_names_is_understood(look):
    rows = [
        {
            "Belegnummer": f"b{n}",
            "Datum": f"{1 + n % 28:02d}.0{1 + n // 28 % 9}.2024",
            "Uhrzeit": f"{n % 24:02d}:15",
            "Kartennummer": f"k{n % 5}",
            "Händler": f"h{n % 7}",
            "Betrag": f"1.2{n % 100:02d},50",
            "Betrug": "Ja" if n % 12 == 0 else "Nein",
        }
        for n in range(240)
    ]
    mapping = look(rows).mapping
    assert (mapping.decimal, mapping.time_format, mapping.time_zone) == (",", "%d.%m.%Y %H:%M", "UTC")
    assert mapping.fields == {
        "transaction_id": "Belegnummer",
        "timestamp": ("Datum", "Uhrzeit"),
        "card_id": "Kartennummer",
        "merchant_id": "Händler",
        "amount": "Betrag",
        "label": "Betrug",
    }
    assert mapping.fraud_values == ("Ja",)


def test_columns_without_known_names_are_found_by_their_values(look):
    rows = [
        {
            f"column{place}": value
            for place, value in enumerate(good(n, labelled_at=None, is_fraud=int(n % 12 == 0)).values())
        }
        for n in range(240)
    ]
    found = look(rows)
    assert found.mapping.fields == {
        "transaction_id": "column0",
        "timestamp": "column1",
        "card_id": "column3",
        "merchant_id": "column2",
        "amount": "column4",
        "currency": "column5",
        "label": "column6",
    }
    assert sum("is a guess" in doubt for doubt in found.doubts) == 7


def test_a_file_without_cards_cannot_be_read(look):
    found = look([good(n, card_id=None, merchant_id=lambda n: f"m{n}") for n in range(240)])
    assert (found.accepted, found.facts, found.sample) == (0, None, [])
    assert "no column for `card_id`" in found.doubts[0]


def test_a_file_of_one_header_line_has_no_rows(look, tmp_path):
    path = tmp_path / "empty.csv"
    path.write_text(",".join(HEADER) + "\n", encoding="utf-8")
    found = inspect(path, 10, None, lambda mapping: mapping)
    assert (found.rows, found.accepted, found.facts) == (0, 0, None)


def test_a_column_that_is_there_twice_is_a_doubt(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("timestamp,card_id,amount,amount\n2024-03-01T00:00:00Z,c,1,2\n", encoding="utf-8")
    found = inspect(path, 10, None, lambda mapping: mapping)
    assert "2 columns are named `amount`: rename all but one" in found.doubts


def test_only_the_first_rows_are_looked_at(look):
    found = look([good(n) for n in range(240)], limit=50)
    assert (found.rows, found.is_whole_file) == (50, False)
    assert look([good(n) for n in range(50)], limit=50).is_whole_file


def test_a_given_mapping_and_options_are_used(look):
    rows = [good(n, timestamp=BEGIN // 1000 + n * 10_000, labelled_at=None) for n in range(240)]
    assert look(rows, given=FileMapping(time_unit="s")).accepted == 240
    assert look(rows, given=FileMapping()).accepted == 0
    assert look(rows).mapping.time_unit == "s"
    assert look(rows, override=lambda mapping: FileMapping()).accepted == 0


def test_parquet_and_json_lines_are_understood_too(tmp_path):
    rows = [good(n) for n in range(240)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "payments.parquet")
    (tmp_path / "payments.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name in ("payments.parquet", "payments.jsonl"):
        found = inspect(tmp_path / name, 1000, None, lambda mapping: mapping)
        assert (found.accepted, found.doubts) == (240, [])


@pytest.mark.parametrize("name", ROWS)
def test_a_well_known_data_set_is_recognised(tmp_path, name):
    found = inspect(write_set(name, tmp_path), 1000, None, lambda mapping: mapping)
    assert (found.looks_like, found.mapping) == (name, load_mapping(name))


@pytest.mark.parametrize("name", ROWS)
def test_a_mapping_survives_being_written(tmp_path, name):
    path = tmp_path / "mapping.toml"
    path.write_text(to_toml(load_mapping(name), ["a `doubt`"]), encoding="utf-8")
    assert load_mapping(str(path)) == load_mapping(name)


def test_any_names_survive_being_written(tmp_path):
    mapping = FileMapping(
        delimiter="\t",
        fields={"card_id": ('a "b"', "c\\d\n"), "amount": "Betrag (€)"},
        constants={"ip": "\x7f"},
        fraud_values=("x",),
    )
    path = tmp_path / "mapping.toml"
    path.write_text(to_toml(mapping), encoding="utf-8")
    assert load_mapping(str(path)) == mapping


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
@pytest.mark.parametrize(("delimiter", "named"), [(",", None), (";", ";"), ("\t", "tab")])
def test_delimiter_and_encoding_are_part_of_the_mapping(tmp_path, encoding, delimiter, named):
    path = tmp_path / "payments.csv"
    rows = [good(n, merchant_id=f"Café {n % 7}") for n in range(240)]
    lines = [delimiter.join(map(str, row)) for row in [rows[0].keys(), *(row.values() for row in rows)]]
    path.write_text("\n".join(lines), encoding=encoding)
    found = inspect(path, 1000, None, lambda mapping: mapping)
    assert (found.accepted, found.sample[1]["merchant_id"]) == (240, "Café 1")
    assert found.mapping.delimiter == named
    assert found.mapping.encoding == ("cp1252" if encoding == "cp1252" else "utf-8")


def test_rows_of_another_length_are_refused_rows(tmp_path):
    path = tmp_path / "payments.csv"
    rows = [",".join(map(str, good(n).values())) for n in range(240)]
    rows[7] += ",more"
    path.write_text("\n".join([",".join(good(0)), *rows]), encoding="utf-8")
    found = inspect(path, 1000, None, lambda mapping: mapping)
    assert (found.rows, found.accepted) == (240, 239)
    assert [(one.rows, one.first_row, one.reason) for one in found.refused] == [
        (1, 8, "has 9 values, but there are 8 columns")
    ]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl"])
def test_of_a_large_file_only_the_beginning_is_read(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("fraud_service.training.history_head.MAX_BYTES", 10_000)
    rows = [good(n) for n in range(4000)]
    lines = [json.dumps(row) for row in rows] if "json" in suffix else [",".join(map(str, r.values())) for r in rows]
    text = "\n".join(lines if "json" in suffix else [",".join(rows[0]), *lines]).encode()
    path = tmp_path / f"payments{suffix}"
    path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    found = inspect(path, 100_000, None, lambda mapping: mapping)
    assert 40 < found.rows == found.accepted < 200
    assert not found.is_whole_file


def test_the_parts_of_a_folder_are_one_file(tmp_path):
    folder = tmp_path / "payments"
    folder.mkdir()
    for part in range(3):
        table = pa.Table.from_pylist([good(n) for n in range(80 * part, 80 * part + 80)])
        parquet.write_table(table, folder / f"part-{part}.parquet")
    found = inspect(folder, 200, None, lambda mapping: mapping)
    assert (found.rows, found.accepted, found.is_whole_file) == (200, 200, False)
    assert inspect(folder, 240, None, lambda mapping: mapping).is_whole_file


def test_errors_name_the_file_and_not_its_copy(tmp_path):
    path = tmp_path / "payments.csv"
    path.write_text("timestamp^card_id^amount\n1^2^3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=f"^{path}: the header line has one column"):
        inspect(path, 10, None, lambda mapping: mapping)


def test_lines_that_are_no_objects_are_refused_rows(tmp_path):
    path = tmp_path / "payments.jsonl"
    path.write_text('{"amount": NaN}\n' * 5, encoding="utf-8")
    found = inspect(path, 1000, None, lambda mapping: mapping)
    assert (found.rows, found.accepted) == (5, 0)


@pytest.mark.parametrize(
    ("amount", "currency"), [("{}.50 SEK", "SEK"), ("€{}.50", "EUR"), ("${}.50", "USD"), ("{}.50", "XXX")]
)
def test_without_a_column_the_currency_is_guessed_from_the_amounts(look, amount, currency):
    found = look([good(n, currency=None, amount=amount.format(10 + n)) for n in range(240)])
    assert (found.accepted, found.mapping.constants) == (240, {"currency": currency})
    assert any("no column is the currency" in doubt for doubt in found.doubts)


def test_card_numbers_in_the_label_column_are_never_proposed_as_the_word_for_fraud(look):
    cards = ("4111111442725092", "4111111111111111")
    found = look([good(n, label=cards[n % 7 > 0]) for n in range(240)])
    assert found.mapping.fraud_values == ()
    assert not any(card in str(found) for card in cards)
