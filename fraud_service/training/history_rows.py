"""The columns and rows of a file, which may consist of several parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fraud_service.training.history_arrow import pa, pc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST_ROWS: Final = 1000


class Part(NamedTuple):
    """One file: its number of rows, and the rows that it could not read, each with the reason. Rows count from 1."""

    path: Path
    rows: int
    unreadable: dict[int, str]


class Rows(NamedTuple):
    """A table of the rows that could be read, and the parts from which they come."""

    table: pa.Table
    parts: list[Part]

    def numbers(self) -> pa.Array:
        """Return the number of each row of the table among all rows of the parts, from 1."""
        unreadable: list[int] = []
        total = 0
        for part in self.parts:
            unreadable += [total + row for row in part.unreadable]
            total += part.rows
        numbers = pa.array(np.arange(1, total + 1))
        if not unreadable:
            return numbers
        return numbers.filter(pc.invert(pc.is_in(numbers, pa.array(unreadable, pa.int64()))))

    def where(self, number: int) -> str:
        """Name the file of a row and its number there."""
        for part in self.parts:
            if number <= part.rows:
                return f"{part.path}, row {number}"
            number -= part.rows
        raise IndexError(number)


class Source(NamedTuple):
    """The columns of a file, and a function that reads the named ones."""

    columns: list[str]
    read: Callable[[list[str]], Rows]


def whole_numbers(column: pa.ChunkedArray, decimal: str = ".") -> pa.ChunkedArray:
    """Write a column of whole numbers as integers: 27.0 is the id 27, as in a Parquet file of the same numbers.

    Pandas writes `.0` where other rows have no value. If another value of the column is no whole number, `27.0` stays.
    """
    zeros = rf"\{decimal}0+"
    whole = rf"^([+-]?[0-9]+({zeros})?|NaN|nan|)$"
    for some in (column.slice(0, FIRST_ROWS), column):  # most columns show in the first rows that they are text
        if not pc.all(pc.match_substring_regex(some, whole)).as_py():
            return column
    return pc.replace_substring_regex(column, f"{zeros}$", "")
