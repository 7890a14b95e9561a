"""Read CSV files with any delimiter, encoding and compression."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import ABSENT
from fraud_service.training.history_arrow import arrow_csv, pa, pc
from fraud_service.training.history_rows import Part, Rows, Source, whole_numbers
from fraud_service.training.history_text import NOT_TEXT, UNREADABLE, open_bytes, open_text, undecodable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fraud_service.training.mapping import FileMapping

DELIMITERS: Final = ",;\t|"
# What databases and spreadsheets write for no value, since CSV has no other way. NA is not among them: it is Namibia.
MISSING: Final = sorted(ABSENT | {"NULL", "null", "\\N", "N/A", "n/a", "#N/A", "<NA>", "NaT", "None", "-"})
PARTS_OF_NAMES: Final = ' _-."?()'
BLOCK_BYTES: Final = 1 << 20
MAX_BLOCK_BYTES: Final = 1 << 30
csv.field_size_limit(MAX_BLOCK_BYTES)  # the default is less than some header lines have
FIRST_LINES: Final = 100  # in which the header is
SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?\s*')  # which spreadsheets write before the header
INVALID_UTF_8: Final = re.compile(r"column #(\d+): Row #(\d+)")


class Header(NamedTuple):
    """The names of the columns, the delimiter, and the number of lines before the header line."""

    names: list[str]
    delimiter: str
    skipped: int


def open_csv(parts: Sequence[Path], mapping: FileMapping, *, skips: bool) -> Source:
    """Read the header lines. With `skips`, rows of another length are left out and reported; else they are an error."""
    headers = {path: read_header(path, mapping) for path in parts}
    if len(parts) > 1:  # a part without rows may have no header
        headers = {path: header for path, header in headers.items() if header.names}
    columns: list[str] = []
    for header in headers.values():
        known = {*columns}
        columns += [name for name in header.names if name not in known]

    def read(names: list[str]) -> Rows:
        read_parts = [_read(path, header, names, mapping, skips=skips) for path, header in headers.items()]
        table = pa.concat_tables([table for table, _ in read_parts])
        values = {name: whole_numbers(_one_line(_trimmed(name, table[name])), mapping.decimal) for name in names}
        return Rows(pa.table(values), [part for _, part in read_parts])

    return Source(columns, read)


def read_header(path: Path, mapping: FileMapping) -> Header:
    """Read the header line. Lines before it that begin with # are comments; one of spreadsheets names the delimiter."""
    delimiter, skipped = mapping.separator, 0
    try:
        with open_text(path, mapping.encoding) as file:
            lines = list(itertools.islice(file, FIRST_LINES))
    except UnicodeError:
        raise undecodable(path, mapping.encoding) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: damaged: {error}") from None
    while skipped < len(lines):
        named = SEPARATOR_LINE.fullmatch(lines[skipped])
        if named and delimiter is None:
            delimiter = _checked(path, named[1], mapping)
        if not named and not lines[skipped].startswith("#") and lines[skipped].strip():
            break
        skipped += 1
    del lines[:skipped]
    candidates = DELIMITERS.replace(mapping.quote, "") if delimiter is None else delimiter
    headers = [
        Header(next(csv.reader(lines, delimiter=one, quotechar=mapping.quote), []), one, skipped) for one in candidates
    ]
    header = max(headers, key=lambda one: len(one.names))  # the first of equals
    _require_end(path, lines, header, mapping.quote)
    if any(UNREADABLE in name for name in header.names):
        raise undecodable(path, mapping.encoding)
    likely = _likely_delimiter(lines[0], header.delimiter) if len(header.names) == 1 else None
    if likely is not None:
        raise ConfigurationError(
            f"{path}: the header line has one column: is {likely!r} the delimiter? Then add --delimiter "
            f"{'tab' if likely == chr(9) else repr(likely)}"
        )
    return header


def _checked(path: Path, delimiter: str, mapping: FileMapping) -> str:
    """Return the delimiter that a line of the file names, if the option may have it too."""
    try:
        msgspec.structs.replace(mapping, delimiter=delimiter)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: the line `sep=` cannot be used. {error}") from None
    return delimiter


def _require_end(path: Path, lines: list[str], header: Header, quote: str) -> None:
    """Raise an error if a quote of the header ends in a later row."""
    reader = csv.reader(lines, delimiter=header.delimiter, quotechar=quote)
    next(reader, None)
    if "\n" in "".join(header.names) and "".join(lines[: reader.line_num]).count(quote) % 2:
        raise ConfigurationError(
            f"{path}: a quote {quote} in the header line has no end: correct it, or name another sign with --quote"
        )


def _likely_delimiter(line: str, delimiter: str) -> str | None:
    """Return the most frequent sign of a line that could be its delimiter."""
    signs = Counter(sign for sign in line.strip() if sign.isascii() and not sign.isalnum())
    return next((sign for sign, _ in signs.most_common() if sign not in f"{PARTS_OF_NAMES}{delimiter}"), None)


def _trimmed(name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Remove the blanks around values if the name of the column has them too."""
    return column if name == name.strip() else pc.utf8_trim_whitespace(column)


def _one_line(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write a blank for a line break within quotes: identifiers must not have control characters."""
    if pc.any(pc.match_substring(column, "\n")).as_py() or pc.any(pc.match_substring(column, "\r")).as_py():
        return pc.replace_substring_regex(column, r"\s*[\r\n]+\s*", " ")
    return column


def _read(path: Path, header: Header, names: list[str], mapping: FileMapping, *, skips: bool) -> tuple[pa.Table, Part]:
    present = {*header.names}
    own = [name for name in names if name in present]
    block_bytes = BLOCK_BYTES
    while True:
        try:
            table, part = _read_blocks(path, header, own, mapping, block_bytes, skips=skips)
            break
        except pa.ArrowInvalid:  # a value that is larger than a block
            if block_bytes >= MAX_BLOCK_BYTES:
                raise ConfigurationError(f"{path}: a quoted value does not end within 1 GiB") from None
            block_bytes *= 8
    for name in names:
        if name not in own:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    return table.select(names), part


def _read_blocks(
    path: Path, header: Header, names: list[str], mapping: FileMapping, block_bytes: int, *, skips: bool
) -> tuple[pa.Table, Part]:
    """Read a file. Raises `ArrowInvalid` if a value is larger than a block."""
    before = header.skipped + 1  # Arrow counts these lines as rows
    ragged: dict[int, str] = {}

    def on_ragged(row: Any) -> str:
        ragged[row.number - before] = f"has {row.actual_columns} values, but there are {row.expected_columns} columns"
        return "skip" if skips else "error"

    try:
        table = arrow_csv.read_csv(
            open_bytes(path, mapping.encoding),
            # As text: type inference would turn the category 0742 into 742.
            convert_options=arrow_csv.ConvertOptions(
                include_columns=names,
                column_types=dict.fromkeys(names, pa.string()),
                null_values=MISSING,
                strings_can_be_null=True,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=header.delimiter,
                quote_char=mapping.quote,
                invalid_row_handler=on_ragged,
                newlines_in_values=True,
            ),
            read_options=arrow_csv.ReadOptions(
                use_threads=False,  # with threads, Arrow does not number the rows
                skip_rows=header.skipped,
                block_size=block_bytes,
            ),
        )
    except UnicodeError:
        raise undecodable(path, mapping.encoding) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: damaged: {error}") from None
    except pa.ArrowInvalid as error:
        if "straddling" in str(error):
            raise
        raise _invalid(path, header, ragged, str(error)) from None  # Arrow's own message quotes the row
    return table, Part(path, len(table) + len(ragged), ragged)


def _invalid(path: Path, header: Header, ragged: dict[int, str], said: str) -> ConfigurationError:
    for row, problem in ragged.items():
        return ConfigurationError(f"{path}, row {row}: {problem}; --skip-invalid leaves such rows out")
    if place := INVALID_UTF_8.search(said):
        row = int(place[2]) - header.skipped - 1
        return ConfigurationError(f"{path}, row {row}, column `{header.names[int(place[1])]}`: {NOT_TEXT}")
    return ConfigurationError(f"{path}: not a CSV file with one header line")
