"""Where groups stand, and when everything they have committed can be seen: what a live topic is verified against."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fraud_service.domain.errors import ArchiveError, PreflightError
from fraud_service.kafka import clients

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import OffsetRange, TopicReader

log = structlog.get_logger(__name__)

WAIT_TIMEOUT_S: Final = 120.0  # seconds for open transactions to end
WAIT_POLL_S: Final = 0.05
UNSTABLE: Final = "UNSTABLE_OFFSET_COMMIT"  # the broker does not wait itself
SLACK: Final = 5.0  # seconds after a session for the broker to see its end
LOOK: Final = 1.0  # seconds between two looks at a group


def group_offsets(settings: Settings, group: str, archive: TopicReader, topic: str) -> dict[int, int | None]:
    """Return the offset that a group has committed on each partition of a topic, None where it has none.

    Offsets in a transaction that is about to end are waited for.

    Raises
    ------
    ArchiveError
        When the cluster does not answer, or not for this group, or a transaction stays open for two minutes.
    """
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in archive.spans(topic)])
    admin = clients.admin(settings)  # held on to: an answer for a client that is gone never comes
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while True:
        found = _asked(admin, asked)
        errors = [place.error for place in found if place.error is not None]
        if not errors:
            return {place.partition: place.offset if place.offset >= 0 else None for place in found}
        if any(error.name() != UNSTABLE for error in errors) or time.monotonic() > deadline:
            raise ArchiveError(f"offsets of group {group} on {topic} cannot be read: {errors[0].str()}")
        time.sleep(WAIT_POLL_S)


def _asked(admin: AdminClient, asked: ConsumerGroupTopicPartitions) -> list[TopicPartition]:
    try:
        (future,) = admin.list_consumer_group_offsets(
            [asked], require_stable=True, request_timeout=clients.REQUEST_TIMEOUT_S
        ).values()
        found: list[TopicPartition] = future.result().topic_partitions
    except KafkaException as error:
        raise ArchiveError(f"offsets of group {asked.group_id} cannot be read: {error.args[0].str()}") from error
    return found


def require_stopped(settings: Settings, group: str) -> None:
    """Wait for the session of a member that was just stopped to end.

    Raises
    ------
    PreflightError
        When a member still runs then, or the group cannot be seen.
    """
    admin = clients.admin(settings)
    deadline = time.monotonic() + settings.session_timeout + SLACK
    while _has_members(admin, group):
        if time.monotonic() > deadline:
            raise PreflightError(f"group {group} still runs: stop its processes")
        log.info("waiting_for_the_end_of_a_session", group=group, at_most=f"{settings.session_timeout:.0f} s")
        time.sleep(LOOK)


def _has_members(admin: AdminClient, group: str) -> bool:
    try:
        (asked,) = admin.describe_consumer_groups([group], request_timeout=clients.REQUEST_TIMEOUT_S).values()
        return bool(asked.result(clients.REQUEST_TIMEOUT_S).members)
    except KafkaException as error:
        if error.args[0].name() == "GROUP_ID_NOT_FOUND":
            return False
        raise PreflightError(f"group {group} cannot be seen: {error.args[0].str()}") from error


def stable_ranges(settings: Settings, archive: TopicReader, topic: str) -> dict[int, OffsetRange]:
    """Return what can be seen of a topic once every transaction that has written to it by now is over.

    Offsets become visible a little before the records of the same transaction do; after this wait, nothing is missing
    that belongs to offsets read before.

    Raises
    ------
    ArchiveError
        When a transaction stays open for two minutes.
    """
    written = _written(settings, archive, topic)
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while True:
        spans = archive.spans(topic)
        late = [number for number, end in written.items() if spans[number].end < end]
        if not late:
            return spans
        if time.monotonic() > deadline:
            raise ArchiveError(
                f"{topic}[{late[0]}] holds a transaction that has been open for {WAIT_TIMEOUT_S:.0f} s: its "
                f"process hangs. "
                "Try again when it has ended or timed out"
            )
        time.sleep(WAIT_POLL_S)


def _written(settings: Settings, archive: TopicReader, topic: str) -> dict[int, int]:
    """Return the ends of all partitions, what is not committed included."""
    latest = {TopicPartition(topic, number): OffsetSpec.latest() for number in archive.spans(topic)}
    admin = clients.admin(settings)
    try:
        answers = admin.list_offsets(
            latest, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=clients.REQUEST_TIMEOUT_S
        )
        return {place.partition: future.result().offset for place, future in answers.items()}
    except KafkaException as error:
        raise ArchiveError(f"the ends of topic {topic} cannot be read: {error.args[0].str()}") from error
