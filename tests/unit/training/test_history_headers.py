"""Header lines that are long, damaged, or of another encoding: they are read, or an error says what to do."""

from __future__ import annotations

import time

import pytest
from support.worlds import MONDAY

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history import History
from fraud_service.training.history_head import _unique
from fraud_service.training.inspection import inspect
from fraud_service.training.mapping import FileMapping, load_mapping
from fraud_service.training.mapping_text import to_toml

NAMES = ("transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency")
VALUES = ("t1", str(MONDAY), "c1", "m1", "1.50", "EUR")
TEXT = f"{','.join(NAMES)}\n{','.join(VALUES)}\n"


@pytest.fixture
def count(tmp_path):
    """Write a file; count the rows that a history and an inspection have."""

    def build(content, name="past.csv", **entries):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        mapping = FileMapping(**entries)
        rows = len(History.open(path, mapping))
        assert inspect(path, 10, None, lambda _: mapping).accepted == rows
        return rows

    return build


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_header_of_many_columns_is_read(count, delimiter):
    more = [f"column_{n:0200}" for n in range(700)]
    lines = [(*NAMES, *more), (*VALUES, *more)]
    assert count("".join(f"{delimiter.join(line)}\n" for line in lines)) == 1


@pytest.mark.parametrize("rest", ["", "1,2\n" * 50_000, '1,2\n3,"4"\n' * 500])
def test_a_quote_of_the_header_that_does_not_end_is_named(count, rest):
    with pytest.raises(ConfigurationError, match=r'past\.csv: a quote " in the header line has no end: .*--quote'):
        count(f'card_id,"amount\n{rest}')


def test_names_of_several_lines_are_read(count):
    assert count(TEXT.replace("amount", '"amount"').replace("\n", ',"a\nb"\n', 1).replace("EUR", "EUR,1")) == 1


@pytest.mark.parametrize("sign", ["§", "\0", '"', "||"])
def test_a_line_that_names_a_delimiter_no_option_may_have_is_refused(count, sign):
    with pytest.raises(ConfigurationError) as caught:
        count(f"sep={sign}\n{TEXT}")
    assert sign == "||" or "past.csv: the line `sep=` cannot be used. --delimiter" in str(caught.value)


def test_a_line_that_names_a_delimiter_yields_to_the_option(count):
    assert count(f"sep=§\n{TEXT}", delimiter=",") == 1


def test_a_quote_is_no_delimiter_of_a_header(count):
    assert count(TEXT.replace("EUR", ";EUR;"), quote=";") == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt"])
def test_wide_characters_without_a_mark_are_named(tmp_path, encoding, suffix):
    path = tmp_path / f"past.{suffix}"
    path.write_bytes(TEXT.encode(encoding))
    for read in (lambda: History.open(path), lambda: inspect(path, 10, None, lambda one: one)):
        with pytest.raises(ConfigurationError, match=rf"past\.{suffix}: .*--encoding {encoding}$"):
            read()
    if suffix != "jsonl":
        assert len(History.open(path, FileMapping(encoding=encoding))) == 1


def test_the_mark_of_utf_32_is_read(count):
    assert count(TEXT.encode("utf-32")) == 1


def test_the_comments_of_a_mapping_have_no_control_characters(tmp_path):
    path = tmp_path / "bank.toml"
    path.write_text(to_toml(FileMapping(decimal=","), ["no column `\x1b[2Jcard`, `a\0b`, `a\nb`"]), encoding="utf-8")
    assert r"`\x1b[2Jcard`, `a\x00b`, `a\nb`" in path.read_text(encoding="utf-8")
    assert load_mapping(str(path)) == FileMapping(decimal=",")


def test_the_names_of_many_columns_are_compared_in_linear_time():
    names = [f"column {n}" for n in range(40_000)]
    begin = time.monotonic()
    assert _unique([*names, "column 1"]) == [name for name in names if name != "column 1"]
    assert time.monotonic() - begin < 2
