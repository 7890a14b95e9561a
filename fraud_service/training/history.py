"""Past transactions and their labels from a file (Parquet, CSV or JSON Lines), in event order.

`History.open` reads and checks the whole file. So an invalid row stops the command at its start, with row and column,
and not an hour later. Arrow converts and sorts the columns; iteration turns rows into transactions.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import LabelledTransaction, Transaction
from fraud_service.domain.time import FIRST_EVENT
from fraud_service.training.history_fields import FIELDS, between, constant, convert
from fraud_service.training.history_files import open_source, pa, pc, types
from fraud_service.training.history_times import TimeFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

ALIASES: Final = {"is_fraud": "label"}
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
        *,
        check: Callable[[pa.Table, Mapping[str, str]], pa.Table] = lambda table, _: table,
        times: TimeFormat = TimeFormat(),  # noqa: B008 - immutable
    ) -> History:
        """Read, check and sort a file; keep the transactions with ``start <= timestamp < end``, epoch milliseconds.

        `columns` maps columns to fields, as in ``{"customer_id": "card_id"}``. A column with the name of a field needs
        no entry; other columns are ignored. `constants` maps fields to the text of their value in all rows, as in
        ``{"currency": "EUR"}``; a column with that name is ignored. `check` takes the table of all rows and the column
        of each field; it returns the table to use, or raises. `times` says how the file writes
        times.

        Raises `ConfigurationError` for a file, column, option or row that is invalid. The error names row and column,
        never the value: it may be card data.
        """
        source = open_source(path)
        fixed = _constants(constants or {})
        chosen = _columns(path, source.columns, columns or {}, fixed)
        given = source.read(list(chosen.values()))
        table = pa.table(
            {field: convert(path, field, column, given[column], times) for field, column in chosen.items()}
            | {field: pa.repeat(value, given.num_rows) for field, value in fixed.items()}
        )
        _check_label_times(path, chosen.get("labelled_at"), table)
        table = check(_with_places(table), chosen)
        first, last = FIRST_EVENT if start is None else start, LATEST if end is None else end - 1
        table = table.filter(between(table["timestamp"], first, last)).combine_chunks()  # whole columns sort faster
        return cls(table.sort_by([("timestamp", "ascending"), ("transaction_id", "ascending")]))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def count_distinct(self, fields: Sequence[str]) -> int:
        """Return the number of different values of some fields together."""
        return int(self._table.group_by(list(fields)).aggregate([]).num_rows)

    def __iter__(self) -> Iterator[LabelledTransaction]:
        for batch in self._table.to_batches(max_chunksize=ROWS_PER_BATCH):
            columns = {name: _values(batch.column(name)) for name in batch.schema.names}
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                is_fraud, labelled_at = row.pop("label", None), row.pop("labelled_at", None)
                yield LabelledTransaction(Transaction(**row), is_fraud, labelled_at)


def _check_label_times(path: Path, column: str | None, table: pa.Table) -> None:
    """Refuse a label from before its payment: it would tell the answer in advance."""
    if column is None:
        return
    position = pc.index(pc.less(table["labelled_at"], table["timestamp"]), value=True).as_py()
    if position >= 0:
        raise ConfigurationError(
            f"{path}, row {position + 1}, column `{column}`: the label would be known before its payment. Correct the "
            "times, or rename the column; then --label-delay says when labels become known"
        )


def _with_places(table: pa.Table) -> pa.Table:
    """Keep only complete places, and not the point 0, 0: as `events.place` does for messages."""
    names = ("latitude", "longitude")
    if not set(names) <= set(table.column_names):
        return table.drop_columns([name for name in names if name in table.column_names])
    latitude, longitude = (table[name] for name in names)
    known = pc.or_(pc.not_equal(latitude, 0.0), pc.not_equal(longitude, 0.0))
    for name in names:
        table = table.set_column(table.column_names.index(name), name, pc.if_else(known, table[name], None))
    return table


def _values(column: pa.Array) -> list[Any]:
    """Return a column as Python values, by way of numpy: older releases of Arrow take ten times as long."""
    if column.null_count and not types.is_string(column.type):
        return column.to_pylist()  # type: ignore[no-any-return] # numpy would write a missing number as NaN
    return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


def _constants(texts: Mapping[str, str]) -> dict[str, pa.Scalar]:
    """Parse the options `--set FIELD=VALUE`: the value of each field that is the same in all rows."""
    values: dict[str, pa.Scalar] = {}
    for name, text in texts.items():
        option = f"--set {name}={text}"
        field = _field(name, option)
        if field in {"transaction_id", "timestamp"}:
            raise ConfigurationError(
                f"`{option}`: `{field}` differs from row to row, so it must come from a column: use --map COLUMN=FIELD"
            )
        try:
            values[field] = constant(field, text)
        except ValueError as error:
            raise ConfigurationError(f"`{option}`: {error}") from None
    return values


def _columns(path: Path, present: list[str], mapping: Mapping[str, str], fixed: Collection[str]) -> dict[str, str]:
    """Return the column of each field; `mapping` is column to field.

    The mapping takes precedence over a column with the name of the field.
    """
    chosen = _mapped(path, present, mapping, fixed)
    own: dict[str, str] = {}
    for column in present:
        field = ALIASES.get(column, column)
        if field not in FIELDS or field in chosen or field in fixed or column in mapping:
            continue
        if own.get(field, column) != column:
            raise ConfigurationError(
                f"{path}: the columns `{own[field]}` and `{column}` both map to the field `{field}`;"
                f" choose with `--map {column}={field}`"
            )
        own[field] = column
    chosen |= own
    for field, column in chosen.items():
        if present.count(column) > 1:
            raise ConfigurationError(
                f"{path}: {present.count(column)} columns are named `{column}`, so the field `{field}` could be any of"
                " them: rename all but one"
            )
    missing = [name for name, field in FIELDS.items() if field.required and name not in {*chosen, *fixed}]
    if missing:
        raise ConfigurationError(
            f"{path}: no column for {', '.join(f'`{name}`' for name in missing)}; the file has"
            f" {', '.join(present) or 'no columns'}. Name the column with --map COLUMN=FIELD (as in"
            f" `--map customer_id=card_id`) or set a value for all rows with --set FIELD=VALUE (as in"
            f" `--set currency=EUR`)"
        )
    return chosen


def _mapped(path: Path, present: list[str], mapping: Mapping[str, str], fixed: Collection[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for column, name in mapping.items():
        option = f"--map {column}={name}"
        field = _field(name, option)
        if column not in present:
            raise ConfigurationError(f"`{option}`: {path} has no column `{column}`{_nearest(column, present)}")
        if field in chosen or field in fixed:
            raise ConfigurationError(f"`{option}`: another --map or --set already provides the field `{field}`")
        chosen[field] = column
    return chosen


def _field(name: str, option: str) -> str:
    field = ALIASES.get(name, name)
    if field not in FIELDS:
        raise ConfigurationError(f"`{option}`: there is no field `{name}`{_nearest(name, FIELDS)}")
    return field


def _nearest(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return f"{hint} Known are {', '.join(known) or 'none'}"
