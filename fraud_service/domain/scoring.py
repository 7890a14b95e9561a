"""Component scores, their blend, and what each feature contributes.

Everything happens in logits, where both components and the blend are sums: the online model takes the pretrained logit
as one of its inputs, the blend weighs the two logits, and so contributions add up to the logit of the score.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from fraud_service.domain.features import NAMES
from fraud_service.domain.online_model import ModelInput, ModelInputRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.domain.features import Features
    from fraud_service.domain.online_model import ModelInputs, OnlineModel

MAX_LOGIT: Final = 30.0  # beyond it a probability is 0 or 1 within 1e-13
NEUTRAL_LOGIT: Final = (
    -4.6
)  # logits, a score of 0.01: of what both components rank lower, the online model is hardly taught


class PretrainedModel(Protocol):
    """A model that was fitted before and is served unchanged."""

    @property
    def version(self) -> str:
        """Name of the artifact, found in every verdict."""

    @property
    def prior(self) -> float:
        """Logit of the fraud rate it was trained on: what is left when nothing is known of a transaction."""

    def encode(self, rows: Sequence[Features]) -> ModelInputs:
        """Score a batch, and encode it for the online model; a row's result does not depend on its batch."""

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        """Split a row's logit into a base and one summand a feature, in contract order."""

    @property
    def features_on_path(self) -> Sequence[frozenset[int]]:
        """For each leaf that `encode` may report, the features asked on the way to it."""


FAILED: Final = ModelInput(math.nan, [], [])


def score_with_fallback(model: PretrainedModel, rows: Sequence[Features]) -> ModelInputs:
    """Encode a batch; where that raises, row by row, so that no row suffers from its neighbours.

    A row that fails is `FAILED`. What cannot be scored is reviewed by a person, and the stream goes on.
    """
    if not rows:
        return ModelInputRows()
    try:
        encoded = model.encode(rows)
    except Exception:  # noqa: BLE001 - whatever a model raises
        encoded = ModelInputRows()
    if len(encoded) == len(rows):
        return encoded
    return ModelInputRows([FAILED] if len(rows) == 1 else [score_with_fallback(model, [row])[0] for row in rows])


class Blend(msgspec.Struct, frozen=True, gc=False):
    """The blended score of one transaction. A component that failed has the logit None and no weight.

    `online_weight` is the share that the online model had in this score.
    """

    score: float
    pretrained_logit: float | None
    online_logit: float | None
    online_weight: float


def blend(pretrained: float, online: float, online_weight: float, prior: float) -> Blend:
    """Blend two logits; one that is not finite does not take part.

    The online model has its full weight where either component sees risk, and fades below `NEUTRAL_LOGIT`: there the
    pretrained
    model ranks better. When neither logit is finite the score is that of the prior, with both logits None.
    """
    has_pretrained, has_online = math.isfinite(pretrained), math.isfinite(online)
    if has_pretrained and has_online:
        share = online_weight * probability(max(pretrained, online) - NEUTRAL_LOGIT)
        logit = pretrained + share * (online - pretrained)  # exactly the one where both are equal
        return Blend(probability(logit), pretrained, online, share)
    if has_pretrained:
        return Blend(probability(pretrained), pretrained, None, 0.0)
    if has_online:
        return Blend(probability(online), None, online, 1.0)
    return Blend(probability(prior), None, None, 0.0)


class Contributions(msgspec.Struct, frozen=True):
    """The logit of a score as a sum: `base` plus one summand a feature."""

    base: float
    features: dict[str, float]

    def total(self) -> float:
        """Return the logit of the score."""
        return self.base + sum(self.features.values())


def contributions(
    row: Features, encoded: ModelInput, result: Blend, pretrained: PretrainedModel, online: OnlineModel
) -> Contributions:
    """Say what each feature contributed to the logit of a blended score."""
    share = result.online_weight
    base, summands = 0.0, [0.0] * len(NAMES)
    if result.pretrained_logit is not None:
        passed_on = (1 - share) + share * online.pretrained_weight
        root, path = pretrained.contributions(row)
        base += passed_on * root
        summands = [passed_on * value for value in path]
    if share > 0:
        base += share * online.intercept
        if result.pretrained_logit is None:
            base += share * online.pretrained_weight * pretrained.prior
        for index, summand in enumerate(online.contributions(encoded, pretrained.features_on_path)):
            summands[index] += share * summand
    return Contributions(base, dict(zip(NAMES, summands, strict=True)))


def probability(logit: float) -> float:
    """Turn a logit into a probability; never overflows."""
    odds = math.exp(-min(abs(logit), MAX_LOGIT))  # of the less likely of the two
    return 1.0 / (1.0 + odds) if logit >= 0 else odds / (1.0 + odds)


def clip_logit(logit: float) -> float:
    """Cut a finite logit off at `MAX_LOGIT`."""
    return min(max(logit, -MAX_LOGIT), MAX_LOGIT)


def log_loss(logit: float, *, is_fraud: bool) -> float:
    """Return the logarithmic loss of a logit against what really was, in nats."""
    signed = -clip_logit(logit) if is_fraud else clip_logit(logit)
    return max(signed, 0.0) + math.log1p(math.exp(-abs(signed)))
