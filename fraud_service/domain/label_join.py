"""Join labels with scored transactions.

A label may arrive late, twice, before its transaction, or never, and it may contradict an earlier one. A transaction
without a label counts as legitimate at label maturity. All times are event times. A list for each boundary names the
transactions that become due, so an idle card needs no timer.

Payments of one card under one transaction id share a row, with an entry for each. A label names only the id. It applies
to the first payment, and to every other payment that was made by the time of the label.

There is one join per partition. Its state is in a key-value store, and the size of each value is bounded:

=====================  ==========================================================
``t/<key>``            the scored transactions of this `transaction_key`, with their labels
``l/<key>``            labels that arrived before their transaction
``d/<boundary>``       number of items that are due at this boundary
``d/<boundary>/<n>``   the n-th of them, a `DueItem`
=====================  ==========================================================
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fraud_service.domain.events import TEST_CURRENCY, facts
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
    transaction_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fraud_service.domain.events import Facts, Label, LabelSource
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.domain.time import LearningSchedule

MAX_LABELS: Final = 8  # kept per transaction: the newest ones
MAX_PAYMENTS: Final = 8  # kept per transaction id: the first ones
ITEMS_PER_HEARTBEAT: Final = 1000


class KeyValueStore(Protocol):
    """State of the learner: keys to bytes. The caller commits it together with the input offsets."""

    def get(self, key: str) -> bytes | None:
        """Return the value; None if there is none."""

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""


class Admission(Enum):
    """Whether a scored transaction was added, or why not."""

    ADDED = auto()
    IGNORED = auto()  # a duplicate, or older than the retention
    TOO_MANY = auto()  # the id already has `MAX_PAYMENTS`

    def __bool__(self) -> bool:
        """Whether it was added."""
        return self is Admission.ADDED


class Ignored(StrEnum):
    """Why a score or a label has no effect. The learner counts each cause."""

    OLD_PAYMENT = "old_payment"  # its score came when it was older than the label retention
    REPEATED_PAYMENT = "repeated_payment"  # it was scored a second time, because its card had many payments in between
    TEST_PAYMENT = "test_payment"
    UNMATCHED_LABEL = "unmatched_label"  # no payment of this card and id came within the label retention
    LATE_LABEL = "late_label"  # it became known after the label retention of its payment
    OUTDATED_LABEL = "outdated_label"  # a newer label of the payment has been applied
    REPEATED_LABEL = "repeated_label"
    SURPLUS_LABEL = "surplus_label"  # the payment has `MAX_LABELS` newer ones


class LabelJoin:
    """The join of one partition. Calls `ignore` for everything that has no effect, except for duplicates."""

    def __init__(
        self, store: KeyValueStore, schedule: LearningSchedule, ignore: Callable[[Ignored], None] = lambda _: None
    ) -> None:
        self._store = store
        self._schedule = schedule
        self._ignore = ignore

    def add_scored(self, record: ScoreRecord, closed: int) -> Admission:
        """Add a scored transaction. Items that were due by the boundary `closed` become due at the next one."""
        if record.features is None:  # the scorer counts duplicates
            return Admission.IGNORED
        if record.currency == TEST_CURRENCY:
            return self._ignored(Ignored.TEST_PAYMENT)
        if self._schedule.is_forgotten(record.timestamp, closed):
            return self._ignored(Ignored.OLD_PAYMENT)
        scored = ScoredTransaction.of(record, record.features)
        key = transaction_key(scored.card_id, scored.transaction_id)
        entries = self._entries(key)
        if any(entry.scored.is_same(scored) for entry in entries):
            return self._ignored(Ignored.REPEATED_PAYMENT)
        if len(entries) == MAX_PAYMENTS:
            return Admission.TOO_MANY
        early = [] if entries else self._early(key)
        if entries:
            waiting = [known for known in entries[0].labels if known.known_at >= scored.timestamp]
        else:
            waiting = self._remembered(early, closed)
        # No label from before a further payment applies to it, even after the first payment has expired.
        since = scored.timestamp if entries else -1
        self._keep(key, [*entries, PendingTransaction(msgspec.Raw(encode_row(scored)), waiting, labelled_at=since)])
        self._add_due(scored.timestamp + self._schedule.label_maturity_ms, key, closed)
        if early:
            self._store.delete(f"l/{key}")
        for known in waiting:
            self._add_due_label(known, [scored.timestamp], key, closed)
        return Admission.ADDED

    def _ignored(self, cause: Ignored) -> Admission:
        self._ignore(cause)
        return Admission.IGNORED

    def _remembered(self, early: list[LabelEvent], closed: int) -> list[LabelEvent]:
        """Return the early labels that are not beyond the label retention."""
        kept = [known for known in early if not self._schedule.is_forgotten(known.known_at, closed)]
        for _ in range(len(early) - len(kept)):
            self._ignore(Ignored.UNMATCHED_LABEL)
        return kept

    def add_label(self, label: Label, closed: int) -> bool:
        """Add a label; return False if its transaction is not here (yet)."""
        known = LabelEvent(label.labelled_at, label.is_fraud, label.source)
        key = transaction_key(label.card_id, label.transaction_id)
        entries = self._entries(key)
        if not entries:
            self._keep_early(known, key, closed)
            return False
        # A label does not apply to a later payment: an old legitimate label must not clear a new payment.
        labelled = [entries[0], *(other for other in entries[1:] if other.timestamp <= known.known_at)]
        scheduled = {self._due_boundary(one, entry.timestamp, closed) for entry in entries for one in entry.waiting}
        changed = [entry for entry in labelled if _with_label(entry.waiting, known) != entry.waiting]
        self._count_ignored(labelled[0].labels, known)
        for entry in changed:
            entry.waiting = _with_label(entry.waiting, known)
        if changed:
            self._keep(key, entries)
            timestamps = [entry.timestamp for entry in changed]
            # Once per boundary; otherwise repeated labels would fill it.
            unscheduled = [at for at in timestamps if self._due_boundary(known, at, closed) not in scheduled]
            self._add_due_label(known, unscheduled, key, closed)
        return True

    def _count_ignored(self, before: list[LabelEvent], known: LabelEvent) -> None:
        """Count a label that is here already, or the label that it displaces."""
        if known in before:
            self._ignore(Ignored.REPEATED_LABEL)
        elif len(before) >= MAX_LABELS:
            self._ignore(Ignored.SURPLUS_LABEL)

    def _keep_early(self, known: LabelEvent, key: str, closed: int) -> None:
        """Keep a label that has no transaction yet. All such labels of a key share one row, which is due once."""
        before = self._early(key)
        waiting = _with_label(before, known)
        self._count_ignored(before, known)
        if waiting != before:
            self._store.put(f"l/{key}", encode_row(waiting))
        if not before:
            self._add_due(known.known_at + self._schedule.label_retention_ms, key, closed)

    def _due_boundary(self, known: LabelEvent, timestamp: int, closed: int) -> int:
        """Return the boundary that applies a label."""
        return max(self._schedule.boundary(max(known.known_at, timestamp)), closed + 1)

    def pop_due(self, boundary: int) -> Iterator[DueItem]:
        """Remove and yield the items that are due at a boundary, in no particular order."""
        for number in range(self.count(boundary)):
            key = f"d/{boundary}/{number}"
            data = self._store.get(key)
            if data is not None:
                yield decode_due(data)
            self._store.delete(key)
        self._store.delete(f"d/{boundary}")

    def restart(self, before: int, closed: int) -> None:
        """Continue at the boundary `closed` after a gap: drop what is forgotten, and keep the due items of the rest.

        The first payment had a wrong time, years before all others. Its items and those of its labels are due within
        twice the label retention after the boundary `before`, and those of the other payments as long before `closed`.
        """
        span = 2 * self._schedule.label_retention_ms // self._schedule.interval_ms + 1
        near = {*range(before + 1, min(before + span, closed) + 1), *range(max(before + 1, closed - span), closed + 1)}
        for boundary in sorted(near):
            for due in self.pop_due(boundary):
                entries = self._entries(due.identity)
                kept = [entry for entry in entries if not self._schedule.is_forgotten(entry.timestamp, closed)]
                for _ in range(len(entries) - len(kept)):
                    self._ignore(Ignored.OLD_PAYMENT)
                self._keep(due.identity, kept)
                if kept:
                    self._add_due(due.known_at, due.identity, closed)
                elif not entries:
                    self._expire_early(due, closed)

    def count(self, boundary: int) -> int:
        """Return how many items a boundary has, removed ones included."""
        return int(self._store.get(f"d/{boundary}") or b"0")

    def sweep(self, boundary: int, start: int, max_items: int) -> int:
        """Remove the items without effect among `max_items` from `start`; return the next start.

        Such items only expire, so they change no snapshot, and the caller may commit before it closes the boundary.
        Millions of them then need neither memory nor one long Kafka transaction.
        """
        end = min(start + max_items, self.count(boundary))
        for number in range(start, end):
            key = f"d/{boundary}/{number}"
            data = self._store.get(key)
            if data is not None and self._only_expires(due := decode_due(data), boundary):
                self.resolve(due, boundary)
                self._store.delete(key)
        return end

    def _only_expires(self, due: DueItem, boundary: int) -> bool:
        """Whether all payments of an item were trained, have no further labels, and have expired."""
        return all(
            entry.trained_label is not None
            and not entry.waiting
            and self._schedule.is_forgotten(entry.timestamp, boundary)
            for entry in self._entries(due.identity)
        )

    def resolve(self, due: DueItem, boundary: int) -> list[Example]:
        """Apply the labels of a transaction that are known by a boundary; return the examples to train.

        ================================  ==========================================
        entry at the boundary             effect
        ================================  ==========================================
        a label became known              an example, if it changes what was trained
        label maturity, never labelled    a legitimate example
        label retention is over           the entry is removed
        ================================  ==========================================
        """
        entries, until = self._entries(due.identity), boundary * self._schedule.interval_ms
        if not entries:
            self._expire_early(due, boundary)
            return []
        examples, kept, expiries = [], [], set()
        for entry in entries:
            timestamp = entry.timestamp
            matures_at, expires_at = (
                timestamp + self._schedule.label_maturity_ms,
                timestamp + self._schedule.label_retention_ms,
            )
            example = _apply(entry, timestamp, matures_at, until, self._ignore)
            if example is not None:
                examples.append(example)
            if expires_at <= until:
                for _ in entry.waiting:
                    self._ignore(Ignored.LATE_LABEL)
            else:
                kept.append(entry)
                if due.known_at == matures_at:
                    expiries.add(expires_at)
        self._keep(due.identity, kept)
        for expires_at in expiries:  # at most one: all of them matured at the same instant
            self._add_due(expires_at, due.identity, boundary)
        return examples

    def _entries(self, key: str) -> list[PendingTransaction]:
        data = self._store.get(f"t/{key}")
        if data is None:
            return []
        first = decode_entry(data)
        others, first.others = first.others, []
        return [first, *others]

    def _keep(self, key: str, entries: list[PendingTransaction]) -> None:
        if entries:
            entries[0].others = entries[1:]
            self._store.put(f"t/{key}", encode_row(entries[0]))
        else:
            self._store.delete(f"t/{key}")

    def _early(self, key: str) -> list[LabelEvent]:
        data = self._store.get(f"l/{key}")
        return [] if data is None else decode_labels(data)

    def _expire_early(self, due: DueItem, boundary: int) -> None:
        early = self._early(due.identity)
        waiting = self._remembered(early, boundary)
        if waiting:
            self._store.put(f"l/{due.identity}", encode_row(waiting))
            self._add_due(waiting[-1].known_at + self._schedule.label_retention_ms, due.identity, boundary)
        elif early:
            self._store.delete(f"l/{due.identity}")

    def _add_due(self, at: int, key: str, closed: int) -> None:
        boundary = max(self._schedule.boundary(at), closed + 1)
        count = self.count(boundary)
        self._store.put(f"d/{boundary}/{count}", encode_row(DueItem(at, key)))
        self._store.put(f"d/{boundary}", b"%d" % (count + 1))

    def _add_due_label(self, known: LabelEvent, timestamps: list[int], key: str, closed: int) -> None:
        """Make a label due, unless one of its transactions is due at the same boundary because it matures."""
        for at in sorted({max(known.known_at, timestamp) for timestamp in timestamps}):
            boundary = self._schedule.boundary(at)
            matures = {
                self._schedule.boundary(timestamp + self._schedule.label_maturity_ms) for timestamp in timestamps
            }
            if not (closed < boundary and boundary in matures):
                self._add_due(at, key, closed)


def _apply(
    entry: PendingTransaction, timestamp: int, matures_at: int, until: int, ignore: Callable[[Ignored], None]
) -> Example | None:
    """Apply the labels known by `until`; return an example if what was trained changes.

    Only the last of several labels is trained. A label older than the last applied one has no effect.
    """
    before, trained_before = entry.trained_label, entry.trained_known_at
    source: LabelSource | None = None
    for known in entry.waiting:
        is_newer = (entry.labelled_at, bool(entry.trained_label)) <= (known.known_at, known.is_fraud)
        if is_newer and max(known.known_at, timestamp) <= until:
            entry.labelled_at, entry.trained_label, source = known.known_at, known.is_fraud, known.source
            entry.labelled_by = source
            entry.trained_known_at = max(known.known_at, timestamp)
        elif not is_newer:
            ignore(Ignored.OUTDATED_LABEL)
    entry.waiting = [known for known in entry.waiting if max(known.known_at, timestamp) > until]
    if entry.trained_label is None and matures_at <= until:
        entry.trained_label, entry.trained_known_at = False, matures_at
    if entry.trained_label is None or entry.trained_label is before:
        entry.trained_known_at = trained_before
        return None
    return Example(
        entry.scored, entry.trained_label, source, entry.trained_known_at, before is not None, trained_before
    )


def examples_due(
    joins: Sequence[LabelJoin], boundary: int, heartbeat: Callable[[], None] = lambda: None
) -> list[Example]:
    """Resolve the items that are due at a boundary in all partitions; return the examples in `training_order`.

    Calls `heartbeat` every `ITEMS_PER_HEARTBEAT` items, also while they yield no example.
    """
    found = []
    for join in joins:
        for number, due in enumerate(join.pop_due(boundary)):
            if number % ITEMS_PER_HEARTBEAT == 0:
                heartbeat()
            found += join.resolve(due, boundary)
    return sorted(found, key=training_order)


def training_order(example: Example) -> tuple[int, str, Facts]:
    """Return the sort key of training: when the label became known, then the payment. Partitions do not matter."""
    scored = example.scored
    return example.known_at, transaction_key(scored.card_id, scored.transaction_id), facts(scored)


def _with_label(labels: list[LabelEvent], known: LabelEvent) -> list[LabelEvent]:
    return sorted({*labels, known})[-MAX_LABELS:]
