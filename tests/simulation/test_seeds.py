"""A few hundred seeds of the simulation, as `make simulate-faults` runs thousands; and that it would find something."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from unittest import mock

from simulation.process import silence
from simulation.world import Run, run

SEEDS = 200


def runs(one, seeds) -> list[Run]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=silence) as pool:
        return list(pool.map(one, seeds, chunksize=4))


def impatient(seed: int) -> Run:
    """Recover without waiting for transactions that have not ended in the changelog, as Quix does."""
    with mock.patch("fraud_service.stream.application.await_settled"):
        return run(seed)


def forgetful(seed: int) -> Run:
    """Leave the changelog out of checkpoints."""
    with mock.patch("quixstreams.state.rocksdb.transaction.RocksDBPartitionTransaction.prepare"):
        return run(seed)


def trusting(seed: int) -> Run:
    """Rely on the client to pause whatever it is told to, as Quix does."""
    with mock.patch("fraud_service.stream.application.hold_back"):
        return run(seed)


def test_whatever_a_seed_does_to_the_scorer_nothing_is_lost_doubled_or_changed():
    found = runs(run, range(SEEDS))
    assert {one.seed: one.anomalies for one in found if one.anomalies} == {}
    assert sum(one.events.get("crash", 0) for one in found) > SEEDS / 10
    assert sum(one.events.get("volume", 0) for one in found) > 0


def test_a_recovery_that_misses_the_last_checkpoint_is_found():
    assert any(one.anomalies for one in runs(impatient, range(60)))


def test_state_that_is_not_in_the_changelog_is_found():
    assert any(one.anomalies for one in runs(forgetful, range(8)))


def test_a_changelog_that_is_taken_for_events_is_found():
    assert any(one.anomalies for one in runs(trusting, range(20)))
