"""Read partitions up to a known end, without joining a consumer group.

Verification, replay and the operator's tasks read through this module. The end of a partition is fixed before reading
begins, so reading a live topic also ends; records that are appended later are not returned.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from fraud_service.domain.errors import FatalStreamError, TopicReadError
from fraud_service.kafka import clients
from fraud_service.kafka.messages import read_headers
from fraud_service.kafka.unreadable_batches import is_unreadable
from fraud_service.kafka.waiting import Deadline, retry_transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fraud_service.config.settings import Settings
    from fraud_service.domain.errors import FraudServiceError
    from fraud_service.kafka.messages import Headers

STALL_TIMEOUT_S: Final = 60.0
READ_POLL_S: Final = 0.05
MAX_MESSAGES: Final = 1000  # at once

Ends = dict[tuple[str, int], int]  # topic and partition -> the first offset that is not read


def poll_available(consumer: Consumer, max_messages: int, timeout_s: float) -> list[Any]:
    """Wait for a message, and return it with those that have arrived by then.

    The client's own bulk read waits until it has as many messages as it may return, or until the time is over.
    """
    first: list[Any] = consumer.consume(1, timeout=timeout_s)
    return [*first, *consumer.consume(max_messages - 1, timeout=0)] if first else first


def watermarks(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """Return the first offset of a partition and its end. Waits for a missing leader as `retry_transient` does."""
    found: tuple[int, int] = retry_transient(
        f"{place.topic}[{place.partition}] cannot be read",
        lambda: consumer.get_watermark_offsets(place, timeout=clients.REQUEST_TIMEOUT_S),
    )
    return found


def end_to_read(low: int, high: int) -> int:
    """Return the end of a partition, given its watermarks; 0 when no record is left, so that it counts as read."""
    return high if high > low else 0


def has_reached(ends: Mapping[tuple[str, int], int], positions: Mapping[tuple[str, int], int]) -> bool:
    """Return whether the positions of a consumer have reached all ends."""
    return all(positions.get(place, 0) >= end for place, end in ends.items())


def read_positions(consumer: Consumer, partitions: Iterable[tuple[str, int]]) -> Ends:
    """Return the next offset that a consumer will return of each partition; 0 right after the assignment."""
    found = consumer.position([TopicPartition(*place) for place in partitions])
    return {(place.topic, place.partition): max(place.offset, 0) for place in found}


def read_to_end(
    consumer: Consumer,
    ends: Mapping[tuple[str, int], int],
    timeout_s: float,
    *,
    poll_s: float = READ_POLL_S,
    max_messages: int = MAX_MESSAGES,
    error: type[FraudServiceError] = FatalStreamError,
) -> Iterator[list[Any]]:
    """Yield messages in batches, some of them empty, until the consumer has reached all ends.

    Compares positions instead of the offsets of messages, because the client returns no message for transaction markers
    and aborted records, which may be the last offsets before the end. A batch can go beyond an end. The consumer
    must be assigned. Raises an `error` when no position has moved for `timeout_s`.
    """
    deadline, passed = Deadline(timeout_s), -1
    while not has_reached(ends, positions := read_positions(consumer, ends)):
        if sum(positions.values()) > passed:
            passed = sum(positions.values())
            deadline.restart()
        elif deadline.has_passed():
            late = ", ".join(
                f"{topic}[{number}] at offset {positions.get((topic, number), 0)} of {end}"
                for (topic, number), end in ends.items()
                if positions.get((topic, number), 0) < end
            )
            raise error(f"the broker sent nothing for {timeout_s:.0f} s: {late}. Check the brokers, then try again")
        yield poll_available(consumer, max_messages, poll_s)


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
    """Offsets of a partition: its first offset, and the offset after its last committed record."""

    begin: int
    end: int


class TopicReader:
    """Reads topics. A context manager that closes the connection; not thread-safe."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings, self._name = settings, name
        self._consumer = clients.reader(settings, name)  # for offsets

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def offset_ranges(self, topic: str) -> dict[int, OffsetRange]:
        """Return the offsets of each partition of a topic, without open transactions.

        Raises `TopicReadError` when the topic does not exist or the cluster does not answer. When a partition has no
        leader, raises as `retry_transient` does.
        """
        with clients.kafka_errors_as(TopicReadError, f"topic {topic} cannot be read"):
            there = self._consumer.list_topics(topic, timeout=clients.REQUEST_TIMEOUT_S).topics[topic]
            if there.error is not None:
                raise KafkaException(there.error)
            return {
                number: OffsetRange(*watermarks(self._consumer, TopicPartition(topic, number)))
                for number in sorted(there.partitions)
            }

    def offsets_since(self, topic: str, moment: int | Mapping[int, int]) -> dict[int, int]:
        """Return for each partition the offset of the first record appended at or after a moment (epoch ms).

        The result is the end of the partition when no record is that new. A mapping of moments asks only for its
        partitions.
        """
        spans = self.offset_ranges(topic)
        moments = dict.fromkeys(spans, moment) if isinstance(moment, int) else moment
        asked = [TopicPartition(topic, number, moments[number]) for number in spans if number in moments]
        with clients.kafka_errors_as(TopicReadError, f"topic {topic} cannot be searched by time"):
            found = self._consumer.offsets_for_times(asked, timeout=clients.REQUEST_TIMEOUT_S)
        return {
            place.partition: spans[place.partition].end if place.offset in {OFFSET_END, -1} else place.offset
            for place in found
        }

    def read(self, topic: str, partition: int, begin: int | None = None, end: int | None = None) -> Iterator[Record]:
        """Read a partition in order, from one offset up to another; by default everything up to its present end.

        Raises `TopicReadError` when the broker sends nothing for a minute, or answers with an error.
        """
        span = self.offset_ranges(topic)[partition]
        begin, end = max(begin or 0, span.begin), span.end if end is None else min(end, span.end)
        if begin >= end:
            return
        # librdkafka: a consumer that gets a partition again may report its old position, and its close may abort the
        # process (`rktp_started` failed). So each read has a consumer of its own.
        with closing(clients.reader(self._settings, self._name)) as consumer:
            consumer.assign([TopicPartition(topic, partition, begin)])
            ends = {(topic, partition): end}
            for batch in read_to_end(consumer, ends, STALL_TIMEOUT_S, error=TopicReadError):
                for message in batch:
                    if message.offset() is not None and message.offset() >= end:
                        return
                    if is_unreadable(message):
                        # The dead letter of such a batch names the last offset of the batch.
                        yield Record(topic, partition, consumer.batch_end(message) - 1, None, None, 0, [])
                        continue
                    if message.error() is not None:
                        raise TopicReadError(f"{topic}[{partition}] cannot be read: {message.error().str()}")
                    yield Record(
                        topic,
                        partition,
                        message.offset(),
                        message.key(),
                        message.value(),
                        message.timestamp()[1],
                        read_headers(message),
                    )
