"""Serving a pretrained model: ONNX Runtime on one thread, and the trees for explanations."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

# ONNX Runtime reports its use to its makers unless told not to before it is loaded. A payment service calls nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from fraud_service.domain.online import LeafEncoding, OnlineModel
from fraud_service.errors import ModelError
from fraud_service.models.artefact import Manifest, Trees, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fraud_service.domain.features import Features


ENCODING_TREES: Final = 30  # of the forest, the first ones lend their upper levels to the online model
ENCODING_DEPTH: Final = 6
SMALLEST_ODDS: Final = 2e-4  # added to both shares: a forest that saw no fraud at all in its leaves says so, not never


class Pretrained:
    """A pretrained forest, as `fraud_service.domain.scoring.PretrainedModel` describes it.

    As in scikit-learn, features are compared in single precision and the trees' shares summed in double precision, one
    tree after the other, so a row's logit does not depend on its batch.
    """

    def __init__(self, manifest: Manifest, model: bytes, trees: Trees) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a row takes microseconds: threads would only fight over the core
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load model {manifest.version}: {error}") from error
        self.manifest = manifest
        self.version = manifest.version
        self.prior = manifest.prior
        self._trees = trees

    @classmethod
    def load(cls, folder: Path) -> Pretrained:
        """Load a verified artefact. Raises `ModelError` as `artefact.read` does."""
        return cls(*read(folder))

    def untaught_online_model(self) -> OnlineModel:
        """Return the online model to begin with: it scores what this model scores."""
        return OnlineModel.untaught(self.manifest.centre, self.manifest.scale, leaf_encoding(self._trees))

    def logits(self, rows: Sequence[Features]) -> list[float]:
        """Score a batch; one logit a row."""
        matrix = np.array([row.vector() for row in rows], dtype=np.float32).astype(np.float64)
        (result,) = self._session.run(None, {"features": matrix})
        return [logit(share) for share in result.ravel().tolist()]

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        """Split a row's logit by the path it takes through each tree (Saabas 2014).

        The steps add up to the share of frauds; the logit's distance from that of the roots is split as theirs is.
        """
        trees, values = self._trees, np.array(row.vector(), dtype=np.float32).tolist()
        base, share, summands = 0.0, 0.0, [0.0] * len(values)
        for root in trees.roots:
            node = root
            base += trees.value[root]
            while trees.left[node] >= 0:
                feature = trees.feature[node]
                child = trees.left[node] if values[feature] <= trees.threshold[node] else trees.right[node]
                summands[feature] += trees.value[child] - trees.value[node]
                node = child
            share += trees.value[node]
        stretch = (logit(share) - logit(base)) / (share - base) if share != base else 0.0
        return logit(base), [stretch * summand for summand in summands]


def leaf_encoding(trees: Trees) -> LeafEncoding:
    """Cut the first trees of the forest off at a depth; where they are cut, a leaf."""
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    leaves = 0

    def grow(node: int, depth: int) -> int:
        nonlocal leaves
        place = len(left)
        feature.append(trees.feature[node])
        threshold.append(trees.threshold[node])
        left.append(-1)
        right.append(leaves)
        if depth < ENCODING_DEPTH and trees.left[node] >= 0:
            left[place] = grow(trees.left[node], depth + 1)
            right[place] = grow(trees.right[node], depth + 1)
        else:
            leaves += 1
        return place

    roots = tuple(grow(root, 0) for root in trees.roots[:ENCODING_TREES])
    return LeafEncoding(roots, tuple(feature), tuple(threshold), tuple(left), tuple(right))


def logit(share: float) -> float:
    """Turn a forest's share of frauds, in [0, 1], into a logit of at most 8.5."""
    return math.log((share + SMALLEST_ODDS) / (1.0 - share + SMALLEST_ODDS))
