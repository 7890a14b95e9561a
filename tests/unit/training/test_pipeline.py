"""Training: the same history gives the same files, and the artifact scores exactly as scikit-learn does."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from hashlib import sha256

import msgspec
import numpy as np
import pytest
from support.worlds import DAY, HOUR, MONDAY

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

from support.histories import QUICK_TREES, hourly_history
from support.simulated import simulated_file

from fraud_service.domain.errors import ConfigurationError, ModelError
from fraud_service.domain.features import NAMES
from fraud_service.models.artifact import MANIFEST, MODEL, MODEL_CARD, TREES, read
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training import pipeline
from fraud_service.training.dataset import Examples, TrainingWindow
from fraud_service.training.fit import CANDIDATE_PARAMETERS, PARAMETERS, fit
from fraud_service.training.history import History
from fraud_service.training.pipeline import train

# In a process of its own, as users run it: another hash seed, another number of threads.
TRAIN_AGAIN = f"""
import sys
from pathlib import Path
from fraud_service.training.history import History
from fraud_service.training.fit import CANDIDATE_PARAMETERS
from fraud_service.training.pipeline import train
for choice in CANDIDATE_PARAMETERS:
    choice["n_estimators"] = {QUICK_TREES}
train(History.open(Path(sys.argv[1])), Path(sys.argv[2]), start=None, label_delay_ms={7 * DAY}, source="a small world")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return simulated_file(tmp_path_factory.mktemp("world"), seed=1, cards=150, merchants=100, days=36)


@pytest.fixture(scope="module")
def trained(quick, world, tmp_path_factory):
    """Train once; gives the folder and the manifest."""
    folder = tmp_path_factory.mktemp("trained") / "new" / "folder"
    calls = []
    manifest = train(
        History.open(world),
        folder,
        start=None,
        label_delay_ms=7 * DAY,
        source="a small world",
        progress=lambda: calls.append(1),
    )
    assert len(calls) == len(History.open(world))
    return folder, manifest


def test_training_again_in_another_process_writes_the_same_bytes(trained, world, tmp_path):
    environment = os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", TRAIN_AGAIN, world, tmp_path], env=environment, check=True, timeout=120)
    folder, _ = trained
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MANIFEST, MODEL, TREES, MODEL_CARD])
    for name in (MANIFEST, MODEL, TREES, MODEL_CARD):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_the_trained_model_loads_and_has_learned_to_rank(trained):
    folder, manifest = trained
    model = OnnxForest.load(folder)
    assert model.version == manifest.version
    assert model.manifest == manifest
    assert manifest.metrics["held_out_auc_roc"] > 0.8


def test_the_manifest_records_the_training_set(trained, world):
    folder, manifest = trained
    events = list(History.open(world))
    begin, end = events[0].transaction.timestamp, events[-1].transaction.timestamp
    rows = [event for event in events if event.transaction.timestamp >= begin + (end - begin) // 3]
    frauds = sum(event.is_fraud and event.labelled_at <= end + 1 + 7 * DAY for event in rows)
    assert frauds < sum(event.is_fraud for event in rows)  # some become known too late
    assert tuple(manifest.features) == NAMES
    assert manifest.sha256 == {name: sha256((folder / name).read_bytes()).hexdigest() for name in (MODEL, TREES)}
    assert manifest.version == f"forest-{manifest.sha256[MODEL][:12]}"
    assert manifest.prior == pytest.approx(math.log(frauds / (len(rows) - frauds)))
    assert manifest.training["source"] == "a small world"
    assert (manifest.training["rows"], manifest.training["frauds"]) == (len(rows), frauds)
    assert manifest.training["label_delay_days"] == 7
    assert manifest.training["from"].startswith("2024-01-12T")
    assert manifest.training["to"].startswith("2024-02-05T")
    assert manifest.training["parameters"] in [PARAMETERS | choice for choice in CANDIDATE_PARAMETERS]
    assert manifest.training["judged_days"] == pytest.approx((end - rows[0].transaction.timestamp) / 4 / DAY, abs=0.01)
    assert set(manifest.training) >= {"python", "scikit-learn"}


def test_the_model_card_has_the_content_of_the_manifest(trained):
    folder, manifest = trained
    card = (folder / MODEL_CARD).read_text(encoding="utf-8")
    assert card.startswith(f"# Model {manifest.version}\n")
    assert "| trained on | a small world |" in card
    assert f"{manifest.training['rows']:,}, {manifest.training['frauds']:,} of them frauds" in card
    assert f"| held out auc roc | {manifest.metrics['held_out_auc_roc']:g} |" in card
    assert f"| n_estimators | {QUICK_TREES} |" in card
    assert "What it is not for" in card
    assert "simulat" not in card


def test_a_history_without_transactions_is_rejected(world, tmp_path):
    empty = History.open(world, end=1)
    with pytest.raises(ConfigurationError, match="the history has no transaction"):
        train(empty, tmp_path / "new", start=None, label_delay_ms=DAY, source="nothing")
    assert not list(tmp_path.rglob("*.*"))


def test_a_history_of_only_frauds_is_rejected(quick, tmp_path):
    events = [msgspec.structs.replace(event, is_fraud=True) for event in hourly_history(300)]
    with pytest.raises(ConfigurationError, match="300 known frauds in 300 transactions"):
        train(events, tmp_path / "new", start=MONDAY, label_delay_ms=DAY, source="only frauds")
    assert not list(tmp_path.rglob("*.*"))


def test_a_history_too_small_to_learn_from_is_rejected(quick, tmp_path):
    with pytest.raises(ConfigurationError, match="60 transactions"):
        train(hourly_history(60), tmp_path / "new", start=MONDAY, label_delay_ms=DAY, source="two days")
    assert not list(tmp_path.rglob("*.*"))


# --- Export -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fitted(quick):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(1500, len(NAMES))) * 100
    return fit(Examples(features, features[:, 0] + features[:, 3] > 150, np.arange(1500) * HOUR))


def test_export_keeps_every_score_to_less_than_a_millionth(fitted, tmp_path):
    pipeline.export(fitted, TrainingWindow(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path)
    served = OnnxForest.load(tmp_path)
    assert pipeline.max_difference(fitted, served) < 1e-12
    assert len(read(tmp_path).trees.roots) == QUICK_TREES


def test_a_graph_with_other_scores_is_not_written(fitted, monkeypatch, tmp_path):
    graph = pipeline.onnx_bytes

    def tampered(trees):
        return graph(msgspec.structs.replace(trees, value=[value + 1e-5 for value in trees.value]))

    monkeypatch.setattr(pipeline, "onnx_bytes", tampered)
    with pytest.raises(ModelError, match=r"differs from scikit-learn by .*, allowed is 1e-06"):
        pipeline.export(fitted, TrainingWindow(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))


def test_a_graph_with_nan_scores_is_not_written(fitted, monkeypatch, tmp_path):
    graph = pipeline.onnx_bytes
    monkeypatch.setattr(
        pipeline,
        "onnx_bytes",
        lambda trees: graph(msgspec.structs.replace(trees, value=[math.nan] * len(trees.value))),
    )
    with pytest.raises(ModelError, match="differs from scikit-learn by nan"):
        pipeline.export(fitted, TrainingWindow(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))
