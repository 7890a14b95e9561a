"""Reading up to a known end, with a consumer that is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition

from fraud_service.domain.errors import TopicReadError
from fraud_service.kafka import waiting
from fraud_service.kafka.topic_reader import end_to_read, poll_available, read_to_end

ENDS = {("payments", 0): 10, ("payments", 1): 0}


class Consumer:
    """Returns nothing; its position on payments[0] follows a script, one step for each look."""

    def __init__(self, *positions: int) -> None:
        self._positions = list(positions)
        self.fetches = 0

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        offset = self._positions.pop(0) if len(self._positions) > 1 else self._positions[0]
        return [TopicPartition("payments", 0, offset), TopicPartition("payments", 1, OFFSET_INVALID)]

    def consume(self, count: int, timeout: float) -> list[object]:
        self.fetches += 1
        return []


def test_reading_ends_when_the_position_is_at_the_end_though_the_last_records_are_markers():
    consumer = Consumer(OFFSET_INVALID, 4, 10)
    assert list(read_to_end(consumer, ENDS, 1.0)) == [[], []]
    assert consumer.fetches == 2


def test_a_read_without_progress_fails_and_names_partition_and_offset(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(TopicReadError, match=r"sent nothing for 5 s: payments\[0\] at offset 4 of 10\."):
        list(read_to_end(Consumer(4), ENDS, 5.0, error=TopicReadError))


def test_progress_extends_the_time_for_a_read(monkeypatch):
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    assert len(list(read_to_end(Consumer(*range(11)), ENDS, 3.0))) == 10


def test_a_partition_whose_records_have_all_expired_counts_as_read():
    assert end_to_read(7, 7) == 0
    assert end_to_read(7, 9) == 9
    assert list(read_to_end(Consumer(OFFSET_INVALID), {("payments", 0): 0}, 1.0)) == []


def test_a_poll_waits_only_for_its_first_message():
    waiting, asked = ["a", "b", "c"], []

    def consume(count: int, timeout: float) -> list[str]:
        asked.append((count, timeout))
        taken = waiting[:count]
        del waiting[:count]
        return taken

    consumer = SimpleNamespace(consume=consume)
    assert poll_available(consumer, 10, 0.2) == ["a", "b", "c"]
    assert poll_available(consumer, 10, 0.2) == []
    assert asked == [(1, 0.2), (9, 0), (1, 0.2)]
