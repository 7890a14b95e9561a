"""Read the first rows of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.card_data import mask_text
from fraud_service.training.history_files import open_source

if TYPE_CHECKING:
    from pathlib import Path

    from fraud_service.training.history_arrow import pa
    from fraud_service.training.mapping import FileMapping


class Head(NamedTuple):
    """The names of all columns, the first rows of those with a name of their own, and whether these are all rows."""

    columns: list[str]
    table: pa.Table
    is_whole_file: bool


def read_head(path: Path, rows: int, mapping: FileMapping) -> Head:
    """Read the first rows of a file. Raises `ConfigurationError` if it is not readable, or names hold card data."""
    source = open_source(path, mapping)
    if any(mask_text(name) != name for name in source.columns):
        raise ConfigurationError(
            f"{path}: the names of its columns have card data, so the first line seems to be a row of data. Write a "
            "line with names above it"
        )
    names = [name for name in source.columns if source.columns.count(name) == 1]
    table = source.read(names).table
    return Head(source.columns, table.slice(0, rows), table.num_rows <= rows)
