"""Read partitions up to a known end, with any consumer that is assigned by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, TopicPartition

from fraud_service.domain.errors import FatalStreamError
from fraud_service.kafka import clients
from fraud_service.kafka.waiting import Deadline, retry_transient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from fraud_service.domain.errors import FraudServiceError

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
    """Say whether the positions of a consumer are at or behind all ends."""
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

    Compares positions instead of the offsets of messages: for transaction markers and aborted records the client
    returns no message, so the last offsets before the end may never be seen. A batch can go beyond an end. The consumer
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
            raise error(
                f"the broker sent nothing for {timeout_s:.0f} s: {late}. Look after the brokers, then try again"
            )
        yield poll_available(consumer, max_messages, poll_s)
