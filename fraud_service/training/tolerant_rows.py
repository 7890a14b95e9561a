"""Convert the rows of a table, and count those that a command would refuse, with the reasons."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.training.history import with_places
from fraud_service.training.history_arrow import pa, pc
from fraud_service.training.history_columns import choose_columns, parse_constants
from fraud_service.training.history_fields import FIELDS, Form, plain_values

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fraud_service.training.history_columns import Columns
    from fraud_service.training.mapping import FileMapping

MAX_EXPLAINED: Final = 10_000  # refused values of a column


class Refusal(msgspec.Struct, frozen=True):
    """Why rows are refused: the column, the reason, the number of rows, and the first of them."""

    column: str
    reason: str
    rows: int
    first_row: int


class TolerantRows(NamedTuple):
    """The rows that commands accept as converted columns, the columns of each field, and why others are refused.

    `labels` are those of all rows.
    """

    table: pa.Table
    columns: dict[str, Columns]
    refused: list[Refusal]
    labels: pa.ChunkedArray | None


def read_rows(path: Path, raw: pa.Table, mapping: FileMapping) -> TolerantRows:
    """Convert a table of raw columns. Raises `ConfigurationError` if a field has no column."""
    chosen, fixed, form = (
        choose_columns(path, raw.column_names, mapping),
        parse_constants(mapping.constants),
        Form.of(mapping),
    )
    refused: list[Refusal] = []
    good = pa.chunked_array([pa.repeat(True, raw.num_rows)])  # noqa: FBT003 - the value
    converted = {field: pa.chunked_array([pa.repeat(value, raw.num_rows)]) for field, value in fixed.items()}
    if mapping.number_rows:
        converted["transaction_id"] = pa.chunked_array([pa.array(range(1, raw.num_rows + 1)).cast(pa.string())])
    for field, columns in chosen.items():
        given = plain_values(field, [raw[column] for column in columns])
        converted[field] = FIELDS[field].values(given, form)
        bad = _bad(field, given, converted[field])
        refused += _refusals(field, "`, `".join(columns), given, bad, form)
        good = pc.and_(good, pc.invert(bad))
    if "labelled_at" in converted:
        early = pc.fill_null(pc.less(converted["labelled_at"], converted["timestamp"]), fill_value=False)
        if count := _count(early):
            reason = "the label would be known before its payment"
            refused.append(Refusal("`, `".join(chosen.get("labelled_at", ())), reason, count, _first(early)))
        good = pc.and_(good, pc.invert(early))
    table = with_places(pa.table({name: converted[name] for name in FIELDS if name in converted})).filter(good)
    return TolerantRows(table.combine_chunks(), chosen, refused, converted.get("label"))


def _bad(field: str, given: pa.ChunkedArray, values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.is_null() if FIELDS[field].required else pc.and_not(values.is_null(), given.is_null())


def _refusals(field: str, column: str, given: pa.ChunkedArray, bad: pa.ChunkedArray, form: Form) -> Iterator[Refusal]:
    rows = pc.indices_nonzero(bad)
    some = rows.slice(0, MAX_EXPLAINED)
    reasons = [FIELDS[field].explain(field, value, form) for value in given.take(some)]
    first = dict(zip(reversed(reasons), reversed(some.to_pylist()), strict=True))
    for reason, count in Counter(reasons).most_common():
        rest = len(rows) - len(some) if count * 2 > len(some) else 0  # the rest has the usual reason
        yield Refusal(column, reason, count + rest, first[reason] + 1)


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _first(mask: pa.ChunkedArray) -> int:
    return int(pc.index(mask, value=True).as_py()) + 1
