"""The partition of a message key: murmur2, as Java clients choose it by default."""

from __future__ import annotations

from struct import unpack_from
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable

PARTITIONER: Final = "murmur2"  # librdkafka's own default (crc32) would send a card's transactions and labels apart
PARTITION_BY_KEY: Final = -1  # librdkafka chooses the partition by the hash of the key

_MASK: Final = 0xFFFFFFFF
_MULTIPLIER: Final = 0x5BD1E995


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Return the partition of a key (Appleby's MurmurHash2 with Kafka's seed).

    >>> murmur2_partition(b"card-1", 12)
    11
    """
    words = len(key) >> 2
    state = 0x9747B28C ^ len(key)
    for word in unpack_from(f"<{words}I", key):
        mixed = word * _MULTIPLIER & _MASK
        state = (state * _MULTIPLIER ^ (mixed ^ mixed >> 24) * _MULTIPLIER) & _MASK
    if len(key) & 3:
        state = (state ^ int.from_bytes(key[words << 2 :], "little")) * _MULTIPLIER & _MASK
    state = (state ^ state >> 13) * _MULTIPLIER & _MASK
    return ((state ^ state >> 15) & 0x7FFFFFFF) % partitions


def _fnv1a_partition(key: bytes, partitions: int) -> int:
    state = 0x811C9DC5
    for byte in key:
        state = (state ^ byte) * 0x01000193 & _MASK
    signed = state - (1 << 32) if state >> 31 else state
    return abs(signed) % partitions


# Other hashes that clients use, and the option that makes these clients use murmur2.
OTHER_HASHES: Final[tuple[tuple[Callable[[bytes, int], int], str], ...]] = (
    (
        lambda key, partitions: crc32(key) % partitions,
        "as clients based on librdkafka choose it by default (CRC-32): set partitioner=murmur2 on its producer",
    ),
    (
        _fnv1a_partition,
        "as Sarama and the Hash balancer of kafka-go choose it (FNV-1a): use a murmur2 partitioner (Murmur2Balancer)",
    ),
)
UNKNOWN_HASH: Final = (
    "so its producer chose it at random or by another rule, or the topic had another number of partitions: make its "
    "producer use murmur2 of the key (partitioner=murmur2 in librdkafka, Murmur2Balancer in kafka-go)"
)


def explain_misplaced(key: bytes, partition: int, partitions: int) -> str:
    """Say in which partition a message is, where it belongs, and what its producer must change.

    >>> explain_misplaced(b"card-1", 5, 12).split(",")[0]
    'the message is in partition 5'
    """
    found = (advice for hashed, advice in OTHER_HASHES if hashed(key, partitions) == partition)
    return (
        f"the message is in partition {partition}, but its card belongs to {murmur2_partition(key, partitions)} of "
        f"{partitions}, {next(found, UNKNOWN_HASH)}"
    )
