"""The decision on a transaction: outcome, scores and reasons, and the policy that turns a score into an outcome."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Outcome(StrEnum):
    """The advice to the payment system."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


class Policy(msgspec.Struct, frozen=True):
    """Thresholds on the score, both in [0, 1]. A score at a threshold reaches it."""

    review: float = 0.3
    decline: float = 0.9

    def outcome(self, score: float, *, is_id_reused: bool = False) -> Outcome:
        """Return the outcome of a score. A reused transaction id is at least reviewed.

        >>> policy = Policy(review=0.3, decline=0.9)
        >>> [policy.outcome(score).value for score in (0.1, 0.3, 0.95)]
        ['approve', 'review', 'decline']
        """
        if score >= self.decline:
            return Outcome.DECLINE
        return Outcome.REVIEW if is_id_reused or score >= self.review else Outcome.APPROVE


class Reason(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why a transaction was flagged. `contribution` is in logits of the score."""

    code: str
    text: str
    contribution: float


class Decision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The decision on one transaction, and the versions that made it.

    `score` is the blended probability of fraud. A logit is None if that model failed. `online_weight` is the share of
    the online model in the blend. `is_stale`: a newer snapshot should have been active but had not arrived.
    """

    outcome: Outcome
    score: float
    pretrained_logit: float | None
    online_logit: float | None
    online_weight: float
    model: str
    snapshot: str
    is_stale: bool
    reasons: tuple[Reason, ...] = ()

    @property
    def is_flagged(self) -> bool:
        """Whether the transaction causes an alert."""
        return self.outcome is not Outcome.APPROVE

    @property
    def is_id_reused(self) -> bool:
        """Whether another payment of the card had the same transaction id."""
        return bool(self.reasons) and self.reasons[0].code == ID_REUSED.code


NO_MODEL: Final = Reason("NO_MODEL", "No model could score this payment.", 0.0)
ID_REUSED: Final = Reason(
    "TRANSACTION_ID_REUSED",
    "Another payment of this card had the same transaction id, but another amount, currency, time or merchant.",
    0.0,
)
