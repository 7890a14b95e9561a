"""Classify the error that ended the loop: restart when the cluster is back, or end the process.

Brokers report the same error for a transaction that took too long and for one that another process has fenced. So we
ask the group whether another member has our name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from quixstreams.checkpointing.exceptions import CheckpointProducerTimeout

from fraud_service.domain.errors import (
    ClusterUnavailable,
    FatalStreamError,
    FraudServiceError,
    PartitionsLost,
)
from fraud_service.kafka import clients, consumer_groups, retries
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings

log = structlog.get_logger(__name__)

JOIN_TIMEOUT_S: Final = 2.0  # the least time for a process that took our name to join the group
MEMBERS_POLL_S: Final = 0.5
LOST: Final = frozenset(  # the group went on without us
    {
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - librdkafka's own codes are public, named so
        KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001 - the same
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)
FENCED: Final = frozenset(  # the broker has ended our transaction, or our membership
    {
        KafkaError._FATAL,  # noqa: SLF001 - the same
        KafkaError._FENCED,  # noqa: SLF001 - the same
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_TXN_STATE,
        KafkaError.PRODUCER_FENCED,
    }
)


def classify_error(error: BaseException, name: str, has_rival: Callable[..., bool]) -> FraudServiceError:
    """Return the error of ours that describes what ended the loop.

    Parameters
    ----------
    name
        The group instance and transactional id of this process.
    has_rival
        Whether another process has taken that name, asked only when it may be so; `is_joining` says that it may still
        be on its way into the group.
    """
    chain = list(_chain(error))
    ours = next((cause for cause in chain if isinstance(cause, FraudServiceError)), None)
    codes = {told.code() for cause in chain for told in _told(cause)}
    # A twin that has joined took our partitions; one that only fenced our transaction may still be joining.
    is_replaced = isinstance(ours, PartitionsLost) and has_rival(is_joining=False)
    is_replaced = is_replaced or (ours is None and bool(codes & FENCED) and has_rival(is_joining=True))
    if is_replaced or KafkaError.FENCED_INSTANCE_ID in codes:
        return FatalStreamError(
            f"another process runs as {name} and took over from this one: give each a FRAUD_INSTANCE_ID of its own"
        )
    if ours is not None:
        return ours
    if codes & (retries.TRANSIENT_CODES | LOST | FENCED) or isinstance(error, CheckpointProducerTimeout):
        return ClusterUnavailable(f"the cluster was away or too slow: {type(error).__name__}: {error}")
    return FatalStreamError(f"the stream ended: {type(error).__name__}: {error}")


@dataclass(frozen=True)
class Membership:
    """A process in its group: by what name, as which member, and how many seconds it took from its start to join."""

    group: str
    name: str
    member: str
    joined_after: float


def is_fenced_by_twin(settings: Settings, ours: Membership, beat: Callable[[], None], *, is_joining: bool) -> bool:
    """Whether another process is in the group under our name; False when the cluster does not answer.

    It fences us at its start and joins later: as much later as we did, more or less. When it may still be joining,
    twice that is waited for, and `beat` called meanwhile; asked too early, two processes would take turns.
    """
    admin = clients.admin(settings)  # held on to: an answer for a client that is gone never comes
    timeout_s = max(JOIN_TIMEOUT_S, 2 * ours.joined_after) if is_joining else 0.0

    def has_twin() -> bool:
        beat()
        members = consumer_groups.members(admin, ours.group, clients.PROBE_TIMEOUT_S)
        return any(other.group_instance_id == ours.name and other.member_id != ours.member for other in members)

    try:
        return wait_until(has_twin, timeout_s, MEMBERS_POLL_S)
    except KafkaException as error:
        log.warning("group_members_unknown", group=ours.group, reason=error.args[0].str())
        return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException) -> Iterator[KafkaError]:
    """Yield what librdkafka said, as its own exceptions and those of Quix hold it."""
    yield from (value for value in (*error.args, getattr(error, "error", None)) if isinstance(value, KafkaError))
