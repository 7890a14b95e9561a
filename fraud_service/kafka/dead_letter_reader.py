"""Find dead letters on their topic, and which of them were sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import structlog

from fraud_service.domain.errors import InvalidRecord, TopicReadError
from fraud_service.kafka.dead_letters import DETAIL, MAX_DETAIL_CHARS, DeadLetterParser, LetterHeaders
from fraud_service.kafka.topic_reader import TopicReader

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import Record

log = structlog.get_logger(__name__)


class DeadLetterFilter(NamedTuple):
    """Selects dead letters by reason, source topic, earliest timestamp (epoch milliseconds), partition and offset."""

    reason: str | None = None
    topic: str | None = None
    since: int | None = None
    partition: int | None = None
    offset: int | None = None

    def matches(self, entry: Record, found: LetterHeaders) -> bool:
        """Say whether the filter selects a dead letter."""
        return (
            self.reason in {None, found.reason}
            and self.topic in {None, found.topic}
            and (self.since is None or entry.timestamp >= self.since)
            and self.partition in {None, entry.partition}
            and self.offset in {None, entry.offset}
        )


class DeadLetter(NamedTuple):
    """A dead letter on its topic, the length of its value in bytes, and whether it was sent again."""

    entry: Record
    letter: LetterHeaders
    size: int
    is_redriven: bool

    @property
    def place(self) -> tuple[int, int]:
        """Partition and offset of the dead letter itself."""
        return self.entry.partition, self.entry.offset

    @property
    def source(self) -> str:
        """Topic, partition and offset of the source message."""
        return f"{self.letter.topic}[{self.letter.partition}]@{self.letter.offset}"

    def row(self) -> dict[str, object]:
        """Return what a list shows."""
        return {
            "partition": self.entry.partition,
            "offset": self.entry.offset,
            "timestamp": self.entry.timestamp,
            "reason": self.letter.reason,
            "detail": (self.entry.header(DETAIL) or "")[:MAX_DETAIL_CHARS],
            "source": self.source,
            "bytes": self.size,
            "redriven": self.is_redriven,
        }


class Selection(NamedTuple):
    """The dead letters that were found, and the number of foreign records on the topic."""

    letters: list[DeadLetter]
    foreign: int


def find_dead_letters(settings: Settings, wanted: DeadLetterFilter, *, with_content: bool = True) -> Selection:
    """Read the dead letters, oldest first in each partition.

    Parameters
    ----------
    with_content
        Keep keys and values. Those of all dead letters of 400 days may not fit into memory.

    Raises
    ------
    TopicReadError
        When the topic cannot be read.
    """
    topic = settings.topics.dead_letters
    letters: list[DeadLetter] = []
    foreign = 0
    with TopicReader(settings, f"{settings.scorer_group}-letters") as archive:
        for number in archive.spans(topic):
            if wanted.partition in {None, number}:
                found, others = _select(archive.read(topic, number), wanted, with_content=with_content)
                letters += found
                foreign += others
    if foreign:
        log.warning("foreign_dead_letters", topic=topic, count=foreign, hint="skipped: neither dead letters nor marks")
    return Selection(letters, foreign)


def _select(entries: Iterable[Record], wanted: DeadLetterFilter, *, with_content: bool) -> tuple[list[DeadLetter], int]:
    """Return the selected dead letters of one partition, and the number of foreign records."""
    parser, redriven, foreign = DeadLetterParser(), set[int](), 0
    letters: list[DeadLetter] = []
    for entry in entries:
        try:
            found = parser.parse(entry)
        except InvalidRecord:
            foreign += 1
            continue
        if isinstance(found, LetterHeaders):
            if wanted.matches(entry, found):
                kept = entry if with_content else _without_content(entry)
                letters.append(DeadLetter(kept, found, len(entry.value or b""), is_redriven=False))
        elif found.problem is None:
            redriven.add(found.offset)
        else:
            foreign += 1
    return [letter._replace(is_redriven=letter.entry.offset in redriven) for letter in letters], foreign


def _without_content(entry: Record) -> Record:
    detail = (entry.header(DETAIL) or "")[:MAX_DETAIL_CHARS]
    return entry._replace(key=None, value=None, headers=[(DETAIL, detail.encode(errors="replace"))])


def require_one(selection: Selection, partition: int, offset: int) -> DeadLetter:
    """Return the only dead letter that was found. Raises `TopicReadError` when there is none."""
    if not selection.letters:
        raise TopicReadError(f"there is no dead letter at partition {partition}, offset {offset}")
    return selection.letters[0]
