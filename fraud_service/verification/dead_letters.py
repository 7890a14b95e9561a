"""The dead letters of every input record, as a verification looks them up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.domain.errors import InvalidRecord
from fraud_service.kafka.dead_letters import DeadLetterParser, LetterHeaders
from fraud_service.verification.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.kafka.topic_reader import Record
    from fraud_service.verification.findings import Findings

Place = tuple[str, int]  # topic and partition


class Letters:
    """All dead letters by the record they stand for, as sixteen to a hundred bytes each."""

    def __init__(self) -> None:
        self._of: dict[Place, dict[int, LetterHeaders]] = {}

    def of(self, topic: str, partition: int) -> dict[int, LetterHeaders]:
        """Return the letters of one partition of a source, by offset."""
        return self._of.get((topic, partition), {})

    def take(self, entries: Iterable[Record], findings: Findings) -> None:
        """Read one partition of dead letters: letters to look up, marks to check.

        A second letter for the same record is an anomaly, and so are foreign records, a mark that is not believed, and
        a second mark.
        """
        sorter, sent_again = DeadLetterParser(), set[int]()
        for entry in entries:
            try:
                found = sorter.parse(entry)
            except InvalidRecord as error:
                findings.wrong(Kind.UNREADABLE, entry, str(error))
                continue
            if isinstance(found, LetterHeaders):
                self._keep(found, entry, findings)
                continue
            if found.problem is not None:
                findings.wrong(Kind.UNEXPECTED, entry, found.problem)
                continue
            findings.count("redriven")
            if found.offset in sent_again:
                findings.wrong(Kind.DOUBLED, entry, f"the letter at {found.offset} was redriven before")
            sent_again.add(found.offset)

    def _keep(self, found: LetterHeaders, entry: Record, findings: Findings) -> None:
        findings.count("dead_letters")
        known = self._of.setdefault((found.topic, found.partition), {})
        if found.offset in known:
            findings.wrong(
                Kind.DOUBLED,
                entry,
                f"a second letter for {found.topic}[{found.partition}]@{found.offset}",
            )
        known[found.offset] = found
