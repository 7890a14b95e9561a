"""Wait until the transactions on a topic have ended, so that readers see everything that was written to it.

A transaction ends on each partition in its own time. So the offsets of a checkpoint can be committed while its records
in the changelog still lack their commit marker, and a reader of committed records stops before them. Recovery that
began then would lack the last checkpoint of the process that had the partition before, and the next checkpoint would
write that gap into the changelog.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fraud_service.domain.errors import FatalStreamError, TopicReadError
from fraud_service.kafka import clients
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka.admin import AdminClient

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import OffsetRange, TopicReader

log = structlog.get_logger(__name__)

RECOVERY_TIMEOUT_S: Final = 60.0  # the broker aborts an abandoned transaction after ten seconds and one check
READ_TIMEOUT_S: Final = 120.0

Ends = dict[tuple[str, int], int]


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
    """Return the ends of the partitions as readers of this isolation see them; nothing when the cluster is silent."""
    latest = {TopicPartition(one.topic, one.partition): OffsetSpec.latest() for one in partitions}
    try:
        answers = admin.list_offsets(latest, isolation_level=isolation, request_timeout=clients.REQUEST_TIMEOUT_S)
        return {(place.topic, place.partition): answer.result().offset for place, answer in answers.items()}
    except KafkaException as error:
        log.warning("end_offsets_unknown", topic=partitions[0].topic, reason=error.args[0].str())
        return {}


def stable_ranges(settings: Settings, archive: TopicReader, topic: str) -> dict[int, OffsetRange]:
    """Return what readers see of a topic after all transactions that have written to it by now are over.

    A group's offsets become visible a little before the records of the same transaction. So read the offsets first and
    then call this: no record that belongs to them is missing. Raises `TopicReadError` when a transaction stays open
    for two minutes.
    """
    partitions = [TopicPartition(topic, number) for number in archive.spans(topic)]
    try:
        wait_for_open_transactions(clients.admin(settings), partitions, timeout_s=READ_TIMEOUT_S)
    except FatalStreamError as error:
        raise TopicReadError(str(error)) from error
    return archive.spans(topic)
