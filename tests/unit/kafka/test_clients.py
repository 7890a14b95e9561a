from __future__ import annotations

from types import SimpleNamespace

import pytest

from fraud_service.config.settings import Settings
from fraud_service.kafka.clients import connection
from fraud_service.kafka.partition_reader import poll_available
from fraud_service.kafka.partitioner import murmur2_partition


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # Published test vectors of Kafka's murmur2 (org.apache.kafka.common.utils.UtilsTest).
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_partitioner_is_that_of_kafka(key, hashed):
    for partitions in (1, 4, 12, 100):
        assert murmur2_partition(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


def test_options_never_override_where_to_connect():
    settings = Settings(
        bootstrap_servers="right:9092", kafka_config={"bootstrap.servers": "wrong:9092", "client.id": "x"}
    )
    assert connection(settings) == {"bootstrap.servers": "right:9092", "client.id": "x"}


def test_what_has_arrived_is_taken_at_once_and_only_the_first_message_is_waited_for():
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
