"""The blend of both models' scores, and the contribution of each feature.

All scores are logits. The online model takes the pretrained logit as an input, and the blend is a weighted sum of two
logits. So the contributions of all features add up to the logit of the score.
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

MAX_LOGIT: Final = 30.0  # beyond it, the probability is 0 or 1 within 1e-13
NEUTRAL_LOGIT: Final = -4.6  # a score of 0.01; the online model is hardly trained on transactions below


class PretrainedModel(Protocol):
    """A model that was fitted offline and does not change."""

    @property
    def version(self) -> str:
        """Version of the artifact; every decision names it."""

    @property
    def prior(self) -> float:
        """Logit of the fraud rate in its training data: the score of a transaction that no model can score."""

    def encode(self, rows: Sequence[Features]) -> ModelInputs:
        """Score a batch and encode it for the online model. The result of a row does not depend on its batch."""

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        """Split the logit of a row into a base and one summand per feature, in contract order."""

    @property
    def features_on_path(self) -> Sequence[frozenset[int]]:
        """For each leaf of `ModelInput.leaves`, the features that are tested on the path to it."""


FAILED: Final = ModelInput(math.nan, [], [])


def score_with_fallback(model: PretrainedModel, rows: Sequence[Features]) -> ModelInputs:
    """Encode a batch; if that fails, encode row by row, so that one bad row does not affect the others.

    A row that fails becomes `FAILED`: a person reviews the transaction, and the stream goes on.
    """
    if not rows:
        return ModelInputRows()
    try:
        encoded = model.encode(rows)
    except Exception:  # noqa: BLE001 - a model may raise anything
        encoded = ModelInputRows()
    if len(encoded) == len(rows):
        return encoded
    return ModelInputRows([FAILED] if len(rows) == 1 else [score_with_fallback(model, [row])[0] for row in rows])


class Blend(msgspec.Struct, frozen=True, gc=False):
    """The blended score of one transaction. A model that failed has the logit None and no weight.

    `online_weight` is the share of the online model in this score.
    """

    score: float
    pretrained_logit: float | None
    online_logit: float | None
    online_weight: float


def blend(pretrained: float, online: float, online_weight: float, prior: float) -> Blend:
    """Blend two logits, and ignore a logit that is not finite.

    The online model has its full weight where either model sees risk. Its weight fades below `NEUTRAL_LOGIT`, where the
    pretrained model ranks better. If neither logit is finite, the score is that of the prior, with both logits None.

    >>> blend(2.0, 2.0, online_weight=0.5, prior=-6.0).score == probability(2.0)
    True
    >>> blend(2.0, float("nan"), online_weight=0.5, prior=-6.0).online_weight
    0.0
    """
    has_pretrained, has_online = math.isfinite(pretrained), math.isfinite(online)
    if has_pretrained and has_online:
        share = online_weight * probability(max(pretrained, online) - NEUTRAL_LOGIT)
        logit = pretrained + share * (online - pretrained)  # exact where both are equal
        return Blend(probability(logit), pretrained, online, share)
    if has_pretrained:
        return Blend(probability(pretrained), pretrained, None, 0.0)
    if has_online:
        return Blend(probability(online), None, online, 1.0)
    return Blend(probability(prior), None, None, 0.0)


class Contributions(msgspec.Struct, frozen=True):
    """The logit of a score as a sum: `base` plus one summand per feature."""

    base: float
    features: dict[str, float]


def contributions(
    row: Features, encoded: ModelInput, result: Blend, pretrained: PretrainedModel, online: OnlineModel
) -> Contributions:
    """Split the logit of a blended score into the contributions of the features."""
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
    """Turn a logit into a probability, without overflow.

    >>> probability(0.0)
    0.5
    >>> probability(1000.0)
    0.9999999999999065
    """
    odds = math.exp(-min(abs(logit), MAX_LOGIT))  # of the less likely of the two
    return 1.0 / (1.0 + odds) if logit >= 0 else odds / (1.0 + odds)


def clip_logit(logit: float) -> float:
    """Limit a finite logit to ±`MAX_LOGIT`."""
    return min(max(logit, -MAX_LOGIT), MAX_LOGIT)


def log_loss(logit: float, *, is_fraud: bool) -> float:
    """Return the logarithmic loss of a logit, in nats."""
    signed = -clip_logit(logit) if is_fraud else clip_logit(logit)
    return max(signed, 0.0) + math.log1p(math.exp(-abs(signed)))
