"""What a verification found: one frozen report, the same for a person, a program and a test."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from fraud_service.kafka.topic_reader import Record

MAX_LISTED: Final = 1000  # anomalies with their place; beyond it they are only counted


class Kind(StrEnum):
    """What can be wrong. A closed set: whoever reads the report may depend on it."""

    LOST = "lost"
    DOUBLED = "doubled"
    UNEXPECTED = "unexpected"
    REORDERED = "reordered"
    ALTERED = "altered"
    UNREADABLE = "unreadable"
    EXPIRED = "expired"
    OFFSET = "offset"
    STATE = "state"
    DECISION = "decision"
    SNAPSHOT = "snapshot"
    MISPLACED = "misplaced"
    CARD_NUMBER = "card_number"


class Anomaly(msgspec.Struct, frozen=True):
    """One thing that is wrong, where, in a sentence that names no card. That of a snapshot has the offset -1."""

    kind: Kind
    topic: str
    partition: int
    offset: int
    what: str

    def __str__(self) -> str:
        return f"{self.kind:11} {self.topic}[{self.partition}]@{self.offset}: {self.what}"


class Report(msgspec.Struct, frozen=True):
    """What was verified and what was found.

    `counts` says how many records there were of what, `found` how many anomalies of each kind, `anomalies` lists the
    first of them, and `notes` say what could not be proved, and why.
    """

    counts: dict[str, int]
    found: dict[str, int]
    anomalies: tuple[Anomaly, ...]
    notes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not self.found


def encode_report(report: Report) -> bytes:
    """Write a report as JSON."""
    return msgspec.json.encode(report)


def decode_report(data: bytes) -> Report:
    """Read it back."""
    return msgspec.json.decode(data, type=Report)


class Findings:
    """Collects what a verification finds; bounded, however much is wrong."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._anomalies: list[Anomaly] = []
        self._notes: dict[str, None] = {}

    def count(self, what: str, number: int = 1) -> None:
        """Count records that were looked at."""
        self._counts[what] += number

    def wrong(self, kind: Kind, entry: Record, what: str) -> None:
        """Add an anomaly of a record."""
        self.wrong_at(kind, entry.topic, entry.partition, entry.offset, what)

    def wrong_at(self, kind: Kind, topic: str, partition: int, offset: int, what: str) -> None:
        """Add an anomaly of a place."""
        self._found[kind.value] += 1
        if len(self._anomalies) < MAX_LISTED:
            self._anomalies.append(Anomaly(kind, topic, partition, offset, what))

    def note(self, what: str) -> None:
        """Say what could not be proved."""
        self._notes[what] = None

    def report(self) -> Report:
        """Return what was found so far."""
        return Report(
            {name: self._counts[name] for name in sorted(self._counts)},
            {kind: self._found[kind] for kind in sorted(self._found)},
            tuple(self._anomalies),
            tuple(self._notes),
        )
