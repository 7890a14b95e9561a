"""A history: the rows of a file in event order, as transactions with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.codec import EARLIEST, LATEST
from fraud_service.domain.events import LabelledTransaction, Transaction
from fraud_service.training.history.arrow import pa, types
from fraud_service.training.history.columns import choose, read_constants
from fraud_service.training.history.fields import between, converted
from fraud_service.training.history.files import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ROWS_PER_BATCH: Final = 32_768


class History:
    """Past transactions, ordered by (timestamp, transaction_id); rows equal in both keep the order of the file.

    Can be iterated any number of times. Use `open`: the constructor expects a checked and sorted table.
    """

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    @classmethod
    def open(
        cls,
        path: Path,
        columns: Mapping[str, str] | None = None,
        constants: Mapping[str, str] | None = None,
        start: int | None = None,
        end: int | None = None,
    ) -> History:
        """Read, check and sort a file.

        Parameters
        ----------
        path
            A file ending in .parquet, .csv, .jsonl or .ndjson.
        columns
            Column to field, as in ``{"customer_id": "card_id"}``. A column with the name of a field needs no entry;
            other columns are ignored.
        constants
            Field to the text of its value in all rows, as in ``{"currency": "EUR"}``. A column with that name is
            ignored.
        start, end
            Keep transactions with ``start <= timestamp < end``, epoch milliseconds.

        Raises
        ------
        ConfigurationError
            The file cannot be read, a required field has no column, an entry of `columns` or `constants` is invalid,
            or a row is invalid. The error names row and column, never the value: it may be card data.
        """
        source = open_source(path)
        fixed = read_constants(constants or {})
        chosen = choose(path, source.columns, columns or {}, fixed)
        given = source.read(list(chosen.values()))
        table = pa.table(
            {field: converted(path, field, column, given[column]) for field, column in chosen.items()}
            | {field: pa.repeat(value, given.num_rows) for field, value in fixed.items()}
        )
        first, last = EARLIEST if start is None else start, LATEST if end is None else end - 1
        table = table.filter(between(table["timestamp"], first, last)).combine_chunks()  # whole columns sort faster
        return cls(table.sort_by([("timestamp", "ascending"), ("transaction_id", "ascending")]))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[LabelledTransaction]:
        for batch in self._table.to_batches(max_chunksize=ROWS_PER_BATCH):
            columns = {name: _values(batch.column(name)) for name in batch.schema.names}
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                is_fraud, labelled_at = row.pop("label", None), row.pop("labelled_at", None)
                yield LabelledTransaction(Transaction(**row), is_fraud, labelled_at)


def _values(column: pa.Array) -> list[Any]:
    """Return a column as Python values, by way of numpy: older releases of Arrow take ten times as long."""
    if column.null_count and not types.is_string(column.type):
        return column.to_pylist()  # type: ignore[no-any-return] # numpy would write a missing number as NaN
    return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
