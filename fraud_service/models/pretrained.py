"""Serving a pretrained model: ONNX Runtime on one thread, and the trees for explanations."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# ONNX Runtime reports its use to its makers unless told not to before it is loaded. A payment service calls nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from fraud_service.domain.scoring import OnlineModel
from fraud_service.errors import ModelError
from fraud_service.models.artefact import Manifest, Trees, read

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fraud_service.domain.features import Features


class Pretrained:
    """A pretrained model, as `fraud_service.domain.scoring.PretrainedModel` describes it.

    The graph computes in double precision, so a row's logit does not depend on its batch and equals scikit-learn's.
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
        return OnlineModel.untaught(self.manifest.centre, self.manifest.scale)

    def logits(self, rows: Sequence[Features]) -> list[float]:
        """Score a batch; one logit a row."""
        matrix = np.array([row.vector() for row in rows], dtype=np.float64)
        (result,) = self._session.run(None, {"features": matrix})
        logits: list[float] = result.ravel().tolist()
        return logits

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        """Split a row's logit by the path it takes through each tree (Saabas 2014): exact, and as fast as scoring."""
        trees, values = self._trees, row.vector()
        base, summands = trees.base, [0.0] * len(values)
        for root in trees.roots:
            node = root
            base += trees.value[root]
            while trees.left[node] >= 0:
                feature = trees.feature[node]
                child = trees.left[node] if values[feature] <= trees.threshold[node] else trees.right[node]
                summands[feature] += trees.value[child] - trees.value[node]
                node = child
        return base, summands
