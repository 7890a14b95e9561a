"""Freeze the card of every payment that should be declined: once a card, and said on a topic of its own.

    python freeze_cards.py --bootstrap localhost:9092

It knows the alerts topic from its contract (docs/asyncapi.json) and imports nothing of the fraud service; all it needs
is confluent-kafka. What was read and what follows from it are one Kafka transaction, so a restart freezes no card twice
and forgets none. What is frozen it reads from its own topic when it starts: that topic is all the state it has. One
process does it; a second one with the same transactional id fences the first. A record that is no alert is skipped and
counted; stderr says where it lies.
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
NAMESPACE = uuid.UUID("0f3a7d5e-33c4-5a53-9c60-0c1b5f1de001")  # an event has the same id whenever it is made
SOURCE = "/examples/card-freezer"
TYPE = "card-frozen.v1"
TIMEOUT = 30.0  # seconds
LARGEST = 262_144  # bytes of an alert; the service writes a tenth
MOST = 1e15  # of any number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="localhost:9092")
    parser.add_argument("--alerts", default="fraud.alerts.v1", help="topic that is read")
    parser.add_argument("--frozen", default="cards.frozen.v1", help="topic that is written; made if it is missing")
    options = parser.parse_args()
    freezer = Freezer(options.bootstrap, options.alerts, options.frozen)
    signal.signal(signal.SIGTERM, lambda *_: freezer.stop())
    freezer.run()


class AlertError(Exception):
    """A record that is no alert, and why; its content is never quoted."""


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
    """Return a text that may be stored and sent on. It may have control characters: escape it where it is shown."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or any("\ud800" <= one <= "\udfff" for one in value):
        raise AlertError(f"its {name} is no text of at most {longest} characters")
    return value


def number(value: object, name: str) -> float:
    """Return a number that is finite."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MOST < value < MOST:
        raise AlertError(f"its {name} is no number")
    return float(value)


def reasons(alert: dict[str, Any]) -> list[str]:
    """Return the texts of the reasons."""
    found = alert.get("reasons")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise AlertError("its reasons are no list of objects")
    return [text(one.get("text"), "reason") for one in found]


# For a name that is no UTF-8, the client returns with an exception set, and a plain call in a warm loop overlooks it.
headers = methodcaller("headers")


def header(message: Message, name: str) -> str:
    """Return a header as text."""
    try:
        found = dict(headers(message) or []).get(name)
        return text((found or b"").decode(), name)
    except (SystemError, UnicodeDecodeError):
        raise AlertError(f"its {name} is no text") from None


class Skipped:
    """Counts records that are no alerts. Prints the 1st, 2nd, 4th, 8th …, so that a flood does not fill the log."""

    count = 0

    def add(self, message: Message, why: AlertError) -> None:
        self.count += 1
        if self.count & (self.count - 1) == 0:
            place = f"partition {message.partition()} offset {message.offset()}"
            print(f"skipped {self.count} so far; the last, at {place}: {why}", file=sys.stderr, flush=True)


class Freezer:
    def __init__(self, bootstrap: str, alerts: str, frozen: str) -> None:
        self._frozen_topic = frozen
        self._skipped = Skipped()
        self._connection = {"bootstrap.servers": bootstrap}
        self._create_topic()
        options = {"auto.offset.reset": "earliest", "enable.auto.commit": False, "isolation.level": "read_committed"}
        self._consumer = Consumer({**self._connection, **options, "group.id": NAME})
        # Java's partitioner: whoever joins cards with this topic finds them where every other topic has them.
        self._producer = Producer({**self._connection, "transactional.id": NAME, "partitioner": "murmur2"})
        self._producer.init_transactions(TIMEOUT)  # from here on an older process of this name is fenced
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
        """Freeze the card of an alert, if it is to be. Raises `AlertError` before anything has happened."""
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
        """Read the own topic to its end. A tombstone has thawed a card."""
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
