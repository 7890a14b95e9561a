"""Write a fitted model as an artefact: ONNX from the fitted nodes, trees for explanations, manifest and card.

The graph is one `TreeEnsemble` node of ai.onnx.ml version 5 in double precision, which keeps every threshold and leaf
as it was fitted; the converters round them to single precision.
"""

from __future__ import annotations

import sys
from hashlib import sha256
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from onnx import TensorProto, helper

from fraud_service.domain.events import rfc3339
from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.errors import ModelError
from fraud_service.models.artefact import CARD, FORMAT, MANIFEST, MODEL, TREES, Manifest, Trees
from fraud_service.models.pretrained import Pretrained
from fraud_service.training.card import card
from fraud_service.training.fit import PARAMETERS, Fitted, Window, prior, standardisation

if TYPE_CHECKING:
    from pathlib import Path

    from fraud_service.domain.features import Features

PARITY: Final = 1e-6
OPSET: Final = 21
ML_OPSET: Final = 5
IR_VERSION: Final = 10


def export(fitted: Fitted, window: Window, source: str, folder: Path) -> Manifest:
    """Write the artefact into a folder, after proving that it scores like scikit-learn.

    Raises
    ------
    ModelError
        When the exported model differs from scikit-learn by 1e-6 or more anywhere on the training set.
    """
    trees = flatten(fitted)
    model = graph(trees)
    files = {MODEL: model, TREES: msgspec.json.encode(trees)}
    manifest = _manifest(fitted, window, source, files)
    served = Pretrained(manifest, model, trees)
    difference = parity(fitted, served)
    if not difference < PARITY:
        raise ModelError(f"the exported model differs from scikit-learn by {difference:.1e}, allowed is {PARITY:.0e}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    pretty = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (folder / MANIFEST).write_bytes(pretty + b"\n")
    (folder / CARD).write_text(card(manifest), encoding="utf-8")
    return manifest


def flatten(fitted: Fitted) -> Trees:
    """Lay scikit-learn's trees out as flat lists, with the mean logit of the training rows at every node."""
    trees = Trees(float(np.ravel(fitted.model._baseline_prediction)[0]), [], [], [], [], [], [])  # noqa: SLF001
    for (predictor,) in fitted.model._predictors:  # noqa: SLF001 - the fitted nodes have no public name; parity is proved
        offset = len(trees.left)
        trees.roots.append(offset)
        nodes = predictor.nodes
        means = _means(nodes)
        for node, mean in zip(nodes, means, strict=True):
            leaf = bool(node["is_leaf"])
            trees.feature.append(0 if leaf else int(node["feature_idx"]))
            trees.threshold.append(0.0 if leaf else float(node["num_threshold"]))
            trees.left.append(-1 if leaf else offset + int(node["left"]))
            trees.right.append(-1 if leaf else offset + int(node["right"]))
            trees.value.append(mean)
    return trees


def _means(nodes: Any) -> list[float]:
    """Mean of the leaves below each node, weighted by training rows. Children come after their parents."""
    means = [0.0] * len(nodes)
    for index in reversed(range(len(nodes))):
        node = nodes[index]
        if node["is_leaf"]:
            means[index] = float(node["value"])
            continue
        left, right = int(node["left"]), int(node["right"])
        rows_left, rows_right = int(nodes[left]["count"]), int(nodes[right]["count"])
        means[index] = (means[left] * rows_left + means[right] * rows_right) / (rows_left + rows_right)
    return means


def graph(trees: Trees) -> bytes:
    """Build the ONNX graph: a matrix `features` of shape (rows, 42) to `logit` of shape (rows, 1)."""
    inner = [node for node, left in enumerate(trees.left) if left >= 0]
    leaves = [node for node, left in enumerate(trees.left) if left < 0]
    place = {node: position for group in (inner, leaves) for position, node in enumerate(group)}
    lefts, rights = [trees.left[node] for node in inner], [trees.right[node] for node in inner]
    ensemble = helper.make_node(
        "TreeEnsemble",
        ["features"],
        ["sum"],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function=1,  # sum
        post_transform=0,  # none: the logit itself
        tree_roots=[place[root] for root in trees.roots],
        nodes_modes=helper.make_tensor("modes", TensorProto.UINT8, [len(inner)], [0] * len(inner)),  # <= goes left
        nodes_featureids=[trees.feature[node] for node in inner],
        nodes_splits=_doubles("splits", [trees.threshold[node] for node in inner]),
        nodes_truenodeids=[place[node] for node in lefts],
        nodes_trueleafs=[int(trees.left[node] < 0) for node in lefts],
        nodes_falsenodeids=[place[node] for node in rights],
        nodes_falseleafs=[int(trees.left[node] < 0) for node in rights],
        leaf_targetids=[0] * len(leaves),
        leaf_weights=_doubles("weights", [trees.value[node] for node in leaves]),
    )
    added = helper.make_node("Add", ["sum", "base"], ["logit"])
    matrix = helper.make_tensor_value_info("features", TensorProto.DOUBLE, [None, len(NAMES)])
    result = helper.make_tensor_value_info("logit", TensorProto.DOUBLE, [None, 1])
    body = helper.make_graph([ensemble, added], "fraud", [matrix], [result], [_doubles("base", [trees.base])])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fraud-service")
    return bytes(model.SerializeToString(deterministic=True))


def _doubles(name: str, values: list[float]) -> TensorProto:
    return helper.make_tensor(name, TensorProto.DOUBLE, [len(values)], values)


class _Row:
    """A training row in the shape that `Pretrained` reads."""

    def __init__(self, values: list[float]) -> None:
        self._values = tuple(values)

    def vector(self) -> tuple[float, ...]:
        return self._values


def parity(fitted: Fitted, served: Pretrained) -> float:
    """Return the largest difference of probability between scikit-learn and the exported model."""
    expected = fitted.model.predict_proba(fitted.examples.features)[:, 1]
    rows: list[Features] = [_Row(row) for row in fitted.examples.features.tolist()]  # type: ignore[misc]
    return float(np.abs(expected - 1 / (1 + np.exp(-np.array(served.logits(rows))))).max())


def _manifest(fitted: Fitted, window: Window, source: str, files: dict[str, bytes]) -> Manifest:
    centre, scale = standardisation(fitted.examples)
    digests = {name: sha256(data).hexdigest() for name, data in files.items()}
    return Manifest(
        format=FORMAT,
        version=f"gbm-{digests[MODEL][:12]}",
        features_version=FEATURES_VERSION,
        features=list(NAMES),
        prior=prior(fitted.examples),
        centre=centre,
        scale=scale,
        sha256=digests,
        training={
            "source": source,
            "from": rfc3339(window.start),
            "to": rfc3339(window.end),
            "label_delay_days": window.label_delay / 86_400_000,
            "rows": len(fitted.examples.labels),
            "frauds": int(fitted.examples.labels.sum()),
            "parameters": PARAMETERS,
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "scikit-learn": version("scikit-learn"),
            "onnx": version("onnx"),
        },
        metrics=fitted.metrics,
    )
