"""Define a stream, the interface of its processor, and what a processor can do with its stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from confluent_kafka import TopicPartition
from quixstreams.state.metadata import Marker

from fraud_service.runtime.changelogs import key_suffix
from fraud_service.runtime.quix_internals import uncommitted_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from quixstreams.processing import ProcessingContext
    from quixstreams.state.base import PartitionTransaction, StorePartition

    from fraud_service.kafka.messages import Output, Received

    Position = tuple[str, int]  # topic and partition
    # Returns the state of a message's key on its partition.
    StateAccessor = Callable[[Received], "KeyState"]
    # Processes a batch as a whole, or raises. Returns the outputs of each message, in order.
    BatchProcessor = Callable[[Sequence[Received], StateAccessor], Sequence[Sequence[Output]]]

STATE: Final = "default"  # Quix's name of the only store


@dataclass(frozen=True)
class StreamSpec:
    """The inputs, outputs and state of a stream, and how it commits.

    ``group``                   consumer group; part of the group instance and the transactional id
    ``inputs``                  topics; the state belongs to the partitions of the last one
    ``outputs``                 names of the output topics by their role
    ``read_state``              decodes the first value of each partition before the first write, and raises when this
                                version cannot use it
    ``commits_early``           whether an exactly-once stream commits when it is idle, because readers wait for it
    ``transaction_timeout_ms``  None: a value below the session timeout
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

    ``on_tick``        before each batch, once all state is recovered
    ``on_assign``      with the assigned partitions, and with an empty list when partitions are revoked or lost
    ``on_key_counts``  every few seconds, with RocksDB's estimate of the number of keys, by partition
    """

    on_tick: Callable[[], None] = lambda: None
    on_assign: Callable[[list[TopicPartition]], None] = lambda _: None
    on_key_counts: Callable[[dict[int, int]], None] = lambda _: None


class KeyState:
    """The state of one message key: read from RocksDB, written with the current checkpoint.

    Quix's own `State` makes checks that this service does not need, and costs more than RocksDB itself. Quix still
    decides the format of the rows, and when they are committed and recovered.
    """

    __slots__ = ("_changes", "_key", "_partition")

    def __init__(self, transaction: PartitionTransaction, partition: StorePartition, key: bytes) -> None:
        self._changes = uncommitted_changes(transaction)
        self._partition = partition
        self._key = key

    def get_bytes(self, name: str) -> bytes | None:
        """Return a value: the one that this checkpoint wrote, else the committed one."""
        place = self._key + key_suffix(name)
        found = self._changes.get(place, self._key)
        if found is Marker.UNDEFINED:
            found = self._partition.get_or_create_column_family("default").get(place)
        return found if isinstance(found, bytes) else None

    def set_bytes(self, name: str, value: bytes) -> None:
        """Write a value, with this checkpoint."""
        self._changes.set(self._key + key_suffix(name), value, self._key)

    def delete(self, name: str) -> None:
        """Remove a value, with this checkpoint."""
        self._changes.delete(self._key + key_suffix(name), self._key)


class StateStore:
    """A `KeyValueStore`: the state under a prefix on one partition, in the transaction of the current checkpoint."""

    def __init__(self, state: Callable[[], KeyState]) -> None:
        self._state = state

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none."""
        return self._state().get_bytes(key)

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""
        self._state().set_bytes(key, value)

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self._state().delete(key)


class Processing(NamedTuple):
    """A processor, and the hooks that belong to it."""

    processor: BatchProcessor
    hooks: Hooks = Hooks()


@dataclass(frozen=True)
class StreamAccess:
    """The stream as its processor uses it: state, outputs, commits, and positions of the inputs.

    `partitions` is the number of partitions of the last input, which has the state. `skipped` has the first offset
    after each batch that the client could not decompress, by partition.
    """

    context: ProcessingContext
    stream_id: str
    outputs: Mapping[str, str]
    partitions: int = 1
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
            topic=self.outputs[output.role],
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
