"""Rows of a file that cannot become transactions: the first one is an error, or all are skipped and saved."""

from __future__ import annotations

import csv
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.errors import ConfigurationError, InvalidFile
from fraud_service.security.card_data import mask_text
from fraud_service.training.history_arrow import pa, pc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fraud_service.training.history_rows import Rows


class Fault(NamedTuple):
    """What is wrong with a row: in which columns, and why."""

    columns: str
    reason: str


class Faults:
    """The faults of a file. With `skips`, `add` records them; else it raises `ConfigurationError` for the first one."""

    def __init__(self, path: Path, rows: Rows, *, skips: bool) -> None:
        self.path = path
        self._rows, self._skips = rows, skips
        self._total = sum(part.rows for part in rows.parts)
        self._found: dict[int, Fault] = {}  # by position in the table

    @cached_property
    def numbers(self) -> pa.Array:
        """The number of each row in the file."""
        return self._rows.numbers()

    def where(self, position: int) -> str:
        """Name the file, or the part of a folder, and the row at a position of the table."""
        return self._rows.where(self.numbers[position].as_py())

    def add(self, columns: str, bad: pa.ChunkedArray, explain: Callable[[int], str]) -> None:
        """Report the rows of a mask. `explain` says what is wrong at a position, and never quotes the value."""
        count = pc.sum(bad).as_py() or 0
        if not count:
            return
        first = pc.index(bad, value=True).as_py()
        said = f"{self.where(first)}, column `{columns}`: {explain(first)}"
        share, are_most = f"{count:,} of {len(bad):,} rows", 2 * count > self._total
        if not self._skips:
            advice = "" if are_most else "; --skip-invalid leaves such rows out"
            raise ConfigurationError(f"{said} ({share}{advice})")
        if are_most:
            raise InvalidFile(
                f"{said}. {share} are invalid, more than half: look at the options that say how to read the file"
            )
        for position in pc.indices_nonzero(bad).to_pylist():
            self._found.setdefault(position, Fault(columns, explain(position)))

    def skipped(self) -> Skipped:
        """Return all skipped rows. Raises `InvalidFile` if they are more than half of the file."""
        numbers = [self.numbers[position].as_py() for position in self._found]
        faults = dict(zip(numbers, self._found.values(), strict=True))
        before = 0
        for part in self._rows.parts:
            faults |= {before + row: Fault("", reason) for row, reason in part.unreadable.items()}
            before += part.rows
        if 2 * len(faults) > self._total:
            raise InvalidFile(
                f"{self.path}: {len(faults):,} of {self._total:,} rows are invalid, more than half: "
                f"{_by_reason(faults)}"
            )
        originals = self._rows.table.take(pa.array(list(self._found), pa.int64())).to_pylist()
        return Skipped(self._total, dict(sorted(faults.items())), dict(zip(numbers, originals, strict=True)))

    def without(self, table: pa.Table) -> pa.Table:
        """Return a table of the same rows without those that are skipped."""
        if not self._found:
            return table
        return table.filter(pc.invert(pc.is_in(pa.array(range(len(table))), pa.array(list(self._found)))))


class Skipped(NamedTuple):
    """The rows that a history leaves out, by their number in the file, of `total` rows."""

    total: int
    faults: dict[int, Fault]
    originals: dict[int, dict[str, object]]  # the values of the rows that could be read

    def __str__(self) -> str:
        return f"{len(self.faults):,} of {self.total:,} rows{': ' if self.faults else ''}{_by_reason(self.faults)}"

    def save(self, path: Path) -> None:
        """Write the rows to a CSV file with their numbers, reasons and original values; card numbers are masked."""
        names = list(next(iter(self.originals.values()), {}))
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "column", "reason", *names])
            for number, fault in self.faults.items():
                values = map(_masked, self.originals.get(number, dict.fromkeys(names)).values())
                writer.writerow([number, fault.columns, fault.reason, *values])


NONE_SKIPPED: Final = Skipped(0, {}, {})


def _masked(value: object) -> str:
    return "" if value is None else mask_text(str(value))


def _by_reason(faults: dict[int, Fault]) -> str:
    counts = Counter(faults.values())
    return "; ".join(
        f"{count:,} × {f'`{fault.columns}`: ' if fault.columns else ''}{fault.reason}"
        for fault, count in counts.most_common()
    )
