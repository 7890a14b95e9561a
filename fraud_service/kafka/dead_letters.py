"""Reads the topic of dead letters: which letters there are, which were sent again, and how many foreign records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from fraud_service.domain.errors import ArchiveError, InvalidRecord
from fraud_service.kafka.dead_letter_format import DETAIL, DeadLetterParser, LetterHeaders
from fraud_service.kafka.topic_reader import TopicReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import Record

log = structlog.get_logger(__name__)

LONGEST_DETAIL: Final = 500  # characters in a list


class DeadLetterFilter(NamedTuple):
    """Which dead letters: by reason, topic of the source, when they were written, and their own place."""

    reason: str | None = None
    topic: str | None = None
    since: int | None = None
    partition: int | None = None
    offset: int | None = None

    def has(self, entry: Record, found: LetterHeaders) -> bool:
        """Say whether a letter is among them."""
        return (
            self.reason in {None, found.reason}
            and self.topic in {None, found.topic}
            and (self.since is None or entry.timestamp >= self.since)
            and self.partition in {None, entry.partition}
            and self.offset in {None, entry.offset}
        )


class DeadLetter(NamedTuple):
    """A dead letter as it is on the topic, how many bytes its value has, and whether it was sent again."""

    entry: Record
    letter: LetterHeaders
    size: int
    is_redriven: bool

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the letter itself."""
        return self.entry.partition, self.entry.offset

    @property
    def source(self) -> str:
        """Where the source message is."""
        return f"{self.letter.topic}[{self.letter.partition}]@{self.letter.offset}"

    def row(self) -> dict[str, object]:
        """Return what a list shows."""
        return {
            "partition": self.entry.partition,
            "offset": self.entry.offset,
            "timestamp": self.entry.timestamp,
            "reason": self.letter.reason,
            "detail": (self.entry.header(DETAIL) or "")[:LONGEST_DETAIL],
            "source": self.source,
            "bytes": self.size,
            "redriven": self.is_redriven,
        }


class Selection(NamedTuple):
    """The letters that were found, and how many records on the topic are neither letters nor marks."""

    letters: list[DeadLetter]
    foreign: int


def find_dead_letters(settings: Settings, wanted: DeadLetterFilter, *, with_content: bool = True) -> Selection:
    """Read the dead letters, oldest first by partition.

    Parameters
    ----------
    with_content
        Whether the values are wanted too: all letters of 400 days may be more than fits into memory.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    """
    topic = settings.topics.dead_letters
    letters: list[DeadLetter] = []
    foreign = 0
    with TopicReader(settings, f"{settings.scorer_group}-letters") as archive:
        for number in archive.spans(topic):
            if wanted.partition in {None, number}:
                found, others = _sorted(archive.read(topic, number), wanted, with_content=with_content)
                letters += found
                foreign += others
    if foreign:
        log.warning("foreign_dead_letters", topic=topic, count=foreign, hint="skipped: neither dead letters nor marks")
    return Selection(letters, foreign)


def _sorted(entries: Iterable[Record], wanted: DeadLetterFilter, *, with_content: bool) -> tuple[list[DeadLetter], int]:
    """Return the wanted letters of one partition, and how many records are foreign."""
    sorter, sent_again, foreign = DeadLetterParser(), set[int](), 0
    letters: list[DeadLetter] = []
    for entry in entries:
        try:
            read = sorter.take(entry)
        except InvalidRecord:
            foreign += 1
            continue
        if isinstance(read, LetterHeaders):
            if wanted.has(entry, read):
                kept = entry if with_content else _outside(entry)
                letters.append(DeadLetter(kept, read, len(entry.value or b""), is_redriven=False))
        elif read.complaint is None:
            sent_again.add(read.offset)
        else:
            foreign += 1
    return [found._replace(is_redriven=found.entry.offset in sent_again) for found in letters], foreign


def _outside(entry: Record) -> Record:
    """Return a letter without its key and value: a list needs only the detail."""
    detail = (entry.header(DETAIL) or "")[:LONGEST_DETAIL]
    return entry._replace(key=None, value=None, headers=[(DETAIL, detail.encode(errors="replace"))])


def require_one(looked: Selection, partition: int, offset: int) -> DeadLetter:
    """Return the only letter there is. Raises `ArchiveError` when there is none."""
    if not looked.letters:
        raise ArchiveError(f"there is no dead letter at partition {partition}, offset {offset}")
    return looked.letters[0]
