"""Dead letters looked through, and sent again: none of them twice.

A message is sent to the topic it came from in one transaction with a mark beside its letter, under a transactional id
that all redrives share. A second redrive fences the first, whose open transaction is then void, and reads the marks
only after that; so however many run, a letter is sent once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from confluent_kafka import KafkaException, Producer

from fraud_service.audit.letters import DETAIL, REDRIVEN, Letter, is_incomplete, letter, marked
from fraud_service.errors import ArchiveError, ConfigurationError, FatalStreamError
from fraud_service.stream import clients
from fraud_service.stream.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.settings import Settings
    from fraud_service.stream.archive import Entry

AT_ONCE: Final = 500  # letters in one transaction


class Wanted(NamedTuple):
    """Which dead letters: by reason, topic of the source, when they were written, and their own place."""

    reason: str | None = None
    topic: str | None = None
    since: int | None = None
    partition: int | None = None
    offset: int | None = None

    def has(self, entry: Entry, found: Letter) -> bool:
        """Say whether a letter is among them."""
        return (
            self.reason in {None, found.reason}
            and self.topic in {None, found.topic}
            and (self.since is None or entry.timestamp >= self.since)
            and self.partition in {None, entry.partition}
            and self.offset in {None, entry.offset}
        )


class Found(NamedTuple):
    """A dead letter as it lies there, and whether it was sent again."""

    entry: Entry
    letter: Letter
    is_redriven: bool

    @property
    def hindrance(self) -> str | None:
        """Why the message cannot be sent again as it is; None when it can."""
        if self.is_redriven:
            return "it was sent again already"
        if is_incomplete(self.entry):
            return "its original bytes were not kept: give them with --value-from"
        if self.entry.value is None:
            return "it has no value: give one with --value-from"
        return None

    def row(self) -> dict[str, object]:
        """Return what a list shows."""
        entry, found = self.entry, self.letter
        return {
            "partition": entry.partition,
            "offset": entry.offset,
            "timestamp": entry.timestamp,
            "reason": found.reason,
            "detail": entry.header(DETAIL),
            "source": f"{found.topic}[{found.partition}]@{found.offset}",
            "bytes": len(entry.value or b""),
            "redriven": self.is_redriven,
        }


def look(settings: Settings, wanted: Wanted) -> list[Found]:
    """Read the dead letters, oldest first by partition.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    InvalidRecord
        When something else than dead letters lies on it.
    """
    topic = settings.topics.dead_letters
    found: list[Found] = []
    with Archive(settings, f"{settings.scorer_group}-letters") as archive:
        for number in archive.spans(topic):
            if wanted.partition not in {None, number}:
                continue
            entries = list(archive.read(topic, number))
            sent_again = {offset for entry in entries if (offset := marked(entry)) is not None}
            letters = ((entry, letter(entry)) for entry in entries if marked(entry) is None)
            found += [
                Found(entry, read, entry.offset in sent_again) for entry, read in letters if wanted.has(entry, read)
            ]
    return found


def redrive(settings: Settings, wanted: Wanted, value: bytes | None = None) -> Iterator[Found]:
    """Send letters again; yields each when its transaction is through.

    Parameters
    ----------
    value
        Repaired bytes to send instead of what a single letter holds.

    Raises
    ------
    ConfigurationError
        When `value` is given and not exactly one letter is wanted.
    FatalStreamError
        When another redrive took over, or the broker does not take it. What was yielded is sent; nothing else is.
    """
    options = {"transactional.id": f"{settings.scorer_group}-redrive", "transaction.timeout.ms": 60_000}
    producer = clients.producer(settings, options)
    try:
        producer.init_transactions(clients.TIMEOUT)  # from here on no earlier redrive can send anything
        chosen = [found for found in look(settings, wanted) if value is not None or found.hindrance is None]
        if value is not None and len(chosen) != 1:
            raise ConfigurationError(f"--value-from is for one letter, {len(chosen)} are meant: give its place")
        chosen = [found for found in chosen if not found.is_redriven]
        for first in range(0, len(chosen), AT_ONCE):
            part = chosen[first : first + AT_ONCE]
            _send(settings, producer, part, value)
            yield from part
    except KafkaException as error:
        raise FatalStreamError(
            f"dead letters could not be sent again: {error.args[0].str()}. If another redrive runs, let it end"
        ) from error


def _send(settings: Settings, producer: Producer, letters: Iterable[Found], value: bytes | None) -> None:
    producer.begin_transaction()
    for found in letters:
        entry = found.entry
        content = entry.value if value is None else value
        producer.produce(found.letter.topic, key=_card_of(content) or entry.key, value=content)
        mark = [(REDRIVEN, str(entry.offset).encode())]
        producer.produce(settings.topics.dead_letters, key=entry.key, partition=entry.partition, headers=mark)
    producer.commit_transaction(clients.TIMEOUT)


class _Carded(msgspec.Struct):
    card_id: str


_carded = msgspec.json.Decoder(_Carded)


def _card_of(value: bytes | None) -> bytes | None:
    """Return the key that an event should have: a missing or wrong one is repaired on the way."""
    try:
        return _carded.decode(value or b"").card_id.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def require_one(found: list[Found], partition: int, offset: int) -> Found:
    """Return the only letter there is. Raises `ArchiveError` when there is none."""
    if not found:
        raise ArchiveError(f"no dead letter lies at partition {partition}, offset {offset}")
    return found[0]
