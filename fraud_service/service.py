"""The composition root: scorer and learner put together from settings."""

from __future__ import annotations

import gc
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import structlog

from fraud_service.config import factories
from fraud_service.config.keyring import load_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ClusterUnavailable
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.records import decode_refit, decode_switch
from fraud_service.domain.snapshot_store import SnapshotStore
from fraud_service.kafka import clients, model_topic, retries, topics
from fraud_service.models.received import last, loaded, recent
from fraud_service.processors import input_log, learner, scorer, tokenizer
from fraud_service.processors.snapshot_reader import SnapshotReader
from fraud_service.runtime import application, preflight
from fraud_service.runtime.health import Health, HttpEndpoint
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics, StreamMetrics
from fraud_service.runtime.metrics.tokenizer import TokenizerMetrics
from fraud_service.security.signatures import RejectReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from confluent_kafka import TopicPartition

    from fraud_service.config.settings import Settings
    from fraud_service.domain.errors import ModelError
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.models.artifact import Manifest
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.runtime.application import FraudApplication
    from fraud_service.security.tokens import Tokenizer

log = structlog.get_logger(__name__)
_model_refused = RateLimitedLog(log.warning, "promoted_model_rejected")

LEARNER_COMMIT_INTERVAL_S: Final = 1.0  # seconds
LEARNER_TRANSACTION_TIMEOUT_MS: Final = 300_000  # closing a boundary may take a while
MAX_START_S: Final = 900.0  # seconds until the loop turns: preflight, models, snapshots, each with a bound of its own
RESTART_POLL_S: Final = 1.0  # seconds between two starts


def run_scorer(settings: Settings) -> None:
    """Score transactions until told to stop.

    Raises
    ------
    FraudServiceError
        Before the start: a model, topic, offset or setting that cannot work. Later: what made going on unsafe.
    """
    metrics, health = Metrics(), Health()
    scorer_metrics = ScorerMetrics(metrics)
    _warn_if_unsigned(settings, scorer_metrics)
    model = factories.pretrained(settings)
    with _endpoint(settings, metrics, health) as http:
        log.info("scorer_starting", port=http.port, model=model.version)
        run_with_restarts(settings, health, scorer_metrics, lambda: _score(settings, health, scorer_metrics, model))
    log.info("scorer_stopped")


def _score(settings: Settings, health: Health, scorer_metrics: ScorerMetrics, model: OnnxForest) -> None:
    """Start from the last checkpoint, and score until told to stop or the cluster is away."""
    preflight_checks(settings, settings.scorer_group, [settings.topics.transactions])
    knowledge = SnapshotStore(factories.first_snapshot(model))
    with ExitStack() as stack:
        detector = Detector(model, factories.policy(settings))
        on_refused = _count_rejection(scorer_metrics)
        handlers = {model_topic.SWITCH_KEY: _switch(knowledge, scorer_metrics)}
        promoted = model_topic.ModelTopicReader(settings, settings.scorer_group, handlers, on_refused)
        stack.callback(promoted.close)

        def superseded(older: Manifest) -> None:
            knowledge.register_model(older.version, older.leaves)

        refuse = _refuse_model(on_refused)

        def adopt(received: Iterable[bytes]) -> None:
            for newer in loaded(recent(received, superseded, refuse), refuse):
                detector.register_model(newer)
                knowledge.register_model(newer.version, newer.manifest.leaves)

        adopt(promoted.catch_up())

        def make_ready(has_news: bool) -> None:
            adopt(promoted.read_to_end() if has_news else promoted.read_available())

        broadcast = SnapshotReader(settings, knowledge, on_refused, make_ready)
        stack.callback(broadcast.close)
        broadcast.start()
        health.now(models_loaded=True)
        app = application.build(
            settings,
            settings.scorer_group,
            guarantee=settings.processing_guarantee,
            commit_interval=settings.commit_interval.total_seconds(),
        )
        step = scorer.ScorerProcessor(settings, detector, knowledge, scorer_metrics, broadcast.refresh)
        step.beat = health.beat
        scorer.build_topology(app, settings, step)
        # Figures of partitions that were given away would stand for ever.
        attach_observers(
            app, health, scorer_metrics, [settings.topics.transactions], lambda _: scorer_metrics.cards.clear()
        )
        scorer_metrics.cards_limit.set(settings.cards_per_partition)
        app.on_keys = scorer_metrics.show_cards
        app.each_turn = _each_scorer_turn(broadcast, knowledge, scorer_metrics)
        log.info("scorer_started", snapshot=knowledge.newest.version)
        app.run_until_stopped()


def run_learner(settings: Settings) -> None:
    """Learn from labels until told to stop. Raises as `run_scorer` does."""
    metrics, health = Metrics(), Health()
    learner_metrics = LearnerMetrics(metrics)
    _warn_if_unsigned(settings, learner_metrics)
    model = factories.pretrained(settings)
    with _endpoint(settings, metrics, health) as http:
        log.info("learner_starting", port=http.port, model=model.version)
        run_with_restarts(settings, health, learner_metrics, lambda: _learn(settings, health, learner_metrics, model))
    log.info("learner_stopped")


def _learn(settings: Settings, health: Health, learner_metrics: LearnerMetrics, model: OnnxForest) -> None:
    """Start from the last checkpoint, and learn until told to stop or the cluster is away."""
    inputs = [settings.topics.scores, settings.topics.labels]
    preflight_checks(settings, settings.learner_group, inputs)
    with ExitStack() as stack:
        health.now(models_loaded=True)
        app = application.build(
            settings,
            settings.learner_group,
            guarantee="exactly-once",
            commit_interval=LEARNER_COMMIT_INTERVAL_S,
            transaction_timeout_ms=LEARNER_TRANSACTION_TIMEOUT_MS,
        )
        step = learner.LearnerProcessor(
            settings,
            factories.calendar(settings),
            NegativeSampler(settings.negative_sample_rate),
            model,
            factories.restore(model),
            learner_metrics,
        )
        learner.build_topology(app, settings, step)
        logs = input_log.InputLog(settings, app, inputs)
        stack.callback(logs.close)
        step.follow(logs)
        step.beat = health.beat
        on_refused = _count_rejection(learner_metrics)
        handlers = {model_topic.REFIT_KEY: lambda data: learner_metrics.show_refit(decode_refit(data))}
        promoted = model_topic.ModelTopicReader(settings, settings.learner_group, handlers, on_refused)
        stack.callback(promoted.close)
        refuse = _refuse_model(on_refused)
        reign = _activate_newest_model(step, learner_metrics)
        reign(last(promoted.catch_up(), refuse) or model)

        def tick() -> None:
            reign(last(promoted.read_available(), refuse))
            step.tick()

        app.each_turn = tick
        step.before_closing = lambda: reign(last(promoted.read_to_end(), refuse))
        attach_observers(app, health, learner_metrics, inputs, step.on_partitions)
        app.run_until_stopped()


def run_tokenizer(settings: Settings) -> None:
    """Replace card numbers by tokens until told to stop. Raises as `run_scorer` does."""
    metrics, health = Metrics(), Health()
    tokenizer_metrics = TokenizerMetrics(metrics)
    made = tokenizer.tokenizer(settings)
    with _endpoint(settings, metrics, health) as http:
        log.info("tokenizer_starting", port=http.port, key=made.active)
        run_with_restarts(
            settings, health, tokenizer_metrics, lambda: _tokenize(settings, health, tokenizer_metrics, made)
        )
    log.info("tokenizer_stopped")


def _tokenize(settings: Settings, health: Health, tokenizer_metrics: TokenizerMetrics, made: Tokenizer) -> None:
    """Start from the last checkpoint, and tokenize until told to stop or the cluster is away."""
    inputs = [settings.topics.raw_transactions, settings.topics.raw_labels]
    preflight_checks(settings, settings.tokenizer_group, inputs)
    health.now(models_loaded=True)
    app = application.build(
        settings,
        settings.tokenizer_group,
        guarantee="exactly-once",
        commit_interval=settings.commit_interval.total_seconds(),
    )
    step = tokenizer.TokenizerProcessor(settings, made, tokenizer_metrics)
    step.beat = health.beat
    tokenizer.build_topology(app, settings, step)
    attach_observers(app, health, tokenizer_metrics, inputs)
    app.run_until_stopped()


def run_with_restarts(settings: Settings, health: Health, metrics: StreamMetrics, work: Callable[[], None]) -> None:
    """Do work that ends when told to; when the cluster was away, do it anew from its last checkpoint.

    `work` builds all it needs and leaves nothing behind, as a process that is restarted does; only metrics and probes
    go on: alive, and not ready. Who was never ready has nothing to go on with, and ends.

    Raises
    ------
    FraudServiceError
        What `work` raises otherwise.
    """
    while True:
        health.begin(MAX_START_S)
        try:
            return work()
        except ClusterUnavailable as error:
            if not health.has_started:
                raise
            log.warning("stream_interrupted", reason=str(error))
            metrics.interruptions.inc()
            health.now(connected=False, assigned=False, recovered=False)
        gc.collect()  # Quix's application is a cycle; with it go its clients and their threads
        time.sleep(RESTART_POLL_S)
        clients.await_cluster(settings, health.beat)
        health.now(connected=True)


def _endpoint(settings: Settings, metrics: Metrics, health: Health) -> HttpEndpoint:
    certificate, key = settings.http_tls_cert, settings.http_tls_key
    identity = None if certificate is None or key is None else (certificate, key)
    return HttpEndpoint(settings.http_host, settings.http_port, metrics, health, identity)


def _refuse_model(on_refused: Callable[[str], None]) -> Callable[[ModelError], None]:
    """Return what counts a promoted model that fails its check, which is then passed over."""

    def refuse(error: ModelError) -> None:
        on_refused(RejectReason.INVALID)
        _model_refused(RejectReason.INVALID, reason=str(error))

    return refuse


def _activate_newest_model(
    step: learner.LearnerProcessor, metrics: LearnerMetrics
) -> Callable[[OnnxForest | None], None]:
    def reign(model: OnnxForest | None) -> None:
        if model is not None:
            step.promote(model, factories.restore(model))
            metrics.show_model(model.version)
            log.info("pretrained_model_reigns", model=model.version)

    return reign


def _count_rejection(metrics: ScorerMetrics | LearnerMetrics) -> Callable[[str], None]:
    return lambda refusal: metrics.refused.labels(refusal).inc()


def _switch(knowledge: SnapshotStore, metrics: ScorerMetrics) -> Callable[[bytes], None]:
    def switch(data: bytes) -> None:
        wanted = decode_switch(data)
        knowledge.switch_online_model(online=wanted.online)
        metrics.online.set(wanted.online)
        log.warning("online_model_switched", on=wanted.online)

    return switch


def _warn_if_unsigned(settings: Settings, metrics: StreamMetrics) -> None:
    keys = load_keyring(settings)
    metrics.signed.set(keys.requires_signatures)
    if not keys.requires_signatures:
        log.warning(
            "unsigned",
            hint="anyone who may write snapshots, risk or models can change scores: set FRAUD_SIGNING_KEY_DIR",
        )


def attach_observers(
    app: FraudApplication,
    health: Health,
    metrics: StreamMetrics,
    inputs: list[str],
    on_partitions: Callable[[list[TopicPartition]], None] = lambda _: None,
) -> None:
    """Let probes and gauges see what the application does."""

    def tell(partitions: list[TopicPartition]) -> None:
        metrics.assigned.set(sum(partition.topic in inputs for partition in partitions))
        on_partitions(partitions)

    metrics.ready.set_function(lambda: float(health.is_ready))
    app.health, app.metrics, app.on_partitions = health, metrics, tell


def _each_scorer_turn(
    broadcast: SnapshotReader, knowledge: SnapshotStore, metrics: ScorerMetrics
) -> Callable[[], None]:
    shown: list[Snapshot] = []

    def tick() -> None:
        broadcast.raise_failure()
        metrics.incomplete.set(knowledge.incomplete)
        if shown[-1:] != [knowledge.newest]:
            shown[:] = [knowledge.newest]
            metrics.show_snapshot(knowledge.newest)

    return tick


def preflight_checks(settings: Settings, group: str, inputs: list[str]) -> None:
    """Refuse to start on topics, offsets or state that would make the result wrong."""
    specs = topics.topic_specs(settings)
    clients.check_connectivity(settings)
    admin = clients.admin(settings)
    retries.retry_transient("topics cannot be checked", lambda: topics.require(admin, specs))
    role = {settings.scorer_group: "scorer_state", settings.learner_group: "learner_state"}.get(group)
    changelog = next((spec for spec in specs if spec.role == role), None)
    if group != settings.scorer_group or settings.processing_guarantee == "exactly-once":
        application.abort_previous_transaction(settings, group)
    preflight.require_consistent(settings, group, inputs, changelog)
