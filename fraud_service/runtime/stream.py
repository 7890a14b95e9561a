"""The definition of a stream, the interface of its processor, and the stream as the processor uses it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from confluent_kafka import TopicPartition

from fraud_service.runtime.keyed_state import KeyState, StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quixstreams.processing import ProcessingContext
    from quixstreams.state.base import StorePartition

    from fraud_service.kafka.messages import Output, Received
    from fraud_service.runtime.keyed_state import StateAccessor

STATE: Final = "default"  # Quix's name of the only store

Position = tuple[str, int]  # topic and partition


@dataclass(frozen=True)
class StreamSpec:
    """The inputs, outputs and state of a stream, and how it commits.

    Attributes
    ----------
    group : str
        Consumer group; with `settings.instance_id` it names the group instance and the transactional id.
    inputs : tuple of str
        Input topics. The state belongs to the partitions of the last one.
    outputs : mapping
        Names of the output topics by their role.
    read_state : callable
        Decodes a value of the state, and raises when this version cannot use it. Called with the first value of each
        partition before the first write.
    commits_early : bool
        Whether an exactly-once stream commits as soon as it is idle, because readers wait for its outputs.
    transaction_timeout_ms : int
        None: a value below the session timeout.
    """

    group: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, str]
    guarantee: str
    commit_interval_s: float
    has_state: bool = False
    read_state: Callable[[bytes], object] | None = None
    commits_early: bool = True
    transaction_timeout_ms: int | None = None


@dataclass(frozen=True)
class Hooks:
    """Callbacks of an application, besides its processor.

    Attributes
    ----------
    on_tick
        Called before each batch, once all state is recovered.
    on_assign
        Called with the assigned partitions, and with an empty list when partitions are revoked or lost.
    on_key_counts
        Called every few seconds with the number of keys in each partition's state, as RocksDB estimates it.
    """

    on_tick: Callable[[], None] = lambda: None
    on_assign: Callable[[list[TopicPartition]], None] = lambda _: None
    on_key_counts: Callable[[dict[int, int]], None] = lambda _: None


class BatchProcessor(Protocol):
    """Processes a batch as a whole, or raises."""

    def __call__(self, batch: Sequence[Received], state_of: StateAccessor) -> Sequence[Sequence[Output]]:
        """Return the outputs of each message, in order."""


class Processing(NamedTuple):
    """A processor, and the hooks that belong to it."""

    processor: BatchProcessor
    hooks: Hooks = Hooks()


@dataclass(frozen=True)
class StreamAccess:
    """The stream as its processor uses it: state, outputs, commits, and positions of the inputs.

    `skipped` has the first offset after each batch that the client could not decompress, by partition.
    """

    context: ProcessingContext
    stream_id: str
    outputs: Mapping[str, str]
    skipped: dict[Position, int] = field(default_factory=dict)

    def key_state(self, partition: int, key: bytes) -> KeyState:
        """Return the state of a key in the current checkpoint."""
        transaction = self.context.checkpoint.get_store_transaction(self.stream_id, partition)
        return KeyState(transaction, self.partition_store(partition), key)

    def store(self, partition: int, prefix: bytes) -> StateStore:
        """Return the state under one prefix on one partition."""
        return StateStore(lambda: self.key_state(partition, prefix))

    def partition_store(self, partition: int) -> StorePartition:
        """Return the store of a partition that is assigned to this process."""
        return self.context.state_manager.stores[self.stream_id][STATE].partitions[partition]

    def key_counts(self) -> dict[int, int]:
        """Return RocksDB's estimate of the number of keys, by partition. A changed key can count twice for a while."""
        stores = self.context.state_manager.stores.get(self.stream_id, {})
        return {
            number: store.get_or_create_column_family("default").property_int_value("rocksdb.estimate-num-keys") or 0
            for number, store in (stores[STATE].partitions.items() if STATE in stores else ())
        }

    def produce(self, output: Output, timestamp: int | None = None) -> None:
        """Produce an output with the current checkpoint. The default timestamp is the current time."""
        self.context.producer.produce(
            topic=self.outputs[output.topic],
            value=output.value,
            key=output.key,
            headers=output.headers,
            timestamp=timestamp,
        )

    def commit(self) -> None:
        """Commit the checkpoint now."""
        self.context.commit_checkpoint(force=True)

    def positions(self, wanted: list[Position]) -> dict[Position, int]:
        """Return the next offset to read of each partition. Transaction markers at the end count as read."""
        found = self.context.consumer.position([TopicPartition(*place) for place in wanted])
        reached = {(position.topic, position.partition): position.offset for position in found}
        return {place: max(offset, self.skipped.get(place, offset)) for place, offset in reached.items()}

    def committed(self, wanted: list[Position], timeout_s: float) -> dict[Position, int]:
        """Return the committed offset of each partition."""
        found = self.context.consumer.committed([TopicPartition(*place) for place in wanted], timeout=timeout_s)
        return {(position.topic, position.partition): position.offset for position in found}
