"""Attack a running trial with hostile transactions, labels, and records on internal topics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
from support import forged
from support.librdkafka import Sender
from support.malformed import BROKER_TIME
from support.processes import read_all
from support.worlds import label, transaction

from fraud_service.admin import redrive
from fraud_service.domain.events import encode
from fraud_service.kafka import clients, model_topic, sender
from fraud_service.kafka.dead_letters import DeadLetterFilter, find_dead_letters

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from faults.trial import Trial

    from fraud_service.domain.events import Label, Transaction

EACH = 50
CARDS = 3
HEADER = b"fraud-\xff"  # not UTF-8, so the Python client cannot read it
KEY = b"hostile-header"


def send_events(trial: Trial, rng: random.Random) -> None:
    """Reuse ids for other payments, and send labels of unknown payments with any timestamp."""
    names, now = trial.settings.topics, trial.load.now
    payments, labels = list(_payments(now, rng)), list(_labels(now))
    sent = [sender.OutgoingRecord(names.transactions, one.card_id.encode(), encode(one), []) for one in payments]
    sent += [sender.OutgoingRecord(names.labels, one.card_id.encode(), encode(one), []) for one in labels]
    sender.produce_all(trial.settings, sent)
    rejected = sum(one.labelled_at != now for one in labels)
    trial.load.expect(len(payments) + rejected)


def _payments(now: int, rng: random.Random) -> Iterator[Transaction]:
    """Yield payments with the same id: the first, another one, and the first again."""
    for _ in range(EACH):
        number = rng.randrange(1 << 60)
        first = transaction(f"hostile-{number}", now, card_id=f"hostile-{number % CARDS}")
        yield first
        yield msgspec.structs.replace(first, amount=9999.0, merchant_id="merchant-2")
        yield first


def _labels(now: int) -> Iterator[Label]:
    for number in range(EACH):
        for at in (0, now, BROKER_TIME):
            yield label(f"unknown-{number}", at, card_id=f"hostile-{number % CARDS}")


def send_unbelieved(trial: Trial) -> None:
    """Write records that every process must reject to internal topics, and records with unreadable headers."""
    names = trial.settings.topics
    producer = clients.producer(trial.settings, {"message.max.bytes": model_topic.MAX_MODEL_BYTES})
    for topic, (key, value, headers) in forged.unbelieved(trial.settings):
        producer.produce(topic, key=key, value=value, headers=headers, on_delivery=trial.forge)
    assert producer.flush(30) == 0
    inner = (names.models, names.snapshots, names.risk, names.dead_letters)
    with Sender(trial.settings.bootstrap_servers) as sender:
        for topic in inner:
            sender.send(topic, KEY, b"junk", HEADER)
        for topic in (names.transactions, names.labels):  # their dead letters have the same key
            sender.send(topic, b"hostile-0", b"junk", HEADER)
    trial.load.expect(3)  # one foreign dead letter, and two dead letters of these messages
    for topic in inner:
        trial.forged |= {
            (topic, one.partition(), one.offset()) for one in read_all(trial.settings, topic) if one.key() == KEY
        }


def forge_letters(trial: Trial, since: int) -> None:
    """Forge dead letters and marks, then redrive. The redrive must send every genuine letter and no forged one."""
    names = trial.settings.topics
    real = find_dead_letters(trial.settings, DeadLetterFilter(since=since))
    places = {one.entry.partition: (one.entry.offset, one.entry.key or b"") for one in real}
    producer = clients.producer(trial.settings)
    written = list(forged.letters(trial.settings, places))
    for partition, (key, value, headers) in written:
        producer.produce(
            names.dead_letters, partition=partition, key=key, value=value, headers=headers, on_delivery=trial.forge
        )
    assert producer.flush(30) == 0
    verdicts = list(redrive.redrive(trial.settings, DeadLetterFilter(since=since)))
    sent = [one.found for one in verdicts if one.hindrance is None]
    assert {(names.dead_letters, *one.place) for one in sent}.isdisjoint(trial.forged)
    assert {one.letter.topic for one in sent} == {names.transactions, names.labels}
    trial.load.expect(len(written) + 2 * len(sent))  # for each: a mark, and a new dead letter
    trial.remarks.append(f"{len(sent)} letters sent again, {len(verdicts) - len(sent)} left")


def now_ms() -> int:
    return int(time.time() * 1000)
