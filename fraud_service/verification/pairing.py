"""Transactions and their scores brought together: two logs of one partition, in the same order, each with gaps."""

from __future__ import annotations

from collections import deque
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import decode_transaction

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from fraud_service.domain.events import Transaction

LOOKAHEAD: Final = 10_000  # records searched for a counterpart before it counts as missing

Logged = tuple[int, bytes | None]  # offset and value of one record


class Head(msgspec.Struct, frozen=True, gc=False):
    """What pairing needs of a score record; to read it takes a third of reading the whole."""

    transaction_id: str
    card_id: str
    timestamp: int
    snapshot: str
    model: str
    is_duplicate: bool


class Pair(NamedTuple):
    """A transaction and its score; either may be missing.

    `offset` is that of the transaction, or of the score where there is no transaction. `is_waiting` says that the
    transaction came after the last score there is. A transaction that cannot be read, and for which there is no dead
    letter either, has neither transaction nor score. `behind` is the offset behind the score of a transaction: from
    there, and from behind the transaction, pairing can go on.
    """

    offset: int
    transaction: Transaction | None = None
    score: bytes | None = None
    head: Head | None = None
    is_waiting: bool = False
    behind: int | None = None


def pair(
    transactions: Iterable[Logged], scores: Iterable[Logged], refused: Container[int], *, is_cut: bool
) -> Iterator[Pair]:
    """Walk both logs of a partition.

    Parameters
    ----------
    refused
        Offsets of the transactions that became dead letters: they have no score.
    is_cut
        Retention has removed the first transactions: scores before the first one that is left are passed as pairs
        without a transaction.
    """
    readable = _read(transactions, refused)
    ahead = _Ahead(scores)
    if is_cut:
        first = list(islice(readable, LOOKAHEAD))
        left = {_key(one.transaction) for one in first if one.transaction is not None}
        yield from ahead.until(left)
        readable = chain(first, readable)
    for one in readable:
        if one.transaction is None:
            yield one
            continue
        found = ahead.find(one.transaction)
        if found is None:
            yield one._replace(is_waiting=ahead.is_at_end())
            continue
        yield from ahead.skip(found)
        place, score, head = ahead.take()
        yield Pair(one.offset, one.transaction, score, head, behind=place + 1)
    yield from ahead.rest()


def _read(transactions: Iterable[Logged], refused: Container[int]) -> Iterator[Pair]:
    for offset, value in transactions:
        if offset in refused:
            continue
        try:
            yield Pair(offset, decode_transaction(value))
        except InvalidEvent:
            yield Pair(offset)


def _key(event: Transaction | Head) -> tuple[str, str]:
    return event.card_id, event.transaction_id


_decoder = msgspec.json.Decoder(Head)


def _head(value: bytes | None) -> Head | None:
    try:
        return _decoder.decode(value or b"")
    except UNREADABLE:
        return None


class _Ahead:
    """The scores, with a view of the next ones."""

    def __init__(self, scores: Iterable[Logged]) -> None:
        self._scores = ((offset, value, _head(value)) for offset, value in scores)
        self._waiting: deque[tuple[int, bytes | None, Head | None]] = deque()

    def find(self, transaction: Transaction) -> int | None:
        """Return how far ahead the score of a transaction is; None when it is not in view."""
        for place in range(LOOKAHEAD):
            if place == len(self._waiting):
                self._waiting.extend(islice(self._scores, 1))
                if place == len(self._waiting):
                    return None
            head = self._waiting[place][2]
            if (
                head is not None
                and head.transaction_id == transaction.transaction_id
                and head.card_id == transaction.card_id
            ):
                return place
        return None

    def is_at_end(self) -> bool:
        return not self._waiting

    def take(self) -> tuple[int, bytes | None, Head | None]:
        return self._waiting.popleft()

    def skip(self, count: int) -> Iterator[Pair]:
        for _ in range(count):
            offset, score, head = self.take()
            yield Pair(offset, None, score or b"", head)

    def until(self, wanted: set[tuple[str, str]]) -> Iterator[Pair]:
        """Pass the scores before the first one that belongs to one of these transactions."""
        for one in self._scores:
            offset, score, head = one
            if head is not None and _key(head) in wanted:
                self._waiting.append(one)
                return
            yield Pair(offset, None, score or b"", head)

    def rest(self) -> Iterator[Pair]:
        """Pass what is left."""
        for offset, score, head in chain(self._waiting, self._scores):
            yield Pair(offset, None, score or b"", head)
