"""Redrive dead letters: send each of them to its source topic again, at most once.

One transaction writes the message to its source topic and a redrive mark beside its dead letter. All redrives share one
transactional id. So a second redrive fences the first one, whose open transaction is aborted, and then reads the marks.
However many redrives run, a dead letter is sent once. `dead_letter_proof` decides which dead letters can be sent.
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

MAX_TRANSACTION_LETTERS: Final = 500
TRANSACTION_TIMEOUT_MS: Final = 60_000


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
        letters = find_dead_letters(settings, wanted).letters
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
