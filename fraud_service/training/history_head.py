"""Read the first rows of a file, in bounded time and memory however large it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from pyarrow import dataset

from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.card_data import mask_text
from fraud_service.training.history_arrow import pa, plain_types
from fraud_service.training.history_csv import read_header
from fraud_service.training.history_files import file_format, files_of, open_source
from fraud_service.training.history_rows import Part
from fraud_service.training.history_text import open_bytes
from fraud_service.training.mapping import FileMapping

if TYPE_CHECKING:
    from collections.abc import Sequence


MAX_BYTES: Final = 1 << 26  # of text
DEFAULT_ENCODING: Final = FileMapping().encoding
FALLBACK_ENCODINGS: Final = ("cp1252", "latin-1")  # of a file that is not UTF-8; the last one fits every file


class Head(NamedTuple):
    """The columns of a file and its first rows.

    `columns` has all names, `table` the columns with a name of their own. `parts` has the rows that are none of the
    format. `mapping` has the encoding and the delimiter that were found.
    """

    columns: list[str]
    table: pa.Table
    is_whole_file: bool
    parts: list[Part]
    mapping: FileMapping


def read_head(path: Path, rows: int, mapping: FileMapping) -> Head:
    """Read the first rows of a file or of the parts in a folder, and at most 64 MiB of text.

    Raises `ConfigurationError` if the file is not readable, or if names of columns hold card data.
    """
    files = files_of(path)
    is_parquet = file_format(files[0]) == "parquet"
    head = _head_of_parquet(path, rows, mapping) if is_parquet else _head_of_text(path, files, rows, mapping)
    if any(mask_text(name) != name for name in head.columns):
        raise ConfigurationError(
            f"{path}: the names of its columns have card data, so the first line seems to be a row of data. Write a "
            "line with names above it"
        )
    return head


def _head_of_parquet(path: Path, rows: int, mapping: FileMapping) -> Head:
    source = open_source(path, mapping)
    try:
        whole = dataset.dataset(path, format="parquet", partitioning="hive")
        table = plain_types(whole.head(rows, columns=_unique(source.columns)))
        return Head(source.columns, table, whole.count_rows() <= rows, [Part(path, len(table), {})], mapping)
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: damaged, or parts with different columns") from error


def _head_of_text(path: Path, files: Sequence[Path], rows: int, mapping: FileMapping) -> Head:
    """Copy the beginning in UTF-8, and read the copy as any other file."""
    with TemporaryDirectory() as folder:
        begin = Path(folder) / path.name
        if path.is_dir():
            begin.mkdir()
        left = MAX_BYTES
        for number, file in enumerate(files):
            copy = begin / f"{number:06}-{file.name}" if path.is_dir() else begin
            mapping, size = _copy_begin(file, copy, left, mapping)
            left -= size
            if left <= 0:
                break
        try:
            as_copied = msgspec.structs.replace(mapping, encoding="utf-8")
            source = open_source(begin, as_copied, skips=True)
            read = source.read(_unique(source.columns))
            found = msgspec.structs.replace(mapping, delimiter=_delimiter(begin, as_copied))
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace(str(begin), str(path))) from None
    is_whole = len(read.table) <= rows
    table = read.table if is_whole else read.table.slice(0, rows)
    return Head(source.columns, table, is_whole and left > 0, read.parts, found)


def _unique(columns: list[str]) -> list[str]:
    counts = Counter(columns)
    return [name for name in columns if counts[name] == 1]


def _copy_begin(file: Path, copy: Path, most: int, mapping: FileMapping) -> tuple[FileMapping, int]:
    """Copy whole lines in UTF-8. Returns the mapping with the encoding of the file, and the size; `most` if cut."""
    try:
        content = _read(file, mapping.encoding, most)
        if mapping.encoding == DEFAULT_ENCODING and not _is_utf_8(content):
            mapping = msgspec.structs.replace(mapping, encoding=_encoding_of(content))
            content = _read(file, mapping.encoding, most)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{file}: damaged, or not text in {mapping.encoding}") from error
    is_cut = len(content) == most
    copy.write_bytes(content[: content.rfind(b"\n") + 1] if is_cut else content)
    return mapping, len(content)


def _read(file: Path, encoding: str, most: int) -> bytes:
    with open_bytes(file, encoding) as stream:
        return bytes(stream.read(most))


def _is_utf_8(content: bytes) -> bool:
    try:
        content[: content.rfind(b"\n") + 1 or None].decode()
    except UnicodeError:
        return False
    return True


def _encoding_of(content: bytes) -> str:
    for encoding in FALLBACK_ENCODINGS:
        try:
            content.decode(encoding)
        except UnicodeError:
            continue
        return encoding
    return FALLBACK_ENCODINGS[-1]


def _delimiter(path: Path, mapping: FileMapping) -> str | None:
    """Return the delimiter for a mapping: None for a comma, which needs no entry, and for other formats."""
    file = files_of(path)[0]
    if file_format(file) != "csv" or mapping.delimiter is not None:
        return mapping.delimiter
    found = read_header(file, mapping).delimiter
    return {",": None, "\t": "tab"}.get(found, found)
