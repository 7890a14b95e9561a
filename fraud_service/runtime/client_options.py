"""Options of Quix's consumer, producer and state, and the stable name of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from quixstreams.state.rocksdb import RocksDBOptions
from rocksdict import DBCompressionType

from fraud_service.config.duration import to_ms
from fraud_service.kafka import clients
from fraud_service.kafka.partitioner import PARTITIONER

if TYPE_CHECKING:
    from collections.abc import Callable

    from rocksdict import Options

    from fraud_service.config.settings import Settings

TRANSACTION_TIMEOUT_MS: Final = 10_000
DELIVERY_TIMEOUT_MS: Final = 10_000  # below the liveness probe's limit, so an outage does not look like a hang
CACHE_BYTES: Final = 64 << 20
MEMTABLE_BYTES: Final = 16 << 20
MAX_LEVEL0_FILES: Final = 1 << 20  # a recovery leaves hundreds, and writes must not wait for their compaction
COMPRESSED_LEVELS: Final = 6  # of RocksDB, all below the first one


class StateOptions(RocksDBOptions):  # type: ignore[misc]
    """RocksDB options for fast recoveries: no write waits for compaction, and the first level is not compressed."""

    def to_options(self) -> Options:
        """Return Quix's options, and add some that Quix does not offer."""
        options: Options = super().to_options()
        options.set_compression_per_level([DBCompressionType.none()] + [DBCompressionType.lz4()] * COMPRESSED_LEVELS)
        options.set_level_zero_slowdown_writes_trigger(MAX_LEVEL0_FILES)
        options.set_level_zero_stop_writes_trigger(MAX_LEVEL0_FILES)
        return options


def state_options() -> StateOptions:
    """Return the options of the local state."""
    return StateOptions(write_buffer_size=MEMTABLE_BYTES, block_cache_size=CACHE_BYTES)


def instance_name(settings: Settings, group: str) -> str:
    """Return the group instance id and transactional id. A restarted process has the same, so it fences the old one."""
    return f"{group}-{settings.instance_id}"


def consumer_options(settings: Settings, group: str, on_statistics: Callable[[str], None]) -> dict[str, Any]:
    """Return the options of the consumer."""
    return {
        **clients.FETCH_LIMITS,
        "fetch.wait.max.ms": 10,
        "fetch.queue.backoff.ms": 10,
        **settings.kafka_config,
        "group.instance.id": instance_name(settings, group),
        "session.timeout.ms": to_ms(settings.session_timeout),
        "isolation.level": "read_committed",
        "statistics.interval.ms": 5000,
        "stats_cb": on_statistics,
    }


def producer_options(
    settings: Settings, group: str, *, exactly_once: bool, transaction_timeout_ms: int | None
) -> dict[str, Any]:
    """Return the options of the producer.

    Without `transaction_timeout_ms`, a transaction ends within the session timeout. So the transaction of a dead member
    ends before its partitions move.
    """
    options: dict[str, Any] = {
        **clients.compression(settings),
        "linger.ms": 0,
        **settings.kafka_config,
        "partitioner": PARTITIONER,
    }
    if exactly_once:
        options["transactional.id"] = instance_name(settings, group)
        below_session = min(TRANSACTION_TIMEOUT_MS, to_ms(settings.session_timeout * 0.75))
        options["transaction.timeout.ms"] = below_session if transaction_timeout_ms is None else transaction_timeout_ms
    options["message.timeout.ms"] = min(DELIVERY_TIMEOUT_MS, options.get("transaction.timeout.ms", DELIVERY_TIMEOUT_MS))
    return options
