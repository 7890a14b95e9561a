"""What a stream is made of, what drives its processor, and what the processor can use of it."""

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
    """What a stream reads, writes and keeps.

    Attributes
    ----------
    group : str
        Consumer group; with `settings.instance_id` it names the group instance and the transactional id.
    inputs : tuple of str
        Topics that are read. The state belongs to the partitions of the last one.
    outputs : mapping
        Names of the output topics by their role.
    read_state : callable
        Reads a value of the state, and raises when this version cannot use it. The first value of each partition is
        read before anything is written beside it.
    commits_early : bool
        Whether readers wait for the outputs of each batch. Then an exactly-once stream commits as soon as it is idle.
    transaction_timeout_ms : int
        None for one below the session timeout.
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
    """What an application calls while it runs, besides its processor.

    Attributes
    ----------
    on_tick
        Called before each batch, while all state is recovered.
    on_assign
        Called with the assigned partitions, and with none when partitions are revoked or lost.
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
    """What a processor may use of its stream: state, outputs, commits, and positions of the inputs.

    `skipped` has the first offset behind each batch that the client could not unpack, by partition.
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
        """Return the number of keys by partition, as RocksDB estimates; it counts a changed key twice for a while."""
        stores = self.context.state_manager.stores.get(self.stream_id, {})
        return {
            number: store.get_or_create_column_family("default").property_int_value("rocksdb.estimate-num-keys") or 0
            for number, store in (stores[STATE].partitions.items() if STATE in stores else ())
        }

    def produce(self, output: Output, timestamp: int | None = None) -> None:
        """Produce an output, with the current checkpoint; without a timestamp, it gets the current time."""
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
