"""History played faster than real time, without running ahead of what the service has learned.

In real time minutes lie between a boundary and the moment its snapshot comes into force, and both processes have long
done their part. Played fast they have not: scorers would score with older snapshots, labels come to later boundaries.
`Lockstep` holds a feed back at these two places, so that a fast replay gives the scores of the slow one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import TopicPartition

from fraud_service.domain.errors import FatalStreamError
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.kafka import clients
from fraud_service.kafka.partition_reader import end_to_read, read_to_end
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer

    from fraud_service.config.settings import Settings
    from fraud_service.domain.time import LearningSchedule

WAIT_TIMEOUT_S: Final = 120.0  # seconds without progress after which the service counts as not running
WAIT_POLL_S: Final = 0.01  # seconds between two looks at committed offsets, of which nobody tells


class EventTimePacer:
    """Wait, before a transaction is sent, for what must have happened by its event time. A context.

    Before the first transaction past a boundary, everything sent so far must be scored: then the learner closes the
    boundary on all of it. Before the first one that needs the boundary's snapshot, the snapshot must be published;
    scorers make sure to have what is (`SnapshotReader.refresh`). A transaction that itself is the first past a boundary
    whose snapshot it needs finds it missing in real time too, and is sent without waiting.
    """

    def __init__(self, settings: Settings, calendar: LearningSchedule) -> None:
        self._calendar = calendar
        names = settings.topics
        self._inputs = [TopicPartition(names.transactions, number) for number in range(settings.partitions)]
        self._group = clients.reader(settings, settings.scorer_group)  # it looks at offsets, and never joins
        self._snapshots = _Published(clients.reader(settings, f"{settings.scorer_group}-lockstep"), names.snapshots)
        self._passed: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._group.close()
        self._snapshots.close()

    def before(self, timestamp: int, flush: Callable[[], None]) -> None:
        """Wait for what a transaction of this event time (epoch milliseconds) needs; `flush` sends what is held back.

        Raises
        ------
        FatalStreamError
            When nothing happens for two minutes.
        """
        number = timestamp // self._calendar.interval
        needed = (timestamp - self._calendar.activation_delay) // self._calendar.interval
        if self._passed is None:  # the learner's calendar begins here, unless it began before
            self._passed = number
            self._snapshots.read()
            newest = self._snapshots.newest
            self._first = number if newest < 0 else newest // self._calendar.interval
            return
        if self._first < needed <= self._passed and needed * self._calendar.interval > self._snapshots.newest:
            flush()
            self._await(lambda: self._has_snapshot(needed), "the learner has not published the snapshot that is due")
        if number > self._passed:
            flush()
            self._await(self._is_scored, "the scorers have not scored what was sent")
            self._passed = number

    def before_model(self, flush: Callable[[], None]) -> None:
        """Wait, before a model is promoted, until the boundaries that were passed are closed without it.

        Raises
        ------
        FatalStreamError
            When nothing happens for two minutes.
        """
        passed = self._passed
        if passed is None or passed <= self._first:
            return
        flush()
        self._await(lambda: self._has_snapshot(passed), "the learner has not closed the boundary before a promotion")

    def _has_snapshot(self, boundary: int) -> bool:
        self._snapshots.read()
        return self._snapshots.newest >= boundary * self._calendar.interval

    def _is_scored(self) -> bool:
        committed = {
            place.partition: place.offset for place in self._group.committed(self._inputs, clients.REQUEST_TIMEOUT_S)
        }
        for place in self._inputs:
            low, high = self._group.get_watermark_offsets(place, timeout=clients.REQUEST_TIMEOUT_S)
            if high > low and committed[place.partition] < high:
                return False
        return True

    def _await(self, happened: Callable[[], bool], otherwise: str) -> None:
        if not wait_until(happened, WAIT_TIMEOUT_S, WAIT_POLL_S):
            raise FatalStreamError(f"{otherwise} for {WAIT_TIMEOUT_S:.0f} s: is it running?")


class _Published:
    """The topic of snapshots, of which only the newest boundary counts."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self._consumer = consumer
        self._place = TopicPartition(topic, 0, 0)
        self._consumer.assign([self._place])
        self.newest = -1  # epoch milliseconds

    def read(self) -> None:
        """Read on to the present end."""
        marks = self._consumer.get_watermark_offsets(self._place, timeout=clients.REQUEST_TIMEOUT_S)
        ends = {(self._place.topic, 0): end_to_read(*marks)}
        for batch in read_to_end(self._consumer, ends, WAIT_TIMEOUT_S, poll_s=WAIT_POLL_S):
            for message in batch:
                if message.error() is None and message.value() is not None:
                    self.newest = max(self.newest, decode_snapshot(message.value()).as_of)

    def close(self) -> None:
        """Close the connection."""
        self._consumer.close()
