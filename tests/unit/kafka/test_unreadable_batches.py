"""Reading behind a batch that the client cannot unpack, with a client that follows a script."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from fraud_service.config.settings import Settings
from fraud_service.kafka import clients, unreadable_batches
from fraud_service.kafka.topic_reader import OffsetRange, TopicReader
from fraud_service.kafka.unreadable_batches import SkippingConsumer

TOPIC = "payments"


class Message:
    def __init__(self, offset: int, error: int | None = None) -> None:
        self._offset, self._error = offset, error

    def error(self) -> KafkaError | None:
        return None if self._error is None else KafkaError(self._error)

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"%d" % self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 0

    def headers(self) -> None:
        return None


def damaged(offset: int) -> Message:
    return Message(offset, KafkaError._BAD_COMPRESSION)


class ScriptedClient(Consumer):
    """Returns the messages of a script, one list for each request."""

    script: list[list[Message]] = []  # noqa: RUF012 - each test has a class of its own

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
        return self.script.pop(0) if self.script else []

    def assign(self, places: list[TopicPartition]) -> None:
        self.offset = places[0].offset

    def seek(self, place: TopicPartition) -> None:
        self.offset = place.offset

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, 0, 0)]


@pytest.fixture
def read(monkeypatch):
    """Return a function that reads offsets 0 up to an end through a scripted client; returns offsets and values."""

    def run(script: list[list[Message]], ends: dict[int, int], end: int) -> list[tuple[int, bytes | None]]:
        class Client(SkippingConsumer, ScriptedClient):
            def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
                # As the real client: behind the last message that it returned.
                found = super().position(places)
                found[0].offset = max(found[0].offset, 0 if script else end)
                return found

        Client.script = script
        monkeypatch.setattr(unreadable_batches, "find_batch_end", lambda _, message: ends[message.offset()])
        options = {"bootstrap.servers": "127.0.0.1:1", "group.id": "test"}
        monkeypatch.setattr(clients, "reader", lambda _settings, _name: Client(options))
        reader = TopicReader(Settings(), "test")
        monkeypatch.setattr(reader, "offset_ranges", lambda _: {0: OffsetRange(0, end)})
        with reader:
            return [(one.offset, one.value) for one in reader.read(TOPIC, 0)]

    return run


def test_records_that_follow_an_unreadable_batch_in_the_same_poll_are_returned(read):
    found = read([[damaged(0)], [Message(5), Message(6)]], {0: 5}, 7)
    assert found == [(4, None), (5, b"5"), (6, b"6")]


def test_two_unreadable_batches_in_one_poll_are_one_record_each(read):
    assert read([[damaged(0)], [damaged(5)], [Message(9)], []], {0: 5, 5: 9}, 10) == [(4, None), (8, None), (9, b"9")]


def test_a_batch_that_was_fetched_several_times_is_one_record(read):
    assert read([[Message(0)], [damaged(1), damaged(1)], [Message(4)], []], {1: 4}, 5) == [
        (0, b"0"),
        (3, None),
        (4, b"4"),
    ]


def test_a_batch_that_became_readable_adds_no_record(read):
    assert read([[Message(0)], [damaged(1)], [Message(1)], []], {1: 1}, 2) == [(0, b"0"), (1, b"1")]


def test_an_unreadable_batch_behind_the_end_is_not_returned(read):
    assert read([[Message(0)], [damaged(1)]], {1: 4}, 1) == [(0, b"0")]
