"""Finds the card of each ledger row, to move the row to another partition or to erase it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fraud_service.domain.label_join import card_of
from fraud_service.domain.label_join_rows import decode_due

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def card_of_row(key: str, value: bytes) -> str | None:
    """Return the card that a row of a ledger belongs to; None for a count, which belongs to none."""
    kind, _, rest = key.partition("/")
    if kind != "d":
        return card_of(rest)
    return card_of(decode_due(value).identity) if "/" in rest else None


class RowCardResolver:
    """The rows of ledgers dealt out to other partitions, each to the one of its card.

    What is due at a boundary gets new numbers there; `take` all rows, then write the `counts` too.
    """

    def __init__(self, place: Callable[[str], int]) -> None:
        self._place = place
        self._counts: Counter[tuple[int, str]] = Counter()

    def take(self, key: str, value: bytes) -> tuple[int, str, bytes] | None:
        """Return partition, key and value of a row; None for a count, which comes at the end."""
        card_id = card_of_row(key, value)
        if card_id is None:
            return None
        kind, boundary, *_ = key.split("/", 2)
        partition = self._place(card_id)
        if kind != "d":
            return partition, key, value
        count = self._counts[partition, boundary]
        self._counts[partition, boundary] += 1
        return partition, f"d/{boundary}/{count}", value

    def counts(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield partition, key and value of the rows that say how many are due."""
        for (partition, boundary), count in self._counts.items():
            yield partition, f"d/{boundary}", b"%d" % count
