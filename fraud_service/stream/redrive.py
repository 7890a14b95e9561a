"""Dead letters looked through, and sent again: none of them twice, and nothing that is not one.

A message is sent to the topic it came from in one transaction with a mark beside its letter, under a transactional id
that all redrives share. A second redrive fences the first, whose open transaction is then void, and reads the marks
only after that; so however many run, a letter is sent once.

What a letter says is not believed: it is sent to an input of the service or nowhere, and only if the record that it
names still lies there with the same key and value. So a forged letter can at most repeat what lies on an input already.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import structlog
from confluent_kafka import KafkaException, Producer

from fraud_service.audit.letters import DETAIL, REDRIVEN, Letter, Sorter, is_of, is_whole
from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.errors import ArchiveError, ConfigurationError, FatalStreamError, InvalidRecord, PreflightError
from fraud_service.stream import clients
from fraud_service.stream.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from fraud_service.settings import Settings
    from fraud_service.stream.archive import Entry

log = structlog.get_logger(__name__)

AT_ONCE: Final = 500  # letters in one transaction
GAP: Final = 10_000  # records between two sources that are read over, rather than asked for anew
LONGEST_DETAIL: Final = 500  # characters in a list


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
    def place(self) -> tuple[int, int]:
        """Partition and offset of the letter itself."""
        return self.entry.partition, self.entry.offset

    @property
    def source(self) -> str:
        """Where the message lies that the letter stands for."""
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
            "bytes": len(self.entry.value or b""),
            "redriven": self.is_redriven,
        }


class Looked(NamedTuple):
    """The letters that were found, and how many other records lie among them that are none and no marks of any."""

    letters: list[Found]
    foreign: int


class Verdict(NamedTuple):
    """What becomes of a letter: it is sent, or left for a reason. A forged one is not what its source says."""

    found: Found
    hindrance: str | None = None
    is_forged: bool = False


def look(settings: Settings, wanted: Wanted) -> Looked:
    """Read the dead letters, oldest first by partition.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    """
    topic = settings.topics.dead_letters
    letters: list[Found] = []
    foreign = 0
    with Archive(settings, f"{settings.scorer_group}-letters") as archive:
        for number in archive.spans(topic):
            if wanted.partition in {None, number}:
                found, others = _sorted(archive.read(topic, number), wanted)
                letters += found
                foreign += others
    if foreign:
        log.warning("foreign_dead_letters", topic=topic, count=foreign, what="neither dead letters nor marks of any")
    return Looked(letters, foreign)


def _sorted(entries: Iterable[Entry], wanted: Wanted) -> tuple[list[Found], int]:
    """Return the wanted letters of one partition, and how many records are foreign."""
    sorter, sent_again, foreign = Sorter(), set[int](), 0
    letters: list[tuple[Entry, Letter]] = []
    for entry in entries:
        try:
            read = sorter.take(entry)
        except InvalidRecord:
            foreign += 1
            continue
        if isinstance(read, Letter):
            letters += [(entry, read)] if wanted.has(entry, read) else []
        elif read.complaint is None:
            sent_again.add(read.offset)
        else:
            foreign += 1
    return [Found(entry, read, entry.offset in sent_again) for entry, read in letters], foreign


def judge(
    settings: Settings, letters: Sequence[Found], value: bytes | None = None, *, without_source: bool = False
) -> list[Verdict]:
    """Say of each letter whether it would be sent again; reads the records that they stand for.

    Parameters
    ----------
    value
        Repaired bytes to send instead of what the letter holds.
    without_source
        Whether to believe a letter whose source is no longer there, or cannot be read.
    """
    names = settings.topics
    inputs = {names.transactions, names.labels, names.raw_transactions, names.raw_labels}
    verdicts = {found.place: Verdict(found, _own_hindrance(found, inputs, value)) for found in letters}
    sources: dict[tuple[str, int], list[Found]] = defaultdict(list)
    for verdict in verdicts.values():
        if verdict.hindrance is None:
            sources[verdict.found.letter.topic, verdict.found.letter.partition].append(verdict.found)
    with Archive(settings, f"{settings.scorer_group}-letters") as archive:
        for (topic, partition), of_one in sources.items():
            compared = _compared(archive, topic, partition, of_one, without_source=without_source)
            verdicts |= {verdict.found.place: verdict for verdict in compared}
    return list(_each_source_once(verdicts.values()))


def _own_hindrance(found: Found, inputs: set[str], value: bytes | None) -> str | None:
    """Say why a letter cannot be sent, whatever its source says."""
    entry = found.entry
    is_large = max(len(entry.value or b""), len(entry.key or b"")) > MAX_EVENT_BYTES
    hindrances = {
        "it was sent again already": found.is_redriven,
        f"{found.letter.topic} is no input of the service": found.letter.topic not in inputs,
        "its original bytes were not kept: give them with --value-from": value is None and not is_whole(entry),
        "it has no value: give one with --value-from": value is None and entry.value is None,
        f"it has more than {MAX_EVENT_BYTES} bytes: give fewer with --value-from": value is None and is_large,
    }
    return next((text for text, is_so in hindrances.items() if is_so), None)


def _compared(
    archive: Archive, topic: str, partition: int, letters: list[Found], *, without_source: bool
) -> Iterator[Verdict]:
    """Compare letters with the records of one partition that they stand for."""
    try:
        records = _records(archive, topic, partition, {found.letter.offset for found in letters})
        span = archive.spans(topic).get(partition)  # only now: retention may have been at work meanwhile
    except (ArchiveError, PreflightError) as error:
        yield from (_unproved(found, f"cannot be read: {error}", is_sent=without_source) for found in letters)
        return
    for found in letters:
        source = records.get(found.letter.offset)
        if source is not None:
            yield Verdict(found) if is_of(found.entry, source) else _forged(found, "holds another message")
        elif span is not None and found.letter.offset < span.begin:
            yield _unproved(found, "is no longer there", is_sent=without_source)
        else:
            yield _forged(found, "holds no message")


def _forged(found: Found, why: str) -> Verdict:
    return Verdict(found, f"it is forged: {found.source} {why}", is_forged=True)


def _unproved(found: Found, why: str, *, is_sent: bool) -> Verdict:
    if is_sent:
        return Verdict(found)
    return Verdict(found, f"nothing proves it: {found.source} {why}. --without-source sends it all the same")


def _records(archive: Archive, topic: str, partition: int, offsets: set[int]) -> dict[int, Entry]:
    """Read the records at some offsets of a partition, those that are there."""
    span = archive.spans(topic).get(partition)
    there = [] if span is None else sorted(offset for offset in offsets if span.begin <= offset < span.end)
    return {
        entry.offset: entry
        for first, last in _runs(there)
        for entry in archive.read(topic, partition, first, last + 1)
        if entry.offset in offsets
    }


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Put offsets that lie near each other together: first and last of each run."""
    first = 0
    for place, offset in enumerate(offsets):
        if place + 1 == len(offsets) or offsets[place + 1] - offset > GAP:
            yield offsets[first], offset
            first = place + 1


def _each_source_once(verdicts: Collection[Verdict]) -> Iterator[Verdict]:
    """Leave a second letter for the same record: after a reset of a group, there may be two."""
    sent = {verdict.found.source for verdict in verdicts if verdict.found.is_redriven}
    for verdict in verdicts:
        source = verdict.found.source
        if verdict.hindrance is None and source in sent:
            yield Verdict(verdict.found, f"another letter of {source} is sent, or was")
            continue
        if verdict.hindrance is None:
            sent.add(source)
        yield verdict


def redrive(
    settings: Settings, wanted: Wanted, value: bytes | None = None, *, without_source: bool = False
) -> Iterator[Verdict]:
    """Send letters again; yields those that are left first, then each that is sent when its transaction is through.

    Parameters
    ----------
    value, without_source
        As of `judge`; a `value` is for a single letter.

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
        letters = look(settings, wanted).letters
        if value is not None and len(letters) != 1:
            raise ConfigurationError(f"--value-from is for one letter, {len(letters)} are meant: give its place")
        verdicts = judge(settings, letters, value, without_source=without_source)
        yield from (verdict for verdict in verdicts if verdict.hindrance is not None)
        chosen = [verdict for verdict in verdicts if verdict.hindrance is None]
        for first in range(0, len(chosen), AT_ONCE):
            part = chosen[first : first + AT_ONCE]
            _send(settings, producer, [verdict.found for verdict in part], value)
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


def require_one(looked: Looked, partition: int, offset: int) -> Found:
    """Return the only letter there is. Raises `ArchiveError` when there is none."""
    if not looked.letters:
        raise ArchiveError(f"no dead letter lies at partition {partition}, offset {offset}")
    return looked.letters[0]
