"""Files of many shapes: delimiters, encodings, compression, headers, parts. Each gives the rows of a plain file."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import MONDAY

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history import History
from fraud_service.training.mapping import FileMapping

NAMES = ("transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency", "is_fraud")
ROWS = [
    ("t1", MONDAY, "c1", "Café 7", "1234.50", "EUR", "1"),
    ("t2", MONDAY + 1, "c2", "m2", "0.99", "EUR", "0"),
    ("t3", MONDAY + 2, "c1", "m3", "12", "EUR", ""),
]
COMPRESS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
}


def text(rows=ROWS, names=NAMES, delimiter=","):
    """Write rows as CSV."""
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, lineterminator="\n").writerows([names, *rows])
    return written.getvalue()


@pytest.fixture
def opened(tmp_path):
    """Write the content of a file and open it; give its rows."""

    def build(content, name="past.csv", **entries):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(History.open(path, FileMapping(**entries)))

    return build


@pytest.fixture
def plain(opened):
    """Give the rows of the plain file."""
    return opened(text(), "plain.csv")


# --- CSV --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_detected_from_the_header(opened, plain, delimiter):
    assert opened(text(delimiter=delimiter)) == plain


@pytest.mark.parametrize(("delimiter", "named"), [("^", "^"), ("\t", "tab"), ("\x01", "\x01"), (";", ";")])
def test_any_character_can_be_the_delimiter(opened, plain, delimiter, named):
    assert opened(text(delimiter=delimiter), delimiter=named) == plain


def test_a_header_of_one_column_names_the_delimiter_that_it_suspects(opened):
    with pytest.raises(ConfigurationError, match=r"one column: is '\^' the delimiter\? Then add --delimiter '\^'"):
        opened(text(delimiter="^"))
    with pytest.raises(ConfigurationError, match=r"one column: is '\\t' the delimiter\? Then add --delimiter tab"):
        opened(text(delimiter="\t"), delimiter=";")


@pytest.mark.parametrize(
    "content",
    [
        text().replace("\n", "\r\n"),
        text().replace("\n", "\r"),
        text().replace("\n", "\n\n"),
        "\n\n" + text(),
        text().replace("\n", ",\n"),
        "# exported by the core\n# 3 rows\n" + text(),
        "sep=,\n" + text(),
        "sep=^\n" + text(delimiter="^"),
        text().encode("utf-8-sig"),
        text().encode("utf-16"),
        b"\xfe\xff" + text().encode("utf-16-be"),
    ],
)
def test_line_breaks_comments_trailing_delimiters_and_marks_change_nothing(opened, plain, content):
    assert opened(content) == plain


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le", "utf-8"])
def test_the_encoding_can_be_named(opened, plain, encoding):
    assert opened(text().encode(encoding), encoding=encoding) == plain


def test_other_encodings_are_refused_with_the_option_and_without_the_value(opened):
    with pytest.raises(ConfigurationError, match=r"row 1, column `merchant_id`: not UTF-8 text: .*--encoding latin-1"):
        opened(text().encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"not UTF-8 text: .*--encoding latin-1"):
        opened(text(names=(*NAMES[:-1], "café")).encode("latin-1"))
    with pytest.raises(ConfigurationError, match="not text in utf-16: is --encoding right"):
        opened(text().encode("latin-1"), encoding="utf-16")


@pytest.mark.parametrize(
    "names",
    [
        [name.upper() for name in NAMES],
        [name.title() for name in NAMES],
        [f" {name} " for name in NAMES],
    ],
)
def test_names_of_columns_may_differ_in_case_and_blanks(opened, plain, names):
    assert opened(text(names=names)) == plain


def test_values_are_trimmed_if_the_header_has_blanks_too(opened, plain):
    assert opened(text().replace(",", ", ")) == plain


def test_names_that_differ_in_case_alone_need_a_choice(opened):
    twice = text([(*row, row[4]) for row in ROWS], (*NAMES[:4], "Amount", *NAMES[5:], "AMOUNT"))
    with pytest.raises(ConfigurationError, match="the columns `Amount` and `AMOUNT` both map to the field `amount`"):
        opened(twice)
    assert opened(twice, fields={"amount": "AMOUNT"})[0].transaction.amount == 1234.5
    exact = text([(*row, "5") for row in ROWS], (*NAMES, "AMOUNT"))
    assert opened(exact)[0].transaction.amount == 1234.5


@pytest.mark.parametrize("rows", [1, 9_000])
def test_values_may_be_larger_than_a_block(opened, rows):
    note = "first line\nsecond line " * (130_000 if rows == 1 else 15)
    large = [(f"t{n}", MONDAY + n, "c1", "m1", "5", "EUR", "0", note) for n in range(rows)]
    assert len(opened(text(large, (*NAMES, "note")))) == rows


@pytest.mark.parametrize("line_break", ["\n", "\r\n", " \n "])
def test_a_line_break_within_quotes_is_a_blank(opened, line_break):
    rows = [(*row[:3], f"Shop {row[3]}{line_break}Lane 5", *row[4:]) for row in ROWS]
    assert [row.transaction.merchant_id for row in opened(text(rows))][1] == "Shop m2 Lane 5"


@pytest.mark.parametrize("missing", ["NULL", "null", "\\N", "N/A", "n/a", "None", "-", "<NA>", "#N/A", "nan", ""])
def test_texts_that_stand_for_no_value_are_missing(opened, missing):
    rows = [(*row, missing, missing, missing) for row in ROWS]
    found = opened(text(rows, (*NAMES, "country", "latitude", "longitude")))[0].transaction
    assert (found.country, found.latitude) == (None, None)
    with pytest.raises(ConfigurationError, match="row 2, column `card_id`: `card_id` must not be missing"):
        opened(text([ROWS[0], (*ROWS[1][:2], missing, *ROWS[1][3:])]))


def test_na_is_namibia_as_text_and_no_value_as_a_number(opened):
    rows = [(*row, "NA", "NA", "NA") for row in ROWS]
    found = opened(text(rows, (*NAMES, "country", "latitude", "longitude")))[0].transaction
    assert (found.country, found.latitude) == ("NA", None)


# --- Compression and formats ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2", ""])
def test_compressed_files_are_read_whatever_their_names_say(opened, plain, suffix):
    data = COMPRESS[suffix](text().encode())
    assert opened(data, f"past.csv{suffix}") == plain
    assert opened(data, "past.csv") == plain
    lines = "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS)
    assert opened(COMPRESS[suffix](lines.encode("utf-8-sig")), f"past.jsonl{suffix}") == plain


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_a_damaged_compressed_file_is_refused(opened, suffix):
    rows = [(f"t{n}", *ROWS[0][1:]) for n in range(5_000)]
    data = COMPRESS[suffix](text(rows).encode())
    with pytest.raises(ConfigurationError, match=r"past\.csv"):
        opened(data[: len(data) // 2], f"past.csv{suffix}")


@pytest.mark.parametrize("name", ["past.tsv", "past.TXT", "PAST.CSV", "past.csv.GZ"])
def test_other_suffixes_of_text_are_csv(opened, plain, name):
    assert opened(text(delimiter="\t"), name) == plain


@pytest.mark.parametrize("name", ["past.txt", "past.json", "past.ndjson"])
def test_json_lines_may_have_other_suffixes(opened, plain, name):
    assert opened("".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in ROWS), name) == plain


def test_a_workbook_or_archive_and_a_json_array_are_named(opened):
    with pytest.raises(ConfigurationError, match="a ZIP archive or a workbook: unpack it, or export it as CSV"):
        opened(b"PK\x03\x04 and so on")
    with pytest.raises(ConfigurationError, match="row 1: not a JSON object; write one object a line"):
        opened("[{}, {}]", "past.json")


# --- Folders of parts -------------------------------------------------------------------------------------------------


def test_a_folder_of_csv_parts_is_one_file(tmp_path, plain):
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    (folder / ".part-0.csv.crc").write_bytes(b"crc")
    (folder / "part-3.csv").touch()
    turned = [tuple(reversed(row)) for row in ROWS[1:]]
    (folder / "part-0.csv").write_text(text(ROWS[:1]), encoding="utf-8")
    (folder / "part-1.csv.gz").write_bytes(gzip.compress(text(turned, NAMES[::-1], ";").encode()))
    assert list(History.open(folder)) == plain


def test_a_folder_of_json_lines_is_one_file_and_an_error_names_the_part(tmp_path):
    folder = tmp_path / "parts"
    (folder / "day").mkdir(parents=True)
    for number, row in enumerate(ROWS):
        path = folder / "day" / f"part-{number}.jsonl"
        path.write_text(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n", encoding="utf-8")
    assert len(History.open(folder)) == 3
    path.write_text('{"transaction_id": 7}\n', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"part-2\.jsonl, row 1, column `timestamp`"):
        History.open(folder)
    path.rename(folder / "part-2.csv")
    with pytest.raises(ConfigurationError, match=r"parts of different formats: .*part-2\.csv"):
        History.open(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"this folder has no file whose name ends in \.parquet, \.csv"):
        History.open(tmp_path)


def test_partitions_of_parquet_folders_are_columns(tmp_path):
    columns = dict(zip(NAMES, zip(*ROWS, strict=True), strict=True)) | {"amount": [1.0, 2.0, 3.0]}
    ds.write_dataset(
        pa.table({name: list(values) for name, values in columns.items()}),
        tmp_path / "past",
        format="parquet",
        partitioning=["currency"],
        partitioning_flavor="hive",
    )
    assert [row.transaction.currency for row in History.open(tmp_path / "past")] == ["EUR"] * 3


# --- Ids from row numbers ---------------------------------------------------------------------------------------------


def test_ids_are_made_from_the_row_numbers_of_the_file(opened):
    rows = [row[1:] for row in reversed(ROWS)]
    found = opened(text(rows, NAMES[1:]), number_rows=True)
    assert [row.transaction.transaction_id for row in found] == [
        "past-row000000003",
        "past-row000000002",
        "past-row000000001",
    ]
    assert opened(text(rows, NAMES[1:]), "past.csv.gz", number_rows=True) == found
    with pytest.raises(ConfigurationError, match=r"no column for `transaction_id`; .*--number-rows makes them"):
        opened(text(rows, NAMES[1:]))


def test_ids_of_a_column_and_of_row_numbers_exclude_each_other(opened):
    with pytest.raises(ConfigurationError, match="`--map transaction_id=transaction_id`: --number-rows makes the ids"):
        opened(text(), number_rows=True, fields={"transaction_id": "transaction_id"})
    assert opened(text(), number_rows=True)[0].transaction.transaction_id == "past-row000000001"


def test_numbered_rows_of_one_time_keep_the_order_of_the_file(opened):
    rows = [(MONDAY, "c1", f"m{number}", "5", "EUR", "") for number in range(1200)]
    found = opened(text(rows, NAMES[1:]), number_rows=True)
    assert [row.transaction.merchant_id for row in found] == [row[2] for row in rows]


# --- Amounts and labels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "decimal", "amount"),
    [
        ("1,234.50", ".", 1234.5),
        ("1,234,567", ".", 1234567.0),
        ("12,34,567.5", ".", 1234567.5),
        ("1'234.50", ".", 1234.5),
        ("1 234.50", ".", 1234.5),
        ("$1,234.50", ".", 1234.5),
        ("US$ 12", ".", 12.0),
        ("12.00 EUR", ".", 12.0),
        (" 12.50 ", ".", 12.5),
        ("1.234,50", ",", 1234.5),
        ("1.234", ",", 1234.0),
        ("12,5", ",", 12.5),
        ("0,99", ",", 0.99),
        ("1 234,50", ",", 1234.5),
        ("1\u202f234,50\u00a0€", ",", 1234.5),
        ("€ 12,00", ",", 12.0),
        ("12,00 EUR", ",", 12.0),
        ("27", ",", 27.0),
        ("1.000", ",", 1000.0),
    ],
)
def test_amounts_are_read_as_people_write_them(opened, written, decimal, amount):
    rows = [(*ROWS[0][:4], written, "EUR", "1")]
    assert opened(text(rows, delimiter=";"), decimal=decimal)[0].transaction.amount == amount


@pytest.mark.parametrize(
    ("written", "decimal", "complaint"),
    [
        ("12,50", ".", "add --decimal ,"),
        ("1.234,50", ".", "add --decimal ,"),
        ("12.50", ",", "a decimal point, but the option says --decimal ,"),
        ("1,234.50", ",", "a decimal point, but the option says --decimal ,"),
        ("-12.50", ".", "it is negative"),
        ("$-12.50", ".", "it is negative"),
        ("(12.50)", ".", "it is negative"),
        ("12.50-", ".", "it is negative"),
        ("12,3,4", ".", ""),
        ("twelve", ".", ""),
    ],
)
def test_an_amount_that_cannot_be_read_is_refused_with_the_likely_cause(opened, written, decimal, complaint):
    with pytest.raises(ConfigurationError, match=f"row 2, column `amount`: not an amount.*{complaint}") as caught:
        opened(
            text([(*ROWS[0][:4], "5", *ROWS[0][5:]), (*ROWS[1][:4], written, "EUR", "1")], delimiter=";"),
            decimal=decimal,
        )
    assert written not in str(caught.value)


@pytest.mark.parametrize("written", ["12.00 EUR", "EUR 12.00", "€12.00"])
def test_the_currency_of_an_amount_must_be_that_of_its_row(opened, written):
    rows = [(*ROWS[0][:4], "$5", "USD", "0"), (*ROWS[1][:4], written, "USD", "0")]
    with pytest.raises(ConfigurationError, match="row 2, column `amount`: it has another currency than `currency`"):
        opened(text(rows))
    assert opened(text([rows[0], (*rows[1][:5], "EUR", "0")]))[1].transaction.amount == 12.0


@pytest.mark.parametrize(
    ("fraud", "legitimate"),
    [
        ("Yes", "No"),
        ("Y", "N"),
        ("J", "N"),
        ("ja", "nein"),
        ("T", "F"),
        ("TRUE", "FALSE"),
        ("1.0", "0.0"),
        (" 1", " 0"),
    ],
)
def test_labels_may_be_words(opened, fraud, legitimate):
    rows = [(*ROWS[0][:6], fraud), (*ROWS[1][:6], legitimate), (*ROWS[2][:6], "")]
    assert [row.is_fraud for row in opened(text(rows))] == [True, False, None]


def test_other_words_for_fraud_can_be_named(opened):
    words = ["Chargeback", "ok", "FRAUD", ""]
    rows = [(f"t{n}", MONDAY + n, *ROWS[0][2:6], word) for n, word in enumerate(words)]
    with pytest.raises(ConfigurationError, match=r"row 1, column `is_fraud`: not a label.*--fraud-value"):
        opened(text(rows))
    found = opened(text(rows), fraud_values=("fraud", "chargeback"))
    assert [row.is_fraud for row in found] == [True, False, True, None]


# --- All together -----------------------------------------------------------------------------------------------------


SHAPES = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([",", ";", "\t", "|"]),
        "decimal": st.sampled_from([".", ","]),
        "suffix": st.sampled_from(list(COMPRESS)),
        "encoding": st.sampled_from(["utf-8", "latin-1", "utf-16"]),
        "is_upper": st.booleans(),
        "is_grouped": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.decimals(0, 10**9, places=2), min_size=2, max_size=5), SHAPES)
def test_the_shape_of_a_file_changes_no_transaction(tmp_path_factory, amounts, shape):
    folder = tmp_path_factory.mktemp("shapes")
    rows = [(f"t{n}", MONDAY + n, "c1", "Café 7", str(amount), "EUR", "0") for n, amount in enumerate(amounts)]
    (folder / "plain.csv").write_text(text(rows), encoding="utf-8")
    signs = str.maketrans({",": ".", ".": ","} if shape["decimal"] == "," else {})
    written = [format(amount, ",.2f" if shape["is_grouped"] else ".2f").translate(signs) for amount in amounts]
    shaped = text(
        [(*row[:4], amount, *row[5:]) for row, amount in zip(rows, written, strict=True)],
        [name.upper() if shape["is_upper"] else name for name in NAMES],
        shape["delimiter"],
    )
    path = folder / f"shaped.csv{shape['suffix']}"
    path.write_bytes(COMPRESS[shape["suffix"]](shaped.encode(shape["encoding"])))
    found = list(History.open(path, FileMapping(decimal=shape["decimal"], encoding=shape["encoding"])))
    assert [repr(row) for row in found] == [repr(row) for row in History.open(folder / "plain.csv")]


@pytest.mark.parametrize("entries", [{}, {"fields": {"card_id": "cc_num"}}, {"number_rows": True}])
def test_a_file_without_a_header_is_refused_without_its_values(opened, entries):
    with pytest.raises(ConfigurationError) as raised:
        opened("4000000000000002,2024-03-01T10:00:00Z,Jane Doe,$12.50,EUR\n" * 2, **entries)
    said = str(raised.value)
    assert (
        "the first line seems to be a row of data, not the names of the columns. Write a line with names above" in said
    )
    assert not any(value in said for value in ("4000", "2024", "Jane", "12.50"))


@pytest.mark.parametrize("names", ["V1,V28,Class,Time", "3ds,card1,M9,TransactionAmt", "betrag1,2024_sum,currency"])
def test_a_header_with_digits_is_a_header(opened, names):
    with pytest.raises(ConfigurationError, match=f"the file has {', '.join(names.split(','))}"):
        opened(f"{names}\n1,2,3,4\n")


def test_ids_of_files_whose_names_differ_after_a_dot_differ(tmp_path):
    ids = set()
    for name in ("pay.2026-01.csv", "pay.2026-02.csv", "pay.2026-02.csv.gz"):
        data = text().encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        ids.add(next(iter(History.open(tmp_path / name, FileMapping(number_rows=True)))).transaction.transaction_id)
    assert ids == {"pay.2026-01-row000000001", "pay.2026-02-row000000001"}
