"""Where groups stand, and when everything they have committed can be seen: what a live topic is verified against."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fraud_service.errors import ArchiveError
from fraud_service.stream import clients

if TYPE_CHECKING:
    from fraud_service.settings import Settings
    from fraud_service.stream.archive import Archive, Span

PATIENCE: Final = 120.0  # seconds for open transactions to end
PAUSE: Final = 0.05


def committed(settings: Settings, group: str, archive: Archive, topic: str) -> dict[int, int | None]:
    """Return the offset that a group has committed on each partition of a topic, None where it has none.

    Offsets in a transaction that is about to end are waited for.

    Raises
    ------
    ArchiveError
        When the cluster does not answer, or not for this group.
    """
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in archive.spans(topic)])
    admin = clients.admin(settings)  # held on to: an answer for a client that is gone never comes
    try:
        (future,) = admin.list_consumer_group_offsets(
            [asked], require_stable=True, request_timeout=clients.TIMEOUT
        ).values()
        found = future.result().topic_partitions
    except KafkaException as error:
        raise ArchiveError(f"offsets of group {group} cannot be read: {error.args[0].str()}") from error
    for place in found:
        if place.error is not None:
            raise ArchiveError(f"offsets of group {group} on {topic} cannot be read: {place.error.str()}")
    return {place.partition: place.offset if place.offset >= 0 else None for place in found}


def settled(settings: Settings, archive: Archive, topic: str) -> dict[int, Span]:
    """Return what can be seen of a topic once every transaction that has written to it by now is over.

    Offsets become visible a little before the records of the same transaction do; after this wait, nothing is missing
    that belongs to offsets read before.

    Raises
    ------
    ArchiveError
        When a transaction stays open for two minutes.
    """
    written = _written(settings, archive, topic)
    deadline = time.monotonic() + PATIENCE
    while True:
        spans = archive.spans(topic)
        late = [number for number, end in written.items() if spans[number].end < end]
        if not late:
            return spans
        if time.monotonic() > deadline:
            raise ArchiveError(
                f"{topic}[{late[0]}] holds a transaction that has been open for {PATIENCE:.0f} s: its process hangs. "
                "Try again when it has ended or timed out"
            )
        time.sleep(PAUSE)


def _written(settings: Settings, archive: Archive, topic: str) -> dict[int, int]:
    """Return the ends of all partitions, what is not committed included."""
    latest = {TopicPartition(topic, number): OffsetSpec.latest() for number in archive.spans(topic)}
    admin = clients.admin(settings)
    try:
        answers = admin.list_offsets(
            latest, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=clients.TIMEOUT
        )
        return {place.partition: future.result().offset for place, future in answers.items()}
    except KafkaException as error:
        raise ArchiveError(f"the ends of topic {topic} cannot be read: {error.args[0].str()}") from error
