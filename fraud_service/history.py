"""A file of past transactions and what became known of them, read in event order.

Parquet, CSV or JSON Lines; the columns may bear foreign names. A file is checked whole when it is opened: whatever
cannot be a transaction stops the start with the row and the column, rather than surfacing an hour into a replay.
Columns are converted and sorted by Arrow, and only while iterating do rows become Python objects, a batch at a time.
"""

from __future__ import annotations

import csv
import difflib
import importlib
import itertools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fraud_service.domain.events import EARLIEST, LATEST, MAX_AMOUNT, Label, LabelSource, Transaction, instant
from fraud_service.errors import ConfigurationError, InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    Batch = tuple[int, Mapping[str, pa.Array]]

ROWS_PER_BATCH: Final = 32_768
EXACT_IN_A_FLOAT: Final = 2.0**53
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class LabelledTransaction(msgspec.Struct, frozen=True):
    """One row: the transaction, whether it was a fraud, and since when (epoch ms) that is known.

    `is_fraud` and `labelled_at` are None where the file does not say.
    """

    transaction: Transaction
    is_fraud: bool | None
    labelled_at: int | None

    def label(self, delay: int) -> Label | None:
        """Return the label; None where the history knows none.

        Parameters
        ----------
        delay
            Milliseconds from a transaction to its label where the history does not say.
        """
        if self.is_fraud is None:
            return None
        return Label(
            transaction_id=self.transaction.transaction_id,
            card_id=self.transaction.card_id,
            is_fraud=self.is_fraud,
            labelled_at=self.transaction.timestamp + delay if self.labelled_at is None else self.labelled_at,
            source=LabelSource.CHARGEBACK if self.is_fraud else LabelSource.SETTLEMENT,
        )


class History:
    """Past transactions of one file, in the order (timestamp, transaction_id), as often as they are iterated.

    Rows equal in both keep the order of the file. Use `open`; the constructor takes what `open` has already checked.

    Parameters
    ----------
    table
        Sorted rows; one column for each field that the file provides.
    constants
        Values of fields that are the same in all rows.
    """

    def __init__(self, table: pa.Table, constants: Mapping[str, Any]) -> None:
        self._table = table
        self._constants = constants

    @classmethod
    def open(
        cls,
        path: Path,
        columns: Mapping[str, str] = NOTHING,
        constants: Mapping[str, str] = NOTHING,
        start: int | None = None,
        end: int | None = None,
    ) -> History:
        """Read, check and sort a file.

        Parameters
        ----------
        path
            A file ending in .parquet, .csv, .jsonl or .ndjson.
        columns
            Foreign column to field, as in ``{"customer_id": "card_id"}``. Columns that bear the name of a field need no
            entry; others are ignored.
        constants
            Field to the text of its value in all rows, as in ``{"currency": "EUR"}``; a column of that name is then
            ignored.
        start, end
            Keep transactions with ``start <= timestamp < end``, epoch milliseconds.

        Raises
        ------
        ConfigurationError
            When pyarrow is missing, the file cannot be read, a required field has no column, an entry of `columns` or
            `constants` cannot work, or a row is invalid (naming row and column, never the value: it may be card data).
        """
        source = _source(path)
        fixed = {_field(name, f"--set {name}={value}"): value for name, value in constants.items()}
        chosen = _choose(path, source.columns, columns, set(fixed))
        values = {field: _constant(field, text) for field, text in fixed.items()}
        return cls(_sorted(_load(path, source, chosen, start, end)), values)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[LabelledTransaction]:
        for batch in self._table.to_batches(max_chunksize=ROWS_PER_BATCH):
            yield from _structs([self._values(batch, field) for field in FIELDS])

    def _values(self, batch: pa.RecordBatch, field: str) -> Iterable[Any]:
        if field in self._constants:
            return itertools.repeat(self._constants[field], batch.num_rows)
        if field not in batch.schema.names:
            return itertools.repeat(None, batch.num_rows)
        column = batch.column(field)
        if column.null_count and not arrow().types.is_string(column.type):
            return column.to_pylist()  # type: ignore[no-any-return] # numpy would write a missing number as NaN
        return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]


def arrow(module: str = "pyarrow") -> Any:
    """Import pyarrow, or one of its modules, where it is needed: scoring pods live without it.

    Raises
    ------
    ConfigurationError
        When it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "files of transactions are read and written with pyarrow, which is not installed:"
            " run `pip install 'fraud-service[data]'`"
        ) from error


def _structs(columns: list[Iterable[Any]]) -> Iterator[LabelledTransaction]:
    """Build one struct per row from columns in the order of `FIELDS`."""
    for (
        key,
        time,
        card,
        merchant,
        amount,
        currency,
        category,
        country,
        entry,
        device,
        ip,
        north,
        east,
        fraud,
        known,
    ) in zip(*columns, strict=True):
        yield LabelledTransaction(
            Transaction(
                transaction_id=key,
                timestamp=time,
                card_id=card,
                merchant_id=merchant,
                amount=amount,
                currency=currency,
                merchant_category_code=category,
                country=country,
                entry_mode=entry,
                device_id=device,
                ip=ip,
                latitude=north,
                longitude=east,
            ),
            fraud,
            known,
        )


# --- Files: what columns they have, and their rows in batches ---------------------------------------------------------


class _Source(NamedTuple):
    """A file: its columns, and a function that reads some of them as (rows before, column to array) batches."""

    columns: list[str]
    batches: Callable[[list[str]], Iterator[Batch]]


def _source(path: Path) -> _Source:
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(f"{path}: cannot tell the format from the name; it must end in {', '.join(readers)}")
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such file")
    return reader(path)


def _parquet(path: Path) -> _Source:
    parquet, library = arrow("pyarrow.parquet"), arrow()

    def batches(names: list[str]) -> Iterator[Batch]:
        # A file per reading: closed with it, so that no handle outlives `open`.
        with parquet.ParquetFile(path) as file:
            row = 0
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=names):
                yield row, {name: batch.column(name) for name in names}
                row += batch.num_rows

    try:
        names = parquet.read_schema(path).names
    except (library.ArrowInvalid, OSError) as error:
        raise ConfigurationError(f"{path}: not a Parquet file, or a damaged one") from error
    return _Source(names, batches)


def _csv(path: Path) -> _Source:
    library, reader = arrow(), arrow("pyarrow.csv")

    def batches(names: list[str]) -> Iterator[Batch]:
        # As text, for guessing would turn the category 0742 into 742. NA stays text: it is Namibia.
        convert = reader.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, library.string()),
            null_values=["", "NaN", "nan"],
            strings_can_be_null=True,
        )
        row = 0
        for batch in _well_formed_csv(path, convert):
            yield row, {name: batch.column(name) for name in names}
            row += batch.num_rows

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file), [])
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 text") from error
    return _Source(names, batches)


def _well_formed_csv(path: Path, convert: Any) -> Iterator[Any]:
    library, reader = arrow(), arrow("pyarrow.csv")
    ragged: list[Any] = []

    def on_ragged(row: Any) -> str:
        ragged.append(row)
        return "error"

    try:
        yield from reader.open_csv(
            path,
            convert_options=convert,
            parse_options=reader.ParseOptions(invalid_row_handler=on_ragged),
            read_options=reader.ReadOptions(use_threads=False),  # with threads, Arrow does not number the rows
        )
    except library.ArrowInvalid as error:
        # Arrow's own message quotes the row.
        if ragged:
            where, have, want = ragged[0].number - 1, ragged[0].actual_columns, ragged[0].expected_columns
            raise ConfigurationError(f"{path}, row {where}: has {have} values, but there are {want} columns") from None
        raise ConfigurationError(f"{path}: not a UTF-8 CSV file with one header line") from error


def _json_lines(path: Path) -> _Source:
    def batches(names: list[str]) -> Iterator[Batch]:
        for row, documents in _documents(path):
            yield row, {name: _inferred([document.get(name) for document in documents]) for name in names}

    # Producers leave out what they do not know, so every line may bring another column. A dict keeps their order.
    names = dict.fromkeys(name for _, documents in _documents(path) for document in documents for name in document)
    return _Source(list(names), batches)


def _documents(path: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield (rows before, objects) per batch; blank lines are no rows."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with path.open("rb") as file:
        lines = (line for line in file if not line.isspace())
        for row in itertools.count(0, ROWS_PER_BATCH):
            documents: list[dict[str, Any]] = []
            try:
                documents.extend(decode(line) for line in itertools.islice(lines, ROWS_PER_BATCH))
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise ConfigurationError(f"{path}, row {row + len(documents) + 1}: not a JSON object") from None
            if not documents:
                return
            yield row, documents


def _inferred(values: list[Any]) -> pa.Array:
    library = arrow()
    try:
        return library.array(values)
    except (library.ArrowInvalid, library.ArrowTypeError, OverflowError):
        # Mixed types, such as ids written now as 7 and now as "7": as text they can be read alike.
        return library.array(
            [value if isinstance(value, str | None) else msgspec.json.encode(value).decode() for value in values],
            library.string(),
        )


# --- Columns to fields ------------------------------------------------------------------------------------------------


def _field(name: str, option: str) -> str:
    """Give the field of that name; `is_fraud` is the label under its own name."""
    if name == "is_fraud":
        return "label"
    if name not in FIELDS:
        raise ConfigurationError(f"`{option}`: there is no field `{name}`{_nearest(name, FIELDS)}")
    return name


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean `{close[0]}`?" if close else "."
    return f"{hint} Known are {', '.join(names) or 'none'}"


def _choose(path: Path, present: list[str], mapping: Mapping[str, str], fixed: set[str]) -> dict[str, str]:
    """Decide which column provides which field, as field to column.

    An entry of the mapping goes before a column that bears the field's own name: whoever maps knows the file.
    """
    chosen = _mapped(path, present, mapping, fixed)
    own: dict[str, str] = {}
    for column in present:
        field = "label" if column == "is_fraud" else column
        if field not in FIELDS or field in chosen or field in fixed or column in mapping:
            continue
        if field in own:
            raise ConfigurationError(
                f"{path}: the columns `{own[field]}` and `{column}` both are the field `{field}`;"
                f" choose with `--map {column}={field}`"
            )
        own[field] = column
    chosen |= own
    _require(path, present, set(chosen) | fixed)
    return chosen


def _mapped(path: Path, present: list[str], mapping: Mapping[str, str], fixed: set[str]) -> dict[str, str]:
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


def _require(path: Path, present: list[str], known: set[str]) -> None:
    missing = [name for name, field in FIELDS.items() if field.required and name not in known]
    if missing:
        raise ConfigurationError(
            f"{path}: no column for {', '.join(f'`{name}`' for name in missing)}; the file has"
            f" {', '.join(present) or 'no columns'}. Name the column with --map COLUMN=FIELD (as in"
            f" `--map customer_id=card_id`) or set a value for all rows with --set FIELD=VALUE (as in"
            f" `--set currency=EUR`)"
        )


def _constant(field: str, text: str) -> Any:
    option = f"--set {field}={text}"
    if field in {"transaction_id", "timestamp"}:
        raise ConfigurationError(
            f"`{option}`: differs from row to row and must come from a column: use --map COLUMN=FIELD"
        )
    value = FIELDS[field].convert(arrow().array([text], arrow().string()))[0].as_py()
    if value is None:
        raise ConfigurationError(f"`{option}`: {FIELDS[field].complaint}")
    return value


# --- Rows -------------------------------------------------------------------------------------------------------------


def _load(path: Path, source: _Source, chosen: Mapping[str, str], start: int | None, end: int | None) -> pa.Table:
    """Convert all rows and keep those in [start, end)."""
    library, compute = arrow(), arrow("pyarrow.compute")
    columns = list(dict.fromkeys(chosen.values()))
    tables = [_no_rows(chosen)]
    for row, batch in source.batches(columns):
        table = library.table({name: _converted(path, row, name, column, batch) for name, column in chosen.items()})
        time = table["timestamp"]
        kept = compute.and_(
            compute.greater_equal(time, EARLIEST if start is None else start),
            compute.less(time, LATEST + 1 if end is None else end),
        )
        tables.append(table.filter(kept))
    return library.concat_tables(tables)


def _no_rows(chosen: Iterable[str]) -> pa.Table:
    """Give the table of a file without rows: it has columns all the same."""
    library = arrow()
    return library.table({name: FIELDS[name].convert(library.array([], library.string())) for name in chosen})


def _converted(path: Path, row: int, field: str, column: str, batch: Mapping[str, pa.Array]) -> pa.Array:
    """Convert one column of a batch that starts after `row` rows, or name the first row that cannot be."""
    compute = arrow("pyarrow.compute")
    given = _plain(batch[column])
    values = FIELDS[field].convert(given)
    bad = values.is_null()
    if not FIELDS[field].required:
        bad = compute.and_not(bad, given.is_null())
    position = compute.index(bad, value=True).as_py()
    if position < 0:
        return values
    complaint = FIELDS[field].complaint if given[position].is_valid else f"`{field}` must not be missing"
    raise ConfigurationError(f"{path}, row {row + position + 1}, column `{column}`: {complaint}")


def _plain(array: pa.Array) -> pa.Array:
    """Undo dictionaries, and let NaN be null: in tables made with pandas it stands for a missing value."""
    library, compute = arrow(), arrow("pyarrow.compute")
    if library.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if library.types.is_floating(array.type):
        array = compute.if_else(compute.is_nan(array), None, array)
    return array


def _sorted(table: pa.Table) -> pa.Table:
    """Sort by (timestamp, transaction_id); Arrow's sort is stable, and compares text like Python does."""
    order = arrow("pyarrow.compute").sort_indices(
        table, sort_keys=[("timestamp", "ascending"), ("transaction_id", "ascending")]
    )
    return table.combine_chunks().take(order)


# --- Conversions: what cannot be converted becomes null ---------------------------------------------------------------


def _nulls(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return arrow().nulls(len(array), kind)


def _is_text(array: pa.Array) -> bool:
    types = arrow().types
    return bool(types.is_string(array.type) or types.is_large_string(array.type) or types.is_string_view(array.type))


def _where(condition: pa.Array, array: pa.Array) -> pa.Array:
    return arrow("pyarrow.compute").if_else(condition, array, None)


def _each(array: pa.Array, parse: Callable[[str], Any], kind: pa.DataType) -> pa.Array:
    """Parse text value by value: the way to find the one that Arrow refused."""

    def attempt(text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except (ValueError, OverflowError, InvalidEvent):
            return None

    return arrow().array([attempt(text) for text in array.to_pylist()], kind)


def _whole(array: pa.Array) -> pa.Array:
    """Convert numbers to int64; fractions become null."""
    library, compute = arrow(), arrow("pyarrow.compute")
    if library.types.is_floating(array.type):
        whole = compute.equal(compute.floor(array), array)
        array = _where(compute.and_(whole, compute.less(compute.abs(array), EXACT_IN_A_FLOAT)), array)
    elif library.types.is_uint64(array.type):
        array = _where(compute.less_equal(array, LATEST), array)
    return array.cast(library.int64())


def _text(shortest: int, longest: int) -> Callable[[pa.Array], pa.Array]:
    def convert(array: pa.Array) -> pa.Array:
        library, compute = arrow(), arrow("pyarrow.compute")
        if library.types.is_floating(array.type):  # integers that pandas turned into floats to make room for NaN
            array = _whole(array)
        elif not (_is_text(array) or library.types.is_integer(array.type)):
            return _nulls(array, library.string())
        array = array.cast(library.string())
        length = compute.utf8_length(array)
        return _where(compute.and_(compute.greater_equal(length, shortest), compute.less_equal(length, longest)), array)

    return convert


def _currency(array: pa.Array) -> pa.Array:
    text = _text(3, 3)(array)
    return _where(arrow("pyarrow.compute").match_substring_regex(text, "^[A-Z]{3}$"), text)


def _number(lowest: float, highest: float) -> Callable[[pa.Array], pa.Array]:
    def convert(array: pa.Array) -> pa.Array:
        library, compute = arrow(), arrow("pyarrow.compute")
        types, kind = library.types, library.float64()
        if _is_text(array):
            numbers = _parsed(array, lambda text: library.scalar(text).cast(kind).as_py(), kind)
        elif types.is_integer(array.type) or types.is_floating(array.type) or types.is_decimal(array.type):
            numbers = array.cast(kind, safe=False)
        else:
            return _nulls(array, kind)
        inside = compute.and_(compute.greater_equal(numbers, lowest), compute.less_equal(numbers, highest))
        return compute.add(_where(inside, numbers), 0.0)  # minus zero becomes zero

    return convert


def _parsed(array: pa.Array, parse: Callable[[str], Any], kind: pa.DataType) -> pa.Array:
    try:
        return array.cast(kind)
    except arrow().ArrowInvalid:
        return _each(array, parse, kind)


def _time(array: pa.Array) -> pa.Array:
    library, compute = arrow(), arrow("pyarrow.compute")
    types, kind = library.types, library.int64()
    if _is_text(array):
        times = _parsed(array, _moment, kind)
    elif types.is_timestamp(array.type) or types.is_date(array.type):
        # Arrow stores instants in UTC, and takes naive times for UTC.
        times = array.cast(library.timestamp("ms"), safe=False).cast(kind)
    elif types.is_integer(array.type) or types.is_floating(array.type):
        times = _whole(array)
    else:
        return _nulls(array, kind)
    return _where(compute.and_(compute.greater_equal(times, EARLIEST), compute.less_equal(times, LATEST)), times)


def _moment(text: str) -> int:
    return int(text) if text.isdecimal() else instant(text, "timestamp")


def _label(array: pa.Array) -> pa.Array:
    library = arrow()
    types = library.types
    if types.is_boolean(array.type):
        return array
    if _is_text(array):
        return _each(array, lambda text: _TRUTH.get(text.lower()), library.bool_())
    if types.is_integer(array.type) or types.is_floating(array.type):
        compute = arrow("pyarrow.compute")
        fraud = compute.equal(array, 1)
        return _where(compute.or_(fraud, compute.equal(array, 0)), fraud)
    return _nulls(array, library.bool_())


_TRUTH: Final = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


class _Field(NamedTuple):
    """How values of one field come about, what to say of others, and whether it may be missing."""

    convert: Callable[[pa.Array], pa.Array]
    complaint: str
    required: bool = False


_ID: Final = _Field(_text(1, 128), "not text of 1 to 128 characters, nor an integer", required=True)
_TEXT: Final = _Field(_text(0, 256), "not text of at most 256 characters, nor an integer")
_WHEN: Final = "not a time from 1970 to 9999: write epoch milliseconds, or RFC 3339 with an offset (Z or +hh:mm)"

# In the order in which `_structs` takes them: those of `Transaction`, then what is known of it.
FIELDS: Final[Mapping[str, _Field]] = {
    "transaction_id": _ID,
    "timestamp": _Field(_time, _WHEN, required=True),
    "card_id": _ID,
    "merchant_id": _ID,
    "amount": _Field(_number(0, MAX_AMOUNT), f"not an amount from 0 to {MAX_AMOUNT:.0e}", required=True),
    "currency": _Field(_currency, "not an ISO 4217 code such as EUR", required=True),
    "merchant_category_code": _TEXT,
    "country": _TEXT,
    "entry_mode": _TEXT,
    "device_id": _TEXT,
    "ip": _TEXT,
    "latitude": _Field(_number(-90, 90), "not a number of degrees from -90 to 90"),
    "longitude": _Field(_number(-180, 180), "not a number of degrees from -180 to 180"),
    "label": _Field(_label, "not a label: write true or false, 1 or 0"),
    "labelled_at": _Field(_time, _WHEN),
}
