"""Guards names of Quix Streams that it does not promise and that we rest on: a version that breaks one fails here."""

from __future__ import annotations

import contextlib
import inspect
import json
import re
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from quixstreams import Application
from quixstreams.checkpointing import Checkpoint
from quixstreams.exceptions import PartitionAssignmentError
from quixstreams.internal_producer import InternalProducer
from quixstreams.kafka import BaseConsumer, Producer
from quixstreams.processing import ProcessingContext
from quixstreams.state.base import PartitionTransaction
from quixstreams.state.manager import StateStoreManager
from quixstreams.state.recovery import ChangelogProducer, RecoveryManager, RecoveryPartition
from support.driver import MemoryTopics
from support.loop import looped
from support.worlds import transaction

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ClusterUnavailable, FatalStreamError, PartitionsLost, PreflightError
from fraud_service.runtime import application, quix_internals
from fraud_service.runtime.application import STALL_TIMEOUT_S, FraudApplication, update_state_gauges
from fraud_service.runtime.bulk_recovery import BulkRecovery
from fraud_service.runtime.client_options import MAX_LEVEL0_FILES, MEMTABLE_BYTES
from fraud_service.runtime.health import MAX_SILENCE_S, Health
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
from fraud_service.runtime.quix_internals import (
    CLOSE_TIMEOUT_S,
    COMMIT_TIMEOUT_S,
    CheckpointClock,
    bound_commit_time,
)
from fraud_service.runtime.stream import Hooks, Processing, StreamSpec

if TYPE_CHECKING:
    from collections.abc import Callable


OWNERS = {
    "Application": Application,
    "InternalProducer": InternalProducer,
    "Producer": Producer,
    "StateStoreManager": StateStoreManager,
    "RecoveryManager": RecoveryManager,
    "RecoveryPartition": RecoveryPartition,
    "PartitionTransaction": PartitionTransaction,
}


def table() -> list[tuple[str, str]]:
    """Owner and name in each row of the table in the docstring."""
    return re.findall(r"^(\w+)\.(_\w+) ", quix_internals.__doc__, re.MULTILINE)


@pytest.mark.parametrize(("owner", "name"), table())
def test_quix_still_has_every_private_name_in_the_table(owner, name):
    kind = OWNERS[owner]
    assert hasattr(kind, name) or f"self.{name}" in inspect.getsource(kind.__init__)


def test_the_table_has_every_private_name_that_we_use():
    package = Path(quix_internals.__file__).parents[1]
    marked = [
        (path.stem, line)
        for folder in ("runtime", "processors")
        for path in (package / folder).rglob("*.py")
        for line in path.read_text().splitlines()
        if "noqa: SLF001" in line and "KafkaError" not in line
    ]
    assert {module for module, _ in marked} == {"quix_internals"}
    source = inspect.getsource(quix_internals).split('"""', 2)[2]
    used = set(re.findall(r"(?<!self)\.(_[a-z]\w+)", "\n".join(line for _, line in marked)))
    overridden = set(re.findall(r"    def (_\w+)\(self, (?!context|manager)", source)) - {"__init__"}
    assert used | overridden == {name for _, name in table()}


@pytest.mark.parametrize("name", ["_on_assign", "_on_revoke", "_on_lost", "_process_message"])
def test_quix_still_gives_overridden_methods_the_same_arguments(name):
    theirs, ours = inspect.signature(getattr(Application, name)), inspect.signature(getattr(FraudApplication, name))
    assert len(theirs.parameters) == len(ours.parameters)


def test_quix_still_calls_process_message_only_after_recovery():
    loop = inspect.getsource(Application._run_dataframe)
    assert "state_manager.recovery_required" in loop
    assert "process_message(dataframes_composed)" in loop


def test_the_consumer_still_returns_its_position():
    assert callable(BaseConsumer.position)
    assert callable(BaseConsumer.committed)


def test_the_checkpoint_is_still_public():
    assert isinstance(ProcessingContext.checkpoint, property)


def test_quix_still_distinguishes_running_from_required_recovery():
    manager = RecoveryManager(None, MemoryTopics(1, "canary"))
    assert (manager.has_assignments, manager.recovering) == (False, False)
    assert isinstance(StateStoreManager.recovery_required, property)


def made(settings: Settings, guarantee: str = "exactly-once", **options) -> FraudApplication:
    """Make an application that processes nothing."""
    spec = StreamSpec("fraud-scorer", ("payments.transactions.v1",), {}, guarantee, 1.0, **options)
    hooks = Hooks()
    return FraudApplication(
        settings,
        spec,
        lambda _: Processing(lambda *_: [], hooks),
        Health(),
        ScorerMetrics(Metrics()),
        topic_manager=MemoryTopics(1, spec.group),
    )


@pytest.fixture
def app(tmp_path, monkeypatch):
    app = made(Settings(state_dir=tmp_path, instance_id="pod-0"))
    monkeypatch.setattr(app, "batches", SimpleNamespace(tick=lambda _: False, process_collected=lambda: False))
    return app


def statistics(state: str, broker: str = "UP") -> str:
    partitions = {"0": {"desired": True, "fetch_state": "active"}, "1": {"desired": True, "fetch_state": state}}
    gone = {"-1": {"desired": False, "fetch_state": "none"}}
    return json.dumps({"brokers": {"b": {"state": broker}}, "topics": {"payments": {"partitions": partitions | gone}}})


def test_a_partition_that_the_client_never_begins_to_read_ends_the_application(app, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000.0)
    monkeypatch.setattr(application, "time", clock)

    def after(seconds: float, state: str, broker: str = "UP") -> str | None:
        clock.now += seconds
        app.on_statistics(statistics(state, broker))
        return app._stalled_partition

    assert after(0, "none") is None
    assert after(STALL_TIMEOUT_S - 1, "none") is None
    assert after(10, "active") is None  # it only took long
    assert after(10, "none") is None
    assert after(STALL_TIMEOUT_S, "none", "DOWN") is None  # an outage is waited for
    assert after(10, "none") is None
    assert after(STALL_TIMEOUT_S, "none") == "payments[1]"
    with pytest.raises(ClusterUnavailable, match=r"never started to read payments\[1\]"):
        app._process_message({})


@pytest.mark.embedded
def test_the_statistics_still_show_whether_the_client_fetches_a_partition(embedded_broker):
    topic, told, nothing = f"canary-{uuid4().hex}", [], {"partitions": {}}
    admin = AdminClient({"bootstrap.servers": embedded_broker.bootstrap})
    (created,) = admin.create_topics([NewTopic(topic, 1, 1)]).values()
    created.result(10)
    consumer = Consumer(
        {
            "bootstrap.servers": embedded_broker.bootstrap,
            "group.id": "canary",
            "statistics.interval.ms": 100,
            "stats_cb": lambda text: told.append(json.loads(text)["topics"].get(topic, nothing)["partitions"].get("0")),
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    deadline = time.monotonic() + 20
    while not told or told[-1] is None or told[-1]["fetch_state"] != "active":
        assert time.monotonic() < deadline, told[-1:]
        consumer.poll(0.1)
    assert told[-1]["desired"] is True
    consumer.close()


def test_losing_partitions_ends_the_application(app):
    with pytest.raises(ClusterUnavailable, match="It drops uncommitted work"):
        app._on_lost(None, [TopicPartition("payments.transactions.v1", 0)])


def _fail_to_clean_up() -> None:
    raise TimeoutError("Quix could not clean up")


def test_an_error_in_the_clean_up_does_not_hide_the_error_that_ended_the_loop(app, monkeypatch):
    def run() -> None:
        with ExitStack() as stack:
            stack.callback(_fail_to_clean_up)
            stack.push(app._exception_handler)
            raise FatalStreamError("what ended the loop")

    monkeypatch.setattr(app, "run", run)
    with pytest.raises(FatalStreamError, match="what ended the loop"):
        app.run_until_stopped()


def test_an_error_of_the_client_does_not_hide_lost_partitions(app, monkeypatch):
    def poll() -> None:
        with contextlib.suppress(ClusterUnavailable):  # as the client does at times
            app._on_lost(None, [TopicPartition("payments.transactions.v1", 0)])
        with ExitStack() as stack:
            stack.callback(_fail_to_clean_up)
            stack.push(app._exception_handler)
            raise SystemError("returned NULL without setting an exception")

    monkeypatch.setattr(app, "run", poll)
    with pytest.raises(PartitionsLost, match="It drops uncommitted work"):
        app.run_until_stopped()


def test_a_stop_during_the_start_of_the_loop_takes_effect(app, monkeypatch):
    """Quix forgets it: a pod that was replaced at its start was killed after its grace period."""
    running = []

    def run() -> None:
        app.stop()  # as its signal handler does
        app._run_tracker.set_as_running()  # as the loop does when it begins
        app._process_message({})  # as its first turn does
        running.append(app._run_tracker.running)

    monkeypatch.setattr(app, "run", run)
    app.run_until_stopped()
    assert running == [False]


def test_identities_are_stable_and_quix_settings_are_ours(app):
    consumer, producer = app.config.consumer_extra_config, app.config.producer_extra_config
    assert consumer["group.instance.id"] == producer["transactional.id"] == "fraud-scorer-pod-0"
    assert producer["transaction.timeout.ms"] < consumer["session.timeout.ms"]
    assert producer["partitioner"] == "murmur2"
    assert app.config.auto_offset_reset == "earliest"
    assert not app.config.auto_create_topics
    assert not app.config.auto_recover_from_source_offset_out_of_range


def test_at_least_once_uses_no_transaction(tmp_path):
    app = made(Settings(state_dir=tmp_path), "at-least-once")
    assert "transactional.id" not in app.config.producer_extra_config


def test_messages_take_the_short_way_to_the_client(app):
    assert app._producer.produce.__module__ == "fraud_service.runtime.quix_internals"
    assert app._processing_context.producer is app._producer
    assert "self._producer_for(migration).produce(" in inspect.getsource(ChangelogProducer.produce)


def test_the_state_is_opened_with_our_options(tmp_path):
    with looped(tmp_path):
        (log, *_) = (tmp_path / "fraud-scorer").rglob("LOG")
        said = log.read_text()
    for option, value in (
        ("write_buffer_size", MEMTABLE_BYTES),
        ("level0_slowdown_writes_trigger", MAX_LEVEL0_FILES),
        ("level0_stop_writes_trigger", MAX_LEVEL0_FILES),
        (r"compression\[0\]", "NoCompression"),
        (r"compression\[1\]", "LZ4"),
    ):
        assert re.search(rf"Options\.{option}: {value}\n", said), option


def test_recovery_takes_batches_where_quix_takes_rows(tmp_path):
    """A fresh application, whose recovery manager is there because its topics are those of a cluster."""
    consumer = Consumer({"group.id": "canary"})
    manager = RecoveryManager(consumer, MemoryTopics(1, "canary"))
    state = SimpleNamespace(_recovery_manager=manager)
    recovery = BulkRecovery(consumer, state, lambda _: None, {"in"})
    assert manager._recovery_loop == recovery.loop
    assert "self._recovery_loop()" in inspect.getsource(RecoveryManager.do_recovery)
    theirs = inspect.getsource(RecoveryManager._recovery_loop)
    for step in ("_consumer.poll(1)", "_update_recovery_status()", "_rewind_data_partition("):
        assert step in theirs  # what ours does too
    assert manager._position_cache == {}
    assert "self._position_cache" in inspect.getsource(RecoveryManager._get_position_with_cache)
    assert "_get_changelog_offset(" in inspect.getsource(RecoveryManager._update_recovery_status)
    for call in ("position", "consume", "seek", "resume", "pause"):
        assert callable(getattr(BaseConsumer, call))


def test_each_tick_sends_a_heartbeat(app):
    app._health._heartbeat_at = 0.0
    app._process_message({})
    assert app._health.is_live
    assert app._health.conditions["recovered"]


def test_every_error_of_the_stream_becomes_an_error_of_the_service(app, monkeypatch):
    def fail(_self):
        raise RuntimeError("the group has fenced this member")

    monkeypatch.setattr(Application, "run", fail)
    with pytest.raises(FatalStreamError, match="unforeseen error: the group has fenced this member"):
        app.run_until_stopped()


def test_a_long_recovery_sends_heartbeats(app):
    app._health._heartbeat_at = 0.0
    app.config.consumer_extra_config["stats_cb"]("{}")
    assert app._health.is_live


def test_a_process_cut_off_from_all_brokers_is_not_ready(app):
    app._health.update(assigned=True, recovered=True, models_loaded=True)
    app.config.consumer_extra_config["stats_cb"]('{"brokers": {"a": {"state": "DOWN"}, "b": {"state": "INIT"}}}')
    assert not app._health.is_ready
    app.config.consumer_extra_config["stats_cb"]('{"brokers": {"a": {"state": "UP"}, "b": {"state": "DOWN"}}}')
    assert app._health.is_ready


class Client:
    """What Quix's producer holds: a client that is asked to send offsets, and to commit."""

    def __init__(self, send: Callable[..., None] = lambda *_: None) -> None:
        self.send_offsets_to_transaction = send
        self.asked: list[float | None] = []
        self.bounded = SimpleNamespace(_producer=self, commit_transaction=self._commit)
        bound_commit_time(self.bounded)

    def _commit(self, offsets: object, group: object, timeout: float | None = None) -> None:
        self.asked.append(timeout)
        self.send_offsets_to_transaction(offsets, group, timeout)


def test_an_unanswered_commit_or_delivery_times_out_before_the_liveness_probe_fails(tmp_path):
    client = Client()
    client.bounded.commit_transaction([], None, timeout=None)  # as Quix does outside of a rebalance
    client.bounded.commit_transaction([], None, timeout=3.0)
    assert client.asked == [COMMIT_TIMEOUT_S, 3.0]
    learner = made(Settings(state_dir=tmp_path), transaction_timeout_ms=300_000)
    delivery = learner.config.producer_extra_config["message.timeout.ms"] / 1000
    assert delivery + COMMIT_TIMEOUT_S + CLOSE_TIMEOUT_S < MAX_SILENCE_S


def test_a_client_without_a_timeout_keeps_waiting_in_its_thread():
    answered = Event()
    client = Client(lambda *_: answered.wait(60))
    with pytest.raises(ClusterUnavailable, match="coordinator did not answer a commit"):
        client.bounded.commit_transaction([], None, timeout=0.01)
    answered.set()


def test_the_caller_gets_the_clients_error_about_offsets():
    def refuse(*_: object) -> None:
        raise KafkaException(KafkaError(KafkaError.PRODUCER_FENCED))

    with pytest.raises(KafkaException, match="PRODUCER_FENCED"):
        Client(refuse).bounded.commit_transaction([], None, timeout=5.0)


def test_quix_still_sends_offsets_through_what_is_bounded():
    assert "self._producer.send_offsets_to_transaction(" in inspect.getsource(InternalProducer.commit_transaction)
    assert list(inspect.signature(Producer.send_offsets_to_transaction).parameters)[1:] == [
        "positions",
        "group_metadata",
        "timeout",
    ]


def test_quix_still_has_what_batches_rest_on(app):
    assert {"stream_id", "partition"} <= set(inspect.signature(Checkpoint.get_store_transaction).parameters)
    assert list(inspect.signature(BaseConsumer.poll).parameters) == ["self", "timeout"]
    message = inspect.getsource(Application._process_message)
    for step in ("self._producer.poll", "store_offset", "set_message_consumed"):
        assert step in message


class Context:
    """Stands for Quix's: a checkpoint that may be due, may be empty, and takes a while."""

    def __init__(self, *, expired: bool, empty: bool) -> None:
        self.checkpoint = SimpleNamespace(expired=lambda: expired, empty=lambda: empty)
        self.calls: list[dict[str, bool]] = []

    def commit_checkpoint(self, **how: bool) -> None:
        self.calls.append(how)
        if how["force"] or self.checkpoint.expired():
            self.checkpoint = SimpleNamespace()


@pytest.mark.parametrize(
    ("expired", "empty", "force", "observed"),
    [(True, False, False, 1), (False, False, True, 1), (False, False, False, 0), (True, True, True, 0)],
)
def test_a_checkpoint_is_timed_when_it_has_something_to_commit(expired, empty, force, observed):
    context, seconds = Context(expired=expired, empty=empty), []
    CheckpointClock(context, seconds.append)
    context.commit_checkpoint(force=force, revoking=True)
    assert context.calls == [{"force": force, "revoking": True}]
    assert len(seconds) == observed
    assert all(second >= 0 for second in seconds)


def test_quix_still_commits_through_the_context_of_the_application(app):
    loop, revoke = inspect.getsource(Application._run_dataframe), inspect.getsource(Application._on_revoke)
    assert "processing_context.commit_checkpoint()" in loop
    assert "self._processing_context.commit_checkpoint(" in revoke
    ours = list(inspect.signature(ProcessingContext.commit_checkpoint).parameters)
    assert ours == ["self", "force", "revoking"]
    assert callable(Checkpoint.expired)
    assert callable(Checkpoint.empty)
    assert isinstance(app._processing_context, ProcessingContext)


@pytest.mark.parametrize("failure", [None, FatalStreamError("it had failed before")])
def test_a_stopping_process_takes_no_partitions_and_ends_without_an_error(app, monkeypatch, failure):
    monkeypatch.setattr(Application, "_on_assign", lambda *_: pytest.fail("assigned"))
    given = []

    def close_within_which_the_group_answers() -> None:
        app.stop()
        app._failure = failure
        try:
            app._on_assign(SimpleNamespace(assign=given.append), [TopicPartition("payments.transactions.v1", 0)])
        except Exception as error:
            raise PartitionAssignmentError("as Quix says") from error

    monkeypatch.setattr(app, "run", close_within_which_the_group_answers)
    with pytest.raises(FatalStreamError) if failure else contextlib.nullcontext():
        app.run_until_stopped()
    assert given == [[]]


def test_a_failed_revocation_is_an_error_even_after_a_stop(app, monkeypatch):
    def run() -> None:
        app.stop()
        raise PartitionAssignmentError("as Quix says of a failed revoke too")

    monkeypatch.setattr(app, "run", run)
    with pytest.raises(FatalStreamError):
        app.run_until_stopped()


def test_the_start_of_each_checkpoint_is_measured(app):
    app._processing_context.exactly_once = False  # which asks for a broker
    app._processing_context.init_checkpoint()
    assert app._checkpoint_clock.started_at <= time.monotonic()
    app._processing_context.commit_checkpoint(force=True)  # which begins the next one
    created = app._processing_context.checkpoint._created_at
    assert created <= app._checkpoint_clock.started_at <= time.monotonic()


def test_an_assignment_is_counted_and_a_tick_ends_its_recovery(app, monkeypatch):
    monkeypatch.setattr(Application, "_on_assign", lambda *_: None)
    app._on_assign(SimpleNamespace(memberid=lambda: "member-1"), [])
    assert app._metrics.rebalances._value.get() == 0
    app._on_assign(SimpleNamespace(memberid=lambda: "member-1"), [TopicPartition("payments.transactions.v1", 0)])
    assert app._metrics.rebalances._value.get() == 1
    assert app._metrics.lag_tracker._recovered_at == 0
    app._process_message({})
    assert app._metrics.lag_tracker._recovered_at > 0


def test_partitions_that_were_added_under_a_running_service_end_it_with_the_remedy(app, monkeypatch):
    monkeypatch.setattr(Application, "_on_assign", lambda *_: pytest.fail("Quix has no state for it"))
    places = [TopicPartition("payments.transactions.v1", number) for number in (0, 1)]
    with pytest.raises(PreflightError, match="got partition 1 while the service ran; it had 1 partitions") as raised:
        app._on_assign(SimpleNamespace(memberid=lambda: "member-1"), places)
    assert "fraud-service recover" in str(raised.value)


def test_statistics_show_the_size_of_the_state_and_of_its_volume(app, tmp_path):
    (tmp_path / "group").mkdir()
    (tmp_path / "group/000001.sst").write_bytes(b"x" * 1000)
    (tmp_path / "group/gone.sst").symlink_to(tmp_path / "nowhere")
    app.config.consumer_extra_config["stats_cb"]("{}")
    assert app._metrics.state._value.get() == 1000
    assert 0 < app._metrics.free._value.get() <= app._metrics.volume._value.get()


def test_statistics_show_the_cards_of_each_assigned_partition(tmp_path):
    with looped(tmp_path) as loop:
        app, metrics = loop.scorer.app, loop.scorer_metrics
        for number in range(60):
            paid = transaction(f"t-{number}", card_id=f"card-{number}")
            loop.transaction(paid)
            loop.transaction(msgspec.structs.replace(paid, transaction_id=f"again-{number}"))
        loop.scorer.commit()
        app.on_statistics("{}")
        shown = {labels["partition"]: value for _, labels, value in samples(metrics.cards)}
        assert len(shown) == loop.partitions
        assert sum(shown.values()) == 60
        app._report_assigned([])
        assert list(samples(metrics.cards)) == []


def samples(gauge):
    return [(one.name, one.labels, one.value) for metric in gauge.collect() for one in metric.samples]


@pytest.mark.parametrize("asked", ["disk_usage", "rglob"])
def test_a_volume_that_does_not_answer_leaves_its_figures_and_the_stream_alone(tmp_path, monkeypatch, asked):
    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    metrics = ScorerMetrics(Metrics())
    update_state_gauges(tmp_path, metrics)
    before = metrics.volume._value.get()
    assert before > 0
    monkeypatch.setattr(*((shutil, asked) if asked == "disk_usage" else (Path, asked)), refuse)
    update_state_gauges(tmp_path, metrics)
    assert metrics.volume._value.get() == before


def test_missing_local_state_is_no_error(tmp_path):
    metrics = ScorerMetrics(Metrics())
    update_state_gauges(tmp_path / "later", metrics)
    assert metrics.volume._value.get() == 0
