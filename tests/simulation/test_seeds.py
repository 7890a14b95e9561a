"""Run a few hundred seeds of the simulation (`make simulate-faults` runs thousands), and test that it finds faults."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING
from unittest import mock

import pytest
import structlog
from simulation.learner_world import LearnerWorld
from simulation.process import silence
from simulation.world import Run, World, run
from support import daily_seeds

from fraud_service.domain.profile import RECENT, DuplicateCheck, Profile, fingerprint64
from fraud_service.runtime import bulk_recovery
from fraud_service.runtime.bulk_recovery import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.domain.events import Transaction

SEEDS = 200
SHARD = 20  # seeds per test: few enough to share the work evenly. `make test` runs the first shard
SHARDS = [
    pytest.param(range(first, first + SHARD), id=f"seeds-{first}", marks=() if first == 0 else pytest.mark.slow)
    for first in range(0, SEEDS, SHARD)
]
REPORTED = (915301, 920641, 6107305)  # had anomalies once

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Silence the logs, because a simulation is full of faults."""
    configured = structlog.get_config()
    silence()
    yield
    logging.disable(logging.NOTSET)
    structlog.configure(**configured)


def learning(seed: int) -> Run:
    """Run the world of a learner."""
    return run(seed, LearnerWorld)


def impatient(seed: int) -> Run:
    """Recover without waiting for open transactions in the changelog, as Quix does."""
    with mock.patch("fraud_service.runtime.application.wait_for_open_transactions"):
        return run(seed)


def forgetful(seed: int, kind: type[World] = World) -> Run:
    """Leave the changelog out of checkpoints."""
    with mock.patch("quixstreams.state.rocksdb.transaction.RocksDBPartitionTransaction.prepare"):
        return run(seed, kind)


def trusting(seed: int, kind: type[World] = World) -> Run:
    """Rely on the client to apply every pause, as Quix does."""
    with mock.patch("fraud_service.runtime.application.drop_paused_messages"):
        return run(seed, kind)


def careless(seed: int) -> Run:
    """Recover only full batches of rows."""
    write = StoreWriter._write

    def write_when_full(self) -> None:
        if len(self._rows) >= bulk_recovery.MAX_ROWS_PER_WRITE:
            write(self)

    with mock.patch.object(StoreWriter, "_write", write_when_full):
        return run(seed)


def credulous(seed: int) -> Run:
    """Treat every message with a used id as a duplicate."""

    def find_duplicate(profile: Profile, payment: Transaction) -> DuplicateCheck:
        rows = [row[0] for row in RECENT.iter_unpack(profile.recent)]
        identity = fingerprint64(payment.transaction_id)
        return DuplicateCheck(len(rows) - rows.index(identity) if identity in rows else 0)

    with mock.patch.object(Profile, "find_duplicate", find_duplicate):
        return run(seed)


def hasty(seed: int) -> Run:
    """Close a boundary without first reading the inputs up to it."""
    with mock.patch("fraud_service.processors.learner.LearnerProcessor._has_passed", return_value=True):
        return run(seed, LearnerWorld)


@pytest.mark.parametrize("seeds", SHARDS)
@pytest.mark.parametrize("one", [run, learning], ids=["scorer", "learner"])
def test_no_record_is_lost_doubled_or_changed(one, seeds):
    found = [one(seed) for seed in seeds]
    assert {each.seed: each.anomalies for each in found if each.anomalies} == {}
    assert sum(each.events.get("crash", 0) for each in found) > 0


@pytest.mark.parametrize("one", [run, learning], ids=["scorer", "learner"])
def test_seeds_that_had_anomalies_have_none(one):
    assert {seed: one(seed).anomalies for seed in REPORTED} == {seed: [] for seed in REPORTED}


@pytest.mark.parametrize("one", [run, learning], ids=["scorer", "learner"])
def test_the_seeds_of_today_have_no_anomaly(one):
    found = [one(seed) for seed in daily_seeds.SEEDS]
    assert {each.seed: each.anomalies for each in found if each.anomalies} == {}


@pytest.mark.slow
@pytest.mark.parametrize("one", [run, learning], ids=["scorer", "learner"])
def test_seeds_crash_processes_and_lose_volumes(one):
    events: Counter[str] = Counter()
    for seed in range(SEEDS):
        events.update(one(seed).events)
        if events["crash"] > SEEDS / 10 and events["volume"]:
            return
    pytest.fail(f"too few crashes or lost volumes: {events}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutation", "seeds"),
    [(impatient, 60), (careless, 24), (forgetful, 8), (trusting, 20), (credulous, 8), (hasty, 24)],
)
def test_the_simulation_finds_a_planted_fault(mutation, seeds):
    assert any(mutation(seed).anomalies for seed in range(seeds))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", [forgetful, trusting])
def test_the_simulation_finds_wrong_state_of_a_learner(mutation):
    assert any(mutation(seed, LearnerWorld).anomalies for seed in range(24))
