"""Find the end offsets of the learner's inputs. The learner reads up to them before it closes a boundary."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import KafkaException, TopicPartition

from fraud_service.kafka import clients, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.stream import Position, StreamAccess

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S: Final = 5.0  # the learner asks again at the next tick


class InputLog:
    """Finds the ends of the learner's inputs, on a connection of its own. No message marks them."""

    def __init__(self, settings: Settings, stream: StreamAccess, topics: Sequence[str]) -> None:
        self._reader = clients.reader(settings, f"{settings.learner_group}-ends")
        self._stream = stream
        self._topics = topics
        counts = waiting.retry_transient(
            "the partitions of the learner's inputs cannot be listed",
            lambda: self._reader.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics,
        )
        self.partitions = len(counts[topics[0]].partitions)

    def unread(self) -> dict[Position, int] | None:
        """Return the ends of the partitions that are not read to their end; None when the cluster does not answer.

        Open transactions do not count. A partition whose records are all deleted has nothing to read.
        """
        try:
            ends = dict(self._ends())
            reached = self._stream.positions(list(ends))
            # A partition without a message since the start has no position yet; its committed offset is its position.
            fresh = [place for place, offset in reached.items() if offset < 0]
            if fresh:
                reached |= self._stream.committed(fresh, REQUEST_TIMEOUT_S)
        except KafkaException as error:
            log.warning("input_ends_unknown", reason=error.args[0].str())
            return None
        return {place: ends[place] for place, offset in reached.items() if offset < ends[place]}

    def _ends(self) -> Iterator[tuple[Position, int]]:
        for place in product(self._topics, range(self.partitions)):
            low, high = self._reader.get_watermark_offsets(TopicPartition(*place), timeout=REQUEST_TIMEOUT_S)
            if high > low:
                yield place, high

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
