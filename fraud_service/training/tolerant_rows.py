"""Convert the rows of a table, and count those that a command would refuse, with the reasons."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.training.history import convert_fields
from fraud_service.training.history_arrow import pa, pc
from fraud_service.training.history_columns import choose_columns, parse_constants
from fraud_service.training.history_faults import Faults
from fraud_service.training.history_rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fraud_service.training.history_columns import Columns
    from fraud_service.training.history_head import Head
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


class Tally(Faults):
    """Counts the faults of all rows, however many they are."""

    def __init__(self, path: Path, rows: Rows) -> None:
        super().__init__(path, rows, skips=True)
        self.good = pa.chunked_array([pa.array([True]).take(pa.array([0] * len(rows.table), pa.int8()))])
        self.refused: list[Refusal] = []

    def add(self, columns: str, bad: pa.ChunkedArray, explain: Callable[[int], str]) -> None:
        """Count the rows of a mask, by reason."""
        positions = pc.indices_nonzero(bad)
        some = positions.slice(0, MAX_EXPLAINED).to_pylist()
        reasons = [explain(position) for position in some]
        first = dict(zip(reversed(reasons), reversed(some), strict=True))
        for reason, count in Counter(reasons).most_common():
            rest = len(positions) - len(some) if 2 * count > len(some) else 0  # the rest has the usual reason
            self.refused.append(Refusal(columns, reason, count + rest, self.numbers[first[reason]].as_py()))
        self.good = pc.and_(self.good, pc.invert(bad))


def unreadable_rows(head: Head) -> list[Refusal]:
    """Count the rows that are none of the format of the file."""
    counts = Counter(reason for part in head.parts for reason in part.unreadable.values())
    first = {reason: row for part in reversed(head.parts) for row, reason in reversed(part.unreadable.items())}
    return [Refusal("", reason, count, first[reason]) for reason, count in counts.items()]


def read_rows(path: Path, head: Head, mapping: FileMapping, latest: int) -> TolerantRows:
    """Convert the first rows of a file. Raises `ConfigurationError` if a field has no column."""
    parse_constants(mapping.constants)
    chosen = choose_columns(path, head.table.column_names, mapping)
    tally = Tally(path, Rows(head.table, head.parts))
    converted = convert_fields(path, head.table, chosen, mapping, tally, latest)
    labels = converted["label"] if "label" in converted.column_names else None
    return TolerantRows(converted.filter(tally.good).combine_chunks(), chosen, tally.refused, labels)
