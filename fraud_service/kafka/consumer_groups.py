"""Consumer groups: their committed offsets, their members, and their deletion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from fraud_service.config.duration import format_duration
from fraud_service.domain.errors import PreflightError, TopicReadError
from fraud_service.kafka import clients
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import TopicReader

log = structlog.get_logger(__name__)

STABLE_TIMEOUT_S: Final = 120.0
UNSTABLE: Final = "UNSTABLE_OFFSET_COMMIT"  # the broker's answer while a transaction holds offsets of the group
SESSION_MARGIN_S: Final = 5.0  # the broker notices the end of a session a little late
MEMBERS_POLL_S: Final = 1.0


def committed_offsets(settings: Settings, group: str, archive: TopicReader, topic: str) -> dict[int, int | None]:
    """Return the offset that a group has committed on each partition of a topic, None where it has none.

    Waits up to two minutes for transactions that hold offsets of the group and are about to end. Raises
    `TopicReadError` when one stays open, or the cluster does not return the offsets.
    """
    request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, number) for number in archive.spans(topic)])
    admin = clients.admin(settings)  # keep the client: without it, its answers never come
    offsets: list[TopicPartition] = []

    def are_stable() -> bool:
        with clients.kafka_errors_as(TopicReadError, f"offsets of group {group} cannot be read"):
            (answer,) = admin.list_consumer_group_offsets(
                [request], require_stable=True, request_timeout=clients.REQUEST_TIMEOUT_S
            ).values()
            offsets[:] = answer.result().topic_partitions
        return all(place.error is None or place.error.name() != UNSTABLE for place in offsets)

    wait_until(are_stable, STABLE_TIMEOUT_S)
    errors = [place.error for place in offsets if place.error is not None]
    if errors:
        raise TopicReadError(f"offsets of group {group} on {topic} cannot be read: {errors[0].str()}")
    return {place.partition: place.offset if place.offset >= 0 else None for place in offsets}


def members(admin: AdminClient, group: str, timeout_s: float) -> list[Any]:
    """Return the members of a group; none when there is no such group. Raises `KafkaException`."""
    (answer,) = admin.describe_consumer_groups([group], request_timeout=timeout_s).values()
    try:
        return list(answer.result().members)
    except KafkaException as error:
        if error.args[0].name() == "GROUP_ID_NOT_FOUND":
            return []
        raise


def require_stopped(settings: Settings, group: str) -> None:
    """Wait until a group has no members: a process that was just stopped stays a member until its session ends.

    Raises `PreflightError` when a member still runs then, or the cluster does not list the members.
    """
    admin = clients.admin(settings)

    def is_empty() -> bool:
        if not members(admin, group, clients.REQUEST_TIMEOUT_S):
            return True
        log.info("waiting_for_session_end", group=group, session_timeout=format_duration(settings.session_timeout))
        return False

    with clients.kafka_errors_as(PreflightError, f"the members of group {group} cannot be listed"):
        is_stopped = wait_until(is_empty, settings.session_timeout.total_seconds() + SESSION_MARGIN_S, MEMBERS_POLL_S)
    if not is_stopped:
        raise PreflightError(f"group {group} still runs: stop its processes")


def delete_group(settings: Settings, group: str) -> None:
    """Delete a stopped group and its offsets. Raises `PreflightError` when a member still runs."""
    require_stopped(settings, group)
    admin = clients.admin(settings)
    with clients.kafka_errors_as(PreflightError, f"group {group} cannot be deleted"):
        (answer,) = admin.delete_consumer_groups([group], request_timeout=clients.REQUEST_TIMEOUT_S).values()
        try:
            answer.result(clients.REQUEST_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].name() != "GROUP_ID_NOT_FOUND":
                raise
