"""Recover state a thousand rows at a time, and hold back messages that must wait for it.

Quix writes each recovered row by itself, checks it for an older format, and waits one second at the end for another
row. When it assigns partitions, it pauses all of them until state is recovered. librdkafka can lose such a pause
(issue 5591): then changelog records would look like events, and events would use incomplete state.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import TopicPartition
from quixstreams.kafka.consumer import raise_for_msg_error
from quixstreams.state.metadata import CHANGELOG_CF_MESSAGE_HEADER
from rocksdict import WriteBatch, WriteOptions

from fraud_service.kafka.messages import read_headers
from fraud_service.kafka.topic_reader import has_reached, poll_available, read_positions
from fraud_service.kafka.waiting import Deadline
from fraud_service.runtime.changelogs import PROCESSED
from fraud_service.runtime.quix_internals import replace_recovery_loop, should_apply

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from confluent_kafka import Message
    from quixstreams.internal_consumer import InternalConsumer
    from quixstreams.state import StateStoreManager
    from quixstreams.state.base import StorePartition
    from quixstreams.state.recovery import RecoveryPartition
    from rocksdict import Rdict

    from fraud_service.kafka.topic_reader import Ends

log = structlog.get_logger(__name__)

MAX_ROWS_PER_WRITE: Final = 1000
MAX_ROWS_PER_FLUSH: Final = 100_000  # a crash during recovery repeats at most this many
EMPTY_POLL_S: Final = 0.1  # recovery may be complete after a poll of this duration without a row
STATUS_POLL_S: Final = 1.0  # Quix fails after sixty checks without a position
PROGRESS_LOG_S: Final = 10.0
ROW_HEADERS: Final = {CHANGELOG_CF_MESSAGE_HEADER, PROCESSED}


def drop_paused_messages(consumer: InternalConsumer, state: StateStoreManager, inputs: Collection[str]) -> None:
    """Make `poll` return only messages to process now: no changelog record, and no event before recovery."""
    poll = consumer.poll

    def poll_allowed(timeout: float | None = None) -> Any:
        message = poll(timeout)
        if message is None or message.error() is not None:
            return message
        is_input = message.topic() in inputs
        if is_input and not state.recovery_required:
            return message
        pause_again(consumer, message, rewinds=is_input)
        return None

    consumer.poll = poll_allowed


def pause_again(consumer: InternalConsumer, message: Message, *, rewinds: bool) -> None:
    """Pause a partition whose pause was lost; `rewinds` makes the client read the message again when it resumes."""
    place = TopicPartition(message.topic(), message.partition(), message.offset())
    consumer.pause([place])
    if rewinds:
        consumer.seek(place)
    log.info("partition_paused_again", topic=place.topic, partition=place.partition, offset=place.offset)


class BulkRecovery:
    """Replace Quix's recovery loop by one that writes many rows at once.

    ``store_of``  returns the store of a partition by its number
    ``inputs``    topics of events; an event that arrives during recovery is read again later
    """

    def __init__(
        self,
        consumer: InternalConsumer,
        state: StateStoreManager,
        store_of: Callable[[int], StorePartition],
        inputs: Collection[str],
    ) -> None:
        self._consumer = consumer
        self._store_of = store_of
        self._inputs = inputs
        self._stores: dict[RecoveryPartition, StoreWriter] = {}
        self._control = replace_recovery_loop(state, self.loop)

    def loop(self) -> None:
        """Recover until all partitions are complete. As in Quix, an empty poll triggers the check for the end."""
        next_check, next_log = Deadline(STATUS_POLL_S), Deadline(PROGRESS_LOG_S)
        self._stores.clear()
        while self._control.is_recovering:
            if next_log.has_passed():
                self._log_progress()
                next_log.restart()
            if not self._apply_arrived() and (self._has_all() or next_check.has_passed()):
                self._finish_writers()
                self._control.end_recovered_partitions()
                next_check.restart()
        self._finish_writers()  # of partitions whose recovery was stopped

    def _ends(self) -> Ends:
        """Return the ends of the changelogs at the time of their assignment."""
        return {
            (part.changelog_name, part.partition_num): part.changelog_highwater for part in self._control.partitions()
        }

    def _has_all(self) -> bool:
        ends = self._ends()
        return has_reached(ends, read_positions(self._consumer, ends))

    def _log_progress(self) -> None:
        ends = self._ends()
        for place, offset in read_positions(self._consumer, ends).items():
            log.info("recovery_progress", partition=place[1], offset=offset, end=ends[place])

    def _apply_arrived(self) -> bool:
        """Apply the rows that have arrived, and return whether there were any.

        A rebalance may happen within the call of the client and assign partitions. Their rows in this result are
        dropped, because earlier rows may be missing. Then their changelogs are read again from the saved offsets.
        """
        before = self._control.partitions()
        messages = poll_available(self._consumer, MAX_ROWS_PER_WRITE, EMPTY_POLL_S)
        if not messages:
            return False
        assigned = [part for part in self._control.partitions() if part not in before]
        self._apply([one for one in messages if not assigned or self._control.partition_of(one) not in assigned])
        for part in assigned:
            saved = TopicPartition(part.changelog_name, part.partition_num, part.offset)
            self._consumer.seek(saved)
            self._consumer.resume([saved])
        return True

    def _apply(self, messages: list[Message]) -> None:
        rewound = set()
        for message in messages:
            raise_for_msg_error(message)
            part = self._control.partition_of(message)
            place = message.topic(), message.partition()
            if part is not None:
                self._apply_row(part, message)
            elif message.topic() in self._inputs and place not in rewound:
                rewound.add(place)  # the first message is the earliest one
                pause_again(self._consumer, message, rewinds=True)

    def _apply_row(self, part: RecoveryPartition, message: Message) -> None:
        writer = self._stores.get(part)
        if writer is None:
            writer = self._stores[part] = StoreWriter(part, self._store_of(part.partition_num))
        if not writer.add(message):
            writer.flush()
            part.recover_from_changelog_message(message)

    def _finish_writers(self) -> None:
        writers, self._stores = self._stores, {}
        assigned = self._control.partitions()
        for part, writer in writers.items():
            if part in assigned:  # a rebalance may have revoked it
                writer.finish()


class StoreWriter:
    """Write the recovered rows of one partition, and the changelog offset that they reach.

    Rows skip RocksDB's write-ahead log: the changelog is a log already, and a second one costs a fifth of a recovery.
    So the offset is written only after all rows before it are in files. After a crash, recovery reads the later rows
    again. Compaction is off until the last row is written, because it would rewrite each row several times.
    """

    def __init__(self, part: RecoveryPartition, store: StorePartition) -> None:
        self._part = part
        self._store = store
        # Plain bytes until the write, because RocksDB stays open while a WriteBatch holds one of its handles.
        self._rows: list[tuple[bytes, bytes | None]] = []
        self._headers: Any = None
        self._is_ours = self._is_committed = False
        self._offset = -1
        self._count = 0
        self._without_log = WriteOptions()
        self._without_log.disable_wal = True  # type: ignore[method-assign, assignment] # a property, the stub is wrong
        self._is_compacting = True

    @property
    def _database(self) -> Rdict:
        found: Rdict = self._store.get_or_create_column_family("default")
        return found

    def add(self, message: Message) -> bool:
        """Add a row, or skip it when its input was never committed. Return False for a row that Quix must handle.

        This class handles rows in the `default` column family without TTL; Quix handles all others.
        """
        headers = read_headers(message)
        if headers != self._headers:  # rows of one checkpoint have the same headers
            self._headers = headers
            self._read_headers(dict(headers))
        if not self._is_ours:
            return False
        if self._is_committed:
            self._rows.append((message.key(), message.value()))
        self._offset = message.offset()
        self._count += 1
        if len(self._rows) >= MAX_ROWS_PER_WRITE:
            self._set_compaction(enabled=False)
            self._write()
        if self._count >= MAX_ROWS_PER_FLUSH:
            self.flush()
        return True

    def _read_headers(self, headers: dict[str, bytes]) -> None:
        self._is_ours = headers.keys() == ROW_HEADERS and headers[CHANGELOG_CF_MESSAGE_HEADER] == b"default"
        if self._is_ours:
            self._is_committed = should_apply(self._part, json.loads(headers[PROCESSED]))

    def _write(self) -> None:
        batch = WriteBatch(raw_mode=True)
        handle = self._store.get_column_family_handle("default")
        for key, value in self._rows:
            if value is None:
                batch.delete(key, handle)
            else:
                batch.put(key, value, handle)
        self._rows.clear()
        self._database.write(batch, self._without_log)

    def flush(self) -> None:
        """Write all rows to files, then the offset."""
        if not self._count:
            return
        self._write()
        self._count = 0
        self._database.flush()
        self._store.write_changelog_offset(self._offset)

    def finish(self) -> None:
        """Flush, and turn background compaction on again."""
        self.flush()
        self._set_compaction(enabled=True)

    def _set_compaction(self, *, enabled: bool) -> None:
        if enabled is self._is_compacting:
            return
        self._is_compacting = enabled
        self._database.set_options({"disable_auto_compactions": "false" if enabled else "true"})
