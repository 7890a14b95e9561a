"""The join: scored transactions wait here for what becomes known of them.

A label may come late, twice, contradicting an earlier one, before its transaction, or never; a transaction of which
nothing is known when it matures counts as legitimate. Everything happens at event times: the ledger keeps, for each
boundary, a list of transactions of which something becomes known by then, so that an idle card needs no timer.

An id that a card uses for several payments is one row, with an entry for each of them. A label names only the id: it
applies to the first payment under it, and to each other that was made by the time of the label.

One ledger serves one partition. Its state lies in a key-value store with bounded values:

=====================  ==========================================================
``t/<identity>``       the scored transactions of this id and the labels known of them
``l/<identity>``       labels that came before their transaction
``d/<boundary>``       how many entries are due at this boundary
``d/<boundary>/<n>``   the n-th of them: (known at, identity)
=====================  ==========================================================
"""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fraud_service.domain.events import facts
from fraud_service.domain.label_join_rows import (
    DueItem,
    Example,
    LabelEvent,
    PendingTransaction,
    ScoredTransaction,
    decode_due,
    decode_entry,
    decode_labels,
    encode_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fraud_service.domain.events import Facts, Label, LabelSource
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.domain.time import LearningSchedule

MAX_LABELS: Final = 8  # remembered for one transaction; beyond it the newest win
MAX_PAYMENTS: Final = 8  # kept under one transaction id: the first ones
ENTRIES_PER_HEARTBEAT: Final = 1000  # entries settled


class KeyValueStore(Protocol):
    """Where a fold keeps its state: keys to bytes, committed together with the offsets by whoever drives it."""

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none."""

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""


class Admission(Enum):
    """Whether a scored transaction was taken in, or why not."""

    ADDED = auto()
    IGNORED = auto()  # a duplicate, or older than the retention
    TOO_MANY = auto()  # its id already has `MAX_PAYMENTS`

    def __bool__(self) -> bool:
        """Whether it was taken in."""
        return self is Admission.ADDED


class LabelJoin:
    """The join of one partition."""

    def __init__(self, store: KeyValueStore, calendar: LearningSchedule) -> None:
        self._store = store
        self._calendar = calendar

    def add_scored(self, record: ScoreRecord, closed: int) -> Admission:
        """Take in a scored transaction.

        Parameters
        ----------
        closed
            Number of the last boundary that was closed: what was due by then falls due at the next one.
        """
        return (
            Admission.IGNORED
            if record.features is None
            else self.add_entry(ScoredTransaction.of(record, record, record.features), closed)
        )

    def add_entry(self, scored: ScoredTransaction, closed: int) -> Admission:
        """Take in what `score` takes from a record."""
        identity = transaction_key(scored.card_id, scored.transaction_id)
        if self._calendar.is_forgotten(scored.timestamp, closed):
            return Admission.IGNORED
        entries = self._entries(identity)
        if any(entry.scored.is_same(scored) for entry in entries):
            return Admission.IGNORED
        if len(entries) == MAX_PAYMENTS:
            return Admission.TOO_MANY
        early = [] if entries else self._early(identity)
        if entries:
            waiting = [known for known in entries[0].said if known.known_at >= scored.timestamp]
        else:
            waiting = [known for known in early if not self._calendar.is_forgotten(known.known_at, closed)]
        # No label from before a further payment is about it, also when the first one is forgotten.
        since = scored.timestamp if entries else -1
        self._keep(
            identity, [*entries, PendingTransaction(msgspec.Raw(encode_row(scored)), waiting, labelled_at=since)]
        )
        self._schedule(scored.timestamp + self._calendar.maturity, identity, closed)
        if early:
            self._store.delete(f"l/{identity}")
        for known in waiting:
            self._schedule_label(known, [scored.timestamp], identity, closed)
        return Admission.ADDED

    def add_label(self, label: Label, closed: int) -> bool:
        """Take in a label; returns False when its transaction is not here (yet)."""
        known = LabelEvent(label.labelled_at, label.is_fraud, label.source)
        identity = transaction_key(label.card_id, label.transaction_id)
        entries = self._entries(identity)
        if not entries:
            self._label_early(known, identity, closed)
            return False
        # A label does not apply to a payment made after it: an old label must not vouch for a new payment.
        concerned = [entries[0], *(other for other in entries[1:] if other.timestamp <= known.known_at)]
        scheduled = {self._settles(one, entry.timestamp, closed) for entry in entries for one in entry.waiting}
        news = [entry for entry in concerned if _with(entry.waiting, known) != entry.waiting]
        for entry in news:
            entry.waiting = _with(entry.waiting, known)
        if news:
            self._keep(identity, entries)
            timestamps = [entry.timestamp for entry in news]
            # Only once for each boundary, or repeated labels would fill it.
            unscheduled = [at for at in timestamps if self._settles(known, at, closed) not in scheduled]
            self._schedule_label(known, unscheduled, identity, closed)
        return True

    def _label_early(self, known: LabelEvent, identity: str, closed: int) -> None:
        """Keep a label without a transaction. Many such labels share one row, which is due once."""
        before = self._early(identity)
        waiting = _with(before, known)
        if waiting != before:
            self._store.put(f"l/{identity}", encode_row(waiting))
        if not before:
            self._schedule(known.known_at + self._calendar.retention, identity, closed)

    def _settles(self, known: LabelEvent, timestamp: int, closed: int) -> int:
        """Return the boundary at which a label is applied."""
        return max(self._calendar.boundary(max(known.known_at, timestamp)), closed + 1)

    def pop_due(self, boundary: int) -> Iterator[DueItem]:
        """Take out, unordered, what falls due at a boundary."""
        for number in range(self.count(boundary)):
            key = f"d/{boundary}/{number}"
            data = self._store.get(key)
            if data is not None:
                yield decode_due(data)
            self._store.delete(key)
        self._store.delete(f"d/{boundary}")

    def count(self, boundary: int) -> int:
        """Return how many entries a boundary has, taken out or not."""
        return int(self._store.get(f"d/{boundary}") or b"0")

    def sweep(self, boundary: int, start: int, most: int) -> int:
        """Remove the entries that teach nothing, among the next `most` from `start`; returns where to go on.

        The caller may commit it before the boundary is closed: it changes no snapshot. So millions of such entries need
        neither memory nor one long transaction.
        """
        end = min(start + most, self.count(boundary))
        for number in range(start, end):
            key = f"d/{boundary}/{number}"
            data = self._store.get(key)
            if data is not None and self._is_over(due := decode_due(data), boundary):
                self.resolve(due, boundary)
                self._store.delete(key)
        return end

    def _is_over(self, due: DueItem, boundary: int) -> bool:
        """Whether a transaction has taught everything, and only expires."""
        return all(
            entry.taught is not None and not entry.waiting and self._calendar.is_forgotten(entry.timestamp, boundary)
            for entry in self._entries(due.identity)
        )

    def resolve(self, due: DueItem, boundary: int) -> list[Example]:
        """Apply what is known of a transaction by a boundary; returns the examples to teach."""
        entries, until = self._entries(due.identity), boundary * self._calendar.interval
        if not entries:
            self._forget_early(due, boundary)
            return []
        examples, kept, forgotten = [], [], set()
        for entry in entries:
            timestamp = entry.timestamp
            matures_at, forgotten_at = timestamp + self._calendar.maturity, timestamp + self._calendar.retention
            example = _apply(entry, timestamp, matures_at, until)
            if example is not None:
                examples.append(example)
            if forgotten_at > until:
                kept.append(entry)
                if due.known_at == matures_at:
                    forgotten.add(forgotten_at)
        self._keep(due.identity, kept)
        for forgotten_at in forgotten:  # one at most: all of them matured at the same instant
            self._schedule(forgotten_at, due.identity, boundary)
        return examples

    def _entries(self, identity: str) -> list[PendingTransaction]:
        data = self._store.get(f"t/{identity}")
        if data is None:
            return []
        first = decode_entry(data)
        others, first.others = first.others, []
        return [first, *others]

    def _keep(self, identity: str, entries: list[PendingTransaction]) -> None:
        if entries:
            entries[0].others = entries[1:]
            self._store.put(f"t/{identity}", encode_row(entries[0]))
        else:
            self._store.delete(f"t/{identity}")

    def _early(self, identity: str) -> list[LabelEvent]:
        data = self._store.get(f"l/{identity}")
        return [] if data is None else decode_labels(data)

    def _forget_early(self, due: DueItem, boundary: int) -> None:
        early = self._early(due.identity)
        waiting = [known for known in early if not self._calendar.is_forgotten(known.known_at, boundary)]
        if waiting:
            self._store.put(f"l/{due.identity}", encode_row(waiting))
            self._schedule(waiting[-1].known_at + self._calendar.retention, due.identity, boundary)
        elif early:
            self._store.delete(f"l/{due.identity}")

    def _schedule(self, at: int, identity: str, closed: int) -> None:
        boundary = max(self._calendar.boundary(at), closed + 1)
        count = self.count(boundary)
        self._store.put(f"d/{boundary}/{count}", encode_row(DueItem(at, identity)))
        self._store.put(f"d/{boundary}", b"%d" % (count + 1))

    def _schedule_label(self, known: LabelEvent, timestamps: list[int], identity: str, closed: int) -> None:
        """Schedule a label of transactions, unless one of them matures at the same boundary and is settled then."""
        for at in sorted({max(known.known_at, timestamp) for timestamp in timestamps}):
            boundary = self._calendar.boundary(at)
            matures = {self._calendar.boundary(timestamp + self._calendar.maturity) for timestamp in timestamps}
            if not (closed < boundary and boundary in matures):
                self._schedule(at, identity, closed)


def _apply(entry: PendingTransaction, timestamp: int, matures_at: int, until: int) -> Example | None:
    """Fold the labels known by `until` into the entry; of several at once the last word is taught."""
    before, taught_before = entry.taught, entry.taught_at
    source: LabelSource | None = None
    for known in entry.waiting:
        is_news = (entry.labelled_at, bool(entry.taught)) <= (known.known_at, known.is_fraud)
        if is_news and max(known.known_at, timestamp) <= until:
            entry.labelled_at, entry.taught, source = known.known_at, known.is_fraud, known.source
            entry.labelled_by = source
            entry.taught_at = max(known.known_at, timestamp)
    entry.waiting = [known for known in entry.waiting if max(known.known_at, timestamp) > until]
    if entry.taught is None and matures_at <= until:
        entry.taught, entry.taught_at = False, matures_at
    if entry.taught is None or entry.taught is before:
        entry.taught_at = taught_before
        return None
    return Example(entry.scored, entry.taught, source, entry.taught_at, before is not None, taught_before)


def transaction_key(card_id: str, transaction_id: str) -> str:
    """Return the name of the row that holds all payments of a card under one id."""
    return f"{len(card_id)}/{card_id}/{transaction_id}"


def card_of(identity: str) -> str:
    """Return the card of a transaction's name."""
    length, _, rest = identity.partition("/")
    return rest[: int(length)]


def examples_due(ledgers: Sequence[LabelJoin], boundary: int, beat: Callable[[], None] = lambda: None) -> list[Example]:
    """Settle what falls due at a boundary in all partitions, in the order in which it is to be taught.

    `beat` is called regularly, also while entries yield no example.
    """
    found = []
    for ledger in ledgers:
        for number, due in enumerate(ledger.pop_due(boundary)):
            if number % ENTRIES_PER_HEARTBEAT == 0:
                beat()
            found += ledger.resolve(due, boundary)
    return sorted(found, key=training_order)


def training_order(example: Example) -> tuple[int, str, Facts]:
    """Sort key of teaching: when it became known, then by payment, however partitions interleave."""
    scored = example.scored
    return example.known_at, transaction_key(scored.card_id, scored.transaction_id), facts(scored)


def _with(labels: list[LabelEvent], known: LabelEvent) -> list[LabelEvent]:
    return sorted({*labels, known})[-MAX_LABELS:]
