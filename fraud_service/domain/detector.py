"""The main flow: features → scores → decision → remember.

`Detector.assess` is a pure fold over transactions. The scorer drives it from Kafka, training from a file (`offline`),
the tests from lists. Results do not depend on where a batch ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from fraud_service.domain.events import Transaction
from fraud_service.domain.features import Features, extract
from fraud_service.domain.policy import NO_MODEL, Decision, Outcome, Policy, Reason, reasons
from fraud_service.domain.profile import Profile, Recent
from fraud_service.domain.scoring import (
    FAILED,
    Blend,
    Contributions,
    PretrainedModel,
    blend,
    contributions,
    encode_safely,
)
from fraud_service.domain.snapshot import UNTAUGHT, Snapshot, View

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from fraud_service.domain.online import Encoded
    from fraud_service.domain.snapshot import Knowledge


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """Every fact about one assessed transaction. Observers read it; nobody adds to it.

    A repeated transaction carries the first decision again, and neither features nor contributions.
    `contributions` is there for flagged transactions only.
    """

    transaction: Transaction
    decision: Decision
    features: Features | None
    contributions: Contributions | None = None

    @property
    def is_repeated(self) -> bool:
        """Whether this transaction was decided before."""
        return self.features is None


class _Case(msgspec.Struct, frozen=True, gc=False):
    """A transaction on its way through the flow."""

    transaction: Transaction
    place: Recent
    view: View | None = None
    features: Features | None = None


class Detector:
    """Assess transactions with a pretrained model, the snapshots of the online model, and a policy."""

    def __init__(self, pretrained: PretrainedModel, policy: Policy) -> None:
        self.pretrained = pretrained
        self.policy = policy

    def assess(
        self, transactions: Sequence[Transaction], profiles: MutableMapping[str, Profile], knowledge: Knowledge
    ) -> list[Verdict]:
        """Assess a batch in order.

        Parameters
        ----------
        profiles
            The cards' records by card id. Those of the batch are read, folded and put back.
        knowledge
            The snapshots to choose from, by event time.

        Returns
        -------
        list of Verdict
            One a transaction, in order.
        """
        cases = [self._observe(transaction, profiles, knowledge) for transaction in transactions]
        rows = [case.features for case in cases if case.features is not None]
        encoded = iter(encode_safely(self.pretrained, rows))
        return [self._remember(case, next(encoded) if case.features is not None else FAILED) for case in cases]

    def _observe(self, transaction: Transaction, profiles: MutableMapping[str, Profile], knowledge: Knowledge) -> _Case:
        """Compute the features from what was known before, then fold the transaction into its card's profile."""
        profile = profiles.get(transaction.card_id) or Profile()
        known = profile.remembered(transaction.transaction_id)
        if known is not None:
            return _Case(transaction, known)
        view = knowledge.at(transaction.timestamp)
        features = extract(
            transaction,
            profile,
            view.merchant(transaction.merchant_id),
            view.card(transaction.card_id),
            view.snapshot.as_of,
        )
        place = profile.fold(transaction)
        profiles[transaction.card_id] = profile
        return _Case(transaction, place, view, features)

    def _online_logit(self, encoded: Encoded, snapshot: Snapshot) -> float:
        """Score with the online model; without the pretrained logit, an untaught one knows nothing."""
        if math.isfinite(encoded.logit):
            known = encoded.logit
        elif snapshot.version == UNTAUGHT or encoded is FAILED:
            return math.nan
        else:
            known = self.pretrained.prior
        try:
            return snapshot.online.logit(encoded, known)
        except (ArithmeticError, LookupError, ValueError):
            return math.nan

    def _remember(self, case: _Case, encoded: Encoded) -> Verdict:
        """Decide, and note the decision in the profile for the day the transaction comes again."""
        if case.features is None or case.view is None:
            if case.place.decision is None:
                raise AssertionError("a transaction is decided before it can be repeated")
            return Verdict(case.transaction, case.place.decision, None)
        result = self._blend(encoded, case.view)
        decision, explanation = self._decide(case.features, encoded, case.view, result, case.transaction.timestamp)
        case.place.decision = decision
        return Verdict(case.transaction, decision, case.features, explanation)

    def _blend(self, encoded: Encoded, view: View) -> Blend:
        online = self._online_logit(encoded, view.snapshot)
        return blend(encoded.logit, online, view.snapshot.online_weight, self.pretrained.prior)

    def _explain(self, features: Features, encoded: Encoded, result: Blend, view: View) -> Contributions | None:
        try:
            return contributions(features, encoded, result, self.pretrained, view.snapshot.online)
        except Exception:  # noqa: BLE001 - a decision stands, even where its reasons cannot be given
            return None

    def _decide(
        self, features: Features, encoded: Encoded, view: View, result: Blend, timestamp: int
    ) -> tuple[Decision, Contributions | None]:
        outcome = self.policy.outcome(result.score)
        explanation: Contributions | None = None
        why: tuple[Reason, ...] = ()
        if result.pretrained_logit is None and result.online_logit is None:
            outcome, why = Outcome.REVIEW, (NO_MODEL,)
        elif outcome is not Outcome.APPROVE:
            explanation = self._explain(features, encoded, result, view)
            why = () if explanation is None else reasons(features, explanation.features)
        decision = Decision(
            outcome=outcome,
            score=result.score,
            pretrained_logit=result.pretrained_logit,
            online_logit=result.online_logit,
            online_weight=result.online_weight,
            model=self.pretrained.version,
            snapshot=view.snapshot.version,
            is_stale=view.snapshot.is_stale_at(timestamp),
            reasons=why,
        )
        return decision, explanation
