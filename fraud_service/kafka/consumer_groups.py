"""Read the committed offsets and members of consumer groups, wait for open transactions, and delete groups.

A transaction ends on each partition in its own time. So the offsets of a checkpoint can be committed while its records
in the changelog still lack their commit marker. A reader of committed records stops before such records. A recovery at
that moment would miss the last checkpoint of the former owner, and the next checkpoint would keep the gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fraud_service.config.duration import format_duration
from fraud_service.domain.errors import FatalStreamError, PreflightError, TopicReadError
from fraud_service.kafka import clients
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka.admin import AdminClient

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import OffsetRange, TopicReader

log = structlog.get_logger(__name__)

STABLE_TIMEOUT_S: Final = 120.0
UNSTABLE: Final = "UNSTABLE_OFFSET_COMMIT"  # the broker's answer while a transaction holds offsets of the group
SESSION_MARGIN_S: Final = 5.0  # the broker notices the end of a session a little late
MEMBERS_POLL_S: Final = 1.0
RECOVERY_TIMEOUT_S: Final = 60.0  # the broker aborts an abandoned transaction after ten seconds and one check

Ends = dict[tuple[str, int], int]


def committed_offsets(settings: Settings, group: str, reader: TopicReader, topic: str) -> dict[int, int | None]:
    """Return the offset that a group has committed on each partition of a topic, None where it has none.

    Waits up to two minutes for transactions that hold offsets of the group and are about to end. Raises
    `TopicReadError` when one stays open, or the cluster does not return the offsets.
    """
    request = ConsumerGroupTopicPartitions(
        group, [TopicPartition(topic, number) for number in reader.offset_ranges(topic)]
    )
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


def wait_for_open_transactions(
    admin: AdminClient,
    partitions: list[TopicPartition],
    heartbeat: Callable[[], None] = lambda: None,
    timeout_s: float = RECOVERY_TIMEOUT_S,
) -> None:
    """Wait until everything that was written to these partitions by now is committed or aborted.

    Calls `heartbeat` before each request. Raises `FatalStreamError` when a transaction is still open after `timeout_s`,
    or the cluster does not answer for so long.
    """
    if not partitions:
        return
    written: Ends = {}

    def have_ended() -> bool:
        heartbeat()
        if not written:
            written.update(_ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED))
        committed = _ends(admin, partitions, IsolationLevel.READ_COMMITTED) if written else {}
        return bool(committed) and all(committed[place] >= end for place, end in written.items())

    if not wait_until(have_ended, timeout_s):
        raise FatalStreamError(
            f"a transaction on {partitions[0].topic} was still open after {timeout_s:.0f} s, or the cluster did not "
            "answer. What is committed may lack the newest records. Try again when the process that holds the "
            "transaction has ended or its transaction has timed out"
        )


def _ends(admin: AdminClient, partitions: list[TopicPartition], isolation: IsolationLevel) -> Ends:
    """Return the ends of the partitions as readers of this isolation see them; nothing without an answer."""
    latest = {TopicPartition(one.topic, one.partition): OffsetSpec.latest() for one in partitions}
    try:
        answers = admin.list_offsets(latest, isolation_level=isolation, request_timeout=clients.REQUEST_TIMEOUT_S)
        return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}
    except KafkaException as error:
        log.warning("end_offsets_unknown", topic=partitions[0].topic, reason=error.args[0].str())
        return {}


def stable_ranges(settings: Settings, reader: TopicReader, topic: str) -> dict[int, OffsetRange]:
    """Return what readers see of a topic after all transactions that have written to it by now are over.

    A group's offsets become visible a little before the records of the same transaction. So read the offsets first and
    then call this: no record that belongs to them is missing. Raises `TopicReadError` when a transaction stays open
    for two minutes.
    """
    partitions = [TopicPartition(topic, number) for number in reader.offset_ranges(topic)]
    try:
        wait_for_open_transactions(clients.admin(settings), partitions, timeout_s=STABLE_TIMEOUT_S)
    except FatalStreamError as error:
        raise TopicReadError(str(error)) from error
    return reader.offset_ranges(topic)


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
