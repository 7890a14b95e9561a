"""The main flow: features → scores → decision → remember.

`Detector.assess` is a pure fold over transactions. The scorer drives it from Kafka, training from a file (`offline`),
the tests from lists. Results do not depend on where a batch ends.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.decision import (
    ID_REUSED,
    NO_MODEL,
    Decision,
    Outcome,
)
from fraud_service.domain.events import Transaction
from fraud_service.domain.features import Features, extract
from fraud_service.domain.online_model import ModelInputRows
from fraud_service.domain.profile import Profile
from fraud_service.domain.reasons import MAX_REASONS, reasons
from fraud_service.domain.scoring import (
    Blend,
    Contributions,
    PretrainedModel,
    blend,
    contributions,
    score_with_fallback,
)
from fraud_service.domain.snapshot import Snapshot, SnapshotView

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from fraud_service.domain.decision import Reason
    from fraud_service.domain.online_model import ModelInput, ModelInputs, OnlineModel
    from fraud_service.domain.policy import Policy
    from fraud_service.domain.snapshot import SnapshotSource


MAX_MODELS: Final = 12  # pretrained models in memory besides the first: snapshots of a month name one a week


class Assessment(msgspec.Struct, frozen=True, gc=False):
    """Every fact about one assessed transaction. Observers read it; nobody adds to it.

    A repeated transaction carries the first decision again, and neither features nor contributions.
    `contributions` is there for flagged transactions only.
    """

    transaction: Transaction
    decision: Decision
    features: Features | None
    contributions: Contributions | None = None

    @property
    def is_duplicate(self) -> bool:
        """Whether this transaction was decided before."""
        return self.features is None

    @property
    def is_id_reused(self) -> bool:
        """Whether another payment of the card had this id. A repetition of such a payment says so too."""
        return self.decision.is_id_reused


class _Candidate(msgspec.Struct, frozen=True, gc=False):
    """A transaction on its way through the flow.

    A repetition has neither view nor model nor features; it came already `ago` transactions of its card before.
    `is_id_reused` says that another payment among the last ones of its card has the same id.
    """

    transaction: Transaction
    view: SnapshotView | None = None
    model: PretrainedModel | None = None
    features: Features | None = None
    ago: int = 0
    is_id_reused: bool = False


class _ModelScores(NamedTuple):
    """What both models say of a case: their logits, and where it is in the batch that was asked."""

    pretrained: float
    online: float
    rows: ModelInputs
    row: int


_NOTHING: Final = _ModelScores(math.nan, math.nan, ModelInputRows(), -1)


class Detector:
    """Assess transactions with a pretrained model, the snapshots of the online model, and a policy.

    A transaction is scored with the pretrained model that its snapshot names: both change at the same event time.
    Besides the first model the `most_models` adopted last stay ready.
    """

    def __init__(self, pretrained: PretrainedModel, policy: Policy, most_models: int = MAX_MODELS) -> None:
        self.pretrained = pretrained
        self.policy = policy
        self._most_models = most_models
        self._models = {pretrained.version: pretrained}

    def register_model(self, model: PretrainedModel) -> None:
        """Make a model ready for the snapshots that name it."""
        if model.version == self.pretrained.version:  # the first one stays: it scores before the first label
            return
        others = [known for known in [*self._models.values()][1:] if known.version != model.version]
        # Replaced at once: another thread may be assessing.
        newest = [*others, model][-self._most_models :]
        self._models = {known.version: known for known in [self.pretrained, *newest]}

    def assess(
        self, transactions: Sequence[Transaction], profiles: MutableMapping[str, Profile], knowledge: SnapshotSource
    ) -> list[Assessment]:
        """Assess a batch in order.

        Parameters
        ----------
        profiles
            The cards' records by card id. Those of the batch are read, folded and put back.
        knowledge
            The snapshots to choose from, by event time.

        Returns
        -------
        list of Assessment
            One a transaction, in order.
        """
        cases = [self._observe(transaction, profiles, knowledge) for transaction in transactions]
        return [
            self._record_decision(case, said, profiles[case.transaction.card_id])
            for case, said in zip(cases, _score_batch(cases), strict=True)
        ]

    def decide_from_features(
        self,
        transactions: Sequence[Transaction],
        features: Sequence[Features],
        knowledge: SnapshotSource,
        reused: Sequence[bool],
    ) -> list[Assessment]:
        """Decide on features that were computed before: no profile is needed, and none is folded.

        Parameters
        ----------
        features
            One row a transaction.
        knowledge
            The snapshots to choose from, by event time.
        reused
            Whether another payment of the card had its id, a value a transaction: only a profile can tell.

        Returns
        -------
        list of Assessment
            One a transaction, in order.
        """
        cases = []
        for transaction, row, is_id_reused in zip(transactions, features, reused, strict=True):
            view = knowledge.at(transaction.timestamp)
            model = self._models.get(view.snapshot.model, self.pretrained)
            cases.append(_Candidate(transaction, view, model, row, is_id_reused=is_id_reused))
        return [self._judge(case, said) for case, said in zip(cases, _score_batch(cases), strict=True)]

    def _observe(
        self, transaction: Transaction, profiles: MutableMapping[str, Profile], knowledge: SnapshotSource
    ) -> _Candidate:
        """Compute the features from what was known before, then fold the transaction into its card's profile."""
        profile = profiles.get(transaction.card_id) or Profile()
        ago, is_id_reused = profile.duplicate_age(transaction)
        if ago:
            return _Candidate(transaction, ago=ago)
        view = knowledge.at(transaction.timestamp)
        features = extract(
            transaction,
            profile,
            view.merchant(transaction.merchant_id),
            view.card(transaction.card_id),
            view.snapshot.as_of,
        )
        profile.update(transaction)
        profiles[transaction.card_id] = profile
        model = self._models.get(view.snapshot.model, self.pretrained)
        return _Candidate(transaction, view, model, features, is_id_reused=is_id_reused)

    def _record_decision(self, case: _Candidate, said: _ModelScores, profile: Profile) -> Assessment:
        """Decide, and note the decision in the profile for the day the transaction comes again."""
        if case.ago:
            return Assessment(case.transaction, profile.decision(case.ago), None)
        verdict = self._judge(case, said)
        profile.decide(verdict.decision)
        return verdict

    def _judge(self, case: _Candidate, said: _ModelScores) -> Assessment:
        """Decide, and say why where it matters."""
        if case.features is None or case.view is None or case.model is None:
            raise AssertionError("a repetition is not judged again")
        result = blend(said.pretrained, said.online, case.view.snapshot.online_weight, case.model.prior)
        explanation = None
        outcome = self.policy.outcome_of(result.score, is_id_reused=case.is_id_reused)
        if outcome is not Outcome.APPROVE:
            online = case.view.snapshot.online
            explanation = _explain(case.features, said.rows[said.row], result, case.model, online)
        why = () if explanation is None else reasons(case.features, explanation.features)
        if result.pretrained_logit is None and result.online_logit is None:
            outcome, why = Outcome.REVIEW, (NO_MODEL,)
        if case.is_id_reused:
            why = (ID_REUSED, *why)[:MAX_REASONS]
        decision = _decision(case.transaction, case.model, case.view.snapshot, result, outcome, why)
        return Assessment(case.transaction, decision, case.features, explanation)


def _decision(
    transaction: Transaction,
    model: PretrainedModel,
    snapshot: Snapshot,
    result: Blend,
    outcome: Outcome,
    why: tuple[Reason, ...],
) -> Decision:
    return Decision(
        outcome=outcome,
        score=result.score,
        pretrained_logit=result.pretrained_logit,
        online_logit=result.online_logit,
        online_weight=result.online_weight,
        model=model.version,
        snapshot=snapshot.version,
        is_stale=snapshot.is_stale_at(transaction.timestamp),
        reasons=why,
    )


def _score_batch(cases: list[_Candidate]) -> list[_ModelScores]:
    """Ask the models of each case, those of one snapshot in one batch; of a repetition nobody is asked."""
    said = [_NOTHING] * len(cases)
    batches: dict[tuple[str, str], list[int]] = {}
    for place, case in enumerate(cases):
        if case.view is not None and case.model is not None:
            batches.setdefault((case.model.version, case.view.snapshot.version), []).append(place)
    for places in batches.values():
        view, model = cases[places[0]].view, cases[places[0]].model
        features = [row for place in places if (row := cases[place].features) is not None]
        if view is not None and model is not None:
            rows = score_with_fallback(model, features)
            online = _online_logits(rows, view.snapshot, model.prior)
            for number, (place, *logits) in enumerate(zip(places, rows.logits, online, strict=True)):
                said[place] = _ModelScores(logits[0], logits[1], rows, number)
    return said


def _online_logits(rows: ModelInputs, snapshot: Snapshot, prior: float) -> list[float]:
    """Score with the online model; without the pretrained logit, an untaught one knows nothing."""
    otherwise = math.nan if snapshot.is_untrained else prior
    return rows.online(snapshot.online, [logit if math.isfinite(logit) else otherwise for logit in rows.logits])


def _explain(
    features: Features, encoded: ModelInput, result: Blend, model: PretrainedModel, online: OnlineModel
) -> Contributions | None:
    if result.pretrained_logit is None and result.online_logit is None:
        return None
    try:
        return contributions(features, encoded, result, model, online)
    except Exception:  # noqa: BLE001 - a decision stands, even where its reasons cannot be given
        return None
