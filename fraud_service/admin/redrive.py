"""Redrive dead letters: send each to its source topic again, at most once.

Dead letters can be forged, so each is compared with its source message. A dead letter of a transaction that scorers
accept today is unproved, because the transaction may have been scored. So a forged one can at most repeat a rejected
message or a label. One transaction writes the message and a redrive mark, and all redrives share one transactional id.
So a second redrive fences the first one, then reads its marks, and a dead letter is sent once.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from confluent_kafka import KafkaException, Producer

from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import (
    ConfigurationError,
    FatalStreamError,
    InvalidEvent,
    PreflightError,
    TopicReadError,
)
from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.kafka import clients
from fraud_service.kafka.dead_letters import REDRIVEN, find_dead_letters, is_complete, matches_source
from fraud_service.kafka.messages import Received, require_content
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.scorer import check_partition, decode_message
from fraud_service.security.card_data import reject_card_data
from fraud_service.security.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.dead_letters import DeadLetter, DeadLetterFilter
    from fraud_service.kafka.topic_reader import OffsetRange, Record

MAX_TRANSACTION_LETTERS: Final = 500
TRANSACTION_TIMEOUT_MS: Final = 60_000
MAX_GAP: Final = 10_000  # records between two sources that are read and skipped; above it, the reader seeks

_ANY_TOKENIZER: Final = Tokenizer({"any": bytes(32)}, "any")  # every key accepts the same messages


class RedriveCheck(NamedTuple):
    """The result for one dead letter: `hindrance` says why it is not sent. A forged one differs from its source."""

    found: DeadLetter
    hindrance: str | None = None
    is_forged: bool = False


class RedriveOptions(NamedTuple):
    """Send other bytes than a single dead letter holds (`value`); also send dead letters without proof (`unproved`)."""

    value: bytes | None = None
    unproved: bool = False


def redrive(
    settings: Settings,
    wanted: DeadLetterFilter,
    options: RedriveOptions = RedriveOptions(),  # noqa: B008 - frozen
) -> Iterator[RedriveCheck]:
    """Redrive dead letters. First yields those that cannot be sent, then the others as their transactions commit.

    Raises
    ------
    ConfigurationError
        When a value is given and the filter does not select exactly one dead letter.
    FatalStreamError
        When another redrive took over, or the broker rejects a record. Only the dead letters yielded so far are sent.
    """
    transactional = {
        "transactional.id": f"{settings.scorer_group}-redrive",
        "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
    }
    producer = clients.producer(settings, transactional)
    try:
        producer.init_transactions(clients.REQUEST_TIMEOUT_S)  # fences earlier redrives
        letters = find_dead_letters(settings, wanted)
        if options.value is not None and len(letters) != 1:
            raise ConfigurationError(
                f"--value-from is for one dead letter, but {len(letters)} are selected: give PARTITION and OFFSET"
            )
        checks = check_letters(settings, letters, options)
        yield from (check for check in checks if check.hindrance is not None)
        chosen = [check for check in checks if check.hindrance is None]
        for first in range(0, len(chosen), MAX_TRANSACTION_LETTERS):
            part = chosen[first : first + MAX_TRANSACTION_LETTERS]
            _send(settings, producer, [check.found for check in part], options.value)
            yield from part
    except KafkaException as error:
        raise FatalStreamError(
            f"dead letters could not be sent again: {error.args[0].str()}. If another redrive runs, wait for its end"
        ) from error


def _send(settings: Settings, producer: Producer, letters: Iterable[DeadLetter], value: bytes | None) -> None:
    producer.begin_transaction()
    for found in letters:
        entry = found.entry
        content = entry.value if value is None else value
        producer.produce(found.letter.topic, key=_key_of(content) or entry.key, value=content)
        mark = [(REDRIVEN, str(entry.offset).encode())]
        producer.produce(settings.topics.dead_letters, key=entry.key, partition=entry.partition, headers=mark)
    producer.commit_transaction(clients.REQUEST_TIMEOUT_S)


class _CardEvent(msgspec.Struct):
    card_id: str


_decoder = msgspec.json.Decoder(_CardEvent)


def _key_of(value: bytes | None) -> bytes | None:
    """Return the correct key of an event, so that a redrive repairs a missing or wrong one."""
    try:
        return _decoder.decode(value or b"").card_id.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def check_letters(
    settings: Settings,
    letters: Sequence[DeadLetter],
    options: RedriveOptions = RedriveOptions(),  # noqa: B008 - frozen
) -> list[RedriveCheck]:
    """Read the source messages of dead letters, and decide for each whether it can be sent again."""
    names = settings.topics
    inputs = {names.transactions, names.labels, names.raw_transactions, names.raw_labels}
    checks = {found.place: RedriveCheck(found, _own_hindrance(found, inputs, options.value)) for found in letters}
    by_topic: dict[str, list[DeadLetter]] = defaultdict(list)
    for check in checks.values():
        if check.hindrance is None:
            by_topic[check.found.letter.topic].append(check.found)
    with TopicReader(settings, f"{settings.scorer_group}-letters") as reader:
        for topic, of_topic in by_topic.items():
            for check in _compare_with_sources(settings, reader, topic, of_topic, options.value):
                is_accepted = options.unproved and not check.is_forged
                checks[check.found.place] = RedriveCheck(check.found) if is_accepted else check
    return list(_each_source_once(checks.values()))


def _own_hindrance(found: DeadLetter, inputs: set[str], value: bytes | None) -> str | None:
    """Return why a dead letter cannot be sent, as far as it shows without the source message."""
    entry = found.entry
    is_large = max(len(entry.value or b""), len(entry.key or b"")) > MAX_EVENT_BYTES
    hindrances = {
        "it was already sent again": found.is_redriven,
        f"{found.letter.topic} is not an input of the service": found.letter.topic not in inputs,
        "its original bytes were not kept: give them with --value-from": value is None and not is_complete(entry),
        "it has no value: give one with --value-from": value is None and entry.value is None,
        f"it has more than {MAX_EVENT_BYTES} bytes: give a smaller value with --value-from": value is None and is_large,
    }
    return next((text for text, is_so in hindrances.items() if is_so), None)


def _compare_with_sources(
    settings: Settings, reader: TopicReader, topic: str, letters: Sequence[DeadLetter], value: bytes | None
) -> Iterator[RedriveCheck]:
    """Compare dead letters with their source messages on one topic."""
    try:
        messages = _messages(reader, reader.offset_ranges(topic), topic, letters)
        spans = reader.offset_ranges(topic)  # again, because records may have expired meanwhile
    except (TopicReadError, PreflightError) as error:
        yield from (_unproved(found, f"cannot be read: {error}") for found in letters)
        return
    for found in letters:
        partition, offset = found.letter.partition, found.letter.offset
        message = messages.get((partition, offset))
        if message is not None and not matches_source(found.entry, message):
            yield _forged(found, "holds another message")
        elif message is not None and value is None and _is_accepted_today(settings, message, len(spans)):
            yield _unproved(found, "is accepted today, and may have been scored")
        elif message is not None:
            yield RedriveCheck(found)
        elif partition in spans and offset < spans[partition].begin:
            yield _unproved(found, "has expired")
        else:
            yield _forged(found, "holds no message")


def _forged(found: DeadLetter, why: str) -> RedriveCheck:
    return RedriveCheck(found, f"it is forged: {found.source} {why}", is_forged=True)


def _unproved(found: DeadLetter, why: str) -> RedriveCheck:
    return RedriveCheck(found, f"it is unproved: {found.source} {why}. --unproved sends it anyway")


def _is_accepted_today(settings: Settings, message: Record, partitions: int) -> bool:
    """Return whether scorers accept a transaction, or a tokenizer a raw one. Labels may be sent twice."""
    received = Received(message.topic, message.partition, message.offset, message.key, message.value, message.timestamp)
    try:
        if message.topic == settings.topics.transactions:
            reject_card_data(message.value, message.key, numbers=settings.reject_pan)
            tolerance_ms = to_ms(settings.max_clock_skew)
            decode_message(received, tolerance_ms, rejects_modes=settings.reject_unknown_entry_modes)
            if settings.reject_wrong_partition:
                check_partition(received, partitions)
            return True
        if message.topic == settings.topics.raw_transactions:
            require_content(received)
            _ANY_TOKENIZER.tokenize(message.value, message.key)
            return True
    except InvalidEvent:
        pass
    return False


def _messages(
    reader: TopicReader, spans: dict[int, OffsetRange], topic: str, letters: Sequence[DeadLetter]
) -> dict[tuple[int, int], Record]:
    """Return the source messages that still exist, by partition and offset."""
    named: dict[int, set[int]] = defaultdict(set)
    for found in letters:
        span = spans.get(found.letter.partition)
        if span is not None and span.begin <= found.letter.offset < span.end:
            named[found.letter.partition].add(found.letter.offset)
    return {
        (partition, entry.offset): entry
        for partition, offsets in named.items()
        for first, last in _runs(sorted(offsets))
        for entry in reader.read(topic, partition, first, last + 1)
        if entry.offset in offsets
    }


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Group offsets that are near each other, and yield the first and last of each group."""
    first = 0
    for place, offset in enumerate(offsets):
        if place + 1 == len(offsets) or offsets[place + 1] - offset > MAX_GAP:
            yield offsets[first], offset
            first = place + 1


def _each_source_once(checks: Collection[RedriveCheck]) -> Iterator[RedriveCheck]:
    """Skip a second dead letter for the same message, which can exist after a reset of the group."""
    sent = {check.found.source for check in checks if check.found.is_redriven}
    for check in checks:
        source = check.found.source
        if check.hindrance is not None:
            yield check
        elif source in sent:
            yield RedriveCheck(check.found, f"another dead letter of {source} is or was sent")
        else:
            sent.add(source)
            yield check
