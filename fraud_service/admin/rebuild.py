"""Rebuild a lost service from its input topics.

Sends the records of the lost service to the input topics of a new one, in the order in which the broker received them.
`EventTimePacer` waits until the new service has the snapshot for the next transaction. The new service
can have another number of partitions, because the transactions of a card keep their order.
"""

from __future__ import annotations

import heapq
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.admin.event_time_pacing import EventTimePacer
from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.kafka import model_topic, partitioner
from fraud_service.kafka.messages import Received, bounded
from fraud_service.kafka.sender import OutgoingRecord
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.scorer import decode_message
from fraud_service.security.card_data import reject_card_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.time import LearningSchedule
    from fraud_service.kafka.topic_reader import OffsetRange, Record

NAME: Final = "fraud-recover"


class SourceTopics(msgspec.Struct, frozen=True):
    """The topics of the lost service. Without `models`, no model is promoted again."""

    transactions: str
    labels: str
    models: str | None = None


class RebuildCounts(msgspec.Struct):
    """The number of records that were sent, and of those that were left out.

    `future` counts transactions that were rejected for a future timestamp. The new broker timestamp would make them
    look valid. `too_large` counts messages that scorers would reject again.
    """

    transactions: int = 0
    labels: int = 0
    models: int = 0
    future: int = 0
    too_large: int = 0


def rebuild(
    source: Settings,
    topics: SourceTopics,
    target: Settings,
    schedule: LearningSchedule,
    on_size: Callable[[int], None],
    progress: Callable[[], None],
) -> RebuildCounts:
    """Send the records of the lost service, in order, to the input topics of a new one that runs.

    `source` reaches the cluster of the lost service. `on_size` receives the number of transaction offsets, expired
    records included. Raises `FatalStreamError` when the new service makes no progress for two minutes.
    """
    found, names = RebuildCounts(), target.topics
    with ExitStack() as stack:
        reader = stack.enter_context(TopicReader(source, NAME))
        # Models and labels come before transactions of the same time.
        sources = [name for name in (topics.models, topics.labels, topics.transactions) if name is not None]
        spans = {name: reader.offset_ranges(name) for name in sources}
        on_size(sum(span.end - span.begin for span in spans[topics.transactions].values()))
        partitions = stack.enter_context(TopicReader(target, NAME)).offset_ranges(names.transactions)
        keeps_partitions = spans[topics.transactions].keys() == partitions.keys()
        producer = stack.enter_context(HistoryProducer(target))
        pacer = stack.enter_context(EventTimePacer(target, schedule))
        for entry in _in_order(source, spans, stack):
            # A record with a key goes where it belongs, even if it was misplaced or partitions were added.
            keeps_partition = keeps_partitions and entry.key is None
            partition = entry.partition if keeps_partition else partitioner.PARTITION_BY_KEY
            received = bounded(Received(*entry[:6]))
            if entry.topic == topics.models:
                pacer.before_model(producer.flush)
                model_topic.deliver(target, [OutgoingRecord(names.models, entry.key, entry.value, entry.headers)])
                found.models += 1
            elif received.withheld:
                found.too_large += 1
            elif entry.topic == topics.labels:
                producer.send(OutgoingRecord(names.labels, entry.key, entry.value, entry.headers, partition))
                found.labels += 1
            else:
                progress()
                try:
                    transaction = _decode(received, target)
                except InvalidEvent as error:
                    if error.reason == DeadLetterReason.FUTURE_TIMESTAMP:
                        found.future += 1
                        continue
                else:
                    pacer.before(transaction.timestamp, producer.flush)
                producer.send(OutgoingRecord(names.transactions, entry.key, entry.value, entry.headers, partition))
                found.transactions += 1
    return found


def _decode(received: Received, target: Settings) -> Transaction:
    """Decode a transaction as the scorers of the new service will. Raises `InvalidEvent` as they do."""
    reject_card_data(received.value, received.key, numbers=target.reject_pan)
    rejects_modes = target.reject_unknown_entry_modes
    return decode_message(received, to_ms(target.max_clock_skew), rejects_modes=rejects_modes)


def _in_order(source: Settings, spans: dict[str, dict[int, OffsetRange]], stack: ExitStack) -> Iterator[Record]:
    """Merge all partitions by the broker's timestamps. Each partition has a reader, which the stack closes."""
    lanes = [
        _timed(stack.enter_context(TopicReader(source, NAME)).read(name, number))
        for name, partitions in spans.items()
        for number in partitions
    ]
    for _, entry in heapq.merge(*lanes, key=lambda timed: timed[0]):
        yield entry


def _timed(entries: Iterator[Record]) -> Iterator[tuple[int, Record]]:
    """Pair each record with the highest timestamp so far, so that a merge by time keeps the order of the partition."""
    newest = 0
    for entry in entries:
        newest = max(newest, entry.timestamp)
        yield newest, entry
