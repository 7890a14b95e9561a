"""Adaptive batches: what has already arrived is taken together, and nothing is waited for.

An idle stream is processed message by message, at once; under load a batch fills while the one before it is processed,
and what costs the same for one row and for a hundred is paid once. Checkpoints, state, changelog and transactions stay
Quix's: a batch lies within one checkpoint, as a message does. Under exactly-once nobody sees a score before its
checkpoint, so that one is not waited for either: it comes as soon as nothing else is to be done.
"""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

from confluent_kafka import TopicPartition
from quixstreams.kafka.consumer import raise_for_msg_error

from fraud_service.kafka.messages import BATCH_FIRST, Output, Received, bounded
from fraud_service.kafka.unreadable_batches import is_unreadable
from fraud_service.runtime.fast_state import KeyState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quixstreams.models.types import RawConfluentKafkaMessageProto
    from quixstreams.processing import ProcessingContext
    from quixstreams.state.base import PartitionTransaction, StorePartition

MAX_BATCH: Final = 256  # beyond it a row gets hardly cheaper, and the first one waits for the last
MAX_BATCH_BYTES: Final = 900_000  # likewise; ordinary messages have a third of a kilobyte
TXN_MARKER_DELAY_S: Final = 0.004  # seconds: brokers write everywhere that a transaction has ended, after they answered


class State(Protocol):
    """What is known of a message's key on its partition."""

    def get_bytes(self, name: str, /) -> bytes | None:
        """Return a value."""

    def set_bytes(self, name: str, value: bytes, /) -> None:
        """Write a value."""


class StateAccessor(Protocol):
    """Gives the state of a message's key on its partition."""

    def __call__(self, message: Received) -> State:
        """Return it."""


class BatchProcessor(Protocol):
    """Processes a batch, or nothing of it."""

    def __call__(self, batch: Sequence[Received], state_of: StateAccessor) -> Sequence[Sequence[Output]]:
        """Return what each message produces, in order."""


class Batches:
    """Collect batches and bring them through a step.

    Parameters
    ----------
    stream_id
        Whose store the step's state lies in.
    topics
        Names of the output topics by their role.
    read
        Reads a value of the state, and raises when it is none to go on with. One value of each partition is read before
        anything is written beside it: state half of one version and half of another would be of use to neither.
    is_awaited
        Whether somebody waits for what comes of each batch.
    end_of
        Returns the first offset behind a batch that the client cannot unpack; without, such a batch is an error.
    """

    def __init__(
        self,
        context: ProcessingContext,
        stream_id: str,
        step: BatchProcessor,
        topics: Mapping[str, str],
        read: Callable[[bytes], object] | None = None,
        *,
        is_awaited: bool = True,
        end_of: Callable[[RawConfluentKafkaMessageProto], int] | None = None,
    ) -> None:
        self._context = context
        self._stream_id = stream_id
        self._step = step
        self._topics = topics
        self._read = read
        self._end_of = end_of
        self._known: WeakSet[StorePartition] = WeakSet()
        self._rests_until = 0.0
        # At least once, readers see what is processed without a commit.
        self.commits_early: bool = is_awaited and context.exactly_once
        self._collected: list[Received] = []
        self.behind: dict[tuple[str, int], int] = {}  # first offset after a skipped batch

    def tick(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a message and take what else is there; returns whether there was any.

        Without any, what was processed is committed early.

        Messages are polled one by one: a rebalance happens inside a poll, and then what was collected is still ours to
        process (`process_collected`), while what a bulk read holds back would be lost or read twice.
        """
        self._context.producer.poll(0)
        poll = self._context.consumer.poll
        size = 0
        message = poll(self._patience(timeout))
        while message is not None:
            size += self._collect(message)
            message = None  # a large one must be gone before the next one comes
            if len(self._collected) < MAX_BATCH and size < MAX_BATCH_BYTES:
                message = poll(0)
        had_any = self.process_collected()
        if not had_any:
            self._commit_early()
        return had_any

    def _collect(self, message: RawConfluentKafkaMessageProto) -> int:
        """Keep what may be read of a message; returns how many bytes it had."""
        if self._end_of is not None and is_unreadable(message):
            self._pass_over(message, self._end_of(message))
            return 0
        raise_for_msg_error(message)
        key, value = message.key(), message.value()
        _, timestamp = message.timestamp()
        self._collected.append(
            bounded(Received(message.topic(), message.partition(), message.offset(), key, value, timestamp))
        )
        return len(key or b"") + len(value or b"")

    def _pass_over(self, message: RawConfluentKafkaMessageProto, end: int) -> None:
        """Skip a batch that cannot be unpacked; a message at its last offset stands for it."""
        topic, partition, first = message.topic(), message.partition(), message.offset()
        if end == first:  # it was damaged on its way, and the client fetches it again
            return
        self._context.consumer.seek(TopicPartition(topic, partition, end))
        self.behind[topic, partition] = end
        known = ((BATCH_FIRST, str(first).encode()),)
        self._collected.append(Received(topic, partition, end - 1, None, None, int(time.time() * 1000), known))

    @property
    def _is_owed(self) -> bool:
        """Whether somebody waits for a commit."""
        return self.commits_early and not self._context.checkpoint.empty()

    def _patience(self, timeout: float) -> float:
        """How long to wait for a message: while a commit is waited for, only until it may come."""
        return min(max(self._rests_until - time.monotonic(), 0.0), timeout) if self._is_owed else timeout

    def _commit_early(self) -> None:
        """Commit before the interval is over, and then not for as long as that took: half of the time is for work."""
        began = time.monotonic()
        if self._is_owed and began >= self._rests_until:
            self._context.commit_checkpoint(force=True)
            now = time.monotonic()
            self._rests_until = now + (now - began)

    def process_collected(self) -> bool:
        """Process what is collected; returns whether there was anything. Called before partitions are given away."""
        collected, self._collected = self._collected, []
        if collected:
            self.process(collected)
        return bool(collected)

    def process(self, batch: Sequence[Received]) -> None:
        """Bring a batch through the step: its outputs to the producer, its offsets to the checkpoint."""
        if self._read is not None:
            for partition in {message.partition for message in batch}:
                self._check_state_schema(partition, self._read)
        produce = self._context.producer.produce
        results = self._step(batch, self._state)
        self._wait_for_txn_markers()
        for message, outputs in zip(batch, results, strict=True):
            for output in outputs:
                produce(
                    topic=self._topics[output.topic],
                    value=output.value,
                    key=output.key,
                    headers=output.headers,
                    timestamp=message.timestamp,
                )
        for message in {(message.topic, message.partition): message for message in batch}.values():
            self._context.store_offset(message.topic, message.partition, message.offset)

    def _wait_for_txn_markers(self) -> None:
        """Let the last transaction end: until then a new one is turned away, and the client tries again after 20 ms.

        An idle stream renews its checkpoint every interval with nothing committed: a payment just after that waits too.
        """
        if self._context.exactly_once:
            began: float = self._context.checkpoint._created_at  # noqa: SLF001 - as soon as the last one was committed
            rest = began + TXN_MARKER_DELAY_S - time.monotonic()
            if rest > 0:
                time.sleep(rest)

    def _check_state_schema(self, partition: int, read: Callable[[bytes], object]) -> None:
        store = self._transaction(partition)._partition  # noqa: SLF001 - a test goes through it
        if store not in self._known:
            for _, value in islice(store.iter_items(b""), 1):
                read(value)
            self._known.add(store)

    def _state(self, message: Received) -> State:
        return KeyState(self._transaction(message.partition), message.key or b"")

    def _transaction(self, partition: int) -> PartitionTransaction:
        return self._context.checkpoint.get_store_transaction(self._stream_id, partition)
