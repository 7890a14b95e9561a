"""Read Parquet, CSV and JSON Lines: the names of the columns, and chosen columns as an Arrow table."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet, types
except ModuleNotFoundError as error:  # scoring pods do not have it
    raise ConfigurationError(
        "pyarrow, which reads and writes files of transactions, is not installed: "
        "run `pip install 'fraud-service[data]'`"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Source", "arrow_csv", "open_source", "pa", "parquet", "pc", "types"]


class Source(NamedTuple):
    """The columns of a file, and a function that reads the named ones."""

    columns: list[str]
    read: Callable[[list[str]], pa.Table]


def open_source(path: Path) -> Source:
    """Read the column names of a file. Its suffix determines the format."""
    if path.is_dir() and any(path.rglob("*.parquet")):  # the parts that Spark and others write
        return _parquet(path)
    formats = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}
    open_format = formats.get(path.suffix.lower())
    if open_format is None:
        raise ConfigurationError(f"{path}: unknown format; the name must end in {', '.join(formats)}")
    if not path.is_file():
        raise ConfigurationError(f"{path}: this file does not exist")
    return open_format(path)


def _parquet(path: Path) -> Source:
    def read(names: list[str]) -> pa.Table:
        try:
            return parquet.read_table(path, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise ConfigurationError(f"{path}: damaged, or parts with different columns") from error

    try:
        return Source(parquet.ParquetDataset(path).schema.names, read)
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: not a Parquet file, or damaged") from error


def _csv(path: Path) -> Source:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text") from error
    return Source(header, lambda names: _read_csv(path, names))


def _read_csv(path: Path, names: list[str]) -> pa.Table:
    ragged: list[Any] = []

    def on_ragged(row: Any) -> str:
        ragged.append(row)
        return "error"

    try:
        table = arrow_csv.read_csv(
            path,
            # As text: type inference would turn the category 0742 into 742. NA stays text: it is Namibia.
            convert_options=arrow_csv.ConvertOptions(
                include_columns=names, column_types=dict.fromkeys(names, pa.string()), null_values=[]
            ),
            parse_options=arrow_csv.ParseOptions(invalid_row_handler=on_ragged, newlines_in_values=True),
            read_options=arrow_csv.ReadOptions(use_threads=False),  # with threads, Arrow does not number the rows
        )
    except pa.ArrowInvalid as error:
        # Arrow's own message quotes the row.
        if ragged:
            where, have, want = ragged[0].number - 1, ragged[0].actual_columns, ragged[0].expected_columns
            raise ConfigurationError(f"{path}, row {where}: has {have} values, but there are {want} columns") from None
        raise ConfigurationError(f"{path}: not a UTF-8 CSV file with one header line") from error
    return pa.table({name: whole_numbers(table[name]) for name in names})


def whole_numbers(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write a column of whole numbers as integers: 27.0 is the id 27, as in a Parquet file of the same numbers.

    Pandas writes `.0` where other rows have no value. If another value of the column is no whole number, `27.0` stays.
    """
    if pc.all(pc.match_substring_regex(column, r"^([+-]?[0-9]+(\.0+)?|NaN|nan|)$")).as_py():
        return pc.replace_substring_regex(column, r"\.0+$", "")
    return column


def _json_lines(path: Path) -> Source:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    columns: dict[str, list[Any]] = {}
    rows = 0
    with path.open("rb") as file:
        for line in file:
            if line.isspace():
                continue
            try:
                row = decode(line)
            except UNREADABLE:
                raise ConfigurationError(f"{path}, row {rows + 1}: not a JSON object") from None
            for name in row:  # producers omit unknown fields, so any line may add a column
                if name not in columns:
                    columns[name] = [None] * rows
            for name, values in columns.items():
                values.append(row.get(name))
            rows += 1
    return Source(list(columns), lambda names: pa.table({name: _inferred(columns[name]) for name in names}))


def _inferred(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # Mixed types, such as the ids 7 and "7": as text both are equal.
        return pa.array([value if isinstance(value, str | None) else _written(value) for value in values], pa.string())


def _written(value: object) -> str:
    return msgspec.json.encode(int(value) if isinstance(value, float) and value.is_integer() else value).decode()
