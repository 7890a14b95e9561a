"""Batches that the client cannot unpack, and how to read on behind them.

A batch is damaged, or has more bytes than the client unpacks: eleven kilobytes of zstd can hold a hundred megabytes.
The client reports such a batch again and again and never goes on. It reports where the batch begins, but not where it
ends. So the end is searched for: a fetch within the batch meets the batch again, a fetch behind it does not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fraud_service.domain.errors import ClusterUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REQUEST_TIMEOUT_S: Final = 30.0  # seconds for one fetch
POLL_S: Final = 1.0  # seconds for one poll


def is_unreadable(message: Any) -> bool:
    """Whether a message stands for a batch that the client cannot unpack."""
    error = message.error()
    return error is not None and error.code() == KafkaError._BAD_COMPRESSION  # noqa: SLF001 - its public name


def end_of(options: Mapping[str, Any], message: Any, beat: Callable[[], None] = lambda: None) -> int:
    """Return the first offset behind an unreadable batch; its own first one when it can be read now.

    Parameters
    ----------
    options
        Of a consumer that may read the topic.
    beat
        Called before each fetch; a batch of a million messages needs forty.

    Raises
    ------
    ClusterUnavailable
        When the cluster does not answer.
    """
    consumer = Consumer({**options, "isolation.level": "read_uncommitted"})
    first: int = message.offset()
    _, end = consumer.get_watermark_offsets(
        TopicPartition(message.topic(), message.partition()), timeout=REQUEST_TIMEOUT_S
    )

    def is_within(offset: int) -> bool:
        beat()
        return offset < end and _meets(consumer, TopicPartition(message.topic(), message.partition(), offset), first)

    try:
        if not is_within(first):
            return first
        inside, step = first, 1
        while is_within(inside + step):
            inside, step = inside + step, 2 * step
        outside = inside + step
        while outside - inside > 1:
            middle = (inside + outside) // 2
            inside, outside = (middle, outside) if is_within(middle) else (inside, middle)
        return outside
    finally:
        consumer.close()


def _meets(consumer: Consumer, place: TopicPartition, first: int) -> bool:
    """Whether a fetch from a place meets the unreadable batch that begins at the first offset."""
    consumer.assign([place])
    deadline = time.monotonic() + REQUEST_TIMEOUT_S
    while time.monotonic() < deadline:
        message = consumer.poll(POLL_S)
        if message is not None:
            return is_unreadable(message) and message.offset() == first
        (position,) = consumer.position([place])
        if position.offset > place.offset:  # past transaction markers, for which the client returns no message
            return False
    raise ClusterUnavailable(
        f"{place.topic}[{place.partition}] gave nothing for {REQUEST_TIMEOUT_S:.0f} s at {place.offset}"
    )


class Reader(Consumer):  # type: ignore[misc] # the client has no types
    """A consumer, assigned by hand, that reads on behind what it cannot unpack; it returns the error once."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._options = options
        self._behind: dict[tuple[str, int], int] = {}

    def assign(self, places: list[TopicPartition]) -> None:
        """Begin to read."""
        self._behind.clear()
        super().assign(places)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
        """Return messages, as the client does."""
        messages: list[Any] = super().consume(num_messages, timeout)
        for message in messages:
            if is_unreadable(message):
                place = TopicPartition(message.topic(), message.partition(), end_of(self._options, message))
                self._behind[place.topic, place.partition] = place.offset
                self.seek(place)
        return messages

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        """Return the next offset to be read of each partition."""
        found: list[TopicPartition] = super().position(places)
        for place in found:
            place.offset = max(place.offset, self._behind.get((place.topic, place.partition), place.offset))
        return found
