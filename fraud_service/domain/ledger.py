"""The join: scored transactions wait here for what becomes known of them.

A label may come late, twice, contradicting an earlier one, before its transaction, or never; a transaction of which
nothing is known when it matures counts as legitimate. Everything happens at event times: the ledger keeps, for each
boundary, a list of transactions of which something becomes known by then, so that an idle card needs no timer.

One ledger serves one partition. Its state lies in a key-value store with bounded values:

=====================  ==========================================================
``t/<identity>``       the scored transaction and the labels known of it
``l/<identity>``       labels that came before their transaction
``d/<boundary>``       how many entries are due at this boundary
``d/<boundary>/<n>``   the n-th of them: (known at, identity)
=====================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fraud_service.domain.events import LabelSource
from fraud_service.domain.features import Features
from fraud_service.domain.policy import Outcome
from fraud_service.domain.profile import DAY, HOUR
from fraud_service.domain.reading import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fraud_service.domain.events import Label
    from fraud_service.domain.records import LabelledRecord, ScoreRecord

ROW: Final = "a row of the learner's ledger"
MOST_LABELS: Final = 8  # remembered for one transaction; beyond it the newest win
BETWEEN_BEATS: Final = 1000  # entries settled


class Store(Protocol):
    """Where a fold keeps its state: keys to bytes, committed together with the offsets by whoever drives it."""

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none."""

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""


class Calendar(msgspec.Struct, frozen=True):
    """The event-time rules of learning; all in milliseconds.

    `interval` lies between two snapshots. `lead` passes between the boundary up to which a snapshot knows and the
    moment it comes into force, so that it has reached every scorer by then. `maturity` is how long a transaction waits
    for a fraud label; `retention` how long its features are kept for a label that comes still later.
    """

    interval: int = HOUR
    lead: int = HOUR // 4
    maturity: int = 7 * DAY
    retention: int = 60 * DAY

    def boundary(self, instant: int) -> int:
        """Return the number of the first boundary at or after an instant."""
        return -(-instant // self.interval)

    def is_forgotten(self, instant: int, closed: int) -> bool:
        """Whether what happened then lies further back than anything is kept, once a boundary is closed."""
        return instant + self.retention <= closed * self.interval


class Scored(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the learner needs of a score record."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: int
    amount: float
    pretrained_logit: float | None
    online_logit: float | None
    score: float
    outcome: Outcome
    values: tuple[float, ...]  # of the features, without their names: a third of the room
    model: str

    @property
    def features(self) -> Features:
        """The features that were scored."""
        return Features(*self.values)

    @classmethod
    def of(cls, record: ScoreRecord | LabelledRecord, features: Features) -> Scored:
        """Take it from a record and its features."""
        return cls(
            record.transaction_id,
            record.card_id,
            record.merchant_id,
            record.timestamp,
            record.amount,
            record.pretrained_logit,
            record.online_logit,
            record.score,
            record.outcome,
            features.vector(),
            record.model,
        )


class Known(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A label of one transaction. At the same instant fraud sorts last, and the last one counts."""

    known_at: int
    is_fraud: bool
    source: LabelSource


class Entry(msgspec.Struct, array_like=True):
    """A scored transaction, the labels not applied yet, and what was taught of it: None, legitimate or fraud.

    `packed` is a `Scored`: it is carried from row to row, and read once, when it is taught. `labelled_at` is the time
    of the newest label applied: an older one changes nothing any more.
    """

    packed: msgspec.Raw
    waiting: list[Known] = []
    taught: bool | None = None
    taught_at: int = 0
    labelled_at: int = -1

    @property
    def scored(self) -> Scored:
        """The scored transaction, unpacked."""
        return read(_scored_decoder, self.packed, ROW)

    @property
    def timestamp(self) -> int:
        """The event time of the transaction."""
        return read(_beginning_decoder, self.packed, ROW).timestamp


class _Beginning(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a `Scored` begins, whatever follows."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: int


class Example(msgspec.Struct, frozen=True, gc=False):
    """A labelled example: what was scored, and what became known when and by whom (None: by maturity).

    `corrects` says that the opposite was taught before, at `corrected_at`.
    """

    scored: Scored
    is_fraud: bool
    source: LabelSource | None
    known_at: int
    corrects: bool = False
    corrected_at: int = 0


class Due(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """Something becomes known of a transaction."""

    known_at: int
    identity: str


class Ledger:
    """The join of one partition."""

    def __init__(self, store: Store, calendar: Calendar) -> None:
        self._store = store
        self._calendar = calendar

    def score(self, record: ScoreRecord, closed: int) -> bool:
        """Take in a scored transaction; returns False for one that is here already or was a repetition.

        Parameters
        ----------
        closed
            Number of the last boundary that was closed: what was due by then falls due at the next one.
        """
        return record.features is not None and self.enter(Scored.of(record, record.features), closed)

    def enter(self, scored: Scored, closed: int) -> bool:
        """Take in what `score` takes from a record."""
        identity = identify(scored.card_id, scored.transaction_id)
        if self._calendar.is_forgotten(scored.timestamp, closed) or self._store.get(f"t/{identity}") is not None:
            return False
        early = self._early(identity)
        waiting = [known for known in early if not self._calendar.is_forgotten(known.known_at, closed)]
        entry = Entry(msgspec.Raw(_encode(scored)), waiting)
        self._store.put(f"t/{identity}", _encode(entry))
        self._schedule(scored.timestamp + self._calendar.maturity, identity, closed)
        if early:
            self._store.delete(f"l/{identity}")
            for known in waiting:
                self._schedule_label(known, scored.timestamp, identity, closed)
        return True

    def label(self, label: Label, closed: int) -> bool:
        """Take in a label; returns False when its transaction is not here (yet)."""
        known = Known(label.labelled_at, label.is_fraud, label.source)
        identity = identify(label.card_id, label.transaction_id)
        entry = self._entry(identity)
        if entry is None:
            self._label_early(known, identity, closed)
            return False
        before, entry.waiting = entry.waiting, _with(entry.waiting, known)
        if entry.waiting != before:
            self._store.put(f"t/{identity}", _encode(entry))
            boundary, *others = (self._settles(one, entry.timestamp, closed) for one in (known, *before))
            if boundary not in others:  # or repeated labels would fill it
                self._schedule_label(known, entry.timestamp, identity, closed)
        return True

    def _label_early(self, known: Known, identity: str, closed: int) -> None:
        """Keep a label without a transaction. However many come, the transaction has one row, and is due once."""
        before = self._early(identity)
        waiting = _with(before, known)
        if waiting != before:
            self._store.put(f"l/{identity}", _encode(waiting))
        if not before:
            self._schedule(known.known_at + self._calendar.retention, identity, closed)

    def _settles(self, known: Known, timestamp: int, closed: int) -> int:
        """Return the boundary at which a label is applied."""
        return max(self._calendar.boundary(max(known.known_at, timestamp)), closed + 1)

    def due(self, boundary: int) -> Iterator[Due]:
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
        """Take out what teaches nothing among so many entries from a number on; returns the number to go on with.

        It may be committed before the boundary is closed: it changes no snapshot. So millions of such entries need
        neither memory nor one long transaction.
        """
        end = min(start + most, self.count(boundary))
        for number in range(start, end):
            key = f"d/{boundary}/{number}"
            data = self._store.get(key)
            if data is not None and self._is_over(due := decode_due(data), boundary):
                self.settle(due, boundary)
                self._store.delete(key)
        return end

    def _is_over(self, due: Due, boundary: int) -> bool:
        """Whether nothing more is to be learned of a transaction, and it is only to be forgotten."""
        entry = self._entry(due.identity)
        if entry is None:
            return True
        is_settled = entry.taught is not None and not entry.waiting
        return is_settled and self._calendar.is_forgotten(entry.timestamp, boundary)

    def settle(self, due: Due, boundary: int) -> Example | None:
        """Apply what is known of a transaction by a boundary; returns the example to teach, if there is one."""
        entry, until = self._entry(due.identity), boundary * self._calendar.interval
        if entry is None:
            self._forget_early(due, boundary)
            return None
        timestamp = entry.timestamp
        matures_at, forgotten_at = timestamp + self._calendar.maturity, timestamp + self._calendar.retention
        example = _apply(entry, timestamp, matures_at, until)
        if forgotten_at <= until:
            self._store.delete(f"t/{due.identity}")
            return example
        self._store.put(f"t/{due.identity}", _encode(entry))
        if due.known_at == matures_at:
            self._schedule(forgotten_at, due.identity, boundary)
        return example

    def _entry(self, identity: str) -> Entry | None:
        data = self._store.get(f"t/{identity}")
        return None if data is None else _decode_entry(data)

    def _early(self, identity: str) -> list[Known]:
        data = self._store.get(f"l/{identity}")
        return [] if data is None else _decode_labels(data)

    def _forget_early(self, due: Due, boundary: int) -> None:
        early = self._early(due.identity)
        waiting = [known for known in early if not self._calendar.is_forgotten(known.known_at, boundary)]
        if waiting:
            self._store.put(f"l/{due.identity}", _encode(waiting))
            self._schedule(waiting[-1].known_at + self._calendar.retention, due.identity, boundary)
        elif early:
            self._store.delete(f"l/{due.identity}")

    def _schedule(self, at: int, identity: str, closed: int) -> None:
        boundary = max(self._calendar.boundary(at), closed + 1)
        count = self.count(boundary)
        self._store.put(f"d/{boundary}/{count}", _encode(Due(at, identity)))
        self._store.put(f"d/{boundary}", b"%d" % (count + 1))

    def _schedule_label(self, known: Known, timestamp: int, identity: str, closed: int) -> None:
        """Schedule a label, unless the transaction matures at the same boundary and so is settled then anyway."""
        at, matures = max(known.known_at, timestamp), self._calendar.boundary(timestamp + self._calendar.maturity)
        if not closed < matures == self._calendar.boundary(at):
            self._schedule(at, identity, closed)


def _apply(entry: Entry, timestamp: int, matures_at: int, until: int) -> Example | None:
    """Fold the labels known by `until` into the entry; of several at once the last word is taught."""
    before, taught_before = entry.taught, entry.taught_at
    source: LabelSource | None = None
    for known in entry.waiting:
        is_news = (entry.labelled_at, bool(entry.taught)) <= (known.known_at, known.is_fraud)
        if is_news and known.known_at <= until:
            entry.labelled_at, entry.taught, source = known.known_at, known.is_fraud, known.source
            entry.taught_at = max(known.known_at, timestamp)
    entry.waiting = [known for known in entry.waiting if known.known_at > until]
    if entry.taught is None and matures_at <= until:
        entry.taught, entry.taught_at = False, matures_at
    if entry.taught is None or entry.taught is before:
        entry.taught_at = taught_before
        return None
    return Example(entry.scored, entry.taught, source, entry.taught_at, before is not None, taught_before)


def identify(card_id: str, transaction_id: str) -> str:
    """Name a transaction: its id is unique within its card, as everywhere in the service."""
    return f"{len(card_id)}/{card_id}/{transaction_id}"


def card_of(identity: str) -> str:
    """Return the card of a transaction's name."""
    length, _, rest = identity.partition("/")
    return rest[: int(length)]


def examples_due(ledgers: Sequence[Ledger], boundary: int, beat: Callable[[], None] = lambda: None) -> list[Example]:
    """Settle what falls due at a boundary in all partitions, in the order in which it is to be taught.

    `beat` is called now and then, also while entries bring no example.
    """
    found = []
    for ledger in ledgers:
        for number, due in enumerate(ledger.due(boundary)):
            if number % BETWEEN_BEATS == 0:
                beat()
            example = ledger.settle(due, boundary)
            if example is not None:
                found.append(example)
    return sorted(found, key=in_order)


def in_order(example: Example) -> tuple[int, str]:
    """Sort key of teaching: when it became known, then by transaction, however partitions interleave."""
    return example.known_at, identify(example.scored.card_id, example.scored.transaction_id)


def _with(labels: list[Known], known: Known) -> list[Known]:
    return sorted({*labels, known})[-MOST_LABELS:]


_encoder = msgspec.msgpack.Encoder()
_scored_decoder = msgspec.msgpack.Decoder(Scored)
_beginning_decoder = msgspec.msgpack.Decoder(_Beginning)
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_labels_decoder = msgspec.msgpack.Decoder(list[Known])
_due_decoder = msgspec.msgpack.Decoder(Due)


def _encode(value: Any) -> bytes:
    return _encoder.encode(value)


def _decode_entry(data: bytes) -> Entry:
    return read(_entry_decoder, data, ROW)


def _decode_labels(data: bytes) -> list[Known]:
    return read(_labels_decoder, data, ROW)


def decode_due(data: bytes) -> Due:
    """Read a row that says what falls due."""
    return read(_due_decoder, data, ROW)
