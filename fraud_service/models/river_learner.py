"""The learner of the online model: river's logistic regression, one example at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
from river import linear_model, optim, utils

from fraud_service.domain.features import NAMES

if TYPE_CHECKING:
    from fraud_service.domain.online_model import ModelInput, OnlineModel

# AdaGrad trains the weight of a rarely reached leaf as fast as that of a frequently reached one. It divides by the root
# of the sum of squares plus `ADAGRAD_EPS`, so one example moves a weight by less than the learning rate.
LEARNING_RATE: Final = 0.06
ADAGRAD_EPS: Final = 1.0
INTERCEPT_RATE: Final = 0.001
MAX_GRADIENT: Final = 10.0
PRETRAINED: Final = "pretrained_logit"


class OnlineState(msgspec.Struct, frozen=True, array_like=True):
    """The state of river's model, and the version of the pretrained model whose logit is an input.

    `weights` and `squares` (sums of squared gradients) are in the order: features, pretrained logit, leaves.
    """

    pretrained: str
    weights: list[float]
    squares: list[float]
    intercept: float
    iterations: int


class RiverLearner:
    """Train river's `LogisticRegression`; implements `OnlineLearner`.

    Inputs are the standardised features, the leaves that a row reaches, and the pretrained logit with initial weight 1.
    So an untrained model scores exactly as the pretrained model does, and training learns the errors of that model.

    `pretrained` is the version of the pretrained model whose logit is an input. Training starts with the `initial`
    model unless there is a `state` of this version.
    """

    def __init__(self, initial: OnlineModel, pretrained: str, state: bytes | None) -> None:
        self._initial = initial
        self._pretrained = pretrained
        self._keys: list[str | int] = [*NAMES, PRETRAINED, *range(len(initial.leaf_weights))]
        self._optimizer = AdaGrad(LEARNING_RATE, eps=ADAGRAD_EPS)
        self._model = linear_model.LogisticRegression(
            optimizer=self._optimizer, intercept_lr=INTERCEPT_RATE, clip_gradient=MAX_GRADIENT
        )
        known = None if state is None else msgspec.msgpack.decode(state, type=OnlineState)
        if known is None or known.pretrained != pretrained:
            weights = [*initial.weights, initial.pretrained_weight, *initial.leaf_weights]
            known = OnlineState(pretrained, weights, [0.0] * len(weights), initial.intercept, 0)
        # river offers no other way to set weights; a test guards the names.
        self._model._weights = utils.VectorDict(dict(zip(self._keys, known.weights, strict=True)))  # noqa: SLF001
        self._optimizer.g2.update(zip(self._keys, known.squares, strict=True))
        self._model.intercept = known.intercept
        self._optimizer.n_iterations = known.iterations

    def learn(self, encoded: ModelInput, *, is_fraud: bool, weight: float) -> None:
        """Learn one example. Skips an example that is not finite: it would make every later score NaN."""
        inputs = self._inputs(encoded)
        if math.isfinite(sum(inputs.values()) + weight):
            self._model.learn_one(inputs, is_fraud, w=weight)

    def state(self) -> bytes:
        """Return an `OnlineState` as msgpack."""
        squares = [self._optimizer.g2[key] for key in self._keys]
        intercept = float(self._model.intercept)
        state = OnlineState(self._pretrained, self._weights(), squares, intercept, self._optimizer.n_iterations)
        return msgspec.msgpack.encode(state)

    def export(self) -> OnlineModel:
        """Return the model for scorers."""
        weights = self._weights()
        return msgspec.structs.replace(
            self._initial,
            weights=tuple(weights[: len(NAMES)]),
            pretrained_weight=weights[len(NAMES)],
            intercept=float(self._model.intercept),
            leaf_weights=tuple(weights[len(NAMES) + 1 :]),
        )

    def _weights(self) -> list[float]:
        weights = self._model.weights
        return [float(weights[key]) for key in self._keys]

    def _inputs(self, encoded: ModelInput) -> dict[str | int, float]:
        inputs: dict[str | int, float] = dict(zip(NAMES, encoded.inputs, strict=True))
        inputs[PRETRAINED] = encoded.logit
        inputs.update(dict.fromkeys(encoded.leaves, 1.0))
        return inputs


class AdaGrad(optim.AdaGrad):  # type: ignore[misc] # river has no types
    """River's AdaGrad (Duchi, Hazan and Singer 2011), three times as fast: computes the learning rate once a step."""

    def _step_with_dict(self, w: Any, g: Any) -> Any:
        rate, eps, squares = self.learning_rate, self.eps, self.g2
        for key, slope in g.items():
            total = squares[key] + slope * slope
            squares[key] = total
            w[key] -= rate * slope / math.sqrt(total + eps)
        return w
