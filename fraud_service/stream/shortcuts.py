"""Short ways through Quix for what every transaction does, to read its card's state and to produce, and for recovery.

Quix checks more than our state can need, asks for delivery reports after every message, and recovers row by row; each
costs more than RocksDB and the client do. What is written, when it is committed and recovered, and all errors stay
Quix's. The names this rests on are not promised; the canary test guards them.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import TopicPartition
from quixstreams.kafka.consumer import raise_for_msg_error
from quixstreams.state.metadata import CHANGELOG_CF_MESSAGE_HEADER, Marker
from rocksdict import WriteBatch

from fraud_service.stream.changelogs import PROCESSED, suffix

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message
    from quixstreams.internal_producer import InternalProducer
    from quixstreams.state.base import PartitionTransaction
    from quixstreams.state.recovery import RecoveryManager, RecoveryPartition

ROWS_AT_ONCE: Final = 1000
PAUSE: Final = 0.1  # seconds without a row after which recovery may be over
LOOK: Final = 1.0  # seconds until Quix looks in any case; it counts its looks, and ends after sixty without a position
ROW_HEADERS: Final = {CHANGELOG_CF_MESSAGE_HEADER, PROCESSED}


class KeyState:
    """The state of one message key, as `quixstreams.State` has it."""

    __slots__ = ("_key", "_transaction")

    def __init__(self, transaction: PartitionTransaction, key: bytes) -> None:
        self._transaction = transaction
        self._key = key

    def get_bytes(self, name: str) -> bytes | None:
        """Return a value: one that this checkpoint has written, or the one from before it."""
        place = self._key + suffix(name)
        found = self._transaction._update_cache.get(place, self._key)  # noqa: SLF001
        if found is Marker.UNDEFINED:
            found = self._transaction._partition.get_or_create_column_family("default").get(place)  # noqa: SLF001
        return found if isinstance(found, bytes) else None

    def set_bytes(self, name: str, value: bytes) -> None:
        """Write a value, with this checkpoint."""
        self._transaction._update_cache.set(self._key + suffix(name), value, self._key)  # noqa: SLF001

    def delete(self, name: str) -> None:
        """Remove a value, with this checkpoint."""
        self._transaction._update_cache.delete(self._key + suffix(name), self._key)  # noqa: SLF001


def produce_directly(producer: InternalProducer) -> None:
    """Hand messages to the client, and ask for delivery reports once a turn instead of once a message.

    Of outputs only what failed is reported to Quix, of changelogs also where they lie. When the client's queue is full,
    Quix waits as ever.
    """
    carefully = producer.produce

    def failed(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            producer._on_delivery(error, message)  # noqa: SLF001

    def produce(topic: str, *, partition: int | None = None, **message: Any) -> None:
        producer._raise_for_error()  # noqa: SLF001
        given = {name: value for name, value in message.items() if value is not None}
        if partition is None:
            given["on_delivery"] = failed
        else:
            given["on_delivery"] = producer._on_delivery  # noqa: SLF001
            given["partition"] = partition
        try:
            producer._producer._producer.produce(topic, **given)  # noqa: SLF001
        except BufferError:
            carefully(topic, partition=partition, **message)

    producer.produce = produce


def recover_in_batches(manager: RecoveryManager) -> None:
    """Recover state a thousand rows at a time, and be done when they are: no partition's work goes on before.

    Quix writes each row by itself, with what a change of format would need, and waits a second for one more at the end.
    """
    manager._recovery_loop = _Recovery(manager).loop  # noqa: SLF001


class _Recovery:
    """Quix's loop of recovery, with rows that wait to be written together."""

    def __init__(self, manager: RecoveryManager) -> None:
        self._manager = manager
        self._batches: dict[RecoveryPartition, _Batch] = {}

    def loop(self) -> None:
        """Recover until nothing is left. As in Quix, only an empty poll is a reason to see whether that is so."""
        manager, due = self._manager, time.monotonic() + LOOK
        self._batches.clear()
        while manager.recovering:
            manager._log_recovery_progress()  # noqa: SLF001
            message = manager._consumer.poll(PAUSE)  # noqa: SLF001
            if message is None:
                for part in list(self._batches):
                    self._write(part)
                if self._has_all() or time.monotonic() >= due:
                    manager._position_cache.clear()  # noqa: SLF001 - what it has may be from before the last row
                    manager._update_recovery_status()  # noqa: SLF001
                    due = time.monotonic() + LOOK
                continue
            raise_for_msg_error(message)
            part = manager.partitions.get(message.partition(), {}).get(message.topic())
            if part is not None:
                self._take(part, message)
            elif message.topic() in manager._topic_manager.non_changelog_topics:  # noqa: SLF001
                manager._rewind_data_partition(message)  # noqa: SLF001

    def _has_all(self) -> bool:
        """Whether everything is read that was there when the partitions were given to this process."""
        parts = [part for parts in self._manager.partitions.values() for part in parts.values()]
        asked = [TopicPartition(part.changelog_name, part.partition_num) for part in parts]
        reached = self._manager._consumer.position(asked)  # noqa: SLF001
        return all(place.offset >= part.changelog_highwater for place, part in zip(reached, parts, strict=True))

    def _take(self, part: RecoveryPartition, message: Message) -> None:
        batch = self._batches.get(part)
        if batch is None:
            batch = self._batches[part] = _Batch(part)
        is_ours = batch.add(message)
        if not is_ours or batch.count >= ROWS_AT_ONCE:
            self._write(part)
        if not is_ours:
            part.recover_from_changelog_message(message)

    def _write(self, part: RecoveryPartition) -> None:
        batch = self._batches.pop(part)
        if self._manager.partitions.get(part.partition_num, {}).get(part.changelog_name) is part:  # else it is not ours
            batch.write()


class _Batch:
    """Rows of a changelog on their way to the store, and the offset that they reach up to.

    They are plain bytes until they are written: a store with a handle left somewhere does not close.
    """

    def __init__(self, part: RecoveryPartition) -> None:
        self._part = part
        self._rows: list[tuple[bytes, bytes | None]] = []
        self._offset = -1
        self.count = 0

    def add(self, message: Message) -> bool:
        """Take a row, or pass it over when what it was made of was never committed; returns whether it is of our make.

        Of our make are rows in the one column family that our state has, without a time to live.
        """
        headers = dict(message.headers() or ())
        if headers.keys() != ROW_HEADERS or headers[CHANGELOG_CF_MESSAGE_HEADER] != b"default":
            return False
        if self._part._should_apply_changelog(_processed(headers[PROCESSED])):  # noqa: SLF001
            self._rows.append((message.key(), message.value()))
        self._offset = message.offset()
        self.count += 1
        return True

    def write(self) -> None:
        """Write all at once, with the offset: after a crash recovery goes on behind it."""
        if not self.count:
            return
        store, batch = self._part._store_partition, WriteBatch(raw_mode=True)  # noqa: SLF001
        handle = store.get_column_family_handle("default")
        for key, value in self._rows:
            if value is None:
                batch.delete(key, handle)
            else:
                batch.put(key, value, handle)
        store._update_changelog_offset(batch=batch, offset=self._offset)  # noqa: SLF001
        store._write(batch)  # noqa: SLF001


@lru_cache(maxsize=64)  # rows of one checkpoint say the same
def _processed(header: bytes) -> dict[str, int]:
    found: dict[str, int] = json.loads(header)
    return found
