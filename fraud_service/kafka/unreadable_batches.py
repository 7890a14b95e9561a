"""Skip batches that the client cannot unpack.

Such a batch is damaged, or has more bytes than the client unpacks: eleven kilobytes of zstd can hold a hundred
megabytes. The client reports the batch at each poll and does not read further. It reports the first offset of the
batch, but not the last. So this module searches for the end: a fetch inside the batch reports it again, a fetch behind
it does not.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from fraud_service.domain.errors import ClusterUnavailable
from fraud_service.kafka.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FETCH_TIMEOUT_S: Final = 30.0
FETCH_POLL_S: Final = 1.0


def is_unreadable(message: Any) -> bool:
    """Return whether a message reports a batch that the client cannot unpack."""
    error = message.error()
    return error is not None and error.code() == KafkaError._BAD_COMPRESSION  # noqa: SLF001 - its public name


def find_batch_end(options: Mapping[str, Any], message: Any, heartbeat: Callable[[], None] = lambda: None) -> int:
    """Return the first offset behind an unreadable batch, or its first offset when it has become readable.

    `options` are those of a consumer that can read the topic. Calls `heartbeat` before each fetch; a batch of a million
    messages needs forty. Raises `ClusterUnavailable` when the cluster does not answer.
    """
    options = {**options, "isolation.level": "read_uncommitted"}
    first: int = message.offset()
    with closing(Consumer(options)) as consumer:
        _, end = consumer.get_watermark_offsets(
            TopicPartition(message.topic(), message.partition()), timeout=FETCH_TIMEOUT_S
        )

    def is_within(offset: int) -> bool:
        heartbeat()
        place = TopicPartition(message.topic(), message.partition(), offset)
        return offset < end and _reports_batch(options, place, first)

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


def _reports_batch(options: Mapping[str, Any], place: TopicPartition, first: int) -> bool:
    """Return whether a fetch from a place reports the unreadable batch that begins at the first offset.

    Each fetch has a consumer of its own: one that gets a partition again may report its old position.
    """
    with closing(Consumer(options)) as consumer:
        consumer.assign([place])
        deadline = Deadline(FETCH_TIMEOUT_S)
        while not deadline.has_passed():
            message = consumer.poll(FETCH_POLL_S)
            if message is not None:
                return is_unreadable(message) and message.offset() == first
            (position,) = consumer.position([place])
            if position.offset > place.offset:  # behind transaction markers, for which the client returns no message
                return False
    raise ClusterUnavailable(
        f"{place.topic}[{place.partition}] sent nothing for {FETCH_TIMEOUT_S:.0f} s at offset {place.offset}"
    )


class SkippingConsumer(Consumer):  # type: ignore[misc] # the client has no types
    """A consumer, assigned by hand, that returns the error of an unreadable batch once and then reads on behind it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._options = options
        self._ends: dict[tuple[str, int], dict[int, int]] = {}  # of unreadable batches, by their first offset

    def assign(self, places: list[TopicPartition]) -> None:
        """Read these partitions."""
        self._ends.clear()
        super().assign(places)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Any]:
        """Return messages, and seek behind unreadable batches."""
        return [one for one in super().consume(num_messages, timeout) if not is_unreadable(one) or self._skip(one)]

    def batch_end(self, message: Any) -> int:
        """Return the first offset behind an unreadable batch that `consume` returned."""
        return self._ends[message.topic(), message.partition()][message.offset()]

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        """Return the next offset of each partition."""
        found: list[TopicPartition] = super().position(places)
        for place in found:
            place.offset = max([place.offset, *self._ends.get((place.topic, place.partition), {}).values()])
        return found

    def _skip(self, message: Any) -> bool:
        """Seek behind an unreadable batch; return whether this is its first report, and the batch is still unreadable.

        The client may have fetched a batch several times before it was asked for messages.
        """
        first: int = message.offset()
        ends = self._ends.setdefault((message.topic(), message.partition()), {})
        if first in ends:
            return False
        end = find_batch_end(self._options, message)
        self.seek(TopicPartition(message.topic(), message.partition(), end))
        if end > first:
            ends[first] = end
        return end > first
