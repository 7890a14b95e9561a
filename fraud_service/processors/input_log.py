"""Where the logs that the learner reads end. A boundary waits until they are read; no message says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import KafkaException, TopicPartition

from fraud_service.kafka import clients, retries

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.runtime.application import FraudApplication

log = structlog.get_logger(__name__)

REQUEST_TIMEOUT_S: Final = 5.0  # seconds; asked again at the next turn

Position = tuple[str, int]  # topic and partition


class InputLog:
    """What the learner must know of the logs behind its inputs; the topology driver replaces it."""

    def __init__(self, settings: Settings, app: FraudApplication, topics: list[str]) -> None:
        self._reader = clients.reader(settings, f"{settings.learner_group}-ends")
        self._app = app
        self._topics = topics
        counts = retries.retry_transient(
            "the learner's inputs cannot be counted",
            lambda: self._reader.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics,
        )
        self.partitions = len(counts[topics[0]].partitions)

    def unread(self) -> dict[Position, int] | None:
        """Return the ends of the partitions that were not read to their end; None when the cluster does not answer.

        Open transactions do not count, and a log of which nothing is left has nothing to read.
        """
        try:
            return self._unread()
        except KafkaException as error:
            log.warning("ends_unknown", reason=error.args[0].str())
            return None

    def _unread(self) -> dict[Position, int]:
        marks = {
            place: self._reader.get_watermark_offsets(TopicPartition(*place), timeout=REQUEST_TIMEOUT_S)
            for place in ((topic, number) for topic in self._topics for number in range(self.partitions))
        }
        ends = {place: high for place, (low, high) in marks.items() if high > low}
        reached = self.positions(list(ends))
        # Without a message since the start there is no position: then the committed offset is the position.
        fresh = [TopicPartition(*place) for place, offset in reached.items() if offset < 0]
        if fresh:
            committed = self._app._consumer.committed(fresh, timeout=REQUEST_TIMEOUT_S)  # noqa: SLF001 - as below
            reached |= {(found.topic, found.partition): found.offset for found in committed}
        return {place: ends[place] for place, offset in reached.items() if offset < ends[place]}

    def positions(self, wanted: list[Position]) -> dict[Position, int]:
        """Return the next offset to be read of each partition; transaction markers at the end count as read."""
        consumer = self._app._consumer  # noqa: SLF001 - Quix shows no position; the canary test guards the name
        found = consumer.position([TopicPartition(*place) for place in wanted])
        behind = self._app.batches.behind
        reached = {(position.topic, position.partition): position.offset for position in found}
        return {place: max(offset, behind.get(place, offset)) for place, offset in reached.items()}

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()
