"""A service made again from nothing but its input topics.

What the lost one read is sent to the input topics of a new one, record by record, in the order in which the broker had
it and in step (`Lockstep`): nothing is scored before what it must know has been learned. The new service may have
another number of partitions, since the payments of a card keep their order.
"""

from __future__ import annotations

import heapq
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.admin.event_time_pacing import EventTimePacer
from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import DeadLetterReason
from fraud_service.kafka import model_topic, partitioner
from fraud_service.kafka.messages import Received, bounded
from fraud_service.kafka.sender import OutgoingRecord
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.scorer import decode_message
from fraud_service.security.card_data import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.time import LearningSchedule
    from fraud_service.kafka.topic_reader import Record

NAME: Final = "fraud-recover"


class Sources(msgspec.Struct, frozen=True):
    """The topics of the lost service; without `models`, none was ever promoted, or none shall be."""

    transactions: str
    labels: str
    models: str | None = None


class RebuildCounts(msgspec.Struct):
    """What was sent.

    `future` payments were not sent: on the new topics their times would no longer be too early. Messages that are
    `too_large` were not sent either: scorers would refuse them again.
    """

    transactions: int = 0
    labels: int = 0
    models: int = 0
    future: int = 0
    too_large: int = 0


class Rebuild:
    """Everything there is on the topics of a lost service, by the time at which the broker had it. A context.

    Parameters
    ----------
    source
        How to reach the cluster where it is.
    """

    def __init__(self, source: Settings, topics: Sources) -> None:
        self._source = source
        self._topics = topics
        self._stack = ExitStack()
        archive = self._stack.enter_context(TopicReader(source, NAME))
        # Of what has the same time, models and labels come first.
        names = [name for name in (topics.models, topics.labels, topics.transactions) if name is not None]
        self._spans = {name: archive.spans(name) for name in names}

    def __enter__(self) -> Rebuild:  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __len__(self) -> int:
        """Count the payments, records that are no longer there included."""
        return sum(span.end - span.begin for span in self._spans[self._topics.transactions].values())

    def run(
        self, target: Settings, calendar: LearningSchedule, progress: Callable[[], None] = lambda: None
    ) -> RebuildCounts:
        """Send everything to the input topics of the target, whose scorers and learner run.

        Raises
        ------
        ArchiveError
            When a topic cannot be read.
        FatalStreamError
            When the new service stands still for two minutes, or the broker refuses a record.
        """
        found, names = RebuildCounts(), target.topics
        tolerance, numbers = to_ms(target.max_clock_skew), target.reject_pan
        keeps_partitions = len(self._spans[self._topics.transactions]) == target.partitions
        with HistoryProducer(target) as feed, EventTimePacer(target, calendar) as lockstep:
            for entry in self._in_order():
                partition = entry.partition if keeps_partitions else partitioner.PARTITION_BY_KEY
                received = _received(entry)
                if received.withheld and entry.topic != self._topics.models:
                    found.too_large += 1
                    continue
                if entry.topic == self._topics.models:
                    lockstep.before_model(feed.flush)
                    record = OutgoingRecord(names.models, entry.key, entry.value, list(entry.headers))
                    model_topic.deliver(target, [record])
                    found.models += 1
                    continue
                if entry.topic == self._topics.labels:
                    feed.send(OutgoingRecord(names.labels, entry.key, entry.value, entry.headers, partition))
                    found.labels += 1
                    continue
                progress()
                try:
                    refuse(entry.value, entry.key, numbers=numbers)
                    payment = decode_message(received, tolerance)
                except InvalidEvent as error:
                    if error.reason == DeadLetterReason.FUTURE_TIMESTAMP:
                        found.future += 1
                        continue
                else:
                    lockstep.before(payment.timestamp, feed.flush)
                feed.send(OutgoingRecord(names.transactions, entry.key, entry.value, entry.headers, partition))
                found.transactions += 1
        return found

    def _in_order(self) -> Iterator[Record]:
        lanes = [
            _timed(self._stack.enter_context(TopicReader(self._source, NAME)).read(name, number))
            for name, spans in self._spans.items()
            for number in spans
        ]
        for _, entry in heapq.merge(*lanes, key=lambda timed: timed[0]):
            yield entry


def _timed(entries: Iterator[Record]) -> Iterator[tuple[int, Record]]:
    """Give each record a time that never goes back: a partition keeps its order, whatever its timestamps say."""
    newest = 0
    for entry in entries:
        newest = max(newest, entry.timestamp)
        yield newest, entry


def _received(entry: Record) -> Received:
    return bounded(Received(entry.topic, entry.partition, entry.offset, entry.key, entry.value, entry.timestamp))
