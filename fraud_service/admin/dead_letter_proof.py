"""Whether a dead letter may be sent again. A letter is compared with its source message, and never trusted.

It may go only to an input of the service, and only if the source message is still there with the same key and value.
A payment that scorers accept today may have been scored, so a letter of it is unproved. So a forged letter can at most
repeat a message that was refused, or a label.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import ArchiveError, InvalidEvent, PreflightError
from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.kafka.dead_letters import is_complete, matches_source
from fraud_service.kafka.messages import Received, require_content
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.scorer import decode_message
from fraud_service.security.card_data import refuse
from fraud_service.security.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.dead_letter_reader import DeadLetter
    from fraud_service.kafka.topic_reader import OffsetRange, Record

GAP: Final = 10_000  # records between two sources that are read and skipped; beyond that, the reader seeks

_ANY_TOKENIZER: Final = Tokenizer({"any": bytes(32)}, "any")


class RedriveCheck(NamedTuple):
    """Whether a letter is sent, or why not. A forged letter differs from its source message."""

    found: DeadLetter
    hindrance: str | None = None
    is_forged: bool = False


class RedriveOptions(NamedTuple):
    """How letters are to be sent: with repaired bytes instead of what a single one holds, and also without a proof."""

    value: bytes | None = None
    unproved: bool = False


def check_letters(
    settings: Settings,
    letters: Sequence[DeadLetter],
    options: RedriveOptions = RedriveOptions(),  # noqa: B008 - frozen  # noqa: B008 - frozen
) -> list[RedriveCheck]:
    """Decide for each letter whether it may be sent again; reads their source messages."""
    names = settings.topics
    inputs = {names.transactions, names.labels, names.raw_transactions, names.raw_labels}
    verdicts = {found.place: RedriveCheck(found, _own_hindrance(found, inputs, options.value)) for found in letters}
    sources: dict[str, list[DeadLetter]] = defaultdict(list)
    for verdict in verdicts.values():
        if verdict.hindrance is None:
            sources[verdict.found.letter.topic].append(verdict.found)
    with TopicReader(settings, f"{settings.scorer_group}-letters") as archive:
        for topic, of_one in sources.items():
            is_in_order: dict[str, Callable[[Record], bool]] = {
                names.transactions: partial(_is_in_order, settings),
                names.raw_transactions: _is_tokenized,
            }
            is_suspicious = is_in_order.get(topic, _never) if options.value is None else _never
            for verdict in _compared(archive, topic, of_one, is_suspicious):
                is_believed = options.unproved and not verdict.is_forged
                verdicts[verdict.found.place] = RedriveCheck(verdict.found) if is_believed else verdict
    return list(_each_source_once(verdicts.values()))


def _own_hindrance(found: DeadLetter, inputs: set[str], value: bytes | None) -> str | None:
    """Say why a letter cannot be sent, before its source message is read."""
    entry = found.entry
    is_large = max(len(entry.value or b""), len(entry.key or b"")) > MAX_EVENT_BYTES
    hindrances = {
        "it was already sent again": found.is_redriven,
        f"{found.letter.topic} is no input of the service": found.letter.topic not in inputs,
        "its original bytes were not kept: give them with --value-from": value is None and not is_complete(entry),
        "it has no value: give one with --value-from": value is None and entry.value is None,
        f"it has more than {MAX_EVENT_BYTES} bytes: give fewer with --value-from": value is None and is_large,
    }
    return next((text for text, is_so in hindrances.items() if is_so), None)


def _never(_: Record) -> bool:
    return False


def _compared(
    archive: TopicReader, topic: str, letters: Sequence[DeadLetter], is_suspicious: Callable[[Record], bool]
) -> Iterator[RedriveCheck]:
    """Compare letters with the messages of one topic that they name."""
    try:
        messages = _messages(archive, archive.spans(topic), topic, letters)
        spans = archive.spans(topic)  # once more: retention may have been at work meanwhile
    except (ArchiveError, PreflightError) as error:
        yield from (_unproved(found, f"cannot be read: {error}") for found in letters)
        return
    for found in letters:
        place = found.letter.partition, found.letter.offset
        message = messages.get(place)
        if message is not None and not matches_source(found.entry, message):
            yield _forged(found, "holds another message")
        elif message is not None and is_suspicious(message):
            yield _unproved(found, "is accepted today, and may have been scored")
        elif message is not None:
            yield RedriveCheck(found)
        elif place[0] in spans and place[1] < spans[place[0]].begin:
            yield _unproved(found, "is no longer there")
        else:
            yield _forged(found, "holds no message")


def _forged(found: DeadLetter, why: str) -> RedriveCheck:
    return RedriveCheck(found, f"it is forged: {found.source} {why}", is_forged=True)


def _unproved(found: DeadLetter, why: str) -> RedriveCheck:
    return RedriveCheck(found, f"it is unproved: {found.source} {why}. --unproved sends it anyway")


def _is_in_order(settings: Settings, message: Record) -> bool:
    """Say whether scorers accept a payment: then it may have been scored."""
    try:
        refuse(message.value, message.key, numbers=settings.reject_pan)
        decode_message(_received(message), to_ms(settings.max_clock_skew))
    except InvalidEvent:
        return False
    return True


def _is_tokenized(message: Record) -> bool:
    """Say whether a tokenizer accepts a raw payment: then it is a payment, which may have been scored.

    Which keys the tokenizer has makes no difference to that.
    """
    try:
        require_content(_received(message))
        _ANY_TOKENIZER.tokenize(message.value, message.key)
    except InvalidEvent:
        return False
    return True


def _received(message: Record) -> Received:
    return Received(message.topic, message.partition, message.offset, message.key, message.value, message.timestamp)


def _messages(
    archive: TopicReader, spans: dict[int, OffsetRange], topic: str, letters: Sequence[DeadLetter]
) -> dict[tuple[int, int], Record]:
    """Read the source messages that still exist, by partition and offset."""
    named: dict[int, set[int]] = defaultdict(set)
    for found in letters:
        span = spans.get(found.letter.partition)
        if span is not None and span.begin <= found.letter.offset < span.end:
            named[found.letter.partition].add(found.letter.offset)
    return {
        (partition, entry.offset): entry
        for partition, offsets in named.items()
        for first, last in _runs(sorted(offsets))
        for entry in archive.read(topic, partition, first, last + 1)
        if entry.offset in offsets
    }


def _runs(offsets: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Group offsets that are near each other; yields the first and last of each group."""
    first = 0
    for place, offset in enumerate(offsets):
        if place + 1 == len(offsets) or offsets[place + 1] - offset > GAP:
            yield offsets[first], offset
            first = place + 1


def _each_source_once(verdicts: Collection[RedriveCheck]) -> Iterator[RedriveCheck]:
    """Leave a second letter for the same record: after a reset of a group, there may be two."""
    sent = {verdict.found.source for verdict in verdicts if verdict.found.is_redriven}
    for verdict in verdicts:
        source = verdict.found.source
        if verdict.hindrance is None and source in sent:
            yield RedriveCheck(verdict.found, f"another letter of {source} is sent, or was")
            continue
        if verdict.hindrance is None:
            sent.add(source)
        yield verdict
