"""Classify the error that ended the loop: either restart when the cluster is back, or end the process.

Brokers report the same error for a transaction that took too long and for one that another process fenced. So this
module checks whether another member of the group has the name of this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException
from quixstreams.checkpointing.exceptions import CheckpointProducerTimeout

from fraud_service.domain.errors import ClusterUnavailable, FatalStreamError, FraudServiceError, PartitionsLost
from fraud_service.kafka import clients, consumer_groups, waiting
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings

log = structlog.get_logger(__name__)

JOIN_TIMEOUT_S: Final = 2.0  # least time to wait until a process with our name joins the group
MEMBERS_POLL_S: Final = 0.5
LOST: Final = frozenset(  # the group continues without this process
    {
        KafkaError._ASSIGNMENT_LOST,  # noqa: SLF001 - librdkafka's own codes are public, named so
        KafkaError._MAX_POLL_EXCEEDED,  # noqa: SLF001 - the same
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)
FENCED: Final = frozenset(  # the broker ended the transaction or the membership
    {
        KafkaError._FATAL,  # noqa: SLF001 - the same
        KafkaError._FENCED,  # noqa: SLF001 - the same
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.INVALID_TXN_STATE,
        KafkaError.PRODUCER_FENCED,
    }
)


def classify_error(error: BaseException, name: str, is_name_in_use: Callable[..., bool]) -> FraudServiceError:
    """Return the error of this service that describes what ended the loop.

    `name` is the group instance and transactional id of this process. `is_name_in_use` returns whether another process
    has that name. It is called only when the error may mean that. With `is_joining`, the other process may not have
    joined the group yet.
    """
    chain = list(_chain(error))
    ours = next((cause for cause in chain if isinstance(cause, FraudServiceError)), None)
    codes = {found.code() for cause in chain for found in _kafka_errors(cause)}
    # A process that took our partitions has joined. One that only fenced our transaction may still be joining.
    is_replaced = isinstance(ours, PartitionsLost) and is_name_in_use(is_joining=False)
    is_replaced = is_replaced or (ours is None and bool(codes & FENCED) and is_name_in_use(is_joining=True))
    if is_replaced or KafkaError.FENCED_INSTANCE_ID in codes:
        return FatalStreamError(
            f"another process runs as {name} and took over from this one: "
            "give each process a FRAUD_INSTANCE_ID of its own"
        )
    if ours is not None:
        return ours
    if codes & (waiting.TRANSIENT_CODES | LOST | FENCED) or isinstance(error, CheckpointProducerTimeout):
        return ClusterUnavailable(f"the cluster was unavailable or too slow: {_text(error)}")
    return FatalStreamError(f"the stream ended after an unforeseen error: {_text(error)}")


class Membership(NamedTuple):
    """A process in its group: its name, its member id, and the seconds from its start until it joined."""

    group: str
    name: str
    member: str
    joined_after_s: float


def is_instance_id_in_use(
    settings: Settings, ours: Membership, heartbeat: Callable[[], None], *, is_joining: bool
) -> bool:
    """Whether another process is in the group under our name; False when the cluster does not answer.

    That process fences this one at its start and joins the group later, after about as long as this one needed. With
    `is_joining`, wait twice as long, and call `heartbeat` meanwhile. Without the wait, the two processes would fence
    each other repeatedly.
    """
    admin = clients.admin(settings)  # keep a reference: a client that is freed never gets its answer
    timeout_s = max(JOIN_TIMEOUT_S, 2 * ours.joined_after_s) if is_joining else 0.0

    def is_id_in_use() -> bool:
        heartbeat()
        members = consumer_groups.members(admin, ours.group, clients.PROBE_TIMEOUT_S)
        return any(other.group_instance_id == ours.name and other.member_id != ours.member for other in members)

    try:
        return wait_until(is_id_in_use, timeout_s, MEMBERS_POLL_S)
    except KafkaException as error:
        log.warning("group_members_unknown", group=ours.group, reason=error.args[0].str())
        return False


def _text(error: BaseException) -> str:
    """Return what librdkafka says about an error, otherwise the text of the exception."""
    return "; ".join(found.str() for found in _kafka_errors(error)) or str(error) or "it has no text"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _kafka_errors(error: BaseException) -> Iterator[KafkaError]:
    """Yield the errors of librdkafka in an exception of its own or of Quix."""
    yield from (value for value in (*error.args, getattr(error, "error", None)) if isinstance(value, KafkaError))
