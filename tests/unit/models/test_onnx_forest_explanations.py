"""Explanations: the trees that explain a score are the trees that ONNX Runtime scores with."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from support.checks import EXTREMES, plausible

from fraud_service.domain.features import NAMES
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import WINSORIZE_SD, OnnxForest
from fraud_service.models.onnx_forest import logit as share_logit
from fraud_service.models.trees import ENCODING_DEPTH, ENCODING_TREES

ROWS = [*plausible(1, 200), *EXTREMES]


@pytest.fixture(scope="module")
def shipped():
    return OnnxForest.load(artifact.shipped_folder())


def logits(model, rows):
    return [encoded.logit for encoded in model.encode(rows)]


def test_contributions_sum_to_the_logit(shipped):
    for row, logit in zip(ROWS, logits(shipped, ROWS), strict=True):
        base, summands = shipped.contributions(row)
        assert len(summands) == len(NAMES)
        assert math.fsum([base, *summands]) == pytest.approx(logit, abs=1e-9, rel=0)


def test_the_base_of_the_contributions_is_the_same_for_every_row(shipped):
    assert len({shipped.contributions(row)[0] for row in ROWS}) == 1


def test_a_feature_that_no_tree_uses_contributes_nothing(shipped):
    trees = artifact.read(artifact.shipped_folder()).trees
    features_on_path = {feature for feature, left in zip(trees.feature, trees.left, strict=True) if left >= 0}
    for row in ROWS[:50]:
        summands = shipped.contributions(row)[1]
        assert all(summands[feature] == 0.0 for feature in range(len(NAMES)) if feature not in features_on_path)


def test_walking_the_trees_reaches_the_leaves_that_onnx_adds_up(shipped):
    trees = artifact.read(artifact.shipped_folder()).trees
    for row, logit in zip(ROWS, logits(shipped, ROWS), strict=True):
        values, total = np.array(row.vector(), dtype=np.float32).tolist(), 0.0
        for root in trees.roots:
            node = root
            while trees.left[node] >= 0:
                goes_left = values[trees.feature[node]] <= trees.threshold[node]
                node = (trees.left if goes_left else trees.right)[node]
            total += trees.value[node]
        assert share_logit(total) == logit


def test_a_value_equal_to_a_threshold_goes_left_in_trees_and_onnx(shipped):
    trees = artifact.read(artifact.shipped_folder()).trees
    root = trees.roots[0]
    name, threshold = NAMES[trees.feature[root]], trees.threshold[root]
    at, above = (
        msgspec.structs.replace(EXTREMES[1], **{name: value})
        for value in (threshold, float(np.nextafter(np.float32(threshold), np.float32(np.inf))))
    )
    for row in (at, above):
        base, summands = shipped.contributions(row)
        assert math.fsum([base, *summands]) == pytest.approx(logits(shipped, [row])[0], abs=1e-9, rel=0)
    assert logits(shipped, [at]) != logits(shipped, [above])


def test_inputs_of_the_online_model_are_standardised_as_the_manifest_says(shipped):
    for row, found in zip(ROWS, shipped.encode(ROWS), strict=True):
        for value, centre, scale, given in zip(
            row.vector(), shipped.manifest.centre, shipped.manifest.scale, found.inputs, strict=True
        ):
            assert given == min(max((math.asinh(value) - centre) / scale, -WINSORIZE_SD), WINSORIZE_SD)


def test_the_leaves_of_the_online_model_are_the_upper_levels_of_the_forest(shipped):
    trees, known = artifact.read(artifact.shipped_folder()).trees, shipped.manifest.leaves
    assert len(shipped.untrained_online_model().leaf_weights) == known
    reached = {}
    for row, found in zip(ROWS, shipped.encode(ROWS), strict=True):
        assert len(found.leaves) == ENCODING_TREES
        assert found.leaves == sorted(found.leaves)  # numbered tree by tree
        assert 0 <= found.leaves[0] <= found.leaves[-1] < known
        values = np.array(row.vector(), dtype=np.float32).tolist()
        for root, leaf in zip(trees.roots, found.leaves, strict=False):
            node, way = root, set()
            for _ in range(ENCODING_DEPTH):
                if trees.left[node] >= 0:
                    way.add(trees.feature[node])
                    left = values[trees.feature[node]] <= trees.threshold[node]
                    node = (trees.left if left else trees.right)[node]
            assert shipped.features_on_path[leaf] == way
            assert reached.setdefault(leaf, node) == node
    assert len(set(reached.values())) == len(reached) > 3 * ENCODING_TREES
