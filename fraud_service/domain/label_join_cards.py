"""Finds the card of each row of the label join, to move the row to another partition or to erase it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fraud_service.domain.label_join import card_of_key
from fraud_service.domain.label_join_rows import decode_due

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def card_of_row(key: str, value: bytes) -> str | None:
    """Return the card of a row; None for a count, which belongs to no card."""
    kind, _, rest = key.partition("/")
    if kind != "d":
        return card_of_key(rest)
    return card_of_key(decode_due(value).identity) if "/" in rest else None


class LabelJoinRepartitioner:
    """Moves the rows of the label join to the partition of their card.

    `move` all rows, then write the `counts`: due rows get new numbers in their new partition.
    """

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        self._partition_of = partition_of
        self._counts: Counter[tuple[int, str]] = Counter()

    def move(self, key: str, value: bytes) -> tuple[int, str, bytes] | None:
        """Return the new partition, key and value of a row; None for a count, which `counts` replaces."""
        card_id = card_of_row(key, value)
        if card_id is None:
            return None
        kind, boundary, *_ = key.split("/", 2)
        partition = self._partition_of(card_id)
        if kind != "d":
            return partition, key, value
        count = self._counts[partition, boundary]
        self._counts[partition, boundary] += 1
        return partition, f"d/{boundary}/{count}", value

    def counts(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield partition, key and value of the rows that count the due rows of a boundary."""
        for (partition, boundary), count in self._counts.items():
            yield partition, f"d/{boundary}", b"%d" % count
