"""The hourly and daily buckets of a card's profile."""

from __future__ import annotations

from bisect import bisect_right

import msgspec


class Buckets(msgspec.Struct, array_like=True, gc=False):
    """Counts and totals by hour or day of event time, in columns, the newest bucket last.

    `numbers` are hours or days since the epoch. A bucket exists only where the card made a transaction.
    """

    numbers: list[int] = []
    counts: list[int] = []
    totals: list[float] = []

    def window(self, newest: int, length: int) -> slice:
        """Return the positions of the buckets `newest - length + 1` to `newest`.

        >>> days = Buckets(numbers=[10, 12, 13], counts=[1, 4, 2])
        >>> days.counts[days.window(newest=13, length=2)]
        [4, 2]
        """
        numbers = self.numbers
        end = len(numbers)
        if end and numbers[-1] > newest:  # the transaction is late
            end = bisect_right(numbers, newest)
        return slice(bisect_right(numbers, newest - length, 0, end), end)

    def position_of(self, number: int, expired: int) -> int | None:
        """Find or open a bucket, and drop the buckets up to `expired`. None if `number` itself has expired."""
        numbers = self.numbers
        if numbers and numbers[0] <= expired:
            self._drop(bisect_right(numbers, expired))
        if number <= expired:
            return None
        position = len(numbers)
        if position and numbers[-1] >= number:  # not newer than all the others
            position = bisect_right(numbers, number)
            if position and numbers[position - 1] == number:
                return position - 1
        self._open(position, number)
        return position

    def _open(self, position: int, number: int) -> None:
        self.numbers.insert(position, number)
        self.counts.insert(position, 0)
        self.totals.insert(position, 0.0)

    def _drop(self, end: int) -> None:
        del self.numbers[:end], self.counts[:end], self.totals[:end]


class Days(Buckets):
    """Daily buckets, with the largest amount of each day and the number of amounts that were outliers on arrival.

    `amounts` counts the payments with an amount in the card's currency, `others` those in other currencies.
    """

    largest: list[float] = []
    outliers: list[int] = []
    amounts: list[int] = []
    others: list[int] = []

    def _open(self, position: int, number: int) -> None:
        super()._open(position, number)
        self.largest.insert(position, 0.0)
        self.outliers.insert(position, 0)
        self.amounts.insert(position, 0)
        self.others.insert(position, 0)

    def _drop(self, end: int) -> None:
        super()._drop(end)
        del self.largest[:end], self.outliers[:end], self.amounts[:end], self.others[:end]

    def restart(self) -> None:
        """Forget all amounts."""
        kept = len(self.numbers)
        self.totals, self.largest = [0.0] * kept, [0.0] * kept
        self.amounts, self.others = [0] * kept, [0] * kept
