"""Messages that go to the client directly are the same, and fail with the same errors, as through Quix."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError
from quixstreams.internal_producer import InternalProducer
from quixstreams.kafka.exceptions import KafkaProducerDeliveryError

from fraud_service.runtime.quix_internals import produce_directly


class Client:
    """Stands for the client's producer: keeps what it is given until it is served."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict]] = []
        self.polled = 0
        self.is_full = False

    def produce(self, topic, value=None, key=None, **options):
        if self.is_full:
            self.is_full = False
            raise BufferError("full")
        self.given.append((topic, {"value": value, "key": key, **options}))

    def poll(self, timeout=0):
        self.polled += 1

    def serve(self, error=None):
        for offset, (topic, message) in enumerate(self.given):
            place = SimpleNamespace(
                topic=lambda topic=topic: topic,
                partition=lambda message=message: message.get("partition", 5),
                offset=lambda offset=offset: offset,
            )
            message["on_delivery"](error, place)


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def producer(client):
    made = InternalProducer("none:1")
    made._producer._inner_producer = client
    produce_directly(made)
    return made


def test_a_message_goes_directly_to_the_client_with_only_its_given_fields(producer, client):
    producer.produce(topic="scores", value=b"v", key=b"k", headers=None, timestamp=7)
    producer.produce(topic="changelog", value=None, key=b"k", headers={"a": "b"}, partition=0, on_delivery=None)
    (first, output), (second, change) = client.given
    assert (first, set(output), output["timestamp"]) == ("scores", {"value", "key", "timestamp", "on_delivery"}, 7)
    assert (second, change["value"], change["partition"], change["headers"]) == ("changelog", None, 0, {"a": "b"})
    assert client.polled == 0


def test_quix_gets_the_delivery_reports_of_changelog_records_and_not_those_of_outputs(producer, client):
    producer.produce(topic="scores", value=b"v", key=b"k")
    producer.produce(topic="changelog", value=b"v", key=b"k", partition=3)
    client.serve()
    assert producer.offsets == {("changelog", 3): 1}


@pytest.mark.parametrize("place", [{}, {"partition": 0}])
def test_a_message_that_was_not_delivered_fails_the_next_one(producer, client, place):
    producer.produce(topic="any", value=b"v", key=b"k", **place)
    client.serve(KafkaError(KafkaError._MSG_TIMED_OUT))
    with pytest.raises(KafkaProducerDeliveryError):
        producer.produce(topic="any", value=b"v", key=b"k", **place)


def test_a_message_dropped_with_its_transaction_causes_no_error(producer, client):
    producer.produce(topic="any", value=b"v", key=b"k")
    client.serve(KafkaError(KafkaError._PURGE_QUEUE))
    producer.produce(topic="any", value=b"v", key=b"k")


def test_with_a_full_queue_quix_waits_for_room(producer, client):
    client.is_full = True
    producer.produce(topic="scores", value=b"v", key=b"k", timestamp=7)
    producer.produce(topic="changelog", value=b"v", key=b"k", partition=2)
    assert [(topic, message["value"]) for topic, message in client.given] == [("scores", b"v"), ("changelog", b"v")]
    assert client.polled == 1
