"""The topics read back: committed records of one partition in order, without a group and without touching anything.

Whoever verifies, replays or explains reads through here. Ends are taken once, before reading begins, so that a live
topic has an end; what is appended later is not seen.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from confluent_kafka import OFFSET_END, KafkaException, TopicPartition

from fraud_service.domain.errors import ArchiveError
from fraud_service.kafka import clients
from fraud_service.kafka.unreadable_batches import is_unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Headers

STALL_TIMEOUT_S: Final = 60.0  # seconds without a record or progress after which reading is given up
BATCH: Final = 1000
POLL_S: Final = 0.05  # seconds without a message after which the end may be reached, of which no message tells


class Record(NamedTuple):
    """One committed record; `timestamp` is the broker's or the producer's, epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers

    def header(self, name: str) -> str | None:
        """Return the last header of this name as text."""
        found = dict(self.headers).get(name)
        return None if found is None else found.decode(errors="replace")


class OffsetRange(NamedTuple):
    """Offsets of a partition: the first one there is, and the one after the last committed."""

    begin: int
    end: int


class TopicReader:
    """Read topics back. A context: leaving it closes the connection. One thread a reader."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._consumer = clients.reader(settings, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def spans(self, topic: str) -> dict[int, OffsetRange]:
        """Return what there is of each partition of a topic; open transactions do not count.

        Raises
        ------
        ArchiveError
            When the topic is not there, or the cluster does not answer.
        ClusterUnavailable, PreflightError
            When a partition has no leader for a minute, or may not be read.
        """
        try:
            there = self._consumer.list_topics(topic, timeout=clients.REQUEST_TIMEOUT_S).topics[topic]
            if there.error is not None:
                raise ArchiveError(f"topic {topic} cannot be read: {there.error.str()}")
            return {
                number: OffsetRange(*clients.watermarks(self._consumer, TopicPartition(topic, number)))
                for number in sorted(there.partitions)
            }
        except KafkaException as error:
            raise ArchiveError(f"topic {topic} cannot be read: {error.args[0].str()}") from error

    def since(self, topic: str, moment: int | Mapping[int, int]) -> dict[int, int]:
        """Return for each partition the offset of the first record appended at or after a moment (epoch ms).

        It is the end where there is none. Moments by partition give an answer for those partitions.
        """
        spans = self.spans(topic)
        moments = dict.fromkeys(spans, moment) if isinstance(moment, int) else moment
        asked = [TopicPartition(topic, number, moments[number]) for number in spans if number in moments]
        try:
            found = self._consumer.offsets_for_times(asked, timeout=clients.REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise ArchiveError(f"topic {topic} cannot be searched by time: {error.args[0].str()}") from error
        return {
            place.partition: spans[place.partition].end if place.offset in {OFFSET_END, -1} else place.offset
            for place in found
        }

    def read(self, topic: str, partition: int, begin: int | None = None, end: int | None = None) -> Iterator[Record]:
        """Read a partition in order, from one offset up to another; by default all there is now.

        Raises
        ------
        ArchiveError
            When the broker gives nothing for a minute, or answers with an error.
        """
        span = self.spans(topic)[partition]
        begin, end = max(begin or 0, span.begin), span.end if end is None else min(end, span.end)
        if begin >= end:
            return
        place = TopicPartition(topic, partition, begin)
        self._consumer.assign([place])
        reached, deadline = begin, time.monotonic() + STALL_TIMEOUT_S
        while reached < end:
            messages = clients.poll_available(self._consumer, BATCH, POLL_S)
            for message in messages:
                if is_unreadable(message):  # the letter of such a batch lies at its last offset
                    (position,) = self._consumer.position([place])
                    yield Record(topic, partition, position.offset - 1, None, None, 0, [])
                    break
                if message.error() is not None:
                    raise ArchiveError(f"{topic}[{partition}] cannot be read: {message.error().str()}")
                if message.offset() >= end:
                    return
                yield Record(
                    topic,
                    partition,
                    message.offset(),
                    message.key(),
                    message.value(),
                    message.timestamp()[1],
                    clients.headers(message),
                )
            # Markers and aborted records move the position only: the last offsets before the end may never be seen.
            (position,) = self._consumer.position([place])
            if position.offset > reached:
                reached, deadline = position.offset, time.monotonic() + STALL_TIMEOUT_S
            elif time.monotonic() > deadline:
                raise ArchiveError(
                    f"{topic}[{partition}] gave nothing for {STALL_TIMEOUT_S:.0f} s at offset {reached} of {end}"
                )
