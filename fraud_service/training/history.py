"""Past transactions and their labels from a file (Parquet, CSV or JSON Lines), in event order.

`History.open` reads and checks the whole file. So an invalid row stops the command at its start, with row and column,
and not an hour later. Arrow converts and sorts the columns; iteration turns rows into transactions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.codec import LATEST
from fraud_service.domain.events import LabelledTransaction, Transaction
from fraud_service.domain.time import DAY, FIRST_EVENT
from fraud_service.training.history_arrow import pa, pc, types
from fraud_service.training.history_columns import choose_columns, parse_constants
from fraud_service.training.history_faults import NONE_SKIPPED, Faults, Skipped
from fraud_service.training.history_fields import TIMES, Form, between, convert, joined_names, plain_values
from fraud_service.training.history_files import COMPRESSED, FORMATS, open_source
from fraud_service.training.history_times import explain_future, utc_offsets
from fraud_service.training.mapping import FileMapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from fraud_service.training.history_columns import Columns

ROWS_PER_BATCH: Final = 32_768
ID_DIGITS: Final = 9
MAX_LABEL_DELAY_MS: Final = 540 * DAY  # the longest time that card schemes allow for a chargeback


Check = Callable[["pa.Table", "Mapping[str, str]", "Callable[[int], str]"], "pa.Table"]


class History:
    """Past transactions, ordered by (timestamp, transaction_id); rows equal in both keep the order of the file.

    Can be iterated any number of times. Use `open`: the constructor expects a checked and sorted table.
    """

    def __init__(self, table: pa.Table, skipped: Skipped = NONE_SKIPPED) -> None:
        self._table = table
        self.skipped = skipped

    @classmethod
    def open(
        cls,
        path: Path,
        mapping: FileMapping = FileMapping(),  # noqa: B008 - immutable
        start: int | None = None,
        end: int | None = None,
        *,
        check: Check = lambda table, _, __: table,
        skips: bool = False,
        latest: int = LATEST,
    ) -> History:
        """Read, check and sort a file; keep the transactions with ``start <= timestamp < end``, epoch milliseconds.

        A column with the name of a field needs no entry in `mapping`; other columns are ignored. A constant takes
        precedence over the column with its name. `check` takes the table of all rows, the name of the column of each
        field, and a function that names the row of a position; it returns the table to use, or raises. With `skips`,
        invalid rows are left out, and `skipped` has them; `InvalidFile` is raised if they are more than half. A payment
        after `latest`, epoch milliseconds, is invalid, unless `end` leaves it out.

        Raises `ConfigurationError` for a file, column, option or row that is invalid. The error names row and column,
        never the value: it may be card data.
        """
        source = open_source(path, mapping, skips=skips)
        parse_constants(mapping.constants)  # complains before the file is read
        chosen = choose_columns(path, source.columns, mapping)
        rows = source.read(list(dict.fromkeys(column for columns in chosen.values() for column in columns)))
        faults = Faults(path, rows, skips=skips)
        newest = LATEST if end is not None and end <= latest else latest
        table = convert_fields(path, rows.table, chosen, mapping, faults, newest)
        names = {field: joined_names(columns) for field, columns in chosen.items()}
        table = faults.without(check(table, names, faults.where))
        first, last = FIRST_EVENT if start is None else start, LATEST if end is None else end - 1
        table = table.filter(between(table["timestamp"], first, last)).combine_chunks()  # whole columns sort faster
        return cls(table.sort_by([("timestamp", "ascending"), ("transaction_id", "ascending")]), faults.skipped())

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def has_fraud(self) -> bool:
        """Whether any transaction is labelled as fraud."""
        return self.has("label") and bool(pc.any(self._table["label"]).as_py())

    def has(self, field: str) -> bool:
        """Whether the file, the mapping or a constant provides a field."""
        return field in self._table.column_names

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


def convert_fields(
    path: Path, table: pa.Table, chosen: Mapping[str, Columns], mapping: FileMapping, faults: Faults, latest: int
) -> pa.Table:
    """Convert the columns of a file to fields. Reports what is invalid to `faults`, also payments after `latest`."""
    form = Form.of(mapping)
    fields = {
        field: convert(field, {column: table[column] for column in columns}, form, faults)
        for field, columns in chosen.items()
    }
    constants = parse_constants(mapping.constants)
    fields |= {field: pa.repeat(value, table.num_rows) for field, value in constants.items()}
    if mapping.number_rows:
        fields["transaction_id"] = _ids(path, faults.numbers)
    written = {
        field: plain_values(field, [table[column] for column in chosen[field]]) for field in TIMES if field in chosen
    }
    if "timestamp" in written:
        fields["utc_offset_min"] = _offsets(fields, utc_offsets(written["timestamp"], fields["timestamp"], form.times))
    converted = pa.table(fields)
    for field, last in (("timestamp", latest), ("labelled_at", latest + MAX_LABEL_DELAY_MS)):
        _check_future(field, chosen.get(field), written.get(field), converted, last, faults)
    _check_label_times(chosen.get("labelled_at"), converted, faults)
    for column in chosen.get("amount", ()):
        _check_currencies(column, table[column], converted, faults)
    return _with_places(converted)


def _check_label_times(columns: Columns | None, table: pa.Table, faults: Faults) -> None:
    """Refuse a label from before its payment: it would tell the answer in advance."""
    if "labelled_at" not in table.column_names:
        return
    advice = "Leave it out" if columns is None else "Correct the times, or rename the column"
    early = pc.fill_null(pc.less(table["labelled_at"], table["timestamp"]), fill_value=False)
    complaint = (
        f"the label would be known before its payment. {advice}; then --label-delay says when labels become known"
    )
    faults.add(_name("labelled_at", columns), early, lambda _: complaint)


def _check_future(
    field: str, columns: Columns | None, written: pa.ChunkedArray | None, table: pa.Table, latest: int, faults: Faults
) -> None:
    """Refuse times after `latest`: they are wrong, or were read in a wrong way."""
    if field in table.column_names:
        late = pc.fill_null(pc.greater(table[field], latest), fill_value=False)
        faults.add(
            _name(field, columns), late, lambda row: explain_future(field, None if written is None else written[row])
        )


def _name(field: str, columns: Columns | None) -> str:
    return f"--set {field}" if columns is None else joined_names(columns)


def _check_currencies(column: str, given: pa.ChunkedArray, table: pa.Table, faults: Faults) -> None:
    """Refuse an amount such as `12.00 EUR` in a row of another currency."""
    if types.is_string(given.type) and pc.any(pc.match_substring_regex(given, "[A-Z€]")).as_py():
        codes = pc.extract_regex(pc.replace_substring(given, "€", "EUR"), "(?P<code>[A-Z]{3})")
        other = pc.not_equal(pc.struct_field(codes, "code"), table["currency"])
        faults.add(column, pc.fill_null(other, fill_value=False), lambda _: "it has another currency than `currency`")


def _ids(path: Path, numbers: pa.Array) -> pa.Array:
    """Return transaction ids from the row numbers, other ones for each name of a file."""
    while path.suffix.lower() in (*FORMATS, *COMPRESSED):
        path = path.with_suffix("")
    name = "".join(sign for sign in path.name if sign.isalnum() or sign in "-_.")[:100]
    padded = pc.utf8_lpad(numbers.cast(pa.string()), ID_DIGITS, "0")  # ids of equal times sort as the rows
    return pc.binary_join_element_wise(pa.scalar(f"{name}-row"), padded, "")


def _offsets(fields: Mapping[str, pa.ChunkedArray], stated: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the offsets that the times state where the file has no `utc_offset_min`."""
    return pc.coalesce(fields["utc_offset_min"], stated) if "utc_offset_min" in fields else stated


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
