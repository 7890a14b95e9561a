"""The weights of the online model. Scoring with them needs no machine learning library."""

from __future__ import annotations

import math
from functools import reduce
from operator import add, mul
from typing import TYPE_CHECKING, Protocol

import msgspec

from fraud_service.domain.features import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence


class ModelInput(msgspec.Struct, frozen=True, gc=False):
    """One transaction as the pretrained model encodes it for the online model.

    `inputs` are the standardised features in contract order. `leaves` are the numbers of the leaves that the
    transaction reaches, one per small tree. The leaves stand for combinations of features, and the online model learns
    the weight of each (He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook").
    """

    logit: float
    inputs: list[float]
    leaves: list[int]


class OnlineModel(msgspec.Struct, frozen=True):
    """A linear model of the pretrained logit, the standardised features, and the leaves reached.

    The encoding belongs to the pretrained model and never changes, so labels cannot distort it. `weights` has one entry
    per feature in contract order, `leaf_weights` one per leaf.
    """

    weights: tuple[float, ...]
    leaf_weights: tuple[float, ...]
    pretrained_weight: float
    intercept: float

    @classmethod
    def untrained(cls, leaves: int = 0) -> OnlineModel:
        """Return the model before the first label: its score equals the pretrained score.

        >>> model = OnlineModel.untrained(leaves=2)
        >>> model.logit(ModelInput(logit=-3.0, inputs=[0.5] * len(NAMES), leaves=[1]), pretrained_logit=-3.0)
        -3.0
        """
        return cls((0.0,) * len(NAMES), (0.0,) * leaves, 1.0, 0.0)

    def logit(self, encoded: ModelInput, pretrained_logit: float) -> float:
        """Score one transaction."""
        if len(self.weights) != len(encoded.inputs):
            raise ValueError(f"{len(encoded.inputs)} inputs for {len(self.weights)} weights")
        # `sum` does not promise the same bits on every machine; adding in order does.
        total = reduce(
            add, map(mul, self.weights, encoded.inputs), self.intercept + self.pretrained_weight * pretrained_logit
        )
        return reduce(add, map(self.leaf_weights.__getitem__, encoded.leaves), total)

    def contributions(self, encoded: ModelInput, features_on_path: Sequence[frozenset[int]]) -> list[float]:
        """Split the logit, without intercept and pretrained part, into one summand per feature, in contract order.

        The features that are tested on the path to a leaf share its weight equally.
        """
        summands = [weight * value for weight, value in zip(self.weights, encoded.inputs, strict=True)]
        for leaf in encoded.leaves:
            for feature in features_on_path[leaf]:
                summands[feature] += self.leaf_weights[leaf] / len(features_on_path[leaf])
        return summands


class ModelInputs(Protocol):
    """A batch of transactions as a pretrained model encodes them."""

    @property
    def logits(self) -> Sequence[float]:
        """The pretrained logit of each row."""

    def online(self, model: OnlineModel, known: Sequence[float]) -> list[float]:
        """Return the online logit of each row, given its pretrained logit; NaN for a row that cannot be scored.

        The bits equal those of `OnlineModel.logit` and do not depend on the batch.
        """

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, row: int, /) -> ModelInput:
        """Return one row."""


class ModelInputRows(list[ModelInput]):
    """Model inputs in a list; each row is scored separately."""

    @property
    def logits(self) -> list[float]:
        """The pretrained logit of each row."""
        return [row.logit for row in self]

    def online(self, model: OnlineModel, known: Sequence[float]) -> list[float]:
        """Return the online logit of each row, as in `ModelInputs`."""
        logits = []
        for row, logit in zip(self, known, strict=True):
            try:
                logits.append(model.logit(row, logit))
            except (ArithmeticError, LookupError, ValueError):
                logits.append(math.nan)
        return logits
