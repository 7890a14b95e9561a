"""Checks of a history beyond its format: card data, unknown entry modes, and payments that are in it twice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.entry_modes import KNOWN, entry_mode
from fraud_service.domain.errors import ConfigurationError, DeadLetterReason
from fraud_service.security.card_data import find_card_data, has_no_card_data, replace_card_numbers
from fraud_service.security.tokens import Tokenizer
from fraud_service.training.history_arrow import pa, pc, types
from fraud_service.training.history_fields import split_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fraud_service.training.history import History

VALUES_PER_SEARCH: Final = 1000
IDENTITY: Final = ("card_id", "transaction_id")
FACTS: Final = (*IDENTITY, "timestamp", "amount", "currency", "merchant_id")


class CardDataCheck(msgspec.Struct, frozen=True):
    """Rejects the card data that the scorers would reject. A call returns the table that the history may use.

    `tokenized` are the columns in which `tokenizer` replaces card numbers; of the column of `card_id` it replaces each
    value. Without `rejects_numbers` only authentication data is rejected, which is never allowed.
    """

    path: Path
    rejects_numbers: bool = True
    tokenized: frozenset[str] = frozenset()
    tokenizer: Tokenizer | None = None

    def __call__(self, table: pa.Table, columns: Mapping[str, str], where: Callable[[int], str]) -> pa.Table:
        """Check a table; `columns` maps its fields to the columns of the file, `where` names the row of a position.

        Raises `ConfigurationError`, which names row and column, and never the value.
        """
        unused = self.tokenized.difference(*map(split_names, columns.values()))
        if unused:
            raise ConfigurationError(
                f"--tokenize {min(unused)}: {self.path} has no such column among those that are read: "
                f"{', '.join(sorted(name for joined in columns.values() for name in split_names(joined)))}"
            )
        for field in table.column_names:
            values = table[field]
            if not types.is_string(values.type):
                continue
            column = columns.get(field)
            if column is not None and not self.tokenized.isdisjoint(split_names(column)):
                values = self._tokens(field, values)
                table = table.set_column(table.column_names.index(field), field, values)
            self._check(field, column, values, where)
        return table

    def _tokens(self, field: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
        made = {value: self._token(field, value) for value in values.unique().to_pylist() if value is not None}
        return pa.chunked_array([pa.array([made.get(value) for value in values.to_pylist()], pa.string())])

    def _token(self, field: str, value: str) -> str:
        tokenizer = self.tokenizer
        if tokenizer is None:
            return value
        if field == "card_id":
            return tokenizer.card_token(value.encode(), tokenizer.active).decode()
        return replace_card_numbers(value.encode(), lambda digits: tokenizer.token(digits, tokenizer.active)).decode()

    def _check(self, field: str, column: str | None, values: pa.ChunkedArray, where: Callable[[int], str]) -> None:
        found = dict(find_card_values(field, values))
        secrets = [value for value, kind in found.items() if kind is DeadLetterReason.SENSITIVE_DATA]
        if not secrets and not (found and self.rejects_numbers):
            return
        is_bad = pc.is_in(values, pa.array(secrets or list(found), pa.string()))
        row, count = pc.index(is_bad, value=True).as_py(), pc.sum(is_bad).as_py()
        place = f"`--set {field}`" if column is None else f"{where(row)}, column `{column}`"
        named = "COLUMN" if column is None else split_names(column)[0]
        share = f"in {count:,} of {len(values):,} rows ({count / len(values):.1%})"
        if secrets:
            raise ConfigurationError(
                f"{place}: sensitive authentication data (security code, PIN or track data), {share}. No one may "
                "store it: remove it from the file"
            )
        raise ConfigurationError(
            f"{place}: what seems to be a card number, {share}. The scorers would make these transactions dead "
            f"letters. If they are card numbers, replace them by tokens: --tokenize {named}, with the key "
            "in FRAUD_TOKENIZER_KEY_DIR. If they are other long numbers, set FRAUD_REJECT_PAN=false, here and for "
            "scorers and learner"
        )


def find_card_values(field: str, values: pa.ChunkedArray) -> Iterator[tuple[str, DeadLetterReason]]:
    """Yield the values with card data and its kind. Searches them as the scorer does, within JSON."""
    distinct = values.unique().drop_null().to_pylist()
    for begin in range(0, len(distinct), VALUES_PER_SEARCH):
        some = distinct[begin : begin + VALUES_PER_SEARCH]
        written = [msgspec.json.encode({field: value}) for value in some]
        if has_no_card_data(written):
            continue
        for value, data in zip(some, written, strict=True):
            kind = find_card_data(data)
            if kind is not None:
                yield value, kind


def check_entry_modes(
    table: pa.Table, columns: Mapping[str, str], where: Callable[[int], str], *, rejects: bool
) -> str | None:
    """Return a warning if entry modes have no known meaning.

    With `rejects`, raise `ConfigurationError` instead, as scorers would make these transactions dead letters.
    """
    is_bad = unknown_entry_modes(table)
    if is_bad is None:
        return None
    row, count, column = pc.index(is_bad, value=True).as_py(), pc.sum(is_bad).as_py(), columns.get("entry_mode")
    place = "`--set entry_mode`" if column is None else f"{where(row)}, column `{column}`"
    complaint = (
        f"{place}: an entry mode without a known meaning, in {count:,} of {len(is_bad):,} rows. Known are {KNOWN}"
    )
    if rejects:
        raise ConfigurationError(f"{complaint}. To count others as absent, set FRAUD_REJECT_UNKNOWN_ENTRY_MODES=false")
    return f"{complaint}. The others count as absent"


def unknown_entry_modes(table: pa.Table) -> pa.ChunkedArray | None:
    """Return the mask of the rows whose entry mode has no known meaning. None if there are none."""
    if "entry_mode" not in table.column_names:
        return None
    modes = table["entry_mode"]
    unknown = [mode for mode in modes.unique().to_pylist() if entry_mode(mode) is None]
    return pc.is_in(modes, pa.array(unknown, pa.string())) if unknown else None


class Repeats(NamedTuple):
    """Rows that repeat an earlier payment, and rows of another payment under a transaction id of the same card."""

    duplicates: int
    reused_ids: int


def count_repeats(history: History) -> Repeats:
    """Count the payments that a history has more than once."""
    payments, ids = history.count_distinct(FACTS), history.count_distinct(IDENTITY)
    return Repeats(len(history) - payments, payments - ids)
