"""Dead letters sent again, none of them twice.

A message is sent to the topic it came from in one transaction with a mark beside its letter, under a transactional id
that all redrives share. A second redrive fences the first, whose open transaction is then void, and reads the marks
only after that; so however many run, a letter is sent once. `proof` says which may be sent at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from confluent_kafka import KafkaException, Producer

from fraud_service.admin.dead_letter_proof import RedriveOptions, check_letters
from fraud_service.domain.errors import ConfigurationError, FatalStreamError
from fraud_service.kafka import clients
from fraud_service.kafka.dead_letter_reader import find_dead_letters
from fraud_service.kafka.dead_letters import REDRIVEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.admin.dead_letter_proof import RedriveCheck
    from fraud_service.config.settings import Settings
    from fraud_service.kafka.dead_letter_reader import DeadLetter, DeadLetterFilter

AT_ONCE: Final = 500  # letters in one transaction


def redrive(
    settings: Settings,
    wanted: DeadLetterFilter,
    options: RedriveOptions = RedriveOptions(),  # noqa: B008 - frozen
) -> Iterator[RedriveCheck]:
    """Send letters again; yields those that are left first, then each that is sent when its transaction is through.

    Raises
    ------
    ConfigurationError
        When a value is given and not exactly one letter is wanted.
    FatalStreamError
        When another redrive took over, or the broker does not take it. What was yielded is sent; nothing else is.
    """
    transactional = {"transactional.id": f"{settings.scorer_group}-redrive", "transaction.timeout.ms": 60_000}
    producer = clients.producer(settings, transactional)
    try:
        producer.init_transactions(clients.REQUEST_TIMEOUT_S)  # from here on no earlier redrive can send anything
        letters = find_dead_letters(settings, wanted).letters
        if options.value is not None and len(letters) != 1:
            raise ConfigurationError(f"--value-from is for one letter, {len(letters)} are meant: give its place")
        verdicts = check_letters(settings, letters, options)
        yield from (verdict for verdict in verdicts if verdict.hindrance is not None)
        chosen = [verdict for verdict in verdicts if verdict.hindrance is None]
        for first in range(0, len(chosen), AT_ONCE):
            part = chosen[first : first + AT_ONCE]
            _send(settings, producer, [verdict.found for verdict in part], options.value)
            yield from part
    except KafkaException as error:
        raise FatalStreamError(
            f"dead letters could not be sent again: {error.args[0].str()}. If another redrive runs, let it end"
        ) from error


def _send(settings: Settings, producer: Producer, letters: Iterable[DeadLetter], value: bytes | None) -> None:
    producer.begin_transaction()
    for found in letters:
        entry = found.entry
        content = entry.value if value is None else value
        producer.produce(found.letter.topic, key=_card_of(content) or entry.key, value=content)
        mark = [(REDRIVEN, str(entry.offset).encode())]
        producer.produce(settings.topics.dead_letters, key=entry.key, partition=entry.partition, headers=mark)
    producer.commit_transaction(clients.REQUEST_TIMEOUT_S)


class _Carded(msgspec.Struct):
    card_id: str


_carded = msgspec.json.Decoder(_Carded)


def _card_of(value: bytes | None) -> bytes | None:
    """Return the key that an event should have: a missing or wrong one is repaired on the way."""
    try:
        return _carded.decode(value or b"").card_id.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
