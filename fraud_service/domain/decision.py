"""What was decided on a transaction: outcome, scores and reasons."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Outcome(StrEnum):
    """What the payment system is advised to do."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"


class Reason(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Why a transaction was flagged. `contribution` is what its features add to the logit of the score."""

    code: str
    text: str
    contribution: float


class Decision(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was decided on one transaction, and by what.

    `score` is the blended probability of fraud; the logits are those of the components, None where a component failed;
    `online_weight` is the share of the online model in the blend. `snapshot` and `model` name what scored. `is_stale`
    says that a newer snapshot should have been in force but had not arrived.
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
        """Whether an alert goes out."""
        return self.outcome is not Outcome.APPROVE

    @property
    def is_id_reused(self) -> bool:
        """Whether another payment of the card had the same transaction id."""
        return bool(self.reasons) and self.reasons[0].code == ID_REUSED.code


NO_MODEL: Final = Reason("NO_MODEL", "no model could score this transaction", 0.0)
ID_REUSED: Final = Reason(
    "TRANSACTION_ID_REUSED",
    "another payment of this card had this transaction id, with another amount, currency, time or merchant",
    0.0,
)
