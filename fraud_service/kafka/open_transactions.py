"""Recovery begins when every earlier transaction has ended in the changelog too.

A transaction ends on each partition in its own time: the offsets of a checkpoint can be committed while its records in
the changelog still wait for their marker. Quix recovers up to the last stable offset. So state would lack the last
checkpoint of whoever had the partition before, silently, and the next one would write that into the changelog for good.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fraud_service.domain.errors import FatalStreamError
from fraud_service.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka.admin import AdminClient

log = structlog.get_logger(__name__)

WAIT_TIMEOUT_S: Final = 60.0  # seconds; a transaction that nobody ends is aborted by the broker after ten, and a check
WAIT_POLL_S: Final = 0.05  # seconds between two looks

Ends = dict[tuple[str, int], int]


def wait_for_open_transactions(
    admin: AdminClient, partitions: list[TopicPartition], beat: Callable[[], None] = lambda: None
) -> None:
    """Wait until all that is in these partitions now is committed or aborted; `beat` is called at each look.

    Raises
    ------
    FatalStreamError
        When a transaction is still open after a minute, or the cluster does not answer for so long.
    """
    if not partitions:
        return
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    ends: Ends | None = None
    while True:
        beat()
        ends = _ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED) if ends is None else ends
        stable = None if ends is None else _ends(admin, partitions, IsolationLevel.READ_COMMITTED)
        if ends is not None and stable is not None and all(stable[place] >= end for place, end in ends.items()):
            return
        if time.monotonic() > deadline:
            raise FatalStreamError(
                f"a transaction in the changelog, or the cluster's answer, was waited for over {WAIT_TIMEOUT_S:.0f} s. "
                "Starting on what is committed by now could miss a checkpoint; the process ends, and tries again"
            )
        time.sleep(WAIT_POLL_S)


def _ends(admin: AdminClient, partitions: list[TopicPartition], isolation: IsolationLevel) -> Ends | None:
    """Return the ends of the partitions as readers of this isolation see them, None where the cluster is silent."""
    asked = {TopicPartition(one.topic, one.partition): OffsetSpec.latest() for one in partitions}
    try:
        futures = admin.list_offsets(asked, isolation_level=isolation, request_timeout=clients.REQUEST_TIMEOUT_S)
        return {(place.topic, place.partition): future.result().offset for place, future in futures.items()}
    except KafkaException as error:
        log.warning("changelog_ends_unknown", reason=error.args[0].str())
        return None
