"""Exported forests: the artifact scores exactly as scikit-learn does, or there is no artifact."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from support.histories import QUICK_TREES
from support.worlds import DAY, HOUR, MONDAY

pytest.importorskip("sklearn")

from fraud_service.domain.errors import ModelError
from fraud_service.domain.features import NAMES
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training import export as exporting
from fraud_service.training.dataset import Examples, TrainingWindow
from fraud_service.training.fit import fit


@pytest.fixture
def fitted(quick):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(1500, len(NAMES))) * 100
    return fit(Examples(features, features[:, 0] + features[:, 3] > 150, np.arange(1500) * HOUR))


def test_export_keeps_every_score_to_less_than_a_millionth(fitted, tmp_path):
    exporting.export(fitted, TrainingWindow(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path)
    served = OnnxForest.load(tmp_path)
    assert exporting.max_difference(fitted, served) < 1e-12
    assert len(artifact.read(tmp_path).trees.roots) == QUICK_TREES


def test_a_graph_with_other_scores_is_not_written(fitted, monkeypatch, tmp_path):
    graph = exporting.onnx_bytes

    def tampered(trees):
        return graph(msgspec.structs.replace(trees, value=[value + 1e-5 for value in trees.value]))

    monkeypatch.setattr(exporting, "onnx_bytes", tampered)
    with pytest.raises(ModelError, match=r"differs from scikit-learn by .*, allowed is 1e-06"):
        exporting.export(fitted, TrainingWindow(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))


def test_a_graph_with_nan_scores_is_not_written(fitted, monkeypatch, tmp_path):
    graph = exporting.onnx_bytes
    monkeypatch.setattr(
        exporting,
        "onnx_bytes",
        lambda trees: graph(msgspec.structs.replace(trees, value=[math.nan] * len(trees.value))),
    )
    with pytest.raises(ModelError, match="differs from scikit-learn by nan"):
        exporting.export(fitted, TrainingWindow(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))
