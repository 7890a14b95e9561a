"""Adaptive batches: process together what has already arrived, without waiting for more.

An idle stream processes each message when it arrives. Under load, messages arrive while a batch is processed and form
the next one; a batch pays its fixed costs once. A batch is part of one Quix checkpoint. Under exactly-once, readers see
a score only after its checkpoint, so an idle stream commits at once instead of at the end of its interval.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from confluent_kafka import TopicPartition
from quixstreams.kafka.consumer import raise_for_msg_error

from fraud_service.kafka.messages import BATCH_FIRST, Received, bounded
from fraud_service.kafka.unreadable_batches import is_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from quixstreams.models.types import RawConfluentKafkaMessageProto
    from quixstreams.state.base import StorePartition

    from fraud_service.runtime.stream import BatchProcessor, StreamAccess

MAX_BATCH: Final = 256  # a larger batch is hardly cheaper per message, and its first message waits for its last
MAX_BATCH_BYTES: Final = 900_000  # for the same reason; ordinary messages have a third of a kilobyte
TXN_MARKER_DELAY_S: Final = 0.004  # brokers answer a commit before its markers are in every partition


class Batches:
    """Collect batches, process them, and add outputs and offsets to the checkpoint.

    ``read_state``        decodes a value of the state, and raises when this version cannot use it
    ``commits_early``     whether to commit when the stream is idle; at-least-once readers need not wait for a commit
    ``checkpoint_started``  returns the monotonic time at which the current checkpoint started
    ``end_of``            returns the first offset after a batch that the client cannot decompress; without it, such a
                          batch is an error
    """

    def __init__(
        self,
        stream: StreamAccess,
        processor: BatchProcessor,
        read_state: Callable[[bytes], object] | None = None,
        *,
        commits_early: bool = True,
        checkpoint_started: Callable[[], float] = lambda: 0.0,
        end_of: Callable[[RawConfluentKafkaMessageProto], int] | None = None,
    ) -> None:
        self._stream = stream
        self._context = stream.context
        self._processor = processor
        self._read_state = read_state
        self._checkpoint_started = checkpoint_started
        self._end_of = end_of
        self._checked: WeakSet[StorePartition] = WeakSet()
        self._next_commit = 0.0
        self._commits_early = commits_early and self._context.exactly_once
        self._collected: list[Received] = []

    def tick(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for a message, then process all that have arrived; return whether any had.

        An idle tick commits early. Messages are polled one by one, because a rebalance happens inside a poll. So the
        messages collected before it are processed before the partitions are revoked.
        """
        self._context.producer.poll(0)
        poll = self._context.consumer.poll
        size = 0
        # Wait at most until the next early commit is allowed.
        rest = max(self._next_commit - time.monotonic(), 0.0)
        message = poll(min(rest, timeout_s) if self._has_uncommitted else timeout_s)
        while message is not None:
            size += self._collect(message)
            message = None  # free a large message before the next one is read
            if len(self._collected) < MAX_BATCH and size < MAX_BATCH_BYTES:
                message = poll(0)
        if self.process_collected():
            return True
        self._commit_early()
        return False

    def _collect(self, message: RawConfluentKafkaMessageProto) -> int:
        """Add a message to the batch; return its size in bytes."""
        if self._end_of is not None and is_unreadable(message):
            self._skip_batch(message, self._end_of(message))
            return 0
        raise_for_msg_error(message)
        key, value = message.key(), message.value()
        received = Received(message.topic(), message.partition(), message.offset(), key, value, message.timestamp()[1])
        self._collected.append(bounded(received))
        return len(key or b"") + len(value or b"")

    def _skip_batch(self, message: RawConfluentKafkaMessageProto, end: int) -> None:
        """Skip a batch that cannot be decompressed; an empty message at its last offset replaces it."""
        topic, partition, first = message.topic(), message.partition(), message.offset()
        if end == first:  # damaged in transfer: the client fetches it again
            return
        self._context.consumer.seek(TopicPartition(topic, partition, end))
        self._stream.skipped[topic, partition] = end
        header = ((BATCH_FIRST, str(first).encode()),)
        self._collected.append(Received(topic, partition, end - 1, None, None, int(time.time() * 1000), header))

    @property
    def _has_uncommitted(self) -> bool:
        """Whether readers wait for a commit."""
        return self._commits_early and not self._context.checkpoint.empty()

    def _commit_early(self) -> None:
        """Commit before the interval is over. The next early commit waits as long as this one took."""
        start = time.monotonic()
        if self._has_uncommitted and start >= self._next_commit:
            self._stream.commit()
            end = time.monotonic()
            self._next_commit = end + (end - start)

    def process_collected(self) -> bool:
        """Process the collected batch; return whether it had any message."""
        collected, self._collected = self._collected, []
        if collected:
            self.process(collected)
        return bool(collected)

    def process(self, batch: Sequence[Received]) -> None:
        """Process a batch: give outputs to the producer, and offsets to the checkpoint."""
        if self._read_state is not None:
            for partition in {message.partition for message in batch}:
                self._check_state(partition, self._read_state)
        results = self._processor(batch, lambda message: self._stream.key_state(message.partition, message.key or b""))
        self._wait_for_txn_markers()
        for message, outputs in zip(batch, results, strict=True):
            for output in outputs:
                self._stream.produce(output, message.timestamp)
        for message in {(message.topic, message.partition): message for message in batch}.values():
            self._context.store_offset(message.topic, message.partition, message.offset)

    def _wait_for_txn_markers(self) -> None:
        """Wait until the last transaction has ended. Until then, the broker rejects a new one.

        The client would retry after 20 ms. This also applies to an idle stream: Quix opens a new transaction
        every interval, and the first payment after that waits up to 4 ms.
        """
        if self._context.exactly_once:
            rest = self._checkpoint_started() + TXN_MARKER_DELAY_S - time.monotonic()
            if rest > 0:
                time.sleep(rest)

    def _check_state(self, partition: int, read_state: Callable[[bytes], object]) -> None:
        """Decode one value of a partition's state before the first write: this version may be unable to use it."""
        store = self._stream.partition_store(partition)
        if store not in self._checked:
            for _, value in islice(store.iter_items(b""), 1):
                read_state(value)
            self._checked.add(store)
