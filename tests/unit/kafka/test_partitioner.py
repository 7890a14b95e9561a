"""The partition of a key equals that of Java clients."""

from __future__ import annotations

import pytest

from fraud_service.kafka.dead_letters import MAX_DETAIL_CHARS
from fraud_service.kafka.partitioner import explain_misplaced, murmur2_partition


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
def test_a_key_has_the_partition_that_java_clients_choose(key, hashed):
    for partitions in (1, 4, 12, 100):
        assert murmur2_partition(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize(
    ("partition", "remedy"),
    [
        (8, "set partitioner=murmur2 on its producer"),
        (5, "use a murmur2 partitioner (Murmur2Balancer)"),
        (0, "or the topic had another number of partitions"),
    ],
    ids=["librdkafka", "sarama", "none"],
)
def test_a_misplaced_key_names_the_client_that_chooses_this_partition_and_its_remedy(partition, remedy):
    text = explain_misplaced(b"card-1", partition, 12)
    assert text.startswith(f"the message is in partition {partition}, but its card belongs to 11 of 12, ")
    assert remedy in text
    assert len(text) < MAX_DETAIL_CHARS
