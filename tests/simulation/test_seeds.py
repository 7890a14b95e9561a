"""A few hundred seeds of the simulation, as `make simulate-faults` runs thousands; and that it would find something."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from simulation.classroom import LearnerWorld
from simulation.process import silence
from simulation.world import Run, World, run

from fraud_service.domain.profile import RECENT, Duplicate, Profile, fingerprint64
from fraud_service.runtime import fast_state

if TYPE_CHECKING:
    from fraud_service.domain.events import Transaction

SEEDS = 200


def runs(one, seeds) -> list[Run]:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=silence) as pool:
        return list(pool.map(one, seeds, chunksize=4))


def learning(seed: int) -> Run:
    """Run the world of a learner."""
    return run(seed, LearnerWorld)


def impatient(seed: int) -> Run:
    """Recover without waiting for transactions that have not ended in the changelog, as Quix does."""
    with mock.patch("fraud_service.runtime.application.wait_for_open_transactions"):
        return run(seed)


def forgetful(seed: int, kind: type[World] = World) -> Run:
    """Leave the changelog out of checkpoints."""
    with mock.patch("quixstreams.state.rocksdb.transaction.RocksDBPartitionTransaction.prepare"):
        return run(seed, kind)


def trusting(seed: int, kind: type[World] = World) -> Run:
    """Rely on the client to pause whatever it is told to, as Quix does."""
    with mock.patch("fraud_service.runtime.application.drop_paused_messages"):
        return run(seed, kind)


def careless(seed: int) -> Run:
    """Recover full batches of rows only."""
    write = fast_state._Store._write

    def write_when_full(self) -> None:
        if len(self._rows) >= fast_state.ROWS_AT_ONCE:
            write(self)

    with mock.patch.object(fast_state._Store, "_write", write_when_full):
        return run(seed)


def credulous(seed: int) -> Run:
    """Take every message under a used id for a repetition."""

    def duplicate_age(profile: Profile, payment: Transaction) -> Duplicate:
        rows = [row[0] for row in RECENT.iter_unpack(profile.recent)]
        identity = fingerprint64(payment.transaction_id)
        return Duplicate(len(rows) - rows.index(identity) if identity in rows else 0)

    with mock.patch.object(Profile, "duplicate_age", duplicate_age):
        return run(seed)


def hasty(seed: int) -> Run:
    """Close a boundary without reading on to what was there by then."""
    with mock.patch("fraud_service.processors.learner.LearnerProcessor._has_passed", return_value=True):
        return run(seed, LearnerWorld)


def test_whatever_a_seed_does_to_the_scorer_nothing_is_lost_doubled_or_changed():
    found = runs(run, range(SEEDS))
    assert {one.seed: one.anomalies for one in found if one.anomalies} == {}
    assert sum(one.events.get("crash", 0) for one in found) > SEEDS / 10
    assert sum(one.events.get("volume", 0) for one in found) > 0


def test_a_recovery_that_misses_the_last_checkpoint_is_found():
    assert any(one.anomalies for one in runs(impatient, range(60)))


def test_rows_that_are_not_recovered_are_found():
    assert any(one.anomalies for one in runs(careless, range(24)))


def test_state_that_is_not_in_the_changelog_is_found():
    assert any(one.anomalies for one in runs(forgetful, range(8)))


def test_a_changelog_that_is_taken_for_events_is_found():
    assert any(one.anomalies for one in runs(trusting, range(20)))


def test_a_payment_that_is_not_scored_because_its_id_was_used_is_found():
    assert any(one.anomalies for one in runs(credulous, range(8)))


def test_whatever_a_seed_does_to_the_learner_every_truth_is_taught_once():
    found = runs(learning, range(SEEDS))
    assert {one.seed: one.anomalies for one in found if one.anomalies} == {}
    assert sum(one.events.get("crash", 0) for one in found) > SEEDS / 10


@pytest.mark.parametrize("mutation", [forgetful, trusting])
def test_state_of_a_learner_that_is_not_what_it_had_committed_is_found(mutation):
    assert any(one.anomalies for one in runs(partial(mutation, kind=LearnerWorld), range(24)))


def test_a_boundary_that_is_closed_too_early_is_found():
    assert any(one.anomalies for one in runs(hasty, range(24)))
