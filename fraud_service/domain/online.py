"""The online model as data: what labels teach it is a few numbers, and scoring with them needs no library."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.features import NAMES
from fraud_service.errors import InvalidRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.domain.features import Features

LARGEST_INPUT: Final = 5.0  # standard deviations: inputs of the online model are winsorised here


class LeafEncoding(msgspec.Struct, frozen=True):
    """Small trees whose leaves are inputs: they tell which features together matter, labels what each leaf is worth.

    Flat lists, one entry a node. An inner node sends a row to `left` when its feature is not above the threshold,
    otherwise to `right`. A leaf has `left` -1, and in `right` its number, counted over all trees. The idea is that of
    He et al. 2014, "Practical lessons from predicting clicks on ads at Facebook".
    """

    roots: tuple[int, ...] = ()
    feature: tuple[int, ...] = ()
    threshold: tuple[float, ...] = ()
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of leaves."""
        return sum(node < 0 for node in self.left)

    def leaves(self, values: Sequence[float]) -> list[int]:
        """Return the leaf of each tree that a row reaches."""
        feature, threshold, left, right = self.feature, self.threshold, self.left, self.right
        reached = []
        for node in self.roots:
            below = left[node]
            while below >= 0:
                node = below if values[feature[node]] <= threshold[node] else right[node]  # noqa: PLW2901
                below = left[node]
            reached.append(right[node])
        return reached

    def paths(self, values: Sequence[float]) -> list[tuple[int, set[int]]]:
        """Return the same leaves, each with the features asked on the way."""
        found = []
        for root in self.roots:
            node, asked = root, set()
            while self.left[node] >= 0:
                asked.add(self.feature[node])
                is_left = values[self.feature[node]] <= self.threshold[node]
                node = self.left[node] if is_left else self.right[node]
            found.append((self.right[node], asked))
        return found


NO_LEAVES: Final = LeafEncoding()


class OnlineModel(msgspec.Struct, frozen=True):
    """A linear model of the pretrained logit, the standardised features, and the leaves of small trees.

    A feature enters as asinh(value), which is about linear near 0 and logarithmic far from it, minus `centre`, over
    `scale`, cut off at `LARGEST_INPUT`; a leaf enters as 1 when the row reaches it. `centre`, `scale` and `encoding`
    come with the pretrained model and never move, so that no label can bend them. What has one entry a feature is in
    contract order.
    """

    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    pretrained_weight: float
    intercept: float
    encoding: LeafEncoding = NO_LEAVES
    leaf_weights: tuple[float, ...] = ()

    @classmethod
    def untaught(
        cls, centre: Sequence[float], scale: Sequence[float], encoding: LeafEncoding = NO_LEAVES
    ) -> OnlineModel:
        """Return the model before the first label: its score equals the pretrained score."""
        nothing = (0.0,) * len(NAMES)
        return cls(tuple(centre), tuple(scale), nothing, 1.0, 0.0, encoding, (0.0,) * encoding.size)

    def inputs(self, values: Sequence[float]) -> list[float]:
        """Standardise one row, in contract order."""
        inputs = []
        for value, centre, scale in zip(values, self.centre, self.scale, strict=True):
            deviation = (math.asinh(value) - centre) / scale
            if deviation > LARGEST_INPUT:
                deviation = LARGEST_INPUT
            elif deviation < -LARGEST_INPUT:
                deviation = -LARGEST_INPUT
            inputs.append(deviation)
        return inputs

    def logit(self, row: Features, pretrained_logit: float) -> float:
        """Score one row."""
        values = row.vector()
        total = self.intercept + self.pretrained_weight * pretrained_logit
        for weight, value in zip(self.weights, self.inputs(values), strict=True):
            total += weight * value
        for leaf in self.encoding.leaves(values):
            total += self.leaf_weights[leaf]
        return total

    def contributions(self, row: Features) -> list[float]:
        """Split the logit, without intercept and pretrained part, into one summand a feature, in contract order.

        A leaf's weight is shared equally by the features that were asked on the way to it.
        """
        values = row.vector()
        summands = [weight * value for weight, value in zip(self.weights, self.inputs(values), strict=True)]
        for leaf, asked in self.encoding.paths(values):
            for feature in asked:
                summands[feature] += self.leaf_weights[leaf] / len(asked)
        return summands

    def require_sound(self) -> None:
        """Raise `InvalidRecord` unless every feature has a weight, a centre and a scale, and every leaf a weight."""
        is_complete = len(self.centre) == len(self.scale) == len(self.weights) == len(NAMES)
        if not is_complete or min(self.scale) <= 0 or len(self.leaf_weights) != self.encoding.size:
            raise InvalidRecord("the online model does not fit the features: it was made for another version")
