"""A header that the client cannot read does not stop a reader."""

from __future__ import annotations

from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from support import librdkafka

from fraud_service.config.settings import Settings
from fraud_service.kafka import clients, messages, topic_reader
from fraud_service.kafka.topic_reader import TopicReader

pytestmark = pytest.mark.timeout(120)

COUNT = 100  # enough for Python to specialise the loop, after which it checks less


@pytest.fixture(scope="module")
def place(embedded_broker):
    """Return settings and a topic of many records whose header has a name that is no UTF-8."""
    topic = f"headers-{uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": embedded_broker.bootstrap})
    for done in admin.create_topics([NewTopic(topic, 1, 1)]).values():
        done.result()
    with librdkafka.Sender(embedded_broker.bootstrap) as sender:
        for number in range(COUNT):
            sender.send(topic, b"key", b"%d" % number, b"fraud-\xff")
    return Settings(bootstrap_servers=embedded_broker.bootstrap), topic


def test_unreadable_headers_are_left_out_in_a_specialised_loop_too(place):
    settings, topic = place
    reader = clients.reader(settings, "test")
    reader.assign([TopicPartition(topic, 0, 0)])
    read = []
    while len(read) < COUNT:
        for message in topic_reader.poll_available(reader, COUNT, 1.0):
            assert messages.read_headers(message) == []
            read.append(int(message.value()))
    assert read == [*range(COUNT)]
    reader.close()


def test_a_topic_reader_returns_records_with_unreadable_headers(place):
    settings, topic = place
    with TopicReader(settings, "test") as archive:
        entries = [*archive.read(topic, 0)]
    assert [entry.headers for entry in entries] == [[]] * COUNT
