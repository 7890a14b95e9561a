"""The main flow: profile → features → scores → decision.

`Detector.assess` updates the profiles that it gets, and has no other effect. The scorer calls it with messages from
Kafka, `in_memory` with the rows of a file. Results do not depend on how transactions are batched.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.decision import ID_REUSED, NO_MODEL, Decision, Outcome
from fraud_service.domain.events import Transaction
from fraud_service.domain.features import Features, extract
from fraud_service.domain.local_time import UTC_ZONE, with_local_time
from fraud_service.domain.profile import Profile
from fraud_service.domain.reasons import MAX_REASONS, reasons
from fraud_service.domain.scoring import Contributions, PretrainedModel, blend, contributions, score_with_fallback
from fraud_service.domain.snapshot import SnapshotView

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from fraud_service.domain.decision import Policy, Reason
    from fraud_service.domain.online_model import ModelInputs
    from fraud_service.domain.scoring import Blend
    from fraud_service.domain.snapshot import Snapshot, SnapshotSource


MAX_MODELS: Final = 12  # pretrained models in memory besides the first: a month of snapshots names about one per week


class Assessment(msgspec.Struct, frozen=True, gc=False):
    """Every fact about one assessed transaction, which has its local time.

    A duplicate carries the first decision again, without features and contributions. Only flagged transactions have
    `contributions`.
    """

    transaction: Transaction
    decision: Decision
    features: Features | None
    contributions: Contributions | None = None

    @property
    def is_duplicate(self) -> bool:
        """Whether the card sent this transaction before."""
        return self.features is None


class _NewTransaction(msgspec.Struct, frozen=True, gc=False):
    """A transaction to decide on, with everything the decision needs.

    `is_id_reused`: another payment among the card's last ones has the same id.
    """

    transaction: Transaction
    view: SnapshotView
    model: PretrainedModel
    features: Features
    is_id_reused: bool


class _Duplicate(msgspec.Struct, frozen=True, gc=False):
    """A transaction that the card already sent, `age` transactions ago."""

    transaction: Transaction
    age: int


class _ModelScores(NamedTuple):
    """The logits of both models for one transaction, and its row in the encoded batch."""

    pretrained: float
    online: float
    rows: ModelInputs
    row: int


class Detector:
    """Assess transactions with a pretrained model, the snapshots of the online model, and a policy.

    Each snapshot names the pretrained model to score with, so both models change at the same event time.
    Besides the first model, the `max_models` registered last stay in memory. `time_zone` is that of payments without an
    offset and without a known country.
    """

    def __init__(
        self, pretrained: PretrainedModel, policy: Policy, max_models: int = MAX_MODELS, time_zone: str = UTC_ZONE
    ) -> None:
        self.pretrained = pretrained
        self.policy = policy
        self._max_models = max_models
        self._time_zone = time_zone
        self._models = {pretrained.version: pretrained}

    def register_model(self, model: PretrainedModel) -> None:
        """Add a model for the snapshots that name it."""
        if model.version == self.pretrained.version:  # the first one stays: it scores until the first snapshot
            return
        others = [known for known in [*self._models.values()][1:] if known.version != model.version]
        # One assignment, because another thread may be assessing.
        newest = [*others, model][-self._max_models :]
        self._models = {known.version: known for known in [self.pretrained, *newest]}

    def assess(
        self, transactions: Sequence[Transaction], profiles: MutableMapping[str, Profile], snapshots: SnapshotSource
    ) -> list[Assessment]:
        """Assess a batch: return one assessment per transaction, in order.

        `profiles` holds a profile per card id; those of the batch are updated. `snapshots` chooses the snapshot of each
        transaction by event time.
        """
        candidates = [self._observe(transaction, profiles, snapshots) for transaction in transactions]
        scores = iter(_score_batch([one for one in candidates if isinstance(one, _NewTransaction)]))
        assessments = []
        for candidate in candidates:
            profile = profiles[candidate.transaction.card_id]
            if isinstance(candidate, _Duplicate):
                assessment = Assessment(candidate.transaction, profile.decision(candidate.age), None)
            else:
                assessment = self._decide(candidate, next(scores))
                profile.add_decision(assessment.decision)
            assessments.append(assessment)
        return assessments

    def decide_from_features(
        self,
        transactions: Sequence[Transaction],
        features: Sequence[Features],
        snapshots: SnapshotSource,
        reused: Sequence[bool],
    ) -> list[Assessment]:
        """Decide on recorded features, without profiles: return one assessment per transaction, in order.

        `features` and `reused` have one entry per transaction. `reused` is whether another payment of the card had
        its id, which only a profile knows.
        """
        candidates = []
        for transaction, row, is_id_reused in zip(transactions, features, reused, strict=True):
            view = snapshots.at(transaction.timestamp)
            model = self._models.get(view.snapshot.model, self.pretrained)
            candidates.append(_NewTransaction(transaction, view, model, row, is_id_reused))
        return [
            self._decide(candidate, scores)
            for candidate, scores in zip(candidates, _score_batch(candidates), strict=True)
        ]

    def _observe(
        self, transaction: Transaction, profiles: MutableMapping[str, Profile], snapshots: SnapshotSource
    ) -> _NewTransaction | _Duplicate:
        """Compute the features, then add the transaction to its card's profile."""
        transaction = with_local_time(transaction, self._time_zone)
        profile = profiles.get(transaction.card_id) or Profile()
        age, is_id_reused = profile.find_duplicate(transaction)
        if age:
            return _Duplicate(transaction, age)
        view = snapshots.at(transaction.timestamp)
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
        return _NewTransaction(transaction, view, model, features, is_id_reused)

    def _decide(self, candidate: _NewTransaction, scores: _ModelScores) -> Assessment:
        snapshot = candidate.view.snapshot
        result = blend(scores.pretrained, scores.online, snapshot.online_weight, candidate.model.prior)
        explanation: Contributions | None = None
        why: tuple[Reason, ...] = ()
        if result.pretrained_logit is None and result.online_logit is None:
            outcome, why = Outcome.REVIEW, (NO_MODEL,)
        else:
            outcome = self.policy.outcome(result.score, is_id_reused=candidate.is_id_reused)
            if outcome is not Outcome.APPROVE:
                explanation = _explain(candidate, scores, result)
                why = (
                    ()
                    if explanation is None
                    else reasons(candidate.transaction, candidate.features, explanation.features)
                )
        if candidate.is_id_reused:
            why = (ID_REUSED, *why)[:MAX_REASONS]
        decision = Decision(
            outcome=outcome,
            score=result.score,
            pretrained_logit=result.pretrained_logit,
            online_logit=result.online_logit,
            online_weight=result.online_weight,
            model=candidate.model.version,
            snapshot=snapshot.version,
            is_stale=snapshot.is_stale_at(candidate.transaction.timestamp),
            reasons=why,
        )
        return Assessment(candidate.transaction, decision, candidate.features, explanation)


def _score_batch(candidates: list[_NewTransaction]) -> list[_ModelScores]:
    """Score transactions in order; those of one model and snapshot go to the models as one batch."""
    batches: dict[tuple[str, str], list[int]] = {}
    for index, candidate in enumerate(candidates):
        batches.setdefault((candidate.model.version, candidate.view.snapshot.version), []).append(index)
    scores: dict[int, _ModelScores] = {}
    for indexes in batches.values():
        first = candidates[indexes[0]]
        rows = score_with_fallback(first.model, [candidates[index].features for index in indexes])
        online = _online_logits(rows, first.view.snapshot, first.model.prior)
        for row, (index, *logits) in enumerate(zip(indexes, rows.logits, online, strict=True)):
            scores[index] = _ModelScores(logits[0], logits[1], rows, row)
    return [scores[index] for index in range(len(candidates))]


def _online_logits(rows: ModelInputs, snapshot: Snapshot, prior: float) -> list[float]:
    """Score with the online model. The prior replaces a missing pretrained logit, unless the model is untrained."""
    otherwise = math.nan if snapshot.is_untrained else prior
    return rows.online(snapshot.online, [logit if math.isfinite(logit) else otherwise for logit in rows.logits])


def _explain(candidate: _NewTransaction, scores: _ModelScores, result: Blend) -> Contributions | None:
    online = candidate.view.snapshot.online
    try:
        return contributions(candidate.features, scores.rows[scores.row], result, candidate.model, online)
    except Exception:  # noqa: BLE001 - the decision is valid even without its reasons
        return None
