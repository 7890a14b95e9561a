"""Find columns of a file that need care: card data, long numbers, and columns that would reveal the label."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.errors import DeadLetterReason
from fraud_service.security.issuers import MIN_DIGITS
from fraud_service.training.column_guess import AUTHENTICATION, LEAKS, plain
from fraud_service.training.history_arrow import pa, pc, types
from fraud_service.training.history_checks import find_card_values

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_SEARCHED: Final = 20_000  # different values of a column
MAX_KINDS: Final = 50  # different values of a column that may reveal the label
MIN_ROWS_PER_KIND: Final = 10  # an id, which differs from row to row, reveals nothing
MIN_CARD_NUMBER_SHARE: Final = 0.5  # of the values of a column of card numbers; of other long numbers, a tenth pass
LONG_NUMBER: Final = f"^-?[0-9]{{{MIN_DIGITS},19}}$"


class CardDataColumn(msgspec.Struct, frozen=True):
    """A column with values that seem to be card data. It never holds the values."""

    column: str
    kind: str
    rows: int
    is_long_number: bool = False  # most of its values are long numbers of another kind


def find_card_data_columns(table: pa.Table) -> list[CardDataColumn]:
    """Search all columns of a file for card numbers and authentication data."""
    return [found for name in table.column_names for found in _card_data(name, table[name])]


def _card_data(name: str, given: pa.ChunkedArray) -> Iterable[CardDataColumn]:
    if not (types.is_string(given.type) or types.is_integer(given.type)):
        return
    values = given.cast(pa.string())
    kinds: dict[DeadLetterReason, list[str]] = {}
    for value, kind in find_card_values(name, values.unique().slice(0, MAX_SEARCHED)):
        kinds.setdefault(kind, []).append(value)
    for kind, found in kinds.items():
        rows = _count(pc.is_in(values, pa.array(found, pa.string())))
        long = _count(pc.match_substring_regex(values, LONG_NUMBER))
        is_other = kind is DeadLetterReason.CARD_NUMBER and rows < MIN_CARD_NUMBER_SHARE * long
        yield CardDataColumn(name, kind.value, rows, is_other)
    if not kinds and AUTHENTICATION.fullmatch(plain(name)) and _count(values.is_valid()):
        yield CardDataColumn(name, DeadLetterReason.SENSITIVE_DATA.value, _count(values.is_valid()))


def find_leaks(table: pa.Table, label: pa.ChunkedArray | None, unused: Iterable[str]) -> dict[str, str]:
    """Return the columns that would reveal the label, with the reason. The service reads none of them."""
    leaks = {}
    for name in unused:
        if label is not None and _tells(table[name], label):
            leaks[name] = "its values reveal the label"
        elif LEAKS.search(plain(name)):
            leaks[name] = "its name says that it is known only after the payment"
    return leaks


def _tells(column: pa.ChunkedArray, label: pa.ChunkedArray) -> bool:
    """Whether frauds and legitimate payments have no value of a column in common."""
    kinds = 0 if types.is_nested(column.type) else pc.count_distinct(column, mode="all").as_py()
    if not 0 < kinds <= min(MAX_KINDS, len(column) / MIN_ROWS_PER_KIND):
        column = column.is_valid()  # a column that only frauds have
    frauds, others = (column.filter(pc.equal(label, side)).unique().to_pylist() for side in (True, False))
    return bool(frauds) and bool(others) and not {*map(str, frauds)} & {*map(str, others)}


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)
