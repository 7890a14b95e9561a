"""The broker as a state machine without threads: topics, transactions, groups, and a clock that its callers move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError
from simulation.errors import BrokerError
from simulation.groups import Groups
from simulation.log import PartitionLog, Place, Record
from simulation.transactions import Transactions

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

START = 1_800_000_000.0  # start of a simulation, seconds since the epoch


class Broker:
    """A cluster of one broker. Requests take effect at once; delayed effects happen in `advance`."""

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
        """Set a record's timestamp to the broker's time if the topic requires it or the producer set none."""
        is_ours = self.topics[topic].get("message.timestamp.type") == "LogAppendTime" or not record.timestamp
        return record._replace(timestamp=int(self.now * 1000)) if is_ours else record

    def advance(self, now: float) -> None:
        """Move the clock, and apply the effects that are due by then."""
        self.now = max(self.now, now)
        self.transactions.advance(self.now)
        self.groups.advance(self.now)

    def committed(self, topic: str) -> dict[int, list[tuple[int, Record]]]:
        """Return the records of a topic that a `read_committed` consumer sees, by partition, with offsets."""
        return {number: self.logs[topic, number].committed() for number in range(self.counts[topic])}
