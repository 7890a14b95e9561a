"""Freeze the card of every payment that should be declined, with one event per card on a separate topic.

    python freeze_cards.py --bootstrap localhost:9092

The example uses the contract of the alerts topic (docs/asyncapi.json) and imports nothing of the fraud service. It
needs only confluent-kafka.

One Kafka transaction covers the consumed offsets and the events produced from them. So a restart freezes no card twice
and misses none. The topic of frozen cards is the only state, and the process reads it at its start. Run one process: a
second one with the same transactional id fences the first. The process skips and counts invalid alerts, and reports
their offsets on stderr.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import uuid
from operator import methodcaller
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

NAME = "card-freezer"
NAMESPACE = uuid.UUID("0f3a7d5e-33c4-5a53-9c60-0c1b5f1de001")  # makes the id of an event depend only on its alert
SOURCE = "/examples/card-freezer"
TYPE = "card-frozen.v1"
TIMEOUT = 30.0  # seconds
LARGEST = 262_144  # bytes of an alert; ten times what the service writes
MOST = 1e15  # absolute value of any number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="localhost:9092")
    parser.add_argument("--alerts", default="fraud.alerts.v1", help="topic to read")
    parser.add_argument("--frozen", default="cards.frozen.v1", help="topic to write; created if it is missing")
    options = parser.parse_args()
    freezer = Freezer(options.bootstrap, options.alerts, options.frozen)
    signal.signal(signal.SIGTERM, lambda *_: freezer.stop())
    freezer.run()


class AlertError(Exception):
    """Why a record is not a valid alert. The message never quotes the content."""


def loaded(message: Message) -> dict[str, Any]:
    """Read the value of an alert as JSON."""
    value = message.value()
    if value is None or len(value) > LARGEST:
        raise AlertError("it has no value" if value is None else f"it has {len(value)} bytes")
    try:
        alert = json.loads(value)
    except (ValueError, RecursionError):
        raise AlertError("it is not JSON") from None
    if not isinstance(alert, dict) or not isinstance(alert.get("transaction"), dict):
        raise AlertError("it has no transaction")
    return alert


def text(value: object, name: str, longest: int = 1024) -> str:
    """Check a text before it is stored or sent. It may have control characters: escape it for display."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or any("\ud800" <= one <= "\udfff" for one in value):
        raise AlertError(f"its {name} is not a text of at most {longest} characters")
    return value


def number(value: object, name: str) -> float:
    """Check that a value is a finite number, and return it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MOST < value < MOST:
        raise AlertError(f"its {name} is not a number")
    return float(value)


def reasons(alert: dict[str, Any]) -> list[str]:
    """Return the texts of the reasons."""
    found = alert.get("reasons")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise AlertError("its reasons are not a list of objects")
    return [text(one.get("text"), "reason") for one in found]


# If a name is not UTF-8, the client returns with an exception set, and a plain call in a warm loop overlooks it.
headers = methodcaller("headers")


def header(message: Message, name: str) -> str:
    """Return a header as text."""
    try:
        found = dict(headers(message) or []).get(name)
        return text((found or b"").decode(), name)
    except (SystemError, UnicodeDecodeError):
        raise AlertError(f"its {name} is not a text") from None


class Skipped:
    """Counts invalid alerts, and reports only the 1st, 2nd, 4th, 8th …, so that a flood does not fill the log."""

    count = 0

    def add(self, message: Message, why: AlertError) -> None:
        self.count += 1
        if self.count & (self.count - 1) == 0:
            place = f"partition {message.partition()} offset {message.offset()}"
            print(f"skipped {self.count} so far; the last is {place}: {why}", file=sys.stderr, flush=True)


class Freezer:
    def __init__(self, bootstrap: str, alerts: str, frozen: str) -> None:
        self._frozen_topic = frozen
        self._skipped = Skipped()
        self._connection = {"bootstrap.servers": bootstrap}
        self._create_topic()
        options = {"auto.offset.reset": "earliest", "enable.auto.commit": False, "isolation.level": "read_committed"}
        self._consumer = Consumer({**self._connection, **options, "group.id": NAME})
        # The default partitioner of Java clients puts a card into the same partition as on all other topics.
        self._producer = Producer({**self._connection, "transactional.id": NAME, "partitioner": "murmur2"})
        self._producer.init_transactions(TIMEOUT)  # fences an older process with this name
        self._frozen = self._read_frozen()
        self._consumer.subscribe([alerts])
        self._is_running = True

    def stop(self) -> None:
        self._is_running = False

    def run(self) -> None:
        while self._is_running:
            messages = [message for message in self._consumer.consume(500, timeout=0.5) if message.error() is None]
            if messages:
                self._handle(messages)
        self._consumer.close()

    def _handle(self, messages: list[Message]) -> None:
        self._producer.begin_transaction()
        for message in messages:
            try:
                self._take(message)
            except AlertError as error:
                self._skipped.add(message, error)
        offsets = self._consumer.position(self._consumer.assignment())
        self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata(), TIMEOUT)
        self._producer.commit_transaction(TIMEOUT)

    def _take(self, message: Message) -> None:
        """Freeze the card of a declined payment unless it is frozen. Raises `AlertError` before any change."""
        alert = loaded(message)
        card = text(alert["transaction"].get("card_id"), "card_id", 128)
        if alert.get("outcome") != "decline" or card in self._frozen:
            return
        event = {
            "card_id": card,
            "alert_id": header(message, "ce_id"),
            "transaction_id": text(alert["transaction"].get("transaction_id"), "transaction_id", 128),
            "score": number(alert.get("score"), "score"),
            "reasons": reasons(alert),
        }
        self._freeze(card, event, header(message, "ce_time"))
        self._frozen.add(card)

    def _freeze(self, card: str, event: dict[str, Any], time: str) -> None:
        cloud_event = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid5(NAMESPACE, event["alert_id"])),
            "ce_source": SOURCE,
            "ce_type": TYPE,
            "ce_time": time,
            "ce_subject": card,
            "content-type": "application/json",
        }
        self._producer.produce(self._frozen_topic, key=card, value=json.dumps(event), headers=list(cloud_event.items()))

    def _create_topic(self) -> None:
        admin = AdminClient(self._connection)
        topic = NewTopic(self._frozen_topic, num_partitions=4, config={"cleanup.policy": "compact"})
        try:
            admin.create_topics([topic])[topic.topic].result(TIMEOUT)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise

    def _read_frozen(self) -> set[str]:
        """Read the frozen cards from their topic. A tombstone removes a card."""
        frozen: set[str] = set()
        reader = Consumer({**self._connection, "group.id": f"{NAME}-state", "isolation.level": "read_committed"})
        numbers = reader.list_topics(self._frozen_topic, TIMEOUT).topics[self._frozen_topic].partitions
        places = [TopicPartition(self._frozen_topic, number, OFFSET_BEGINNING) for number in numbers]
        ends = {place.partition: reader.get_watermark_offsets(place, TIMEOUT)[1] for place in places}
        reader.assign(places)
        while any(max(place.offset, 0) < ends[place.partition] for place in reader.position(places)):
            for message in reader.consume(1000, timeout=0.5):
                if message.error() is None and message.key() is not None:
                    card = message.key().decode(errors="replace")
                    (frozen.discard if message.value() is None else frozen.add)(card)
        reader.close()
        return frozen


if __name__ == "__main__":
    main()
