"""The composition root: build scorer, learner and tokenizer from settings, and run them."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from fraud_service.config import factories
from fraud_service.config.keyring import load_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ClusterUnavailable
from fraud_service.domain.records import decode_refit, decode_switch
from fraud_service.domain.snapshot import SnapshotStore
from fraud_service.kafka import clients, topics, waiting
from fraud_service.kafka.model_topic import REFIT_KEY, SWITCH_KEY, ModelTopicReader
from fraud_service.models.registry import ModelRegistry
from fraud_service.processors import learner, scorer, tokenizer
from fraud_service.processors.input_log import InputLog
from fraud_service.processors.snapshot_reader import SnapshotReader
from fraud_service.runtime import preflight
from fraud_service.runtime.application import FraudApplication, abort_previous_transaction
from fraud_service.runtime.health import Health, HttpEndpoint
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics, TokenizerMetrics
from fraud_service.runtime.stream import Hooks, Processing
from fraud_service.security.signatures import RejectReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.errors import ModelError
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.runtime.metrics.stream import StreamMetrics
    from fraud_service.runtime.stream import StreamAccess, StreamSpec
    from fraud_service.security.tokens import Tokenizer

log = structlog.get_logger(__name__)
_model_rejected = RateLimitedLog(log.warning, "promoted_model_rejected")

MAX_START_S: Final = 900.0  # until the first tick; preflight, models and snapshots have timeouts of their own
RESTART_POLL_S: Final = 1.0


def run_scorer(settings: Settings) -> None:
    """Score transactions until stopped.

    Raises `FraudServiceError` before the start when a model, topic, offset or setting is invalid, and later when an
    error makes it unsafe to continue.
    """
    registry, health = Metrics(), Health()
    metrics = ScorerMetrics(registry)
    _warn_if_unsigned(settings, metrics)
    model = factories.pretrained(settings)
    with _endpoint(settings, registry, health, metrics) as http:
        log.info("scorer_starting", port=http.port, model=model.version)
        run_with_restarts(settings, health, metrics, lambda: _score(settings, health, metrics, model))
    log.info("scorer_stopped")


def _score(settings: Settings, health: Health, metrics: ScorerMetrics, model: OnnxForest) -> None:
    """Score from the last checkpoint, until stopped or until the cluster is unavailable."""
    spec = scorer.stream_spec(settings)
    preflight_checks(settings, spec)
    with ExitStack() as stack:
        snapshots = SnapshotStore(factories.first_snapshot(model))
        detector = Detector(model, factories.policy(settings), time_zone=settings.time_zone)
        models = ModelRegistry(model, partial(reject_model, metrics), detector=detector, snapshots=snapshots)
        handlers = {SWITCH_KEY: partial(switch_online_model, snapshots, metrics)}
        topic = stack.enter_context(closing(ModelTopicReader(settings, spec.group, handlers, metrics.count_rejected)))
        update_models = follow(topic, models.activate_newest)
        reader = SnapshotReader(settings, snapshots, metrics.count_rejected, update_models)
        stack.enter_context(closing(reader)).start()
        health.update(models_loaded=True)
        metrics.cards_limit.set(settings.cards_per_partition)

        def make_processing(stream: StreamAccess) -> Processing:
            actual = settings.model_copy(update={"partitions": stream.partitions})
            processor = scorer.ScorerProcessor(actual, detector, snapshots, metrics, reader.refresh, health.heartbeat)
            hooks = Hooks(
                on_tick=_snapshot_observer(reader, snapshots, metrics),
                on_assign=lambda _: metrics.cards.clear(),  # otherwise gauges of revoked partitions would stay
                on_key_counts=metrics.show_cards,
            )
            return Processing(processor, hooks)

        app = FraudApplication(settings, spec, make_processing, health, metrics)
        log.info("scorer_started", snapshot=snapshots.newest.version)
        app.run_until_stopped()


def run_learner(settings: Settings) -> None:
    """Learn from labels until stopped."""
    registry, health = Metrics(), Health()
    metrics = LearnerMetrics(registry)
    _warn_if_unsigned(settings, metrics)
    model = factories.pretrained(settings)
    with _endpoint(settings, registry, health, metrics) as http:
        log.info("learner_starting", port=http.port, model=model.version)
        run_with_restarts(settings, health, metrics, lambda: _learn(settings, health, metrics, model))
    log.info("learner_stopped")


def _learn(settings: Settings, health: Health, metrics: LearnerMetrics, model: OnnxForest) -> None:
    """Learn from the last checkpoint, until stopped or until the cluster is unavailable."""
    spec = learner.stream_spec(settings)
    preflight_checks(settings, spec)
    with ExitStack() as stack:
        health.update(models_loaded=True)

        def show(active: OnnxForest) -> None:
            metrics.model.info({"pretrained": active.version})
            log.info("model_activated", model=active.version)

        models = ModelRegistry(model, partial(reject_model, metrics), show)
        handlers = {REFIT_KEY: lambda data: metrics.show_refit(decode_refit(data))}
        topic = stack.enter_context(closing(ModelTopicReader(settings, spec.group, handlers, metrics.count_rejected)))
        update_models = follow(topic, models.activate_last)
        if models.active is model:  # nothing was promoted
            show(model)

        def make_processing(stream: StreamAccess) -> Processing:
            inputs = stack.enter_context(closing(InputLog(settings, stream, spec.inputs)))
            used = learner.LearnerModels(models, factories.learner_factory, update_models)
            processor = learner.LearnerProcessor(settings, used, stream, inputs, metrics, health.heartbeat)
            return Processing(processor, Hooks(on_tick=processor.tick, on_assign=processor.on_assign))

        FraudApplication(settings, spec, make_processing, health, metrics).run_until_stopped()


def run_tokenizer(settings: Settings) -> None:
    """Replace card numbers by tokens until stopped."""
    registry, health = Metrics(), Health()
    metrics = TokenizerMetrics(registry)
    made = tokenizer.tokenizer(settings)
    with _endpoint(settings, registry, health, metrics) as http:
        log.info("tokenizer_starting", port=http.port, key=made.active)
        run_with_restarts(settings, health, metrics, lambda: _tokenize(settings, health, metrics, made))
    log.info("tokenizer_stopped")


def _tokenize(settings: Settings, health: Health, metrics: TokenizerMetrics, made: Tokenizer) -> None:
    """Tokenize from the last checkpoint, until stopped or until the cluster is unavailable."""
    spec = tokenizer.stream_spec(settings)
    preflight_checks(settings, spec)
    health.update(models_loaded=True)
    processor = tokenizer.TokenizerProcessor(settings, made, metrics, health.heartbeat)
    FraudApplication(settings, spec, lambda _: Processing(processor), health, metrics).run_until_stopped()


def run_with_restarts(settings: Settings, health: Health, metrics: StreamMetrics, work: Callable[[], None]) -> None:
    """Run a stream until it is stopped; after an outage of the cluster, run it again from its last checkpoint.

    `work` creates everything it needs and closes it at its end, like a restarted process. Metrics and probes stay, so
    the process is alive but not ready. A process that was never ready ends instead.
    """
    while True:
        health.record_start(MAX_START_S)
        try:
            return work()
        except ClusterUnavailable as error:
            if not health.has_started:
                raise
            log.warning("stream_interrupted", reason=str(error))
            metrics.interruptions.inc()
            health.update(connected=False, assigned=False, recovered=False)
        gc.collect()  # Quix's application is a reference cycle; collecting it ends its clients and their threads
        time.sleep(RESTART_POLL_S)
        clients.await_cluster(settings, health.heartbeat)
        health.update(connected=True)


def _endpoint(settings: Settings, registry: Metrics, health: Health, metrics: StreamMetrics) -> HttpEndpoint:
    metrics.ready.set_function(lambda: float(health.is_ready))
    certificate, key = settings.http_tls_cert, settings.http_tls_key
    identity = None if certificate is None or key is None else (certificate, key)
    return HttpEndpoint(settings.http_host, settings.http_port, registry, health, identity)


def follow(topic: ModelTopicReader, activate: Callable[[Iterable[bytes]], None]) -> Callable[[bool], None]:
    """Activate the models promoted so far, and return a function that activates the later ones.

    Called with True, that function waits for the newest promotion. Called with False, it uses what has arrived.
    """
    activate(topic.catch_up())
    return lambda is_complete: activate(topic.read_to_end() if is_complete else topic.read_available())


def reject_model(metrics: ScorerMetrics | LearnerMetrics, error: ModelError) -> None:
    """Count and log a promoted model that fails its check."""
    metrics.count_rejected(RejectReason.INVALID)
    _model_rejected(RejectReason.INVALID, reason=str(error))


def switch_online_model(snapshots: SnapshotStore, metrics: ScorerMetrics, data: bytes) -> None:
    """Apply a record that switches the online model on or off."""
    wanted = decode_switch(data)
    snapshots.switch_online_model(online=wanted.online)
    metrics.online.set(wanted.online)
    log.warning("online_model_switched", on=wanted.online)


def _snapshot_observer(reader: SnapshotReader, snapshots: SnapshotStore, metrics: ScorerMetrics) -> Callable[[], None]:
    """Return a hook that shows the newest snapshot, and ends the scorer when the snapshot reader has failed."""
    shown: list[Snapshot] = []

    def observe() -> None:
        reader.raise_failure()
        metrics.incomplete.set(len(snapshots.incomplete))
        if shown[-1:] != [snapshots.newest]:
            shown[:] = [snapshots.newest]
            metrics.show_snapshot(snapshots.newest)

    return observe


def _warn_if_unsigned(settings: Settings, metrics: StreamMetrics) -> None:
    keys = load_keyring(settings)
    metrics.signed.set(keys.requires_signatures)
    if not keys.requires_signatures:
        log.warning(
            "unsigned",
            hint="anyone who may write snapshots, risk or models can change scores: set FRAUD_SIGNING_KEY_DIR",
        )


def preflight_checks(settings: Settings, spec: StreamSpec) -> None:
    """Refuse to start when topics, offsets or state would make the scores wrong."""
    specs = topics.topic_specs(settings)
    clients.check_connectivity(settings)
    admin = clients.admin(settings)
    waiting.retry_transient("topics cannot be checked", lambda: topics.require(admin, specs))
    role = {settings.scorer_group: "scorer_state", settings.learner_group: "learner_state"}.get(spec.group)
    changelog = next((one for one in specs if one.role == role), None)
    if spec.guarantee == "exactly-once":
        abort_previous_transaction(settings, spec.group)
    preflight.require_consistent(settings, spec.group, list(spec.inputs), changelog)
