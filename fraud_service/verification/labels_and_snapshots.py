"""Check labels, labelled examples and snapshots: none is lost, trained twice, altered or out of order."""

from __future__ import annotations

from array import array
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from fraud_service.domain.errors import InvalidEvent, InvalidRecord, RejectedRecord
from fraud_service.domain.events import decode_label, facts
from fraud_service.domain.profile import fingerprint64
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.risk import RiskTable
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.kafka.dead_letters import content_hash
from fraud_service.processors.snapshot_reader import risk_row
from fraud_service.verification.report import FindingKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.kafka.dead_letters import LetterHeaders
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.security.signatures import Keyring
    from fraud_service.verification.report import Findings


def check_labels(
    labels: Iterable[Record], letters: Mapping[int, LetterHeaders], committed: int | None, findings: Findings
) -> None:
    """Check one partition of labels: a processed record is either a label or a dead letter."""
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
                decode_label(entry.value)
            except InvalidEvent:
                findings.add(FindingKind.MISSING, entry, "a processed record that is no label has no dead letter")


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


def check_snapshots(entries: Iterable[Record], findings: Findings) -> Snapshot | None:
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
