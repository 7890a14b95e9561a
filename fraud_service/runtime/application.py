"""A Quix application with our guarantees.

Quix owns the loop, the state, the checkpoints and the transactions. Added here: stable identities that fence a zombie,
a lost partition that ends the application, messages that wait until state is recovered, a heartbeat for the probes, a
turn of the loop that may take a batch, and a name for what ended the loop. What is checked before a start is in
`preflight`.
"""

from __future__ import annotations

import gc
import json
import shutil
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from quixstreams import Application
from quixstreams.state.rocksdb import RocksDBOptions
from rocksdict import DBCompressionType

from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import ClusterUnavailable, PartitionsLost
from fraud_service.kafka import clients, partitioner, retries, unreadable_batches
from fraud_service.kafka.open_transactions import wait_for_open_transactions
from fraud_service.runtime import error_classification
from fraud_service.runtime.fast_state import produce_directly, recover_in_batches
from fraud_service.runtime.quix_patches import (
    bound_commit_time,
    drop_paused_messages,
    honour_early_stop,
    time_checkpoints,
)
from fraud_service.runtime.stalled_fetch import StalledFetchDetector

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient
    from quixstreams.models import TopicManager
    from rocksdict import Options

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.batching import Batches
    from fraud_service.runtime.health import Health
    from fraud_service.runtime.metrics.stream import StreamMetrics

log = structlog.get_logger(__name__)

TRANSACTION_TIMEOUT_MS: Final = 10_000
DELIVERY_TIMEOUT_MS: Final = 10_000  # a broker that is away must not look like a loop that hangs
CACHE_BYTES: Final = 64 << 20
MEMTABLE_BYTES: Final = 16 << 20
NO_WRITE_STALL: Final = (
    1 << 20
)  # files of a level: a recovery leaves hundreds, and no write waits until they are merged
KEYS: Final = "rocksdb.estimate-num-keys"
LEVELS_BELOW: Final = 6  # of RocksDB, where files are merged


class StateOptions(RocksDBOptions):  # type: ignore[misc]
    """Quix's options of RocksDB, for fast recoveries: writes wait for no merge, and what is soon merged stays plain."""

    def to_options(self) -> Options:
        """Return them with what Quix does not offer."""
        options: Options = super().to_options()
        options.set_compression_per_level([DBCompressionType.none()] + [DBCompressionType.lz4()] * LEVELS_BELOW)
        options.set_level_zero_slowdown_writes_trigger(NO_WRITE_STALL)
        options.set_level_zero_stop_writes_trigger(NO_WRITE_STALL)
        return options


class StoppedBeforeAssignment(Exception):  # noqa: N818 - nothing has failed
    """The group gave partitions to a process that is ending in good order: it takes none."""


class FraudApplication(Application):  # type: ignore[misc]
    """Quix's application, watched; its loop takes batches instead of single messages, through `batches`.

    It rests on names that Quix does not promise, five methods that it overrides above all; the canary test
    (`tests/unit/runtime/test_quix_patches.py`) guards them.
    """

    health: Health | None = None
    metrics: StreamMetrics | None = None
    on_partitions: Callable[[list[TopicPartition]], None] | None = None
    each_turn: Callable[[], None] | None = None
    on_keys: Callable[[dict[int, int]], None] | None = None
    batches: Batches
    admin: Callable[[], AdminClient] | None = None
    ended_by: BaseException | None = None
    is_told_to_stop = False
    not_fetched: str | None = None
    member = ""
    joined_after = 0.0  # seconds from the start to the first assignment
    has_rival: Callable[..., bool] = staticmethod(lambda *_, **__: False)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._fetching = StalledFetchDetector()
        super().__init__(*arguments, **options)

    def stop(self, fail: bool = False) -> None:
        """End the loop, or do not begin it: told while it starts, Quix forgets it (`honour_early_stop`)."""
        self.is_told_to_stop = True
        super().stop(fail)

    def _on_assign(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        if self.is_told_to_stop:
            # The group answers only now, mostly within the close: there the client tells nothing of what is asked next,
            # so nothing is.
            consumer.assign([])
            self.ended_by = self.ended_by or StoppedBeforeAssignment()
            raise self.ended_by
        self.member = consumer.memberid()
        if self.health is not None and not self.joined_after:
            self.joined_after = time.monotonic() - self.health.began
        if self.admin is not None:
            names = {changelog.name for changelog in self._topic_manager.changelog_topics_list}
            wait_for_open_transactions(
                self.admin(), [place for place in topic_partitions if place.topic in names], self._beat
            )
        super()._on_assign(consumer, topic_partitions)
        self._tell(topic_partitions)

    def _on_revoke(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        if not self._failed:
            self.batches.process_collected()  # still ours, and read: nobody else would process it twice
        super()._on_revoke(consumer, topic_partitions)
        self._tell([])

    def _on_lost(self, consumer: Any, topic_partitions: list[TopicPartition]) -> None:
        """End the loop: Quix would keep the open checkpoint and could commit work on partitions others own now."""
        super()._on_lost(consumer, topic_partitions)
        self._tell([])
        self.ended_by = PartitionsLost(
            "the group gave this process's partitions away while it was working: it was too slow or cut off. "
            "What was not committed is dropped, and it starts again from the last checkpoint"
        )
        raise self.ended_by

    def _exception_handler(self, kind: Any, error: Any, traceback: Any) -> Any:
        """Keep what ended the loop: Quix cleans up next, and what fails then would be all that is seen.

        The client sometimes loses what was raised within a rebalance, and says that it failed without an exception.
        """
        self.ended_by = self.ended_by or error
        return super()._exception_handler(kind, error, traceback)

    def _process_message(self, dataframe_composed: Any) -> None:  # noqa: ARG002 - Quix's signature
        """Take one turn of the loop. Quix comes here only when state is recovered."""
        if self.health is not None:
            self.health.beat()
            if not self.health.conditions["recovered"]:
                self.health.now(recovered=True)
            if self.metrics is not None:
                self.metrics.pace.record_idle(is_connected=self.health.conditions["connected"])
        if self.each_turn is not None:
            self.each_turn()
        if self.not_fetched is not None:
            raise ClusterUnavailable(f"the client never began to read {self.not_fetched}")
        self._run_tracker.set_message_consumed(self.batches.tick(self.config.consumer_poll_timeout))

    def _beat(self) -> None:
        if self.health is not None:
            self.health.beat()

    def end_finder(self, settings: Settings) -> Callable[[Any], int]:
        """Return a function that finds the end of a batch that the client cannot unpack."""
        options = clients.reader_options(settings, f"{self.config.consumer_group}-unreadable")
        return lambda message: unreadable_batches.find_batch_end(options, message, self._beat)

    def on_statistics(self, statistics: str) -> None:
        """Say that the process is alive during a long recovery too, when Quix polls but takes no turn of its loop."""
        told = json.loads(statistics)
        brokers = told.get("brokers", {}).values()
        is_connected = not brokers or any(broker["state"] == "UP" for broker in brokers)
        self.not_fetched = self._fetching.look(told.get("topics", {}) if is_connected else {}, time.monotonic())
        if self.health is not None:
            self.health.beat()
            self.health.now(connected=is_connected)
        if self.metrics is not None:
            show_state(Path(self.config.state_dir), self.metrics)
        if self.on_keys is not None:
            self.on_keys(self._keys())

    def _keys(self) -> dict[int, int]:
        """Return how many keys each partition's state has, as RocksDB estimates: it counts one twice for a while."""
        return {
            number: partition._db.property_int_value(KEYS) or 0  # noqa: SLF001 - the canary test guards the name
            for stores in self._state_manager.stores.values()
            for store in stores.values()
            for number, partition in store.partitions.items()
        }

    def run_until_stopped(self) -> None:
        """Run the loop; returns when told to stop.

        Raises
        ------
        ClusterUnavailable
            When the cluster went away or gave the partitions away. Nothing of this application may be used again: with
            a new one, work goes on at the last checkpoint.
        FatalStreamError
            For whatever ended it otherwise. The log has the whole story.
        """
        if self.metrics is not None:
            time_checkpoints(self._processing_context, self.metrics.checkpoints.observe)
        bound_commit_time(self._producer)
        honour_early_stop(self._run_tracker, lambda: self.is_told_to_stop)
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        gc.freeze()  # what is loaded by now stays: the collector need not look at it again
        try:
            self.run()
        except Exception as error:
            cause, name = self.ended_by or error, self.config.consumer_extra_config["group.instance.id"]
            if isinstance(cause, StoppedBeforeAssignment):
                log.info("stopped_before_assigned")
                return
            ours = error_classification.Membership(self.config.consumer_group, name, self.member, self.joined_after)
            ending = error_classification.classify_error(cause, name, partial(self.has_rival, ours, self._beat))
            if not isinstance(ending, ClusterUnavailable):
                log.exception("stream_failed")
            raise ending from error
        finally:
            gc.unfreeze()
            for number, handler in handlers.items():  # Quix's would stop an application that is no more
                signal.signal(number, handler)

    def _tell(self, partitions: list[TopicPartition]) -> None:
        if self.metrics is not None and partitions:
            self.metrics.rebalances.inc()
            self.metrics.pace.record_assigned()
        if self.health is not None:
            self.health.now(assigned=bool(partitions), recovered=False)
        if self.on_partitions is not None:
            self.on_partitions(partitions)


def show_state(folder: Path, metrics: StreamMetrics) -> None:
    """Show what the local state takes of its volume. A few files a partition: quick enough between two turns.

    A volume that does not answer keeps its last figures: what is only looked at must not end the stream, which finds
    out by itself.
    """
    try:
        volume = shutil.disk_usage(folder)
        metrics.state.set(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
        metrics.volume.set(volume.total)
        metrics.free.set(volume.free)
    except OSError as error:  # not there yet, or a file that RocksDB has compacted away meanwhile
        log.debug("state_not_seen", folder=str(folder), reason=str(error))


def build(
    settings: Settings,
    group: str,
    *,
    guarantee: str,
    commit_interval: float,
    transaction_timeout_ms: int | None = None,
    topic_manager: TopicManager | None = None,
) -> FraudApplication:
    """Make an application.

    Parameters
    ----------
    group
        Consumer group; with `settings.instance` it names the group instance and the transactional id.
    transaction_timeout_ms
        By default below the session's: a dead member's transaction ends before its partitions move.
    topic_manager
        A stand-in for the cluster's topics; the topology driver of the tests passes one.
    """
    app = FraudApplication(
        broker_address=settings.bootstrap_servers,
        consumer_group=group,
        processing_guarantee=guarantee,
        commit_interval=commit_interval,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        auto_recover_from_source_offset_out_of_range=False,
        broker_availability_timeout=0,  # an outage of the brokers is no reason to end: alive, not ready, and waiting
        state_dir=settings.state_dir,
        rocksdb_options=StateOptions(write_buffer_size=MEMTABLE_BYTES, block_cache_size=CACHE_BYTES),
        topic_manager=topic_manager,
        use_changelog_topics=topic_manager is None,
        loglevel=None,
        consumer_poll_timeout=0.05 if guarantee == "exactly-once" else 0.2,
        consumer_extra_config=_consumer_options(settings, group, lambda statistics: app.on_statistics(statistics)),  # noqa: PLW0108 - the application is made here
        producer_extra_config=_producer_options(settings, group, guarantee, transaction_timeout_ms),
    )
    app.has_rival = partial(error_classification.is_fenced_by_twin, settings)
    produce_directly(app._producer)  # noqa: SLF001 - the canary test guards the name
    if topic_manager is None:
        drop_paused_messages(app._consumer, app._state_manager, app._topic_manager)  # noqa: SLF001 - as above
        recover_in_batches(app._state_manager._recovery_manager)  # noqa: SLF001 - as above
        app.admin = lambda: clients.admin(settings)
    return app


def _consumer_options(settings: Settings, group: str, on_statistics: Callable[[str], None]) -> dict[str, Any]:
    return {
        **clients.FETCH_LIMITS,
        **settings.kafka_config,
        "group.instance.id": _identity(settings, group),
        "session.timeout.ms": to_ms(settings.session_timeout),
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 10,
        "fetch.queue.backoff.ms": 10,
        "statistics.interval.ms": 5000,
        "stats_cb": on_statistics,
    }


def _producer_options(settings: Settings, group: str, guarantee: str, timeout_ms: int | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        **settings.kafka_config,
        "partitioner": partitioner.PARTITIONER,
        "compression.type": "lz4",
        "linger.ms": 0,
    }
    if guarantee == "exactly-once":
        options["transactional.id"] = _identity(settings, group)
        below_session = min(TRANSACTION_TIMEOUT_MS, to_ms(settings.session_timeout * 0.75))
        options["transaction.timeout.ms"] = below_session if timeout_ms is None else timeout_ms
    options["message.timeout.ms"] = min(DELIVERY_TIMEOUT_MS, options.get("transaction.timeout.ms", DELIVERY_TIMEOUT_MS))
    return options


def _identity(settings: Settings, group: str) -> str:
    """Name a process so that a restart has the same name: the new one fences the old one."""
    return f"{group}-{settings.instance_id}"


def abort_previous_transaction(settings: Settings, group: str) -> None:
    """Abort the transaction that a process of our name left open when it was killed.

    Until it ends, nobody is told where the group stands; by itself it would end after its timeout, for the learner five
    minutes. A process of our name that still runs is fenced by it, as it would be a moment later anyway.

    Raises
    ------
    ClusterUnavailable, PreflightError
        As `retries.retry_transient` does.
    """
    producer = clients.producer(settings, {"transactional.id": _identity(settings, group)})
    retries.retry_transient(
        f"transactions of {_identity(settings, group)} cannot be ended",
        lambda: producer.init_transactions(clients.REQUEST_TIMEOUT_S),
    )
