"""The online model as data: what labels teach it is a few numbers, and scoring with them needs no library."""

from __future__ import annotations

import math
from functools import reduce
from operator import add, mul
from typing import TYPE_CHECKING, Protocol

import msgspec

from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence


class ModelInput(msgspec.Struct, frozen=True, gc=False):
    """What a pretrained model makes of one transaction: its logit, and the other inputs of the online model.

    `inputs` are the standardised features in contract order; `leaves` the numbers of the leaves that the transaction
    reaches in small trees, one a tree. The leaves tell which features together matter, labels what each is worth (He et
    al. 2014, "Practical lessons from predicting clicks on ads at Facebook").
    """

    logit: float
    inputs: list[float]
    leaves: list[int]


class OnlineModel(msgspec.Struct, frozen=True):
    """A linear model of the pretrained logit, the standardised features, and the leaves reached.

    How a transaction is encoded comes with the pretrained model and never moves, so that no label can bend it.
    `weights` has one entry a feature, in contract order, `leaf_weights` one a leaf.
    """

    weights: tuple[float, ...]
    leaf_weights: tuple[float, ...]
    pretrained_weight: float
    intercept: float

    @classmethod
    def untrained(cls, leaves: int = 0) -> OnlineModel:
        """Return the model before the first label: its score equals the pretrained score."""
        return cls((0.0,) * len(NAMES), (0.0,) * leaves, 1.0, 0.0)

    def logit(self, encoded: ModelInput, pretrained_logit: float) -> float:
        """Score one transaction."""
        if len(self.weights) != len(encoded.inputs):
            raise ValueError(f"{len(encoded.inputs)} inputs for {len(self.weights)} weights")
        # One summand after the other, so that every machine comes to the same bits: `sum` does not promise it.
        total = reduce(
            add, map(mul, self.weights, encoded.inputs), self.intercept + self.pretrained_weight * pretrained_logit
        )
        return reduce(add, map(self.leaf_weights.__getitem__, encoded.leaves), total)

    def contributions(self, encoded: ModelInput, asked: Sequence[frozenset[int]]) -> list[float]:
        """Split the logit, without intercept and pretrained part, into one summand a feature, in contract order.

        Parameters
        ----------
        asked
            For each leaf there is, the features that are asked on the way to it: they share its weight equally.
        """
        summands = [weight * value for weight, value in zip(self.weights, encoded.inputs, strict=True)]
        for leaf in encoded.leaves:
            for feature in asked[leaf]:
                summands[feature] += self.leaf_weights[leaf] / len(asked[leaf])
        return summands

    def require_consistent(self) -> None:
        """Raise `InvalidRecord` unless every feature has a weight."""
        if len(self.weights) != len(NAMES):
            raise InvalidRecord("the online model does not fit the features: it was made for another version")


class ModelInputs(Protocol):
    """What a pretrained model makes of a batch of transactions."""

    @property
    def logits(self) -> Sequence[float]:
        """The pretrained logit of each row."""

    def online(self, model: OnlineModel, known: Sequence[float]) -> list[float]:
        """Score each row with an online model, beside a pretrained logit; NaN where that cannot be done.

        The bits are those of `OnlineModel.logit`, whatever else is in the batch.
        """

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, row: int, /) -> ModelInput:
        """Return one row."""


class ModelInputRows(list[ModelInput]):
    """ModelInput rows, each scored for itself."""

    @property
    def logits(self) -> list[float]:
        """The pretrained logit of each row."""
        return [row.logit for row in self]

    def online(self, model: OnlineModel, known: Sequence[float]) -> list[float]:
        """Score each row with an online model; see `ModelInputs`."""
        return [_logit(model, row, logit) for row, logit in zip(self, known, strict=True)]


def _logit(model: OnlineModel, row: ModelInput, known: float) -> float:
    try:
        return model.logit(row, known)
    except (ArithmeticError, LookupError, ValueError):
        return math.nan
