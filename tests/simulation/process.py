"""The processes of the service, built as in `fraud_service.service`, with the simulation's clients."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING
from unittest.mock import patch

import structlog
from simulation.admin import AdminClient
from simulation.clock import virtual
from simulation.consumer import Consumer
from simulation.host import here
from simulation.producer import Producer
from support.worlds import CountingLearner, LinearModel, online_model

from fraud_service import service
from fraud_service.config import factories
from fraud_service.domain.detector import Detector
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.models.registry import ModelRegistry
from fraud_service.processors import learner, scorer
from fraud_service.processors.input_log import InputLog
from fraud_service.runtime import batching, bulk_recovery
from fraud_service.runtime.application import FraudApplication
from fraud_service.runtime.bulk_recovery import StoreWriter
from fraud_service.runtime.health import Health
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
from fraud_service.runtime.stream import Hooks, Processing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.stream import StreamAccess

MADE_IN = {
    "quixstreams.kafka.consumer.ConfluentConsumer": Consumer,
    "quixstreams.kafka.producer.ConfluentProducer": Producer,
    "quixstreams.models.topics.admin.AdminClient": AdminClient,
    "fraud_service.kafka.clients.SkippingConsumer": Consumer,
    "fraud_service.kafka.clients.Producer": Producer,
    "fraud_service.kafka.clients.AdminClient": AdminClient,
}


@contextmanager
def simulated() -> Iterator[None]:
    """Give Quix and our code the simulation's clients and clock, and let processes crash at disk writes too."""
    from quixstreams.state.rocksdb.partition import RocksDBStorePartition  # noqa: PLC0415 - found late by the sweep

    patches = [patch(place, stand_in) for place, stand_in in MADE_IN.items()]
    write = RocksDBStorePartition.write

    def fragile_write(self, *args, **kwargs):
        return here.get().call("write state", lambda: write(self, *args, **kwargs))

    recover, settle = StoreWriter._write, StoreWriter.flush

    def fragile_recovery(self):
        return here.get().call("write recovered state", lambda: recover(self))

    def fragile_settling(self):
        return here.get().call("settle recovered state", lambda: settle(self))

    patches.append(patch.object(RocksDBStorePartition, "write", fragile_write))
    patches.append(patch.object(StoreWriter, "_write", fragile_recovery))
    patches.append(patch.object(StoreWriter, "flush", fragile_settling))
    patches += [
        patch.object(bulk_recovery, "MAX_ROWS_PER_WRITE", 3),
        patch.object(bulk_recovery, "MAX_ROWS_PER_FLUSH", 5),
        patch.object(batching, "MAX_BATCH", 3),
    ]  # so that there are several
    with virtual():
        for one in patches:
            one.start()
        try:
            yield
        finally:
            for one in patches:
                one.stop()


@cache
def metrics() -> ScorerMetrics:
    """Return metrics without an endpoint."""
    return ScorerMetrics(Metrics())


@cache
def learner_metrics() -> LearnerMetrics:
    """Return a learner's metrics without an endpoint."""
    return LearnerMetrics(Metrics())


def detector(settings: Settings) -> Detector:
    """Create a detector that flags large amounts."""
    return Detector(LinearModel(base=-3.0, amount=5.0), factories.policy(settings))


def knowledge() -> SnapshotStore:
    """Return the snapshot store before any label."""
    return SnapshotStore(untrained(LinearModel.version, online_model()))


def score(settings: Settings, started: Callable[[FraudApplication], None], *, commits_early: bool) -> None:
    """Run a scorer as `service.run_scorer` does: check, build, then run until it stops.

    With early commits only, faults would hardly ever meet a transaction of more than one batch.
    """
    spec = replace(scorer.stream_spec(settings), commits_early=commits_early)
    service.preflight_checks(settings, spec)
    processor = scorer.ScorerProcessor(settings, detector(settings), knowledge(), metrics())
    app = FraudApplication(settings, spec, lambda _: Processing(processor), Health(), metrics())
    _run(app, started)


def learn(settings: Settings, started: Callable[[FraudApplication], None]) -> None:
    """Run a learner as `service.run_learner` does, without promoted models."""
    spec = replace(learner.stream_spec(settings), commit_interval_s=settings.commit_interval.total_seconds())
    service.preflight_checks(settings, spec)

    def make_processing(stream: StreamAccess) -> Processing:
        models = learner.LearnerModels(ModelRegistry(LinearModel()), lambda _: CountingLearner)
        inputs = InputLog(settings, stream, spec.inputs)
        processor = learner.LearnerProcessor(settings, models, stream, inputs, learner_metrics())
        return Processing(processor, Hooks(processor.tick, processor.on_assign))

    _run(FraudApplication(settings, spec, make_processing, Health(), learner_metrics()), started)


def _run(app: FraudApplication, started: Callable[[FraudApplication], None]) -> None:
    app._setup_signal_handlers = lambda: None  # this is not the main thread, and the simulation sends no signals
    started(app)
    app.run()


def silence() -> None:
    """Silence the logs of Quix and of our code, because a simulation is full of faults."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
