"""The broker as a state machine: topics, transactions and groups, and a clock that only others move. No threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from simulation.errors import BrokerError
from simulation.groups import Groups
from simulation.log import PartitionLog, Place, Record
from simulation.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START = 1_800_000_000.0  # seconds since the epoch when a simulation begins


class Broker:
    """A cluster of one. What it is asked for happens at once; what takes time happens in `advance`."""

    def __init__(self, marker_delay: Callable[[], float] = lambda: 0.0) -> None:
        self.now = START
        self.topics: dict[str, dict[str, str]] = {}  # settings by topic
        self.counts: dict[str, int] = {}
        self.logs: dict[Place, PartitionLog] = {}
        self.groups = Groups(lambda topic: self.counts.get(topic, 0))
        self.transactions = Transactions(self.logs, self.groups, marker_delay)

    def create(self, topic: str, partitions: int, config: Mapping[str, str] | None = None) -> None:
        """Create a topic."""
        self.topics[topic] = {"retention.ms": "-1", "retention.bytes": "-1", **(config or {})}
        self.counts[topic] = partitions
        for number in range(partitions):
            self.logs[topic, number] = PartitionLog()

    def log(self, place: Place) -> PartitionLog:
        """Return a partition."""
        if place not in self.logs:
            raise BrokerError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        return self.logs[place]

    def stamped(self, topic: str, record: Record) -> Record:
        """Give a record the broker's time, where the topic wants that or its producer gave none."""
        is_ours = self.topics[topic].get("message.timestamp.type") == "LogAppendTime" or not record.timestamp
        return record._replace(timestamp=int(self.now * 1000)) if is_ours else record

    def advance(self, now: float) -> None:
        """Move the clock, and do what was due by then."""
        self.now = max(self.now, now)
        self.transactions.advance(self.now)
        self.groups.advance(self.now)

    def committed(self, topic: str) -> dict[int, list[tuple[int, Record]]]:
        """Return what a committed reader sees of a topic, by partition, with offsets."""
        return {number: self.logs[topic, number].committed() for number in range(self.counts[topic])}
