"""Wait for a condition, or repeat a request to a cluster, but never longer than a deadline."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from fraud_service.domain.errors import ClusterUnavailable, PreflightError

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAIT_POLL_S: Final = 0.05
RETRY_TIMEOUT_S: Final = 60.0  # a cluster that has just started needs time to find its coordinators and leaders
RETRY_POLL_S: Final = 0.5
# Errors of a cluster that starts, stops, moves leaders, or is cut off. All of them pass without a change on our side.
TRANSIENT_CODES: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - librdkafka's own codes are public, named so
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001 - the same
        KafkaError._RESOLVE,  # noqa: SLF001 - the same
        KafkaError._TIMED_OUT,  # noqa: SLF001 - the same
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001 - the same
        KafkaError._TRANSPORT,  # noqa: SLF001 - the same
        KafkaError._WAIT_COORD,  # noqa: SLF001 - the same
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


class Deadline:
    """A point in time a number of seconds from now. `restart` moves it when there was progress."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.restart()

    def restart(self) -> None:
        """Set the deadline again, counted from now."""
        self._at = time.monotonic() + self._timeout_s

    def has_passed(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() >= self._at


def wait_until(
    condition: Callable[[], T],
    timeout_s: float,
    poll_s: float = WAIT_POLL_S,
    pause: Callable[[float], object] | None = None,
) -> T:
    """Call a condition until its result is true or the time is over, and return its last result.

    The condition is always called at least once. As with `threading.Condition.wait_for`, a false result means that
    the time is over, and the caller decides which error that is. `pause` waits between two calls, as `Event.wait` does,
    which ends early. The default sleeps.

    >>> states = iter([None, None, "ready"])
    >>> wait_until(lambda: next(states), timeout_s=1.0, poll_s=0.0)
    'ready'
    """
    deadline = Deadline(timeout_s)
    while True:
        result = condition()
        if result or deadline.has_passed():
            return result
        (pause or time.sleep)(poll_s)


def retry_transient(what: str, request: Callable[[], T]) -> T:
    """Send a request to the cluster, and repeat it for a minute while it fails with a transient error.

    Raises `ClusterUnavailable` when the error is still transient then, and `PreflightError` at once for any other
    error. Both begin with `what`, which says what could not be done.
    """
    deadline = Deadline(RETRY_TIMEOUT_S)
    while True:
        try:
            return request()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() not in TRANSIENT_CODES:
                raise PreflightError(f"{what}: {reason.str()}") from error
            if deadline.has_passed():
                raise ClusterUnavailable(
                    f"{what}, for {RETRY_TIMEOUT_S:.0f} s: {reason.str()}. A coordinator or the leader of a topic is "
                    "missing: check the brokers, then start again"
                ) from error
            log.warning("waiting_for_the_cluster", what=what, reason=reason.str())
        time.sleep(RETRY_POLL_S)
