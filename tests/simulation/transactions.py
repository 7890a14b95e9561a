"""The transaction coordinator: epochs, fencing, and transactions that end on each partition at a different time."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError
from simulation.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.groups import Groups, Membership
    from simulation.log import PartitionLog, Place, Record


class Identity(NamedTuple):
    """The identity of a transactional producer. Of two with the same id, the newer epoch fences the older."""

    name: str
    producer: int
    epoch: int


@dataclass
class Transaction:
    """The state of one transactional id."""

    producer: int
    timeout: float
    epoch: int = -1
    status: str = "empty"  # ongoing, ending, committed, aborted
    started: float = 0.0
    is_commit: bool = False
    partitions: set[Place] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    markers: list[tuple[float, Place | str]] = field(default_factory=list)  # when due, and for which partition or group


class Transactions:
    """All transactional ids of a cluster.

    Parameters
    ----------
    marker_delay
        Returns the seconds until a marker is written, for each partition and for the offsets of each group.
    """

    def __init__(self, logs: dict[Place, PartitionLog], groups: Groups, marker_delay: Callable[[], float]) -> None:
        self._logs = logs
        self._groups = groups
        self._marker_delay = marker_delay
        self._known: dict[str, Transaction] = {}
        self._numbers = count(1)
        self.is_fencing = True  # a test sets this to False to let zombies write

    def initialise(self, name: str, timeout: float, now: float) -> Identity:
        """Abort the open transaction of the predecessor, then return the producer's new epoch."""
        known = self._known.setdefault(name, Transaction(next(self._numbers), timeout))
        if known.status == "ongoing":
            known.epoch += 1
            self._end(known, now, is_commit=False)
        if known.status == "ending":
            raise BrokerError(KafkaError.CONCURRENT_TRANSACTIONS)
        known.epoch += 1
        known.timeout, known.status = timeout, "empty"
        return Identity(name, known.producer, known.epoch)

    def produce(self, identity: Identity, place: Place, record: Record, now: float) -> int:
        """Append a record to the producer's transaction and begin one if necessary; returns the offset."""
        transaction = self._ongoing(identity, now)
        transaction.partitions.add(place)
        return self._logs[place].append(record, identity.producer)

    def send_offsets(self, identity: Identity, membership: Membership, offsets: dict[Place, int], now: float) -> None:
        """Add offsets of a group to the transaction."""
        self._groups.check(membership)
        transaction = self._ongoing(identity, now)
        transaction.groups.add(membership.group)
        self._groups.hold(membership.group, identity.producer, offsets)

    def end(self, identity: Identity, now: float, *, is_commit: bool) -> None:
        """Decide the outcome of a transaction. `advance` writes each marker after its delay."""
        transaction = self._check(identity)
        if transaction.status == "ending":
            raise BrokerError(KafkaError.CONCURRENT_TRANSACTIONS)
        if transaction.status == ("committed" if is_commit else "aborted"):
            return  # the response to the first attempt was lost
        if transaction.status != "ongoing":
            raise BrokerError(KafkaError.INVALID_TXN_STATE)
        self._end(transaction, now, is_commit=is_commit)

    def advance(self, now: float) -> None:
        """Write the markers that are due, and abort transactions after their timeout."""
        for transaction in self._known.values():
            if transaction.status == "ongoing" and now >= transaction.started + transaction.timeout:
                transaction.epoch += 1  # fences the slow producer
                self._end(transaction, now, is_commit=False)
            if transaction.status == "ending":
                self._write_markers(transaction, now)

    def next_event(self) -> float:
        """Return the time of the next effect of `advance`."""
        times = [due for transaction in self._known.values() for due, _ in transaction.markers]
        times += [one.started + one.timeout for one in self._known.values() if one.status == "ongoing"]
        return min(times, default=float("inf"))

    @property
    def are_settled(self) -> bool:
        """Whether no transaction is open or ending."""
        return all(one.status not in {"ongoing", "ending"} for one in self._known.values())

    def _check(self, identity: Identity) -> Transaction:
        known = self._known[identity.name]
        if identity.epoch != known.epoch and self.is_fencing:
            raise BrokerError(KafkaError.PRODUCER_FENCED)
        return known

    def _ongoing(self, identity: Identity, now: float) -> Transaction:
        transaction = self._check(identity)
        if transaction.status == "ending":
            raise BrokerError(KafkaError.CONCURRENT_TRANSACTIONS)
        if transaction.status != "ongoing":
            transaction.status, transaction.started = "ongoing", now
        return transaction

    def _end(self, transaction: Transaction, now: float, *, is_commit: bool) -> None:
        transaction.status, transaction.is_commit = "ending", is_commit
        targets: list[Place | str] = [*sorted(transaction.partitions), *sorted(transaction.groups)]
        transaction.markers = [(now + self._marker_delay(), target) for target in targets]
        transaction.partitions.clear()
        transaction.groups.clear()
        self._write_markers(transaction, now)

    def _write_markers(self, transaction: Transaction, now: float) -> None:
        waiting = []
        for due, target in transaction.markers:
            if due > now:
                waiting.append((due, target))
            elif isinstance(target, str):
                self._groups.release(target, transaction.producer, is_commit=transaction.is_commit)
            else:
                self._logs[target].close(transaction.producer, is_commit=transaction.is_commit)
        transaction.markers = waiting
        if not waiting:
            transaction.status = "committed" if transaction.is_commit else "aborted"
