"""From a score to an outcome: two thresholds."""

from __future__ import annotations

import msgspec

from fraud_service.domain.decision import Outcome


class Policy(msgspec.Struct, frozen=True):
    """Thresholds on the score, both in [0, 1]: review from `review` on, decline from `decline` on."""

    review: float = 0.3
    decline: float = 0.9

    def outcome(self, score: float) -> Outcome:
        """Decide by the thresholds."""
        if score >= self.decline:
            return Outcome.DECLINE
        return Outcome.REVIEW if score >= self.review else Outcome.APPROVE

    def outcome_of(self, score: float, *, is_id_reused: bool) -> Outcome:
        """Decide by the thresholds; a reused id is reviewed, however low its score is."""
        outcome = self.outcome(score)
        return Outcome.REVIEW if is_id_reused and outcome is Outcome.APPROVE else outcome
