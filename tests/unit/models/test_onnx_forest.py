"""Every model passes the same checks: pretrained, online, and untrained."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest

pytest.importorskip("pyarrow")

from support import checks
from support.simulated import rehearsal, simulated
from support.worlds import DAY


@pytest.fixture(scope="module")
def shipped():
    return OnnxForest.load(artifact.shipped_folder())


def pretrained_scorer(shipped):
    return checks.PretrainedScorer(shipped, artifact.read(artifact.shipped_folder()))


def untrained_snapshot(shipped):
    return checks.SnapshotScorer(shipped.untrained_online_model(), shipped)


def trained_snapshot(shipped):
    return checks.SnapshotScorer(trained_learner(shipped).learner.export(), shipped)


def untrained_learner(shipped):
    return checks.RiverScorer.untrained(shipped)


def trained_learner(shipped):
    model = checks.RiverScorer.untrained(shipped)
    checks.learn_all(model, checks.planted(99, 1500))
    return model


@pytest.fixture(params=[pretrained_scorer, untrained_snapshot, trained_snapshot, untrained_learner, trained_learner])
def scorer(request, shipped):
    return request.param(shipped)


@pytest.fixture(params=[untrained_learner, trained_learner])
def learner(request, shipped):
    return request.param(shipped)


@pytest.mark.parametrize("check", checks.CHECKS)
def test_every_scorer_passes(check, scorer):
    check(scorer)


@pytest.mark.parametrize("check", checks.LEARNER_CHECKS)
def test_every_learner_passes(check, learner):
    check(learner)


def test_the_exported_online_model_has_learned_the_planted_fraud(shipped):
    rows, truth = zip(*checks.planted(14, 500), strict=True)
    assert checks.auc(trained_snapshot(shipped).score(rows), truth) > 0.95


def test_the_shipped_model_ranks_fraud_above_legitimate_payments_of_an_unseen_world(shipped):
    world = simulated(seed=4711, cards=150, merchants=100, days=30)
    verdicts = list(rehearsal(shipped, shipped.untrained_online_model()).run(world))
    scored = [
        (verdict.decision.pretrained_logit, event.is_fraud)
        for verdict, event in zip(verdicts, world, strict=True)
        if event.transaction.timestamp >= world[0].transaction.timestamp + 10 * DAY  # profiles are warm
    ]
    assert sum(is_fraud for _, is_fraud in scored) > 30
    assert checks.auc(*zip(*scored, strict=True)) > 0.9


def test_a_model_that_remembers_every_example_fails_the_checks(shipped):
    class Hoarder(checks.RiverScorer):
        hoard = b""

        def learn(self, row, *, is_fraud):
            Hoarder.hoard += b"!"

        def data(self):
            return super().data() + Hoarder.hoard

    with pytest.raises(AssertionError):
        checks.check_size_does_not_grow_with_examples(Hoarder.untrained(shipped))


def test_the_area_under_the_curve_counts_ties_half():
    assert checks.auc([0.1, 0.4, 0.4, 0.8], [False, False, True, True]) == pytest.approx(0.875)


@pytest.mark.attack
def test_loading_the_model_runtime_switches_its_telemetry_off(tmp_path):
    code = "import fraud_service.models.onnx_forest, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []  # where it is on, it leaves a session file here
