"""The short ways through Quix lead where the long ones do: the same state, the same messages, the same errors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError
from quixstreams.internal_producer import InternalProducer
from quixstreams.kafka.exceptions import KafkaProducerDeliveryError
from support.loop import looped

from fraud_service.stream.shortcuts import KeyState, produce_directly


@pytest.fixture
def transaction(tmp_path):
    """Give what opens the state's transaction of a partition, and what commits it."""
    with looped(tmp_path) as loop:
        (stream_id,) = loop.scorer.app._state_manager.stores
        context = loop.scorer._context
        yield lambda: context.checkpoint.get_store_transaction(stream_id, 0), loop.scorer.commit


def test_a_value_is_read_as_quix_reads_it_before_and_after_it_is_committed(transaction):
    begin, commit = transaction
    assert not begin()._partition.uses_ttl_stamps  # or Quix would cut a stamp off what it reads

    def both(key: bytes) -> tuple[bytes | None, bytes | None]:
        return KeyState(begin(), key).get_bytes("profile"), begin().as_state(prefix=key).get_bytes("profile")

    assert both(b"c-1") == (None, None)
    KeyState(begin(), b"c-1").set_bytes("profile", b"one")
    begin().as_state(prefix=b"c-2").set_bytes("profile", b"two")
    assert (both(b"c-1"), both(b"c-2")) == ((b"one", b"one"), (b"two", b"two"))
    commit()
    assert (both(b"c-1"), both(b"c-2")) == ((b"one", b"one"), (b"two", b"two"))
    begin().as_state(prefix=b"c-1").delete("profile")
    assert (both(b"c-1"), both(b"")) == ((None, None), (None, None))
    commit()
    assert both(b"c-1") == (None, None)


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


def test_a_message_goes_to_the_client_at_once_with_what_is_said_of_it_and_no_more(producer, client):
    producer.produce(topic="scores", value=b"v", key=b"k", headers=None, timestamp=7)
    producer.produce(topic="changelog", value=None, key=b"k", headers={"a": "b"}, partition=0, on_delivery=None)
    (first, output), (second, change) = client.given
    assert (first, set(output), output["timestamp"]) == ("scores", {"value", "key", "timestamp", "on_delivery"}, 7)
    assert (second, change["value"], change["partition"], change["headers"]) == ("changelog", None, 0, {"a": "b"})
    assert client.polled == 0


def test_quix_is_told_where_changes_of_state_lie_and_of_outputs_nothing(producer, client):
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


def test_what_was_dropped_with_its_transaction_fails_nothing(producer, client):
    producer.produce(topic="any", value=b"v", key=b"k")
    client.serve(KafkaError(KafkaError._PURGE_QUEUE))
    producer.produce(topic="any", value=b"v", key=b"k")


def test_a_full_queue_is_waited_for_as_quix_does(producer, client):
    client.is_full = True
    producer.produce(topic="scores", value=b"v", key=b"k", timestamp=7)
    producer.produce(topic="changelog", value=b"v", key=b"k", partition=2)
    assert [(topic, message["value"]) for topic, message in client.given] == [("scores", b"v"), ("changelog", b"v")]
    assert client.polled == 1
