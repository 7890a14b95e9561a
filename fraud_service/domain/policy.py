"""From a score to an outcome: two thresholds."""

from __future__ import annotations

import msgspec

from fraud_service.domain.decision import Outcome


class Policy(msgspec.Struct, frozen=True):
    """Thresholds on the score, both in [0, 1]. A score at a threshold reaches it."""

    review: float = 0.3
    decline: float = 0.9

    def outcome(self, score: float) -> Outcome:
        """Return the outcome of a score.

        Examples
        --------
        >>> policy = Policy(review=0.3, decline=0.9)
        >>> [policy.outcome(score).value for score in (0.1, 0.3, 0.95)]
        ['approve', 'review', 'decline']
        """
        if score >= self.decline:
            return Outcome.DECLINE
        return Outcome.REVIEW if score >= self.review else Outcome.APPROVE

    def outcome_of(self, score: float, *, is_id_reused: bool) -> Outcome:
        """Return the outcome of a score. A reused transaction id is at least reviewed."""
        outcome = self.outcome(score)
        return Outcome.REVIEW if is_id_reused and outcome is Outcome.APPROVE else outcome
