"""Arrow, which reads and writes files of transactions."""

from __future__ import annotations

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

__all__ = ["arrow_csv", "pa", "parquet", "pc", "plain_types", "types"]


def plain_types(table: pa.Table) -> pa.Table:
    """Replace the types of columns that are other spellings of plain ones: many functions of Arrow lack these."""
    columns = {place: _plain(table.column(place)) for place in range(table.num_columns)}
    return pa.table(list(columns.values()), names=table.column_names)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.UuidType):
        return pa.chunked_array([pa.array([value and str(value) for value in column.to_pylist()], pa.string())])
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(column.cast(kind.storage_type))
    if types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if types.is_large_string(kind) or types.is_string_view(kind):
        return column.cast(pa.string())
    if types.is_binary_view(kind) or types.is_large_binary(kind):
        return column.cast(pa.binary())
    return column
