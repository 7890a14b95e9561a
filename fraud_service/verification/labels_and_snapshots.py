"""Check labels, labelled examples and snapshots: none is lost, trained twice, altered or out of order."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from fraud_service.domain.errors import InvalidEvent, InvalidRecord, RejectedRecord
from fraud_service.domain.events import decode_label, facts
from fraud_service.domain.label_join_rows import transaction_key
from fraud_service.domain.profile import fingerprint64
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.risk import RiskTable
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.domain.time import DAY
from fraud_service.kafka.dead_letters import content_hash
from fraud_service.processors.snapshot_reader import risk_row
from fraud_service.verification.report import FindingKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fraud_service.domain.events import Label
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.kafka.dead_letters import LetterHeaders
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.security.signatures import Keyring
    from fraud_service.verification.report import Findings


class PublishedBoundaries:
    """When each snapshot boundary was published: it shows which payments came too late to be learned."""

    def __init__(self, label_retention_ms: int) -> None:
        self._label_retention_ms = label_retention_ms
        self._times: list[int] = []
        self._boundaries: list[int] = []

    def add(self, entry: Record, snapshot: Snapshot) -> None:
        """Add a snapshot, in the order of the topic."""
        self._times.append(max(entry.timestamp, *self._times[-1:]) if self._times else entry.timestamp)
        self._boundaries.append(snapshot.as_of)

    def forgets(self, event_time: int, scored_at: int) -> bool:
        """Whether the learner forgot a payment whose score came at that time. All times are epoch milliseconds."""
        number = bisect_left(self._times, scored_at)
        return number > 0 and event_time + self._label_retention_ms <= self._boundaries[number - 1]

    def has_passed(self, event_time: int) -> bool:
        """Whether a boundary a day after this event time was published."""
        return bool(self._boundaries) and event_time + DAY <= self._boundaries[-1]


class ScoredIds:
    """The cards and transaction ids that have a score, in 8 bytes each."""

    def __init__(self) -> None:
        self._ids = array("Q")

    def add(self, card_id: str, transaction_id: str) -> None:
        """Add the ids of a score."""
        self._ids.append(_fingerprint(card_id, transaction_id))

    def merge(self, other: ScoredIds) -> None:
        """Add the ids of another partition."""
        self._ids.extend(other._ids)

    def finder(self) -> Callable[[Label], bool]:
        """Return a function that says whether a label has a scored payment."""
        known = np.sort(np.frombuffer(self._ids, dtype=np.uint64)) if self._ids else np.zeros(0, dtype=np.uint64)

        def has_score(label: Label) -> bool:
            wanted = np.uint64(_fingerprint(label.card_id, label.transaction_id))
            place = int(np.searchsorted(known, wanted))
            return place < len(known) and bool(known[place] == wanted)

        return has_score


def _fingerprint(card_id: str, transaction_id: str) -> int:
    return int.from_bytes(fingerprint64(transaction_key(card_id, transaction_id)), "big")


def check_labels(
    labels: Iterable[Record],
    letters: Mapping[int, LetterHeaders],
    committed: int | None,
    findings: Findings,
    is_unmatched: Callable[[Label], bool] = lambda _: False,
) -> None:
    """Check one partition of labels: a processed record is either a label of a payment, or a dead letter."""
    for entry in labels:
        findings.count("labels")
        letter = letters.get(entry.offset)
        if letter is not None:
            if letter.content is not None and letter.content != content_hash(entry.value):
                findings.add(FindingKind.ALTERED, entry, "its dead letter has other bytes")
        elif committed is None or entry.offset >= committed:
            findings.count("labels_pending")
        else:
            try:
                label = decode_label(entry.value)
            except InvalidEvent:
                findings.add(FindingKind.MISSING, entry, "a processed record that is no label has no dead letter")
                continue
            if is_unmatched(label):
                findings.add(
                    FindingKind.UNMATCHED, entry, "a label of no scored payment: no payment of its card has its id"
                )


class ExampleDuplicates:
    """Find examples that were trained twice, in 24 bytes an example.

    A transaction is an example once; later records of it are corrections. A reused id is another transaction.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._identities, self._partitions, self._offsets = array("Q"), array("Q"), array("Q")

    def add(self, entries: Iterable[Record]) -> None:
        """Read one partition of labelled examples."""
        for entry in entries:
            self._findings.count("labelled")
            try:
                record = decode_labelled(entry.value or b"")
            except InvalidRecord as error:
                self._findings.add(FindingKind.UNREADABLE, entry, str(error))
                continue
            if not record.corrects:
                self._identities.append(int.from_bytes(fingerprint64(repr(facts(record))), "big"))
                self._partitions.append(entry.partition)
                self._offsets.append(entry.offset)

    def report(self, topic: str) -> None:
        """Report every example that has an earlier one, in the order of reading."""
        is_repeated = np.ones(len(self._identities), dtype=bool)
        _, first = np.unique(np.frombuffer(self._identities, dtype=np.uint64), return_index=True)
        is_repeated[first] = False
        for number in np.flatnonzero(is_repeated):
            place = topic, self._partitions[number], self._offsets[number]
            detail = "a second example of one transaction that is no correction"
            self._findings.add_at(FindingKind.DUPLICATED, *place, detail)


def check_snapshots(
    entries: Iterable[Record], findings: Findings, boundaries: PublishedBoundaries | None = None
) -> Snapshot | None:
    """Check that every snapshot has its digest and is newer than the one before; returns the newest.

    `fraud-service sign` writes copies with another signature. A copy with the same signature was sent again.
    """
    newest: Snapshot | None = None
    signatures: dict[bytes, set[str]] = {}
    for entry in entries:
        findings.count("snapshots")
        known = signatures.setdefault(sha256(entry.value or b"").digest(), set())
        is_resigned = bool(known) and repr(entry.headers) not in known
        known.add(repr(entry.headers))
        if is_resigned:
            findings.count("snapshots_resigned")
            continue
        try:
            snapshot = decode_snapshot(entry.value or b"")
        except InvalidRecord as error:
            findings.add(FindingKind.UNREADABLE, entry, str(error))
            continue
        if newest is not None and snapshot.as_of <= newest.as_of:
            kind = FindingKind.DUPLICATED if snapshot.version == newest.version else FindingKind.OUT_OF_ORDER
            findings.add(kind, entry, f"snapshot {snapshot.version} comes after {newest.version}")
            continue
        if newest is not None and snapshot.examples < newest.examples:
            findings.add(
                FindingKind.ALTERED, entry, f"snapshot {snapshot.version} has fewer examples than {newest.version}"
            )
        newest = snapshot
        if boundaries is not None:
            boundaries.add(entry, snapshot)
    return newest


def skip_unsigned(
    entries: Iterable[Record], role: str, keyring: Keyring, findings: Findings, begin: int = 0
) -> Iterator[Record]:
    """Yield the records that one of our keys has signed, and report the others.

    Records before the offset `begin` may be older than the keys: those are only counted in a note.
    """
    older = 0
    for entry in entries:
        try:
            keyring.require_signature(role, entry.key, entry.value, entry.headers)
        except RejectedRecord as error:
            if entry.offset < begin:
                older += 1
            else:
                findings.add(FindingKind.UNEXPECTED, entry, str(error))
        else:
            yield entry
    if older:
        findings.note(f"{older} records on the topic of {role} are older than --since and not signed: left out")


def matches_risk_digest(entries: Iterable[Record], newest: Snapshot, findings: Findings) -> bool:
    """Whether the risk rows add up to the digest in the newest snapshot; rows of later snapshots are left out."""
    rows: dict[str, bytes | None] = {}
    for entry in entries:
        findings.count("risk_rows")
        try:
            version, key, row = risk_row(entry.key, entry.value, entry.headers)
        except InvalidRecord as error:
            findings.add(FindingKind.UNREADABLE, entry, str(error))
            continue
        if version <= newest.version:
            rows[key] = row
    return RiskTable().digest_with(rows) == newest.risk_digest
