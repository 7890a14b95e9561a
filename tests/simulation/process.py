"""The service's processes as `fraud_service.service` puts them together, on the clients of the simulation."""

from __future__ import annotations

import logging
from contextlib import contextmanager
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
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.snapshot import untrained
from fraud_service.domain.snapshot_store import SnapshotStore
from fraud_service.processors import input_log, learner, scorer
from fraud_service.runtime import application, batching, fast_state
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.application import FraudApplication

MADE_IN = {
    "quixstreams.kafka.consumer.ConfluentConsumer": Consumer,
    "quixstreams.kafka.producer.ConfluentProducer": Producer,
    "quixstreams.models.topics.admin.AdminClient": AdminClient,
    "fraud_service.kafka.clients.Reader": Consumer,
    "fraud_service.kafka.clients.Producer": Producer,
    "fraud_service.kafka.clients.AdminClient": AdminClient,
}


@contextmanager
def simulated() -> Iterator[None]:
    """Give Quix and our code the simulation's clients and clock, and let a disk write be a place to crash at."""
    from quixstreams.state.rocksdb.partition import RocksDBStorePartition  # noqa: PLC0415 - found late by the sweep

    patches = [patch(place, stand_in) for place, stand_in in MADE_IN.items()]
    write = RocksDBStorePartition.write

    def fragile_write(self, *args, **kwargs):
        return here.get().call("write state", lambda: write(self, *args, **kwargs))

    recover, settle = fast_state._Store._write, fast_state._Store.settle

    def fragile_recovery(self):
        return here.get().call("write recovered state", lambda: recover(self))

    def fragile_settling(self):
        return here.get().call("settle recovered state", lambda: settle(self))

    patches.append(patch.object(RocksDBStorePartition, "write", fragile_write))
    patches.append(patch.object(fast_state._Store, "_write", fragile_recovery))
    patches.append(patch.object(fast_state._Store, "settle", fragile_settling))
    patches += [
        patch.object(fast_state, "ROWS_AT_ONCE", 3),
        patch.object(fast_state, "ROWS_UNTIL_SETTLED", 5),
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
    """Return metrics that nobody scrapes."""
    return ScorerMetrics(Metrics())


@cache
def learner_metrics() -> LearnerMetrics:
    """Return the same of a learner."""
    return LearnerMetrics(Metrics())


def detector(settings: Settings) -> Detector:
    """Make a detector that flags what is dear."""
    return Detector(LinearModel(base=-3.0, amount=5.0), factories.policy(settings))


def knowledge() -> SnapshotStore:
    """Return what is known before any label."""
    return SnapshotStore(untrained(LinearModel.version, online_model()))


def score(settings: Settings, started: Callable[[FraudApplication], None], *, commits_early: bool) -> None:
    """Run a scorer as `service.run_scorer` does: checked, built, wired, then turned until it stops.

    With early commits alone, hardly any transaction would hold more than one batch when something happens to it.
    """
    service.preflight_checks(settings, settings.scorer_group, [settings.topics.transactions])
    app = application.build(
        settings,
        settings.scorer_group,
        guarantee=settings.processing_guarantee,
        commit_interval=settings.commit_interval.total_seconds(),
    )
    scorer.build_topology(app, settings, scorer.ScorerProcessor(settings, detector(settings), knowledge(), metrics()))
    app.batches.commits_early &= commits_early
    app._setup_signal_handlers = lambda: None  # not the main thread, and nobody sends signals here
    started(app)
    app.run()


def learn(settings: Settings, started: Callable[[FraudApplication], None]) -> None:
    """Run a learner as `service.run_learner` does, but for promoted models, of which there are none."""
    inputs = [settings.topics.scores, settings.topics.labels]
    service.preflight_checks(settings, settings.learner_group, inputs)
    app = application.build(
        settings,
        settings.learner_group,
        guarantee="exactly-once",
        commit_interval=settings.commit_interval.total_seconds(),
        transaction_timeout_ms=service.LEARNER_TRANSACTION_TIMEOUT_MS,
    )
    step = learner.LearnerProcessor(
        settings, factories.calendar(settings), NegativeSampler(), LinearModel(), CountingLearner, learner_metrics()
    )
    learner.build_topology(app, settings, step)
    step.follow(input_log.InputLog(settings, app, inputs))
    app.on_partitions = step.on_partitions
    app._setup_signal_handlers = lambda: None
    started(app)
    app.run()


def silence() -> None:
    """Let neither Quix nor our code say what went wrong: in a simulation something always does."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
