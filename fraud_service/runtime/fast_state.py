"""Short ways through Quix for what every transaction does, to read its card's state and to produce, and for recovery.

Quix checks more than our state can need, asks for delivery reports after every message, and recovers row by row; each
costs more than RocksDB and the client do. What is written, when it is committed and recovered, and all errors stay
Quix's. The names this rests on are not promised; the canary test guards them.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import TopicPartition
from quixstreams.kafka.consumer import raise_for_msg_error
from quixstreams.state.metadata import CHANGELOG_CF_MESSAGE_HEADER, Marker
from rocksdict import WriteBatch, WriteOptions

from fraud_service.kafka import messages
from fraud_service.runtime.changelogs import PROCESSED, suffix

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message
    from quixstreams.internal_producer import InternalProducer
    from quixstreams.state.base import PartitionTransaction
    from quixstreams.state.recovery import RecoveryManager, RecoveryPartition

ROWS_AT_ONCE: Final = 1000
ROWS_UNTIL_SETTLED: Final = 100_000  # a crash within a recovery loses no more
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
        self._stores: dict[RecoveryPartition, _Store] = {}

    def loop(self) -> None:
        """Recover until nothing is left. As in Quix, only an empty poll is a reason to see whether that is so."""
        manager, due = self._manager, time.monotonic() + LOOK
        self._stores.clear()
        while manager.recovering:
            manager._log_recovery_progress()  # noqa: SLF001
            message = manager._consumer.poll(PAUSE)  # noqa: SLF001
            if message is not None:
                self._apply(message)
                self._apply_next()
            elif self._has_all() or time.monotonic() >= due:
                self._end()
                manager._position_cache.clear()  # noqa: SLF001 - what it has may be from before the last row
                manager._update_recovery_status()  # noqa: SLF001
                due = time.monotonic() + LOOK
        self._end()  # of what is not done, where it was told to stop

    def _has_all(self) -> bool:
        """Whether everything is read that was there when the partitions were given to this process."""
        parts = self._parts()
        asked = [TopicPartition(part.changelog_name, part.partition_num) for part in parts]
        reached = self._manager._consumer.position(asked)  # noqa: SLF001
        return all(place.offset >= part.changelog_highwater for place, part in zip(reached, parts, strict=True))

    def _parts(self) -> list[RecoveryPartition]:
        return [part for parts in self._manager.partitions.values() for part in parts.values()]

    def _part_of(self, message: Message) -> RecoveryPartition | None:
        return self._manager.partitions.get(message.partition(), {}).get(message.topic())

    def _apply_next(self) -> None:
        """Take what else has arrived; a rebalance may happen within it, and then what it gave us is begun anew.

        Rows that were read before it may lie behind others that are still to come.
        """
        before = self._parts()
        messages = self._manager._consumer._consumer.consume(ROWS_AT_ONCE, 0)  # noqa: SLF001
        given = [part for part in self._parts() if part not in before]
        for message in messages:
            if not given or self._part_of(message) not in given:
                self._apply(message)
        for part in given:
            self._manager._prime_changelog_partition(part)  # noqa: SLF001

    def _apply(self, message: Message) -> None:
        raise_for_msg_error(message)
        part = self._part_of(message)
        if part is None:
            if message.topic() in self._manager._topic_manager.non_changelog_topics:  # noqa: SLF001
                self._manager._rewind_data_partition(message)  # noqa: SLF001
            return
        store = self._stores.get(part)
        if store is None:
            store = self._stores[part] = _Store(part)
        if not store.take(message):
            store.settle()
            part.recover_from_changelog_message(message)

    def _end(self) -> None:
        stores, self._stores = self._stores, {}
        ours = self._parts()
        for part, store in stores.items():
            if part in ours:  # else it was given away meanwhile
                store.end()


class _Store:
    """A partition's store while it is recovered: rows on their way into it, and the offset that they reach up to.

    Rows do without the log that RocksDB writes ahead: it costs a fifth of a recovery, and the changelog is one already.
    So the offset is written only when all rows before it are in files; after a crash recovery goes on behind it, and
    reads again what may be there. Files of many rows are merged when the last one is there: on the way, merging takes
    most of the time, and takes each row several times.
    """

    def __init__(self, part: RecoveryPartition) -> None:
        self._part = part
        # Plain bytes until they are written: a store with a handle left somewhere does not close.
        self._rows: list[tuple[bytes, bytes | None]] = []
        self._headers: Any = None
        self._is_ours = self._is_committed = False
        self._offset = -1
        self._count = 0
        self._without_log = WriteOptions()
        self._without_log.disable_wal = True  # type: ignore[method-assign, assignment] # a property, the stub has it wrong
        self._merges = True

    def take(self, message: Message) -> bool:
        """Take a row, or pass it over when what it was made of was never committed; returns whether it is of our make.

        Of our make are rows in the one column family that our state has, without a time to live.
        """
        headers = messages.read_headers(message)
        if headers != self._headers:  # rows of one checkpoint say the same
            self._headers = headers
            self._look(dict(headers))
        if not self._is_ours:
            return False
        if self._is_committed:
            self._rows.append((message.key(), message.value()))
        self._offset = message.offset()
        self._count += 1
        if len(self._rows) >= ROWS_AT_ONCE:
            self._merge(now=False)
            self._write()
        if self._count >= ROWS_UNTIL_SETTLED:
            self.settle()
        return True

    def _look(self, headers: dict[str, bytes]) -> None:
        self._is_ours = headers.keys() == ROW_HEADERS and headers[CHANGELOG_CF_MESSAGE_HEADER] == b"default"
        if self._is_ours:
            self._is_committed = self._part._should_apply_changelog(json.loads(headers[PROCESSED]))  # noqa: SLF001

    def _write(self) -> None:
        store, batch = self._part._store_partition, WriteBatch(raw_mode=True)  # noqa: SLF001
        handle = store.get_column_family_handle("default")
        for key, value in self._rows:
            if value is None:
                batch.delete(key, handle)
            else:
                batch.put(key, value, handle)
        self._rows.clear()
        store._db.write(batch, self._without_log)  # noqa: SLF001

    def settle(self) -> None:
        """Have all rows in files, and write down the offset."""
        if not self._count:
            return
        self._write()
        self._count = 0
        store = self._part._store_partition  # noqa: SLF001
        store._db.flush()  # noqa: SLF001
        store.write_changelog_offset(self._offset)

    def end(self) -> None:
        """Settle, and have files merged from now on, beside the work."""
        self.settle()
        self._merge(now=True)

    def _merge(self, *, now: bool) -> None:
        if now is self._merges:
            return
        self._merges = now
        self._part._store_partition._db.set_options({"disable_auto_compactions": "false" if now else "true"})  # noqa: SLF001
