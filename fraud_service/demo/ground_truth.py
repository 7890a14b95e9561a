"""Compare decisions with the truth: with labels while the demo runs, with the simulator's truth at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fraud_service.domain.decision import Outcome
from fraud_service.domain.scoring import log_loss
from fraud_service.evaluation.ranking import average_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fraud_service.domain.records import LabelledRecord, ScoreRecord

MIN_FRAUDS: Final = 10  # with fewer, the figures are noise


class LabelledDecisions:
    """Count labelled transactions. A newer label replaces an earlier one."""

    def __init__(self) -> None:
        self.flagged = self.frauds = self.flagged_frauds = 0
        self._labels: dict[str, tuple[bool, bool]] = {}  # whether a transaction is flagged, and whether it is a fraud

    def add(self, record: LabelledRecord) -> None:
        """Add a labelled example."""
        label = record.outcome is not Outcome.APPROVE, record.is_fraud
        self._count(*self._labels.get(record.transaction_id, (False, False)), change=-1)
        self._count(*label, change=1)
        self._labels[record.transaction_id] = label

    def _count(self, is_flagged: bool, is_fraud: bool, *, change: int) -> None:
        self.flagged += change * is_flagged
        self.frauds += change * is_fraud
        self.flagged_frauds += change * (is_flagged and is_fraud)

    @property
    def precision(self) -> float | None:
        """Share of frauds among the flagged; None while there are none."""
        return self.flagged_frauds / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Share of the frauds that were flagged; None while there are none."""
        return self.flagged_frauds / self.frauds if self.frauds else None


class ComponentLogits(NamedTuple):
    """The logits of both components for a transaction."""

    transaction_id: str
    timestamp: int
    pretrained: float
    online: float

    @classmethod
    def of(cls, record: ScoreRecord) -> ComponentLogits | None:
        """Return the logits of a score record; None when a component failed."""
        if record.pretrained_logit is None or record.online_logit is None:
            return None
        return cls(record.transaction_id, record.timestamp, record.pretrained_logit, record.online_logit)


class ModelQuality(NamedTuple):
    """Quality of a model: average precision of its ranking, mean log loss of its probabilities."""

    average_precision: float
    log_loss: float

    @classmethod
    def of(cls, truth: Sequence[bool], logits: Sequence[float]) -> ModelQuality:
        """Evaluate logits. At least one transaction must be a fraud."""
        losses = [log_loss(logit, is_fraud=fraud) for fraud, logit in zip(truth, logits, strict=True)]
        return cls(average_precision(np.array(truth), np.array(logits)), sum(losses) / len(losses))


class ModelComparison(NamedTuple):
    """Quality of the pretrained and the online model on the same transactions."""

    frauds: int
    pretrained: ModelQuality
    online: ModelQuality

    @classmethod
    def between(
        cls, scored: Sequence[ComponentLogits], start: int, end: int, truth: Mapping[str, bool]
    ) -> ModelComparison | None:
        """Compare the models on event times in [start, end); None with too few frauds."""
        chosen = [each for each in scored if start <= each.timestamp < end]
        is_fraud = [truth[each.transaction_id] for each in chosen]
        if sum(is_fraud) < MIN_FRAUDS:
            return None
        return cls(
            sum(is_fraud),
            ModelQuality.of(is_fraud, [each.pretrained for each in chosen]),
            ModelQuality.of(is_fraud, [each.online for each in chosen]),
        )
