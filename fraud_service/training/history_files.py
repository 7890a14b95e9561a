"""Open Parquet, CSV and JSON Lines, and folders with parts of one format."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history_arrow import pa, parquet, plain_types
from fraud_service.training.history_csv import open_csv
from fraud_service.training.history_rows import Part, Rows, Source
from fraud_service.training.history_text import open_bytes, undecodable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fraud_service.training.mapping import FileMapping

FORMATS: Final = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".tsv": "csv",
    ".txt": "text",
}
COMPRESSED: Final = (".gz", ".zst", ".bz2")
MARK: Final = b"\xef\xbb\xbf"


def open_source(path: Path, mapping: FileMapping, *, skips: bool = False) -> Source:
    """Read the column names of a file or of a folder of parts; the suffix determines the format.

    With `skips`, rows that cannot be read are left out and reported; else the first one is an error.
    """
    parts = files_of(path)
    kind = file_format(parts[0])
    if kind == "parquet":
        return _open_parquet(path)
    if kind == "text":
        kind = "json" if all(next(_lines(part, mapping.encoding), b"").startswith(b"{") for part in parts) else "csv"
    return open_csv(parts, mapping, skips=skips) if kind == "csv" else _open_json(parts, mapping, skips=skips)


def files_of(path: Path) -> list[Path]:
    """Return the file, or all parts of a folder. Raises `ConfigurationError` if there is none, or several formats."""
    if path.is_dir():
        return _files_of_folder(path)
    if file_format(path) is None:
        raise ConfigurationError(
            f"{path}: unknown format; the name must end in {', '.join(FORMATS)}; the last ones also with "
            f"{', '.join(COMPRESSED)} after it"
        )
    if not path.is_file():
        raise ConfigurationError(f"{path}: this file does not exist")
    return [path]


def _files_of_folder(folder: Path) -> list[Path]:
    parts = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and file_format(path) and not any(one[0] in "._" for one in path.relative_to(folder).parts)
    ]
    kinds = {file_format(path): path for path in parts}
    if not parts:
        raise ConfigurationError(f"{folder}: this folder has no file whose name ends in {', '.join(FORMATS)}")
    if len(kinds) > 1:
        raise ConfigurationError(f"{folder}: parts of different formats: {', '.join(map(str, kinds.values()))}")
    return parts


def file_format(path: Path) -> str | None:
    """Return the format that the suffix of a file names, None if it is not known."""
    if path.suffix.lower() not in COMPRESSED:
        return FORMATS.get(path.suffix.lower())
    within = FORMATS.get(path.with_suffix("").suffix.lower())
    return None if within == "parquet" else within


def _open_parquet(path: Path) -> Source:
    def read(names: list[str]) -> Rows:
        try:
            table = plain_types(parquet.read_table(path, columns=names))
        except (pa.ArrowException, OSError) as error:
            raise ConfigurationError(f"{path}: damaged, or parts with different columns") from error
        return Rows(table, [Part(Path(one.path), one.metadata.num_rows, {}) for one in whole.fragments])

    try:
        whole = parquet.ParquetDataset(path)
        return Source(whole.schema.names, read)
    except (pa.ArrowException, OSError) as error:
        raise ConfigurationError(f"{path}: not a Parquet file, or damaged") from error


def _open_json(paths: Sequence[Path], mapping: FileMapping, *, skips: bool) -> Source:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    columns: dict[str, list[Any]] = {}
    rows, parts = 0, []
    for path in paths:
        begin, unreadable = rows, dict[int, str]()
        for line in _lines(path, mapping.encoding):
            try:
                row = decode(line)
            except UNREADABLE:
                number = rows - begin + len(unreadable) + 1
                is_array = number == 1 and line.startswith(b"[")
                if is_array or not skips:
                    remedy = "" if is_array else ", or leave such rows out with --skip-invalid"
                    raise ConfigurationError(
                        f"{path}, row {number}: not a JSON object; write one object a line{remedy}"
                    ) from None
                unreadable[number] = "not a JSON object"
                continue
            for name in row:  # producers omit unknown fields, so any line may add a column
                if name not in columns:
                    columns[name] = [None] * rows
            for name, values in columns.items():
                values.append(row.get(name))
            rows += 1
        parts.append(Part(path, rows - begin + len(unreadable), unreadable))
    return Source(
        list(columns), lambda names: Rows(pa.table({name: _inferred(columns[name]) for name in names}), parts)
    )


def _lines(path: Path, encoding: str) -> Iterator[bytes]:
    try:
        with io.BufferedReader(open_bytes(path, encoding)) as file:
            for line in file:
                if not line.isspace():
                    yield line.removeprefix(MARK)
    except UnicodeError:
        raise undecodable(path, encoding) from None
    except OSError as error:
        raise ConfigurationError(f"{path}: damaged: {error}") from None


def _inferred(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # Mixed types, such as the ids 7 and "7": as text both are equal.
        return pa.array([value if isinstance(value, str | None) else _written(value) for value in values], pa.string())


def _written(value: object) -> str:
    return msgspec.json.encode(int(value) if isinstance(value, float) and value.is_integer() else value).decode()
