"""The format of the dead-letter topic: write a dead letter, and parse what is on the topic.

The topic holds two kinds of records:

* A **dead letter** keeps a message that was rejected. Its headers name the reason and the offset of the message.
* A **redrive mark** records that a dead letter was sent again. The transaction that sends the message
  again also writes the mark, to the partition and under the key of the dead letter. So one partition shows for each of
  its dead letters whether it was redriven.

Any producer with write access can put other records there. Readers skip those.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from fraud_service.domain.errors import DeadLetterReason, InvalidEvent, InvalidRecord, TopicReadError
from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.kafka.messages import CONTENT_HASH, CONTENT_LENGTH, KEY_HASH, KEY_LENGTH, Output, Received, bounded
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.security.card_data import mask_bytes, mask_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import Record

log = structlog.get_logger(__name__)

REASON: Final = "fraud-reason"
DETAIL: Final = "fraud-detail"
MASKED: Final = "fraud-masked"
SOURCE_TOPIC: Final = "fraud-source-topic"
SOURCE_PARTITION: Final = "fraud-source-partition"
SOURCE_OFFSET: Final = "fraud-source-offset"
REDRIVEN: Final = "fraud-redriven-offset"  # of a mark: the offset of the dead letter in the same partition
INCOMPLETE: Final = (MASKED, CONTENT_LENGTH, KEY_LENGTH)

MAX_KEPT_BYTES: Final = 4 * MAX_EVENT_BYTES  # masking writes four bytes for one; brokers accept a million
MAX_DETAIL_CHARS: Final = 500
MAX_NAME_CHARS: Final = 249
MAX_PARTITION: Final = 2**31 - 1
MAX_OFFSET: Final = 2**63 - 1
CONTRADICTION: Final = -2  # in place of a content hash: the headers of the dead letter contradict its value

_NUMBER: Final = re.compile("[0-9]{1,19}")
_DIGEST: Final = re.compile("[0-9a-f]{64}")


def dead_letter(message: Received, error: InvalidEvent, *, is_known_clean: bool = False) -> Output:
    """Return the dead letter of a message: its original bytes, with the reason and its source in the headers.

    A dead letter must always fit its topic: a consumer that cannot write it would read the source message for ever. A
    dead letter keeps only length and hash of content that is too large. Card data is masked, because dead letters are
    kept for long and many people read them. With `is_known_clean`, a search has found none already.
    """
    message = bounded(message)
    key, value = message.key, message.value
    if not is_known_clean:
        is_found = error.reason in {DeadLetterReason.CARD_NUMBER, DeadLetterReason.SENSITIVE_DATA}
        key = None if key is None else mask_bytes(key)
        value = None if value is None else mask_bytes(value, has_card_data=is_found)
    headers = {
        REASON: error.reason,
        DETAIL: mask_text(error.detail[:MAX_DETAIL_CHARS]),
        SOURCE_TOPIC: message.topic,
        SOURCE_PARTITION: str(message.partition),
        SOURCE_OFFSET: str(message.offset),
    }
    if (key, value) != (message.key, message.value):
        headers[MASKED] = "card data"
    if value is not None and len(value) > MAX_KEPT_BYTES:
        headers[CONTENT_LENGTH] = str(len(message.value or b""))  # no hash: card numbers can be guessed from one
        value = None
    written = [(name, text.encode()) for name, text in headers.items()]
    return Output("dead_letters", key, value, [*written, *message.withheld])


class LetterHeaders(NamedTuple):
    """The headers of a dead letter. `content` is the hash of the original value; None when the value is incomplete."""

    reason: str
    topic: str
    partition: int
    offset: int
    content: int | None


class RedriveMark(NamedTuple):
    """The offset of the dead letter that a mark names, and why the mark does not count; None when it counts."""

    offset: int
    problem: str | None


def content_hash(value: bytes | None) -> int:
    """Return 64 bits of the hash of a value. A missing value differs from an empty one.

    >>> content_hash(None), content_hash(b"") == content_hash(None)
    (-1, False)
    """
    return -1 if value is None else int.from_bytes(sha256(value).digest()[:8], "big")


def is_complete(entry: Record) -> bool:
    """Return whether a dead letter keeps all bytes of its message."""
    return all(entry.header(name) is None for name in INCOMPLETE)


def matches_source(entry: Record, source: Record) -> bool:
    """Return whether a dead letter has the same key and value as a message, or their length and hash."""
    if entry.header(MASKED) is not None:
        return True  # the dead letter does not keep enough to compare
    return _matches(entry.key, source.key, entry.header(KEY_LENGTH), entry.header(KEY_HASH)) and _matches(
        entry.value, source.value, entry.header(CONTENT_LENGTH), entry.header(CONTENT_HASH)
    )


def _matches(kept: bytes | None, original: bytes | None, length: str | None, digest: str | None) -> bool:
    if length is None and digest is None:
        return kept == original
    return original is not None and (length, digest) == (str(len(original)), sha256(original).hexdigest())


def parse_letter(entry: Record) -> LetterHeaders:
    """Read the headers of a dead letter. Raises `InvalidRecord` when the reason or the source is missing."""
    return LetterHeaders(
        _name(entry, REASON),
        _name(entry, SOURCE_TOPIC),
        _number(entry, SOURCE_PARTITION, MAX_PARTITION),
        _number(entry, SOURCE_OFFSET, MAX_OFFSET),
        _content(entry),
    )


def _content(entry: Record) -> int | None:
    digest = entry.header(CONTENT_HASH)
    if digest is not None:
        is_sound = entry.value is None and _DIGEST.fullmatch(digest) is not None
        return int(digest[:16], 16) if is_sound else CONTRADICTION
    return content_hash(entry.value) if is_complete(entry) else None


def _name(entry: Record, header: str) -> str:
    text = entry.header(header)
    if not text or len(text) > MAX_NAME_CHARS:
        raise InvalidRecord(f"the header {header} of a dead letter has no name")
    return text


def _number(entry: Record, header: str, largest: int) -> int:
    text = entry.header(header)
    if text is None or _NUMBER.fullmatch(text) is None or int(text) > largest:
        raise InvalidRecord(f"the header {header} of a dead letter has no number")
    return int(text)


class DeadLetterParser:
    """Parse the records of one partition, in order: dead letters and redrive marks."""

    def __init__(self) -> None:
        self._begin: int | None = None
        self._keys: dict[int, int] = {}

    def parse(self, entry: Record) -> LetterHeaders | RedriveMark:
        """Parse the next record. Raises `InvalidRecord` if it is neither a dead letter nor a mark."""
        self._begin = entry.offset if self._begin is None else self._begin
        if entry.header(REDRIVEN) is not None:
            named = _number(entry, REDRIVEN, MAX_OFFSET)
            return RedriveMark(named, self._problem(entry, named, self._begin))
        found = parse_letter(entry)
        self._keys[entry.offset] = content_hash(entry.key)
        return found

    def _problem(self, entry: Record, named: int, begin: int) -> str | None:
        if named < begin:
            return None  # its dead letter has expired
        if named not in self._keys:
            return f"the mark names offset {named}, which holds no dead letter"
        is_alike = entry.value is None and self._keys[named] == content_hash(entry.key)
        return None if is_alike else f"the mark of offset {named} has a value, or another key than its dead letter"


class DeadLetterFilter(NamedTuple):
    """Selects dead letters by reason, source topic, earliest timestamp (epoch milliseconds), partition and offset."""

    reason: str | None = None
    topic: str | None = None
    since: int | None = None
    partition: int | None = None
    offset: int | None = None

    def matches(self, entry: Record, found: LetterHeaders) -> bool:
        """Return whether the filter selects a dead letter."""
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


def find_dead_letters(settings: Settings, wanted: DeadLetterFilter, *, with_content: bool = True) -> list[DeadLetter]:
    """Read the dead letters, oldest first in each partition. Raises `TopicReadError`.

    `with_content` keeps keys and values. Those of all dead letters of 400 days may not fit into memory.
    """
    topic = settings.topics.dead_letters
    letters: list[DeadLetter] = []
    skipped = 0
    with TopicReader(settings, f"{settings.scorer_group}-letters") as reader:
        for number in reader.offset_ranges(topic):
            if wanted.partition in {None, number}:
                found, others = _select(reader.read(topic, number), wanted, with_content=with_content)
                letters += found
                skipped += others
    if skipped:
        log.warning(
            "dead_letter_records_skipped", topic=topic, count=skipped, hint="neither dead letters nor redrive marks"
        )
    return letters


def _select(entries: Iterable[Record], wanted: DeadLetterFilter, *, with_content: bool) -> tuple[list[DeadLetter], int]:
    """Return the selected dead letters of one partition, and the number of skipped records."""
    parser, redriven, skipped = DeadLetterParser(), set[int](), 0
    letters: list[DeadLetter] = []
    for entry in entries:
        try:
            found = parser.parse(entry)
        except InvalidRecord:
            skipped += 1
            continue
        if isinstance(found, LetterHeaders):
            if wanted.matches(entry, found):
                kept = entry if with_content else _without_content(entry)
                letters.append(DeadLetter(kept, found, len(entry.value or b""), is_redriven=False))
        elif found.problem is None:
            redriven.add(found.offset)
        else:
            skipped += 1
    return [letter._replace(is_redriven=letter.entry.offset in redriven) for letter in letters], skipped


def _without_content(entry: Record) -> Record:
    detail = (entry.header(DETAIL) or "")[:MAX_DETAIL_CHARS]
    return entry._replace(key=None, value=None, headers=[(DETAIL, detail.encode(errors="replace"))])


def read_one(settings: Settings, partition: int, offset: int) -> DeadLetter:
    """Return the dead letter at an offset. Raises `TopicReadError` when there is none."""
    found = find_dead_letters(settings, DeadLetterFilter(partition=partition, offset=offset))
    if not found:
        raise TopicReadError(f"there is no dead letter at partition {partition}, offset {offset}")
    return found[0]
