"""The partition of a message key: murmur2, as Java clients choose it by default."""

from __future__ import annotations

from typing import Final

PARTITIONER: Final = "murmur2"  # librdkafka's own default (crc32) would send a card's transactions and labels apart
PARTITION_BY_KEY: Final = -1  # librdkafka chooses the partition by the hash of the key


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Return the partition of a key (Appleby's MurmurHash2 with Kafka's seed).

    >>> murmur2_partition(b"card-1", 12)
    11
    """
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    whole = len(key) & ~3
    state = 0x9747B28C ^ len(key)
    for position in range(0, whole, 4):
        word = int.from_bytes(key[position : position + 4], "little") * multiplier & mask
        word = (word ^ (word >> 24)) * multiplier & mask
        state = (state * multiplier & mask) ^ word
    if len(key) > whole:
        state = (state ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    state = (state ^ (state >> 13)) * multiplier & mask
    return ((state ^ (state >> 15)) & 0x7FFFFFFF) % partitions
