"""Decide whether a dead letter can be redriven, by comparing it with its source message.

Dead letters can be forged, so their content alone proves nothing. A dead letter is sent only to an input of the
service, and only if the source message still exists with the same key and value. A dead letter of a transaction that
scorers accept today is unproved, because the transaction may have been scored. So a forged dead letter can at most
repeat a rejected message or a label.
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
from fraud_service.security.card_data import reject_card_data
from fraud_service.security.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.dead_letter_reader import DeadLetter
    from fraud_service.kafka.topic_reader import OffsetRange, Record

MAX_GAP: Final = 10_000  # records between two sources that are read and skipped; above it, the reader seeks

_ANY_TOKENIZER: Final = Tokenizer({"any": bytes(32)}, "any")


class RedriveCheck(NamedTuple):
    """The result for one dead letter: `hindrance` says why it is not sent. A forged one differs from its source."""

    found: DeadLetter
    hindrance: str | None = None
    is_forged: bool = False


class RedriveOptions(NamedTuple):
    """Send other bytes than a single dead letter holds (`value`); also send dead letters without proof (`unproved`)."""

    value: bytes | None = None
    unproved: bool = False


def check_letters(
    settings: Settings,
    letters: Sequence[DeadLetter],
    options: RedriveOptions = RedriveOptions(),  # noqa: B008 - frozen
) -> list[RedriveCheck]:
    """Read the source messages of dead letters, and decide for each whether it can be sent again."""
    names = settings.topics
    inputs = {names.transactions, names.labels, names.raw_transactions, names.raw_labels}
    checks = {found.place: RedriveCheck(found, _own_hindrance(found, inputs, options.value)) for found in letters}
    sources: dict[str, list[DeadLetter]] = defaultdict(list)
    for check in checks.values():
        if check.hindrance is None:
            sources[check.found.letter.topic].append(check.found)
    with TopicReader(settings, f"{settings.scorer_group}-letters") as archive:
        for topic, of_one in sources.items():
            is_in_order: dict[str, Callable[[Record], bool]] = {
                names.transactions: partial(_is_in_order, settings),
                names.raw_transactions: _is_tokenized,
            }
            is_suspicious = is_in_order.get(topic, _never) if options.value is None else _never
            for check in _compared(archive, topic, of_one, is_suspicious):
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


def _never(_: Record) -> bool:
    return False


def _compared(
    archive: TopicReader, topic: str, letters: Sequence[DeadLetter], is_suspicious: Callable[[Record], bool]
) -> Iterator[RedriveCheck]:
    """Compare dead letters with their source messages on one topic."""
    try:
        messages = _messages(archive, archive.spans(topic), topic, letters)
        spans = archive.spans(topic)  # again, because records may have expired meanwhile
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
            yield _unproved(found, "has expired")
        else:
            yield _forged(found, "holds no message")


def _forged(found: DeadLetter, why: str) -> RedriveCheck:
    return RedriveCheck(found, f"it is forged: {found.source} {why}", is_forged=True)


def _unproved(found: DeadLetter, why: str) -> RedriveCheck:
    return RedriveCheck(found, f"it is unproved: {found.source} {why}. --unproved sends it anyway")


def _is_in_order(settings: Settings, message: Record) -> bool:
    """Say whether scorers accept a transaction today, so that it may have been scored."""
    try:
        reject_card_data(message.value, message.key, numbers=settings.reject_pan)
        decode_message(_received(message), to_ms(settings.max_clock_skew))
    except InvalidEvent:
        return False
    return True


def _is_tokenized(message: Record) -> bool:
    """Say whether a tokenizer accepts a raw transaction, so that it may have been scored. Any key gives the answer."""
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
        for entry in archive.read(topic, partition, first, last + 1)
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
        if check.hindrance is None and source in sent:
            yield RedriveCheck(check.found, f"another dead letter of {source} is or was sent")
            continue
        if check.hindrance is None:
            sent.add(source)
        yield check
