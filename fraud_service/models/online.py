"""The online model: river's logistic regression, taught one example at a time and exported as plain numbers."""

from __future__ import annotations

import math
from typing import Final

import msgspec
from river import linear_model, optim, utils

from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.scoring import PRETRAINED_INPUT, OnlineModel

LEARNING_RATE: Final = 0.003
LARGEST_GRADIENT: Final = 10.0


class OnlineState(msgspec.Struct, frozen=True, array_like=True):
    """Everything river's model needs to go on, and the pretrained model whose logit it takes."""

    pretrained: str
    weights: dict[str, float]
    intercept: float
    iterations: int


class RiverLearner:
    """Teach river's `LogisticRegression`; an `OnlineLearner`.

    Inputs are the standardised features and the pretrained logit, which begins with weight 1: untaught, it scores what
    the pretrained model scores, and what it learns is where that model is wrong.

    Parameters
    ----------
    initial
        The model before the first example; its standardisation stays in force.
    pretrained
        Version of the pretrained model whose logit is an input. A state learned beside another one is not taken up.
    state
        As `state()` returned it, or None to begin.
    """

    def __init__(self, initial: OnlineModel, pretrained: str, state: bytes | None) -> None:
        self._initial = initial
        self._pretrained = pretrained
        self._model = linear_model.LogisticRegression(
            optimizer=optim.SGD(LEARNING_RATE), intercept_lr=LEARNING_RATE, clip_gradient=LARGEST_GRADIENT
        )
        known = None if state is None else msgspec.msgpack.decode(state, type=OnlineState)
        if known is None or known.pretrained != pretrained:
            weights = {**dict(zip(NAMES, initial.weights, strict=True)), PRETRAINED_INPUT: initial.pretrained_weight}
            known = OnlineState(pretrained, weights, initial.intercept, 0)
        # river offers no other way to set weights; a test guards the name.
        self._model._weights = utils.VectorDict(dict(known.weights))  # noqa: SLF001
        self._model.intercept = known.intercept
        self._model.optimizer.n_iterations = known.iterations

    def learn(self, row: Features, pretrained_logit: float, *, is_fraud: bool, weight: float) -> None:
        """Learn one example. One that is not finite would ruin the model for ever, so it is passed over."""
        inputs = self._inputs(row, pretrained_logit)
        if all(map(math.isfinite, inputs.values())) and math.isfinite(weight):
            self._model.learn_one(inputs, is_fraud, w=weight)

    def probability(self, row: Features, pretrained_logit: float) -> float:
        """Return what river itself predicts."""
        return float(self._model.predict_proba_one(self._inputs(row, pretrained_logit))[True])

    def state(self) -> bytes:
        """Return weights, intercept and the number of steps, as msgpack."""
        return msgspec.msgpack.encode(
            OnlineState(
                self._pretrained,
                dict(sorted(self._model.weights.items())),
                float(self._model.intercept),
                self._model.optimizer.n_iterations,
            )
        )

    def export(self) -> OnlineModel:
        """Return the model as scorers use it."""
        weights = self._model.weights
        return OnlineModel(
            self._initial.centre,
            self._initial.scale,
            tuple(float(weights.get(name, 0.0)) for name in NAMES),
            float(weights.get(PRETRAINED_INPUT, 0.0)),
            float(self._model.intercept),
        )

    def _inputs(self, row: Features, pretrained_logit: float) -> dict[str, float]:
        inputs = dict(zip(NAMES, self._initial.inputs(row), strict=True))
        inputs[PRETRAINED_INPUT] = pretrained_logit
        return inputs
