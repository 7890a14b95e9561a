"""What was learned: every label taken in or refused, nothing taught twice, every snapshot whole and in its turn."""

from __future__ import annotations

from array import array
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from fraud_service.domain.errors import InvalidEvent, InvalidRecord, RefusedRecord
from fraud_service.domain.events import decode_label, facts
from fraud_service.domain.profile import fingerprint64
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.risk import RiskTable
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.kafka.dead_letters import content_hash
from fraud_service.processors.snapshot_reader import risk_row
from fraud_service.verification.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.kafka.dead_letters import LetterHeaders
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.security.signatures import Keyring
    from fraud_service.verification.findings import Findings


def follow_labels(
    labels: Iterable[Record], letters: Mapping[int, LetterHeaders], committed: int | None, findings: Findings
) -> None:
    """Check one partition of labels: what was read is either a label or a dead letter."""
    for entry in labels:
        findings.count("labels")
        letter = letters.get(entry.offset)
        if letter is not None:
            if letter.content is not None and letter.content != content_hash(entry.value):
                findings.wrong(Kind.ALTERED, entry, "its dead letter holds other bytes")
        elif committed is None or entry.offset >= committed:
            findings.count("labels_pending")
        elif not _is_label(entry.value):
            findings.wrong(Kind.LOST, entry, "a label that was read, and is none, has no dead letter")


def _is_label(value: bytes | None) -> bool:
    try:
        decode_label(value)
    except InvalidEvent:
        return False
    return True


class Taught:
    """Finds what was taught twice, in eight bytes an example: a transaction is an example once, then only corrected."""

    def __init__(self) -> None:
        self._seen = array("Q")
        self._twice: set[int] = set()

    def take(self, entries: Iterable[Record], findings: Findings) -> None:
        """Read one partition of labelled examples."""
        for entry in entries:
            findings.count("labelled")
            try:
                identity = _example(entry)
            except InvalidRecord as error:
                findings.wrong(Kind.UNREADABLE, entry, str(error))
                continue
            if identity is not None:
                self._seen.append(identity)

    def has_doubles(self) -> bool:
        """Whether some example was taught twice; then `name` says where, in a second reading."""
        seen, times = np.unique(np.frombuffer(self._seen, dtype=np.uint64), return_counts=True)
        self._twice = {int(identity) for identity in seen[times > 1]}
        return bool(self._twice)

    def name(self, entries: Iterable[Record], met: set[int], findings: Findings) -> None:
        """Find the second lessons in one partition; `met` goes from one to the next."""
        for entry in entries:
            try:
                identity = _example(entry)
            except InvalidRecord:
                continue
            if identity in self._twice and identity is not None:
                if identity in met:
                    findings.wrong(Kind.DOUBLED, entry, "a transaction was taught a second time, not as a correction")
                met.add(identity)


def _example(entry: Record) -> int | None:
    """Name what is taught; None for a correction. The same id long after is another transaction."""
    record = decode_labelled(entry.value or b"")
    if record.corrects:
        return None
    return int.from_bytes(fingerprint64(repr(facts(record))), "big")


def follow_snapshots(entries: Iterable[Record], findings: Findings) -> Snapshot | None:
    """Check that every snapshot proves its digest and comes after the one before; returns the newest.

    A copy with another signature is what `fraud-service sign` writes. With the same one somebody sent it again.
    """
    newest: Snapshot | None = None
    signatures: dict[bytes, set[str]] = {}
    for entry in entries:
        findings.count("snapshots")
        known = signatures.setdefault(sha256(entry.value or b"").digest(), set())
        is_signed_anew = bool(known) and repr(entry.headers) not in known
        known.add(repr(entry.headers))
        if is_signed_anew:
            findings.count("snapshots_signed_anew")
            continue
        try:
            snapshot = decode_snapshot(entry.value or b"")
        except InvalidRecord as error:
            findings.wrong(Kind.UNREADABLE, entry, str(error))
            continue
        if newest is not None and snapshot.as_of <= newest.as_of:
            kind = Kind.DOUBLED if snapshot.version == newest.version else Kind.REORDERED
            findings.wrong(kind, entry, f"snapshot {snapshot.version} comes after {newest.version}")
            continue
        if newest is not None and snapshot.examples < newest.examples:
            findings.wrong(Kind.ALTERED, entry, f"snapshot {snapshot.version} knows less than {newest.version}")
        newest = snapshot
    return newest


def verified_entries(
    entries: Iterable[Record], role: str, keyring: Keyring, findings: Findings, begin: int = 0
) -> Iterator[Record]:
    """Leave out, and name, the records that no key of ours has signed: scorers leave them out, too.

    Those at offsets before `begin` are only counted in a note: they may be older than the keys.
    """
    older = 0
    for entry in entries:
        try:
            keyring.require(role, entry.key, entry.value, entry.headers)
        except RefusedRecord as error:
            if entry.offset < begin:
                older += 1
            else:
                findings.wrong(Kind.UNEXPECTED, entry, str(error))
        else:
            yield entry
    if older:
        findings.note(f"{older} records on the topic of {role} are older than --since, and are not believed")


def follow_risk(entries: Iterable[Record], newest: Snapshot, findings: Findings) -> bool:
    """Whether the rows of risk add up to the digest that the newest snapshot names; later rows are left out."""
    rows: dict[str, bytes | None] = {}
    for entry in entries:
        findings.count("risk_rows")
        try:
            version, key, row = risk_row(entry.key, entry.value, entry.headers)
        except InvalidRecord as error:
            findings.wrong(Kind.UNREADABLE, entry, str(error))
            continue
        if version <= newest.version:
            rows[key] = row
    return RiskTable().digest_with(rows) == newest.risk_digest
