"""Plain Kafka clients, configured in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from fraud_service.errors import ConfigurationError

if TYPE_CHECKING:
    from fraud_service.settings import Settings

PARTITIONER: Final = "murmur2"  # Java's default; librdkafka's own (crc32) would tear cards and labels apart
TIMEOUT: Final = 30.0  # seconds for a request to the cluster


def connection(settings: Settings) -> dict[str, Any]:
    """Return what every client needs to reach the cluster."""
    return {**settings.kafka, "bootstrap.servers": settings.bootstrap_servers}


def admin(settings: Settings) -> AdminClient:
    """Make an admin client."""
    return _made(AdminClient, connection(settings))


def reader(settings: Settings, name: str) -> Consumer:
    """Make a consumer that reads committed records, is assigned by hand and commits nothing."""
    return _made(
        Consumer,
        {
            **connection(settings),
            "group.id": name,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
        },
    )


def producer(settings: Settings) -> Producer:
    """Make an idempotent producer that partitions like everyone else here."""
    return _made(
        Producer,
        {
            **connection(settings),
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "linger.ms": 5,
        },
    )


def _made(kind: Any, options: dict[str, Any]) -> Any:
    try:
        return kind(options)
    except KafkaException as error:
        raise ConfigurationError(f"FRAUD_KAFKA has an option that cannot work: {error.args[0].str()}") from None


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Return the partition that the murmur2 partitioner gives a key (Appleby's MurmurHash2, Kafka's seed)."""
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
