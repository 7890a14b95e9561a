"""Collect every use of a private name of Quix Streams, and the wrappers around its public methods.

The issues are those of quixio/quix-streams; "none found" means that a search found none. Quix is pinned to one
version, and the test `tests/unit/runtime/test_quix_internals.py` checks exactly this table. When
Quix changes, that test fails first; the last column says what to do then.

===================================== ================================= ============== ==============================
private name                          why we use it                     upstream issue when it changes
===================================== ================================= ============== ==============================
Application._process_message          a tick processes a batch          none found     override what polls one message
Application._on_assign                wait for open transactions        PR 1146        override the assign callback
Application._on_revoke                process the collected batch first none found     override the revoke callback
Application._on_lost                  stop when partitions are lost     none found     override the lost callback
InternalProducer._producer            reach the client below Quix       none found     find the wrapped producer
InternalProducer._on_delivery         report errors, changelog offsets  none found     find the delivery callback
InternalProducer._raise_for_error     raise an earlier delivery error   none found     find what `produce` calls first
Producer._producer                    produce without a poll a message  none found     find the client of confluent
StateStoreManager._recovery_manager   replace its recovery loop         none found     find the owner of the loop
RecoveryManager._recovery_loop        write recovered rows in batches   351            replace what `do_recovery` runs
RecoveryManager._update_recovery_status  end the recovery of partitions none found     call what ends a recovery
RecoveryManager._position_cache       read positions that are current   none found     drop the call of `clear`
RecoveryPartition._should_apply_changelog  skip uncommitted changes     PR 970         compare the offsets as Quix does
PartitionTransaction._update_cache    read and write state directly     none found     use `transaction.get_bytes`
===================================== ================================= ============== ==============================

The wrappers also work around two problems of librdkafka. It can lose a pause (issue 5591). A commit can wait without
end when the group's coordinator dies (issues 5456 and 5511).
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

from quixstreams import Application

from fraud_service.domain.errors import ClusterUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError, Message, TopicPartition
    from quixstreams.internal_producer import InternalProducer
    from quixstreams.processing import ProcessingContext
    from quixstreams.state.base import PartitionTransaction
    from quixstreams.state.manager import StateStoreManager
    from quixstreams.state.recovery import RecoveryPartition

COMMIT_TIMEOUT_S: Final = 10.0  # shorter than the liveness probe's silence, so an outage does not look like a hang
CLOSE_TIMEOUT_S: Final = 1.0  # extra time for the timeout error of the client itself


class ExtensibleApplication(Application):  # type: ignore[misc]
    """Quix's application, with public names for the steps that a subclass extends.

    The steps are `tick`, `assign_partitions`, `revoke_partitions` and `lose_partitions`. Those of a rebalance also get
    Quix's own step, which they must call. Quix calls `tick` only while all state is recovered.
    """

    def _process_message(self, dataframe_composed: Any) -> None:  # noqa: ARG002 - Quix's signature
        self.tick()

    def _on_assign(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        self.assign_partitions(consumer, topic_partitions, super()._on_assign)

    def _on_revoke(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        self.revoke_partitions(consumer, topic_partitions, super()._on_revoke)

    def _on_lost(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        self.lose_partitions(consumer, topic_partitions, super()._on_lost)


def produce_directly(producer: InternalProducer) -> None:
    """Give messages to the client without Quix's poll after each one.

    Quix gets the delivery reports of changelog records, whose offsets it needs, and of failed messages. When the
    client's queue is full, Quix's own `produce` waits for room.
    """
    quix_produce = producer.produce

    def report_failure(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            producer._on_delivery(error, message)  # noqa: SLF001

    def produce(topic: str, *, partition: int | None = None, **message: Any) -> None:
        producer._raise_for_error()  # noqa: SLF001
        given = {name: value for name, value in message.items() if value is not None}
        if partition is None:
            given["on_delivery"] = report_failure
        else:
            given["on_delivery"] = producer._on_delivery  # noqa: SLF001
            given["partition"] = partition
        try:
            producer._producer._producer.produce(topic, **given)  # noqa: SLF001
        except BufferError:
            quix_produce(topic, partition=partition, **message)

    producer.produce = produce


def bound_commit_time(producer: InternalProducer) -> None:
    """Give up a commit that brokers do not answer: Quix would wait for three times the transaction timeout.

    The client itself may wait without end (librdkafka issues 5456 and 5511). Its call then stays behind in a daemon
    thread, and the producer of the next start fences it.
    """
    commit, client = producer.commit_transaction, producer._producer  # noqa: SLF001
    send = client.send_offsets_to_transaction

    def commit_transaction(positions: Any, metadata: Any, timeout: float | None = None) -> None:
        commit(positions, metadata, COMMIT_TIMEOUT_S if timeout is None else timeout)

    def send_offsets(positions: Any, metadata: Any, timeout: float) -> None:
        answer: Future[None] = Future()

        def ask() -> None:
            try:
                answer.set_result(send(positions, metadata, timeout))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
                answer.set_exception(error)

        Thread(target=ask, daemon=True).start()
        try:
            answer.result(timeout + CLOSE_TIMEOUT_S)
        except TimeoutError as error:
            raise ClusterUnavailable(
                f"the group's coordinator did not answer a commit, and the client still waits after {timeout:.0f} s"
            ) from error

    producer.commit_transaction = commit_transaction
    client.send_offsets_to_transaction = send_offsets


class CheckpointClock:
    """Measure when the current checkpoint, and under exactly-once its transaction, started.

    Calls `observe` with the duration in seconds of each commit of a checkpoint that is not empty.
    """

    def __init__(self, context: ProcessingContext, observe: Callable[[float], None]) -> None:
        self.started_at = time.monotonic()
        commit = context.commit_checkpoint

        def commit_checkpoint(force: bool = False, revoking: bool = False) -> None:
            checkpoint, commit_start = context.checkpoint, time.monotonic()
            has_outputs = not checkpoint.empty()
            commit(force=force, revoking=revoking)
            if context.checkpoint is not checkpoint:
                self.started_at = time.monotonic()
                if has_outputs:
                    observe(self.started_at - commit_start)

        context.commit_checkpoint = commit_checkpoint


def replace_recovery_loop(state: StateStoreManager, loop: Callable[[], None]) -> RecoveryControl:
    """Replace Quix's recovery loop by ours, and return the parts of Quix's loop that ours needs."""
    manager = state._recovery_manager  # noqa: SLF001
    manager._recovery_loop = loop  # noqa: SLF001
    return RecoveryControl(manager)


class RecoveryControl:
    """The parts of Quix's recovery that our loop uses."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    @property
    def is_recovering(self) -> bool:
        """Whether partitions are left to recover, and Quix has not stopped the recovery."""
        return bool(self._manager.recovering)

    def partitions(self) -> list[RecoveryPartition]:
        """Return the partitions that are not recovered yet."""
        return [part for parts in self._manager.partitions.values() for part in parts.values()]

    def partition_of(self, message: Message) -> RecoveryPartition | None:
        """Return the partition that a changelog record belongs to, None when it is not being recovered."""
        return self._manager.partitions.get(message.partition(), {}).get(message.topic())

    def end_recovered_partitions(self) -> None:
        """Let Quix end the recovery of the partitions that are read to their end."""
        self._manager._position_cache.clear()  # noqa: SLF001 - a cached position may be older than the last row
        self._manager._update_recovery_status()  # noqa: SLF001


def should_apply(part: RecoveryPartition, processed: dict[str, int]) -> bool:
    """Whether the group has committed the input offsets that a changelog record was computed from."""
    return bool(part._should_apply_changelog(processed))  # noqa: SLF001


def uncommitted_changes(transaction: PartitionTransaction) -> Any:
    """Return the values that a checkpoint has written and not committed yet."""
    return transaction._update_cache  # noqa: SLF001
