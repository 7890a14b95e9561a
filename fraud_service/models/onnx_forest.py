"""The pretrained model that scores: ONNX Runtime on one thread, and the trees for explanations."""

from __future__ import annotations

import math
import os
from functools import reduce
from itertools import chain
from math import asinh
from operator import add
from typing import TYPE_CHECKING, Final, NamedTuple

# ONNX Runtime sends telemetry unless this variable is set before the import. Overrides the environment: a payment
# service must not send any.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime

from fraud_service.domain.errors import ModelError
from fraud_service.domain.online_model import ModelInput, ModelInputRows, OnlineModel
from fraud_service.models import trees
from fraud_service.models.artifact import Artifact, read, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from fraud_service.domain.features import Features


WINSORIZE_SD: Final = 5.0  # inputs of the online model are clipped at this many standard deviations
LAPLACE: Final = 2e-4  # added to both shares, so that a fraud share of 0 has a finite logit


class WeightArrays(NamedTuple):
    """The weights of an online model as arrays."""

    model: OnlineModel
    features: NDArray[np.float64]
    leaves: NDArray[np.float64]

    @classmethod
    def of(cls, model: OnlineModel) -> WeightArrays:
        """Convert a model."""
        return cls(model, np.array(model.weights), np.array(model.leaf_weights))


class ModelInputArrays:
    """A batch of `ModelInputs` as arrays. Indexing converts a single row to Python numbers."""

    def __init__(
        self,
        logits: list[float],
        inputs: NDArray[np.float64],
        leaves: NDArray[np.int64],
        weights: Callable[[OnlineModel], WeightArrays],
    ) -> None:
        self.logits = logits
        self._inputs = inputs
        self._leaves = leaves
        self._weights = weights

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, row: int) -> ModelInput:
        return ModelInput(self.logits[row], self._inputs[row].tolist(), self._leaves[row].tolist())

    def __iter__(self) -> Iterator[ModelInput]:
        return map(self.__getitem__, range(len(self)))

    def online(self, model: OnlineModel, known: Sequence[float]) -> list[float]:
        """Return the online logit of each row; `known` are the pretrained logits. NaN if the model does not fit."""
        weights = self._weights(model)
        rows, width = self._inputs.shape
        if width != len(weights.features) or self._leaves.max(initial=-1) >= len(weights.leaves):
            return ModelInputRows(self).online(model, known)
        summands = np.empty((rows, 1 + width + self._leaves.shape[1]))
        with np.errstate(all="ignore"):
            summands[:, 0] = model.intercept + model.pretrained_weight * np.array(known)
            np.multiply(self._inputs, weights.features, out=summands[:, 1 : 1 + width])
            summands[:, 1 + width :] = weights.leaves[self._leaves]
            # Adds in the order of `OnlineModel.logit`, for the same bits; `sum` would add in pairs.
            return np.add.accumulate(summands, axis=1)[:, -1].tolist()  # type: ignore[no-any-return]


class OnnxForest:
    """A pretrained forest, as `fraud_service.domain.scoring.PretrainedModel` describes it.

    As in scikit-learn, features are compared in single precision, and the shares of the trees are summed in double
    precision, in one order. So the logit of a row does not depend on its batch.
    """

    def __init__(self, artifact: Artifact) -> None:
        manifest = artifact.manifest
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # a row takes microseconds, so more threads would only compete for the core
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(artifact.model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load model {manifest.version}: {error}") from error
        self.manifest = manifest
        self.version = manifest.version
        self.prior = manifest.prior
        self._roots = trees.to_nested(artifact.trees)
        self._base = reduce(add, (share for _, share, _ in self._roots), 0.0)
        self.features_on_path = trees.features_on_path(self._roots)
        self._centre, self._scale = np.array(manifest.centre), np.array(manifest.scale)
        self._weights = WeightArrays.of(self.untrained_online_model())

    @classmethod
    def load(cls, folder: Path) -> OnnxForest:
        """Load and verify an artifact."""
        return cls(read(folder))

    @classmethod
    def from_message(cls, data: bytes) -> OnnxForest:
        """Load a model from a message. Raises only `ModelError`, because the message may come from an attacker."""
        try:
            return cls(unpack(data))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(f"a promoted model cannot be loaded: {error}") from error

    def untrained_online_model(self) -> OnlineModel:
        """Return the initial online model, which scores exactly as this model does."""
        return OnlineModel.untrained(self.manifest.leaves)

    def encode(self, rows: Sequence[Features]) -> ModelInputArrays:
        """Score a batch, and compute the inputs of the online model.

        An input is (asinh(feature) - centre) / scale, clipped at `WINSORIZE_SD`. asinh is about linear near 0 and
        logarithmic far from it.
        """
        values = [*chain.from_iterable(row.vector() for row in rows)]
        matrix = np.fromiter(values, np.float64, len(values)).reshape(len(rows), len(self._centre))
        shares, leaves = self._session.run(None, {"features": matrix.astype(np.float32).astype(np.float64)})
        # asinh of libm, value by value: the result of numpy's depends on the processor and on the place in the batch.
        squashed = np.fromiter(map(asinh, values), np.float64, len(values)).reshape(matrix.shape)
        inputs = np.minimum(np.maximum((squashed - self._centre) / self._scale, -WINSORIZE_SD), WINSORIZE_SD)
        logits = [*map(logit, shares.ravel().tolist())]
        return ModelInputArrays(logits, inputs, leaves.astype(np.int64), self._as_arrays)

    def _as_arrays(self, model: OnlineModel) -> WeightArrays:
        """Convert a model, and cache the last one: a model scores until the next snapshot takes effect."""
        weights = self._weights  # one read of the attribute: another thread may replace it
        if weights.model is not model:
            weights = self._weights = WeightArrays.of(model)
        return weights

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        """Return the base logit and the contribution of each feature, by the path through each tree (Saabas 2014).

        The steps along the paths add up to the fraud share of the row. They are scaled so that base and contributions
        add up to its logit.
        """
        values = np.array(row.vector(), dtype=np.float32).tolist()
        base, share, summands = self._base, 0.0, [0.0] * len(values)
        for root in self._roots:
            _, here, node = root
            while node:
                feature, threshold, below, above = node
                step, here, node = below if values[feature] <= threshold else above
                summands[feature] += step
            share += here
        scale = (logit(share) - logit(base)) / (share - base) if share != base else 0.0
        return logit(base), [scale * summand for summand in summands]


def logit(share: float) -> float:
    """Return the logit of a fraud share in [0, 1], smoothed to the range [-8.52, 8.52].

    >>> round(logit(0.0), 3), logit(0.5), round(logit(1.0), 3)
    (-8.517, 0.0, 8.517)
    """
    return math.log((share + LAPLACE) / (1.0 - share + LAPLACE))
