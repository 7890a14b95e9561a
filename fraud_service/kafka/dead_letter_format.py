"""Dead letters as an auditor reads them: whose they are, what they keep of it, and which were sent again.

A letter names the record it stands for in its headers. A mark, written in the transaction that sent a letter's message
again, lies behind the letter in the same partition, under the same key, and names it: one partition says for each of
its letters whether it was redriven. Everyone with the right to write can write anything to the topic. A record that is
neither letter nor mark is foreign, and readers skip it.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.errors import InvalidRecord
from fraud_service.kafka.messages import CONTENT_HASH, CONTENT_LENGTH, KEY_HASH, KEY_LENGTH

if TYPE_CHECKING:
    from fraud_service.kafka.topic_reader import Record

REASON: Final = "fraud-reason"
DETAIL: Final = "fraud-detail"
CUT_FROM: Final = "fraud-cut-from"  # of letters that an earlier version wrote: they keep the beginning
MASKED: Final = "fraud-masked"
NOT_KEPT: Final = (MASKED, CONTENT_LENGTH, KEY_LENGTH, CUT_FROM)
SOURCE_TOPIC: Final = "fraud-source-topic"
SOURCE_PARTITION: Final = "fraud-source-partition"
SOURCE_OFFSET: Final = "fraud-source-offset"
REDRIVEN: Final = "fraud-redriven-offset"  # of a mark: the offset of the letter, in the mark's own partition
LONGEST_NAME: Final = 249  # characters of a topic
LARGEST_PARTITION: Final = 2**31 - 1
LARGEST_OFFSET: Final = 2**63 - 1

_number_pattern: Final = re.compile("[0-9]{1,19}")

NO_CONTENT: Final = -2  # equal to the hash of no content: the headers of the letter contradict its value
_DIGEST: Final = re.compile("[0-9a-f]{64}")


class LetterHeaders(NamedTuple):
    """What a dead letter says of itself. `content` tells its value from others; None where not all of it was kept."""

    reason: str
    topic: str
    partition: int
    offset: int
    content: int | None


class RedriveMark(NamedTuple):
    """A mark: the offset of the letter it names, and why it is not believed; None where it is."""

    offset: int
    complaint: str | None


def content(value: bytes | None) -> int:
    """Return sixty-four bits that tell one value from another; no value is not an empty one."""
    return -1 if value is None else int.from_bytes(sha256(value).digest()[:8], "big")


def is_whole(entry: Record) -> bool:
    """Say whether a letter keeps all of its message."""
    return all(entry.header(name) is None for name in NOT_KEPT)


def is_of(entry: Record, source: Record) -> bool:
    """Say whether a letter can stand for a record: it keeps the same bytes, or their length and digest."""
    if entry.header(MASKED) is not None or entry.header(CUT_FROM) is not None:
        return True  # the letter does not keep enough to compare
    return _is_of(entry.key, source.key, entry.header(KEY_LENGTH), entry.header(KEY_HASH)) and _is_of(
        entry.value, source.value, entry.header(CONTENT_LENGTH), entry.header(CONTENT_HASH)
    )


def _is_of(kept: bytes | None, original: bytes | None, length: str | None, digest: str | None) -> bool:
    if length is None and digest is None:
        return kept == original
    return original is not None and (length, digest) == (str(len(original)), sha256(original).hexdigest())


def parse_letter(entry: Record) -> LetterHeaders:
    """Read a dead letter.

    Raises
    ------
    InvalidRecord
        When it does not say why it is there or what it stands for.
    """
    return LetterHeaders(
        _name(entry, REASON),
        _name(entry, SOURCE_TOPIC),
        _number(entry, SOURCE_PARTITION, LARGEST_PARTITION),
        _number(entry, SOURCE_OFFSET, LARGEST_OFFSET),
        _content(entry),
    )


def _content(entry: Record) -> int | None:
    digest = entry.header(CONTENT_HASH)
    if digest is not None:
        is_sound = entry.value is None and _DIGEST.fullmatch(digest) is not None
        return int(digest[:16], 16) if is_sound else NO_CONTENT
    return content(entry.value) if is_whole(entry) else None


def _name(entry: Record, header: str) -> str:
    text = entry.header(header)
    if not text or len(text) > LONGEST_NAME:
        raise InvalidRecord(f"a dead letter has no name in its header {header}")
    return text


def _number(entry: Record, header: str, largest: int) -> int:
    text = entry.header(header)
    if text is None or _number_pattern.fullmatch(text) is None or int(text) > largest:
        raise InvalidRecord(f"a dead letter has no number in its header {header}")
    return int(text)


class DeadLetterParser:
    """Distinguishes letters, marks and foreign records of one partition of dead letters, read in order."""

    def __init__(self) -> None:
        self._begin: int | None = None
        self._keys: dict[int, int] = {}

    def take(self, entry: Record) -> LetterHeaders | RedriveMark:
        """Read the next record.

        Raises
        ------
        InvalidRecord
            When it is neither.
        """
        self._begin = entry.offset if self._begin is None else self._begin
        if entry.header(REDRIVEN) is not None:
            named = _number(entry, REDRIVEN, LARGEST_OFFSET)
            return RedriveMark(named, self._complaint(entry, named, self._begin))
        found = parse_letter(entry)
        self._keys[entry.offset] = content(entry.key)
        return found

    def _complaint(self, entry: Record, named: int, begin: int) -> str | None:
        if named < begin:
            return None  # its letter has expired
        if named not in self._keys:
            return f"the mark names {named}, where there is no letter"
        is_alike = entry.value is None and self._keys[named] == content(entry.key)
        return None if is_alike else f"the mark of {named} has a value, or another key than its letter"
