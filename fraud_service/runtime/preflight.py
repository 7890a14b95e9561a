"""Check before a start that offsets match the state, and that the inputs have all unprocessed messages."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from fraud_service.domain.errors import PreflightError
from fraud_service.kafka import clients, waiting
from fraud_service.kafka.topic_reader import end_to_read, read_to_end

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topics import TopicSpec


def require_consistent(settings: Settings, group: str, inputs: list[str], changelog: TopicSpec | None) -> None:
    """Refuse to start when offsets and state do not match. Wait for a cluster that has just started.

    `inputs` are the topics that the group consumes. With one, the state of a partition depends on its own messages
    only. With several, it may depend on any of them. A group without state has no `changelog`.

    Raises `PreflightError` when state exists without offsets, because input would count twice, and when the log begins
    after an offset, because input is lost. Raises `ClusterUnavailable` when the cluster does not answer.
    """
    waiting.retry_transient(f"the group {group} cannot be checked", lambda: _check(settings, group, inputs, changelog))


def _check(settings: Settings, group: str, inputs: list[str], changelog: TopicSpec | None) -> None:
    with closing(clients.reader(settings, group)) as consumer:
        there = consumer.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics
        asked = [TopicPartition(topic, number) for topic in inputs for number in there[topic].partitions]
        committed = _committed(consumer, asked)
        known = [position for position in committed if position.offset >= 0]
        for position in known:
            _require_retained(consumer, group, position)
        if changelog is None or (known and len(inputs) > 1):
            return
        for position in committed:
            state = TopicPartition(changelog.name, position.partition)
            if position.offset < 0 and _has_record(consumer, state) and not _has_offset(consumer, position):
                raise PreflightError(
                    f"group {group} has state in {changelog.name}[{position.partition}] but no committed offset of "
                    f"{position.topic}[{position.partition}]: starting would count its history twice. Restore the "
                    f"offsets of the group, or start over with `fraud-service reset {group}`"
                )


def _committed(consumer: Any, asked: list[TopicPartition]) -> list[TopicPartition]:
    found: list[TopicPartition] = consumer.committed(asked, timeout=clients.REQUEST_TIMEOUT_S)
    for position in found:
        if position.error is not None:  # a missing permission must not look like a missing offset
            raise KafkaException(position.error)
    return found


def _has_offset(consumer: Any, position: TopicPartition) -> bool:
    """Whether another process of the group has just committed its first offset."""
    (again,) = _committed(consumer, [TopicPartition(position.topic, position.partition)])
    return bool(again.offset >= 0)


def _require_retained(consumer: Any, group: str, position: TopicPartition) -> None:
    earliest, end = consumer.get_watermark_offsets(
        TopicPartition(position.topic, position.partition), timeout=clients.REQUEST_TIMEOUT_S
    )
    if position.offset < earliest:
        raise PreflightError(
            f"group {group} has committed offset {position.offset} of {position.topic}[{position.partition}], but the "
            f"log begins at {earliest}: {earliest - position.offset} messages were deleted before they were processed. "
            f"Restore them, or accept the gap by moving the offset to {earliest} with "
            "`kafka-consumer-groups --reset-offsets`"
        )
    if position.offset > end:
        raise PreflightError(
            f"group {group} has committed offset {position.offset} of {position.topic}[{position.partition}], but the "
            f"log ends at {end}: the topic was deleted and created again. Start over with `fraud-service reset {group}`"
        )


def _has_record(consumer: Any, partition: TopicPartition) -> bool:
    """Whether a partition holds at least one committed record; markers and aborted records do not count."""
    end = end_to_read(*consumer.get_watermark_offsets(partition, timeout=clients.REQUEST_TIMEOUT_S))
    consumer.assign([TopicPartition(partition.topic, partition.partition, OFFSET_BEGINNING)])
    ends = {(partition.topic, partition.partition): end}
    try:
        batches = read_to_end(consumer, ends, clients.REQUEST_TIMEOUT_S, max_messages=1, error=PreflightError)
        return any(message.error() is None for batch in batches for message in batch)
    finally:
        consumer.unassign()
