"""Run a processor on Quix with our guarantees.

Quix owns the loop, the state, the checkpoints and the transactions. This module adds heartbeats, batches, and stable
names that fence an old process. It holds messages back until state is recovered, and ends the loop when partitions are
lost. `preflight` has the checks before the start.
"""

from __future__ import annotations

import gc
import json
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog

from fraud_service.domain.errors import ClusterUnavailable, PartitionsLost, PreflightError
from fraud_service.kafka import clients, unreadable_batches, waiting
from fraud_service.kafka.consumer_groups import wait_for_open_transactions
from fraud_service.kafka.topics import PARTITIONS_ADDED
from fraud_service.runtime import error_classification
from fraud_service.runtime.batching import Batches
from fraud_service.runtime.bulk_recovery import BulkRecovery, drop_paused_messages
from fraud_service.runtime.client_options import consumer_options, instance_name, producer_options, state_options
from fraud_service.runtime.quix_internals import (
    CheckpointClock,
    ExtensibleApplication,
    bound_commit_time,
    produce_directly,
)
from fraud_service.runtime.stream import StreamAccess

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from confluent_kafka import TopicPartition
    from quixstreams.models import TopicManager

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.health import Health
    from fraud_service.runtime.metrics.stream import StreamMetrics
    from fraud_service.runtime.stream import Processing, StreamSpec

    RebalanceStep = Callable[[Any, list[TopicPartition]], None]

log = structlog.get_logger(__name__)

EXACTLY_ONCE_POLL_S: Final = 0.05
AT_LEAST_ONCE_POLL_S: Final = 0.2
STALL_TIMEOUT_S: Final = 60.0  # an open transaction can delay a fetch for ten seconds


class StoppedBeforeAssignment(Exception):  # noqa: N818 - nothing has failed
    """The group assigned partitions to a process that is already stopping, which does not take them."""


class FraudApplication(ExtensibleApplication):
    """Run a processor on batches of a stream, until it is stopped or the stream fails.

    `topic_manager` replaces the cluster's topics in tests without a broker. The state has no changelog then.
    """

    def __init__(
        self,
        settings: Settings,
        spec: StreamSpec,
        make_processing: Callable[[StreamAccess], Processing],
        health: Health,
        metrics: StreamMetrics,
        *,
        topic_manager: TopicManager | None = None,
    ) -> None:
        exactly_once = spec.guarantee == "exactly-once"
        super().__init__(
            broker_address=settings.bootstrap_servers,
            consumer_group=spec.group,
            processing_guarantee=spec.guarantee,
            commit_interval=spec.commit_interval_s,
            auto_offset_reset="earliest",
            auto_create_topics=False,
            auto_recover_from_source_offset_out_of_range=False,
            broker_availability_timeout=0,  # in an outage, the process stays alive and is not ready
            state_dir=settings.state_dir,
            rocksdb_options=state_options(),
            topic_manager=topic_manager,
            use_changelog_topics=topic_manager is None,
            loglevel=None,
            consumer_poll_timeout=EXACTLY_ONCE_POLL_S if exactly_once else AT_LEAST_ONCE_POLL_S,
            consumer_extra_config=consumer_options(settings, spec.group, self.on_statistics),
            producer_extra_config=producer_options(
                settings, spec.group, exactly_once=exactly_once, transaction_timeout_ms=spec.transaction_timeout_ms
            ),
        )
        self._settings, self._spec = settings, spec
        self._health, self._metrics = health, metrics
        self._has_changelogs = topic_manager is None
        self._stalled_fetch = StalledFetchDetector()
        self._stalled_partition: str | None = None
        self._is_stopping = self._has_failed = False
        self._failure: BaseException | None = None
        self._member_id, self._join_time_s = "", 0.0
        self._stream = self._register_topics()
        self._wrap_quix()
        processor, self.hooks = make_processing(self._stream)
        self.batches = Batches(
            self._stream,
            processor,
            spec.read_state,
            commits_early=spec.commits_early,
            checkpoint_started=lambda: self._checkpoint_clock.started_at,
            end_of=self._end_of_unreadable,
        )

    def _register_topics(self) -> StreamAccess:
        """Register topics and state with Quix, which checks that all topics exist."""
        for name in self._spec.outputs.values():
            self.topic(name)
        for name in self._spec.inputs:
            topic = self.topic(name, value_deserializer="bytes", key_deserializer="bytes")
            frame = self.dataframe(topic)
        if self._spec.has_state:
            frame.register_store()
        partitions = topic.broker_config.num_partitions
        return StreamAccess(frame.processing_context, frame.stream_id, self._spec.outputs, partitions)

    def _wrap_quix(self) -> None:
        context, inputs = self._stream.context, frozenset(self._spec.inputs)
        self._checkpoint_clock = CheckpointClock(context, self._metrics.checkpoints.observe)
        produce_directly(context.producer)
        if self._has_changelogs:
            BulkRecovery(context.consumer, context.state_manager, self._stream.partition_store, inputs)
            drop_paused_messages(context.consumer, context.state_manager, inputs)

    def stop(self, fail: bool = False) -> None:
        """End the loop, also before it has begun. Quix calls this too, after an exception has ended the loop."""
        self._is_stopping = True
        self._has_failed |= fail
        if fail:  # keep the error that ended the loop: Quix's clean-up may raise another one
            self._failure = self._failure or sys.exc_info()[1]
        super().stop(fail)

    def tick(self) -> None:
        """Process a batch."""
        if self._is_stopping:  # a `stop` before the loop started has no effect in Quix, so repeat it
            self.stop()
            return
        self._health.heartbeat()
        if not self._health.conditions["recovered"]:
            self._health.update(recovered=True)
        self._metrics.lag_tracker.record_idle(is_connected=self._health.conditions["connected"])
        self.hooks.on_tick()
        if self._stalled_partition is not None:
            raise ClusterUnavailable(f"the client never started to read {self._stalled_partition}")
        self.batches.tick(self.config.consumer_poll_timeout)

    def assign_partitions(self, consumer: Any, partitions: list[TopicPartition], quix_assign: RebalanceStep) -> None:
        """Take partitions, after all transactions on their changelogs are committed or aborted."""
        if self._is_stopping:
            # Assignment arrived after `stop`, usually inside `close`, where librdkafka no longer answers requests.
            # Take no partitions and make no calls.
            consumer.assign([])
            self._failure = self._failure or StoppedBeforeAssignment()
            raise self._failure
        self._require_known(partitions)
        self._member_id = consumer.memberid()
        self._join_time_s = self._join_time_s or time.monotonic() - self._health.started_at
        if self._has_changelogs:
            changelogs = [place for place in partitions if place.topic not in self._spec.inputs]
            wait_for_open_transactions(clients.admin(self._settings), changelogs, self._health.heartbeat)
        quix_assign(consumer, partitions)
        self._report_assigned(partitions)

    def _require_known(self, partitions: list[TopicPartition]) -> None:
        """End the loop when a topic has more partitions than at the start: there is no state for them."""
        added = next((place for place in partitions if place.partition >= self._stream.partitions), None)
        if added is not None:
            self._failure = PreflightError(
                f"topic {added.topic} got partition {added.partition} while the service ran; it had "
                f"{self._stream.partitions} partitions. {PARTITIONS_ADDED}"
            )
            raise self._failure

    def revoke_partitions(self, consumer: Any, partitions: list[TopicPartition], quix_revoke: RebalanceStep) -> None:
        """Process the batch that was collected, then give the partitions back."""
        if not self._has_failed:  # after a failure, the next owner processes the batch
            self.batches.process_collected()
        quix_revoke(consumer, partitions)
        self._report_assigned([])

    def lose_partitions(self, consumer: Any, partitions: list[TopicPartition], quix_lose: RebalanceStep) -> None:
        """End the loop: Quix would keep the open checkpoint, and could commit work on partitions of other processes."""
        quix_lose(consumer, partitions)
        self._report_assigned([])
        self._failure = PartitionsLost(
            "the group gave this process's partitions away while it was working: it was too slow or disconnected. "
            "It drops uncommitted work, and starts again from the last checkpoint"
        )
        raise self._failure

    def _report_assigned(self, partitions: list[TopicPartition]) -> None:
        if partitions:
            self._metrics.rebalances.inc()
            self._metrics.lag_tracker.record_assigned()
        self._metrics.assigned.set(sum(partition.topic in self._spec.inputs for partition in partitions))
        self._health.update(assigned=bool(partitions), recovered=False)
        self.hooks.on_assign(partitions)

    def _end_of_unreadable(self, message: Any) -> int:
        options = clients.reader_options(self._settings, f"{self._spec.group}-unreadable")
        return unreadable_batches.find_batch_end(options, message, self._health.heartbeat)

    def on_statistics(self, statistics: str) -> None:
        """Send a heartbeat and update gauges. The client reports statistics also during a long recovery."""
        found = json.loads(statistics)
        brokers = found.get("brokers", {}).values()
        is_connected = not brokers or any(broker["state"] == "UP" for broker in brokers)
        self._stalled_partition = self._stalled_fetch.find(
            found.get("topics", {}) if is_connected else {}, time.monotonic()
        )
        self._health.heartbeat()
        self._health.update(connected=is_connected)
        update_state_gauges(Path(self.config.state_dir), self._metrics)
        self.hooks.on_key_counts(self._stream.key_counts())

    def run_until_stopped(self) -> None:
        """Run the loop until `stop` is called or a signal arrives.

        Raises `ClusterUnavailable` when the cluster became unavailable or the group gave the partitions away; a new
        application then continues from the last checkpoint. Raises `FatalStreamError` after any other error.
        """
        bound_commit_time(self._stream.context.producer)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        gc.freeze()  # keep the garbage collector from scanning everything loaded so far
        try:
            self.run()
        except Exception as error:
            cause = self._failure or error
            if isinstance(cause, StoppedBeforeAssignment):
                log.info("stopped_before_assignment")
                return
            classified = self._classify(cause)
            if not isinstance(classified, ClusterUnavailable):
                log.exception("stream_failed")
            raise classified from error
        finally:
            gc.unfreeze()
            for number, handler in handlers.items():  # Quix's handlers would stop an application that has ended
                signal.signal(number, handler)

    def _classify(self, cause: BaseException) -> Exception:
        name = instance_name(self._settings, self._spec.group)
        ours = error_classification.Membership(self._spec.group, name, self._member_id, self._join_time_s)
        is_in_use = partial(error_classification.is_instance_id_in_use, self._settings, ours, self._health.heartbeat)
        return error_classification.classify_error(cause, name, is_in_use)


class StalledFetchDetector:
    """Find partitions that the client should read but never fetches, which only its statistics show.

    librdkafka can lose the command to fetch a partition that is paused at the same moment (its issue 5591). That
    partition then stalls without an error, while all others continue.
    """

    def __init__(self) -> None:
        self._idle_since: dict[str, float] = {}

    def find(self, topics: Mapping[str, Any], now: float) -> str | None:
        """Return a partition that has not been fetched for `STALL_TIMEOUT_S` at the monotonic time `now`, or None.

        `topics` is that part of the statistics. Pass an empty mapping while no broker answers.
        """
        idle = [
            f"{topic}[{number}]"
            for topic, found in topics.items()
            for number, partition in found["partitions"].items()
            if partition["desired"] and partition["fetch_state"] == "none"
        ]
        self._idle_since = {name: self._idle_since.get(name, now) for name in idle}
        return next((name for name, since in self._idle_since.items() if now - since >= STALL_TIMEOUT_S), None)


def update_state_gauges(folder: Path, metrics: StreamMetrics) -> None:
    """Set the gauges of the local state and its volume.

    A partition has few files, so this is quick. When the volume does not answer, the gauges keep their values: the
    stream itself detects a broken volume.
    """
    try:
        volume = shutil.disk_usage(folder)
        metrics.state.set(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        metrics.volume.set(volume.total)
        metrics.free.set(volume.free)
    except OSError as error:  # the folder does not exist yet, or RocksDB has just deleted a file
        log.debug("state_size_unknown", folder=str(folder), reason=str(error))


def abort_previous_transaction(settings: Settings, group: str) -> None:
    """Abort the transaction that a killed process with our transactional id left open.

    Until it ends, brokers do not return the group's offsets. It would end after its timeout, which is five minutes for
    the learner. This call fences a running process with our id, as our first transaction would. Raises as
    `retry_transient` does.
    """
    name = instance_name(settings, group)
    producer = clients.producer(settings, {"transactional.id": name})
    waiting.retry_transient(
        f"open transactions of {name} cannot be aborted", lambda: producer.init_transactions(clients.REQUEST_TIMEOUT_S)
    )
