"""Drive the real Quix topologies with their state and checkpoints, without a broker.

A test sends messages to topics and reads the outputs by topic, as a `read_committed` consumer would see them.
Partitions follow the murmur2 partitioner. State is in RocksDB in a temporary folder, so that a test can close a driver
and open another one on the same state.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from quixstreams.models import Topic, TopicConfig, TopicManager

from fraud_service.kafka.messages import Received
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.runtime.application import FraudApplication
from fraud_service.runtime.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.metrics.stream import StreamMetrics
    from fraud_service.runtime.stream import Processing, StreamAccess, StreamSpec


@dataclass(frozen=True)
class Message:
    """One record on a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 0

    @property
    def header(self) -> dict[str, str]:
        return {name: value.decode() for name, value in self.headers}


class MemoryTopics(TopicManager):
    """Topics that exist from the first request on."""

    def __init__(self, partitions: int, group: str) -> None:
        super().__init__(topic_admin=None, consumer_group=group, auto_create_topics=False)
        self._partitions = partitions

    def _get_or_create_broker_topic(self, topic: Topic) -> Topic:
        found = Topic(name=topic.name)
        found.broker_config = TopicConfig(self._partitions, 1, {"retention.ms": "-1", "retention.bytes": "-1"})
        return found


class Driver:
    """Drive one application under at-least-once, with explicit commits only."""

    def __init__(
        self,
        settings: Settings,
        spec: StreamSpec,
        make_processing: Callable[[StreamAccess], Processing],
        metrics: StreamMetrics,
        partitions: int = 4,
    ) -> None:
        self.settings = settings
        self.partitions = partitions
        self.batch = 1  # messages that the application gets at once
        self.ticks = True  # whether to call the hook after each batch
        self._batch: list[Received] = []
        self.produced: dict[str, list[Message]] = defaultdict(list)
        self._pending: list[tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]], int]] = []
        self._offsets: dict[tuple[str, int], int] = defaultdict(int)
        self.health = Health()
        spec = replace(spec, guarantee="at-least-once", commit_interval_s=3600.0)
        topics = MemoryTopics(partitions, spec.group)
        self.app = FraudApplication(settings, spec, make_processing, self.health, metrics, topic_manager=topics)
        self._context = self.app._processing_context
        self._context.producer.produce = self._produce
        self._context.producer.flush = lambda timeout=None: 0
        self._context.consumer.commit = lambda offsets, asynchronous: []
        self._state = self._context.state_manager
        self._state.init()
        for stream_id in self._state.stores:
            for number in range(partitions):
                self._state.on_partition_assign(stream_id, number, {})
        self._context.init_checkpoint()
        self._commit = self._context.commit_checkpoint
        self._context.commit_checkpoint = self._commit_checkpoint

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, timestamp: int, partition: int | None = None
    ) -> None:
        """Process one message."""
        if partition is None:
            partition = murmur2_partition(key or b"", self.partitions)
        offset = self._offsets[topic, partition]
        self._offsets[topic, partition] += 1
        self._batch.append(Received(topic, partition, offset, key, value, timestamp))
        if len(self._batch) >= self.batch:
            self._process_batch()

    def _process_batch(self) -> None:
        batch, self._batch = self._batch, []
        if batch:
            self.app.batches.process(batch)
            self._end_turn()

    def _end_turn(self) -> None:
        if self.ticks:
            self.app.hooks.on_tick()

    def commit(self) -> None:
        """Commit the checkpoint: write state to disk, and make outputs visible."""
        self._process_batch()
        self._context.commit_checkpoint(force=True)

    def _commit_checkpoint(self, *, force: bool) -> None:
        self._commit(force=force)
        for topic, key, value, headers, timestamp in self._pending:
            partition = murmur2_partition(key or b"", self.partitions)
            place = len(self.produced[topic])
            self.produced[topic].append(Message(topic, partition, place, key, value, headers, timestamp))
        self._pending.clear()

    def close(self) -> None:
        """Close the state and lose uncommitted changes, as in a crash."""
        self._state.close()

    def _produce(self, topic, value=None, key=None, headers=None, partition=None, timestamp=None) -> None:
        self._pending.append((topic, key, value, list(headers or []), timestamp or 0))
