"""Findings of a verification: one type for every check, and one report for people, programs and tests."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from fraud_service.kafka.topic_reader import Record

MAX_LISTED: Final = 1000  # findings listed with their place; the others are only counted


class FindingKind(StrEnum):
    """What can be wrong: a closed set, so that programs can depend on it."""

    MISSING = "missing"
    DUPLICATED = "duplicated"  # a record that was written twice
    UNEXPECTED = "unexpected"
    OUT_OF_ORDER = "out_of_order"
    WRONG_PARTITION = "wrong_partition"
    ALTERED = "altered"
    UNREADABLE = "unreadable"
    REPEATED = "repeated"  # a payment that was sent and scored twice
    FORGOTTEN = "forgotten"  # a payment that was too old to be learned when its score came
    UNMATCHED = "unmatched"  # a label of no scored payment
    EXPIRED = "expired"
    OFFSET = "offset"
    STATE = "state"
    SNAPSHOT = "snapshot"
    # Differences between a logged decision and the recomputed one, from the cause to its effects.
    MODEL_UNKNOWN = "model_unknown"
    SNAPSHOT_UNKNOWN = "snapshot_unknown"
    DUPLICATE_FLAG = "duplicate_flag"
    FEATURES = "features"
    SCORE = "score"
    OUTCOME = "outcome"
    REASONS = "reasons"
    FACTS = "facts"  # the transaction's own fields, or whether the snapshot was stale
    ENCODING = "encoding"  # equal values in other bytes


COMPLETENESS: Final = frozenset(
    {FindingKind.MISSING, FindingKind.UNEXPECTED, FindingKind.OUT_OF_ORDER, FindingKind.UNREADABLE}
)


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong, and where.

    A finding about a decision has the place of its transaction, and that of the score if the transaction is missing.
    A finding about a snapshot has the offset -1. `detail` names no card; only `replay` fills the last three fields.
    """

    kind: FindingKind
    topic: str
    partition: int
    offset: int
    detail: str
    transaction_id: str | None = None
    card_id: str | None = None
    timestamp: int | None = None

    def __str__(self) -> str:
        about = "" if self.transaction_id is None else f" (transaction {self.transaction_id})"
        return f"{self.kind:16} {self.topic}[{self.partition}]@{self.offset}{about}: {self.detail}"


class Report(msgspec.Struct, frozen=True):
    """Result of a verification.

    `counts` has the number of records of each sort, `found` the number of findings of each kind. `findings` lists the
    first `MAX_LISTED`. `notes` say what could not be verified, and why.
    """

    counts: dict[str, int]
    found: dict[str, int]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.found


class Findings:
    """Collect findings, counts and notes in bounded memory."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._findings: list[Finding] = []
        self._notes: dict[str, None] = {}

    def count(self, name: str, number: int = 1) -> None:
        """Count records that were checked."""
        self._counts[name] += number

    def add(self, kind: FindingKind, entry: Record, detail: str) -> None:
        """Add a finding about a record."""
        self.add_at(kind, entry.topic, entry.partition, entry.offset, detail)

    def add_at(self, kind: FindingKind, topic: str, partition: int, offset: int, detail: str) -> None:
        """Add a finding about a place."""
        self._found[kind.value] += 1
        if len(self._findings) < MAX_LISTED:
            self._findings.append(Finding(kind, topic, partition, offset, detail))

    def note(self, text: str) -> None:
        """Add a note about what could not be verified."""
        self._notes[text] = None

    def merge(self, other: Findings) -> None:
        """Add everything that another collector has."""
        self._counts.update(other._counts)
        self._found.update(other._found)
        self._findings = (self._findings + other._findings)[:MAX_LISTED]
        self._notes |= other._notes

    def report(self) -> Report:
        """Return the report of everything added so far."""
        return Report(
            {name: self._counts[name] for name in sorted(self._counts)},
            {kind: self._found[kind] for kind in sorted(self._found)},
            tuple(self._findings),
            (*self._notes, *unlisted(len(self._findings), self._found.total())),
        )


def unlisted(listed: int, found: int) -> list[str]:
    """Return a note if more was found than is listed."""
    return [f"only the first {listed:,} of {found:,} findings are listed"] if found > listed else []
