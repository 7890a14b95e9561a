"""Pair the inputs of a partition with their scores, in one pass over both logs and bounded memory.

The scores of a partition have the order of their inputs. So each input normally matches the next score. After a gap or
a surplus they match by key.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import chain, islice
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import InvalidEvent, InvalidRecord
from fraud_service.domain.events import decode_transaction
from fraud_service.domain.records import ScoreRecord, decode_score

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from fraud_service.domain.events import Transaction
    from fraud_service.kafka.topic_reader import Record

LOOKAHEAD: Final = 10_000  # records read ahead to find a counterpart before it counts as missing
REMEMBERED: Final = 100_000  # matched keys kept, at least, to recognise a record that was written twice

Item = TypeVar("Item")


class Matcher(Generic[Item]):
    """Find the item of each expected key in a stream of items. Equal keys match in their order.

    >>> matcher = Matcher([("a", 1), ("c", 3), ("b", 2), ("x", 9)])
    >>> matcher.take("a"), matcher.take("b"), matcher.take("c"), matcher.take("d")
    ((1, True), (2, True), (3, False), None)
    >>> list(matcher.rest())
    [9]

    `lookahead` is the number of items to read beyond the newest match. An item that so many later ones have passed is
    surplus.
    """

    def __init__(self, items: Iterable[tuple[Hashable, Item]], lookahead: int = LOOKAHEAD) -> None:
        self._items = enumerate(items)
        self._lookahead = lookahead
        self._waiting: OrderedDict[int, tuple[Hashable, Item]] = OrderedDict()  # unmatched items by position
        self._positions: dict[Hashable, deque[int]] = {}  # the same by key
        self._last_match = self._newest_match = self._read = -1  # positions in the stream
        self._matched: tuple[set[int], set[int]] = set(), set()  # hashes of matched keys: recent ones, older ones

    def take(self, key: Hashable) -> tuple[Item, bool] | None:
        """Return the item of the next expected key, and whether it is in order; None if it is missing."""
        positions = self._positions.get(key)
        if positions is not None:
            return self._match(positions[0], key, self._remove(positions[0]))
        while self._read - self._newest_match < self._lookahead:
            following = next(self._items, None)
            if following is None:
                break
            self._read, (found, item) = following
            if found == key:
                return self._match(self._read, key, item)
            self._keep(self._read, found, item)
        return None

    def skip_until(self, is_wanted: Callable[[Item], bool]) -> Iterator[Item]:
        """Yield the items before the first wanted one."""
        for position, (key, item) in self._items:
            self._read = position
            if is_wanted(item):
                self._keep(position, key, item)
                return
            self._last_match = self._newest_match = position
            yield item

    def surplus(self) -> Iterator[Item]:
        """Yield the items that too many later ones have passed: they are not matched any more."""
        while self._waiting and (first := next(iter(self._waiting))) < self._newest_match - self._lookahead:
            yield self._remove(first)

    def rest(self) -> Iterator[Item]:
        """Yield every item that was not matched."""
        while self._waiting:
            yield self._remove(next(iter(self._waiting)))
        for _, (_, item) in self._items:
            yield item

    def has_matched(self, key: Hashable) -> bool:
        """Whether a key was matched before, as far as it is remembered."""
        return any(hash(key) in hashes for hashes in self._matched)

    @property
    def has_nothing_ahead(self) -> bool:
        """Whether no item behind the newest match was read: after `take` returned None, the stream is at its end."""
        return self._read == self._newest_match

    @property
    def is_aligned(self) -> bool:
        """Whether every item up to the last match is matched or given up: matching can be resumed from here."""
        return self._last_match == self._newest_match and (
            not self._waiting or next(iter(self._waiting)) > self._newest_match
        )

    def _keep(self, position: int, key: Hashable, item: Item) -> None:
        self._waiting[position] = key, item
        self._positions.setdefault(key, deque()).append(position)

    def _remove(self, position: int) -> Item:
        key, item = self._waiting.pop(position)
        positions = self._positions[key]
        positions.remove(position)
        if not positions:
            del self._positions[key]
        return item

    def _match(self, position: int, key: Hashable, item: Item) -> tuple[Item, bool]:
        is_in_order = position > self._last_match
        self._last_match, self._newest_match = position, max(position, self._newest_match)
        recent, _ = self._matched
        recent.add(hash(key))
        if len(recent) == REMEMBERED:
            self._matched = set(), recent
        return item, is_in_order


class ScoreHead(msgspec.Struct, frozen=True, gc=False):
    """The fields of a score that matching and replay need. Reading them takes a third of the time."""

    transaction_id: str
    card_id: str
    timestamp: int
    snapshot: str
    model: str
    is_duplicate: bool
    utc_offset_min: int = 0


Head = ScoreHead | ScoreRecord


class Pair(NamedTuple):
    """An input and its score; one of the two may be missing.

    `transaction` is None if the input cannot be read, `head` if the score cannot. `is_pending` says that the input came
    after the last score. `can_resume` says that no earlier score waits for its input. `is_repeated` marks a score
    without an input whose key has another score.
    """

    input: Record | None
    transaction: Transaction | None = None
    score: Record | None = None
    head: Head | None = None
    in_order: bool = True
    is_pending: bool = False
    can_resume: bool = False
    is_repeated: bool = False

    def record(self) -> ScoreRecord:
        """Return the whole score record. Raises `InvalidRecord` if there is none, or it cannot be read."""
        if isinstance(self.head, ScoreRecord):
            return self.head
        return decode_score(None if self.score is None else self.score.value)


_heads = msgspec.json.Decoder(ScoreHead)


def read_head(value: bytes | None) -> Head | None:
    """Read what matching needs of a score."""
    try:
        return _heads.decode(value or b"")
    except UNREADABLE:
        return None


def read_score(value: bytes | None) -> Head | None:
    """Read a whole score, for checks that need all of it; only its head if the rest cannot be read."""
    try:
        return decode_score(value)
    except InvalidRecord:
        return read_head(value)


def pair(
    inputs: Iterable[Record],
    scores: Iterable[Record],
    *,
    is_truncated: bool,
    read: Callable[[bytes | None], Head | None] = read_head,
) -> Iterator[Pair]:
    """Walk both logs of a partition and yield pairs in the order of the inputs.

    `inputs` are those that were not rejected: a dead letter has no score. `is_truncated` says that the first inputs are
    left out. Then scores before the first known input come without an input.
    """
    matcher = Matcher((_key(head), (entry, head)) for entry in scores for head in [read(entry.value)])
    expected: Iterable[tuple[Record, Hashable, Transaction | None]] = ((entry, *identify(entry)) for entry in inputs)
    if is_truncated:
        first = list(islice(expected, LOOKAHEAD))
        known = {(key, transaction and transaction.timestamp) for _, key, transaction in first}

        def is_known(item: tuple[Record, Head | None]) -> bool:
            # An id may be used again: the score of an expired input can have the key of a later one, at another time.
            key, head = _key(item[1]), item[1]
            return head is not None and ((key, head.timestamp) in known or (key, None) in known)

        for score, head in matcher.skip_until(is_known):
            yield Pair(None, score=score, head=head)
        expected = chain(first, expected)
    for entry, key, transaction in expected:
        found = matcher.take(key)
        if found is None:
            yield Pair(entry, transaction, is_pending=matcher.has_nothing_ahead)
            continue
        (score, head), in_order = found
        yield Pair(entry, transaction, score, head, in_order, can_resume=matcher.is_aligned)
        for score, head in matcher.surplus():
            yield Pair(None, None, score, head, is_repeated=matcher.has_matched(_key(head)))
    for score, head in matcher.rest():
        yield Pair(None, None, score, head, is_repeated=matcher.has_matched(_key(head)))


class _Ids(msgspec.Struct, frozen=True):
    """The key of a transaction, readable even if this version rejects another field of it."""

    card_id: str
    transaction_id: str


def identify(entry: Record) -> tuple[Hashable, Transaction | None]:
    """Return the key of an input and its transaction. An input without ids has its offset as its key."""
    try:
        transaction = decode_transaction(entry.value)
    except InvalidEvent:
        try:
            return _key(msgspec.json.decode(entry.value or b"", type=_Ids)), None
        except UNREADABLE:
            return entry.offset, None
    return (transaction.card_id, transaction.transaction_id), transaction


def _key(record: Head | _Ids | None) -> tuple[str, str] | None:
    return None if record is None else (record.card_id, record.transaction_id)
