"""Dead letters as an auditor reads them: whose they are, what they keep of it, and which were sent again.

A letter names the record it stands for in its headers. A mark, written in the transaction that sent a letter's message
again, lies in the letter's own partition and names it: whoever reads one partition knows of each letter whether it was
redriven.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.audit.findings import Kind
from fraud_service.errors import InvalidRecord
from fraud_service.stream.messages import CONTENT_HASH, CONTENT_LENGTH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.audit.findings import Findings
    from fraud_service.stream.archive import Entry

REASON: Final = "fraud-reason"
DETAIL: Final = "fraud-detail"
CUT_FROM: Final = "fraud-cut-from"  # of letters from before only length and hash were kept
MASKED: Final = "fraud-masked"
SOURCE_TOPIC: Final = "fraud-source-topic"
SOURCE_PARTITION: Final = "fraud-source-partition"
SOURCE_OFFSET: Final = "fraud-source-offset"
REDRIVEN: Final = "fraud-redriven-offset"  # of a mark: the offset of the letter, in the mark's own partition

Place = tuple[str, int]  # topic and partition

_DIGEST: Final = re.compile("[0-9a-f]{64}")


class Letter(NamedTuple):
    """What a dead letter says of itself. `content` tells its value from others; None where not all of it was kept."""

    reason: str
    topic: str
    partition: int
    offset: int
    content: int | None


def content(value: bytes | None) -> int:
    """Return sixty-four bits that tell one value from another; no value is not an empty one."""
    return -1 if value is None else int.from_bytes(sha256(value).digest()[:8], "big")


def marked(entry: Entry) -> int | None:
    """Return the offset of the letter that a mark says was redriven; None for a letter.

    Raises
    ------
    InvalidRecord
        When the mark names no offset.
    """
    named = entry.header(REDRIVEN)
    return None if named is None else _number(named, REDRIVEN)


def letter(entry: Entry) -> Letter:
    """Read a dead letter.

    Raises
    ------
    InvalidRecord
        When it does not say why it is there or what it stands for.
    """
    reason, topic = entry.header(REASON), entry.header(SOURCE_TOPIC)
    if reason is None or topic is None:
        raise InvalidRecord(f"a dead letter has no header {REASON} or {SOURCE_TOPIC}")
    return Letter(
        reason,
        topic,
        _number(entry.header(SOURCE_PARTITION), SOURCE_PARTITION),
        _number(entry.header(SOURCE_OFFSET), SOURCE_OFFSET),
        _content(entry),
    )


def _content(entry: Entry) -> int | None:
    digest = entry.header(CONTENT_HASH)
    if digest is not None:
        return int(digest[:16], 16) if _DIGEST.fullmatch(digest) else None
    return None if is_incomplete(entry) else content(entry.value)


def is_incomplete(entry: Entry) -> bool:
    """Say whether a letter holds other bytes than its source, or none."""
    return any(entry.header(name) for name in (MASKED, CONTENT_LENGTH, CUT_FROM))


def _number(text: str | None, header: str) -> int:
    if text is None or not text.isdecimal():
        raise InvalidRecord(f"a dead letter has no number in its header {header}")
    return int(text)


class Letters:
    """All dead letters by the record they stand for, as sixteen to a hundred bytes each."""

    def __init__(self) -> None:
        self._of: dict[Place, dict[int, Letter]] = {}

    def of(self, topic: str, partition: int) -> dict[int, Letter]:
        """Return the letters of one partition of a source, by offset."""
        return self._of.get((topic, partition), {})

    def take(self, entries: Iterable[Entry], findings: Findings) -> None:
        """Read one partition of dead letters: letters to look up, marks to check.

        A second letter for the same record is an anomaly, and so is a mark that names no letter or one marked before.
        """
        own: set[int] = set()
        sent_again: set[int] = set()
        first = None
        for entry in entries:
            first = entry.offset if first is None else first
            try:
                offset = marked(entry)
                if offset is None:
                    self._keep(letter(entry), entry, findings)
                    own.add(entry.offset)
                    continue
            except InvalidRecord as error:
                findings.wrong(Kind.UNREADABLE, entry, str(error))
                continue
            findings.count("redriven")
            if offset in sent_again:
                findings.wrong(Kind.DOUBLED, entry, f"the letter at {offset} was redriven before")
            elif offset not in own and offset >= first:  # of an older one the letter has expired
                findings.wrong(Kind.UNEXPECTED, entry, f"the mark names {offset}, where no letter lies")
            sent_again.add(offset)

    def _keep(self, found: Letter, entry: Entry, findings: Findings) -> None:
        findings.count("dead_letters")
        known = self._of.setdefault((found.topic, found.partition), {})
        if found.offset in known:
            findings.wrong(
                Kind.DOUBLED,
                entry,
                f"a second letter for {found.topic}[{found.partition}]@{found.offset}",
            )
        known[found.offset] = found
