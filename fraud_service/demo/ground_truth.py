"""Decisions against the truth: as labels tell it meanwhile, and in the end as the simulator knows it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fraud_service.domain.decision import Outcome
from fraud_service.domain.scoring import log_loss
from fraud_service.evaluation.ranking import average_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fraud_service.domain.records import LabelledRecord, ScoreRecord

MIN_FRAUDS: Final = 10  # with fewer, a grade says nothing


class LabelState(NamedTuple):
    """The last word of the labels on a transaction, and what had been decided."""

    is_fraud: bool
    is_flagged: bool


class Truth:
    """Decisions against labels. A label that contradicts an earlier one takes its place."""

    def __init__(self) -> None:
        self._words: dict[str, LabelState] = {}
        self._cells: defaultdict[tuple[bool, bool], int] = defaultdict(int)  # by flagged and fraud

    def learn(self, record: LabelledRecord) -> None:
        """Take in a labelled example."""
        before = self._words.get(record.transaction_id)
        if before is not None:
            self._cells[before.is_flagged, before.is_fraud] -= 1
        word = LabelState(record.is_fraud, record.outcome is not Outcome.APPROVE)
        self._cells[word.is_flagged, word.is_fraud] += 1
        self._words[record.transaction_id] = word

    @property
    def found(self) -> int:
        """Known frauds that had been flagged."""
        return self._cells[True, True]

    @property
    def frauds(self) -> int:
        """Frauds known by now."""
        return self._cells[True, True] + self._cells[False, True]

    @property
    def flagged(self) -> int:
        """Flagged transactions of which the truth is known by now."""
        return self._cells[True, True] + self._cells[True, False]

    @property
    def precision(self) -> float | None:
        """Share of the flagged that are frauds; None while there are none."""
        return self.found / self.flagged if self.flagged else None

    @property
    def recall(self) -> float | None:
        """Share of the frauds that were flagged; None while there are none."""
        return self.found / self.frauds if self.frauds else None


class Scored(NamedTuple):
    """What the two components said of a transaction, in logits."""

    transaction_id: str
    timestamp: int
    pretrained: float
    online: float

    @classmethod
    def of(cls, record: ScoreRecord) -> Scored | None:
        """Take it from a record; None when a component had failed."""
        if record.pretrained_logit is None or record.online_logit is None:
            return None
        return cls(record.transaction_id, record.timestamp, record.pretrained_logit, record.online_logit)


class Grade(NamedTuple):
    """How well logits fit the truth: average precision (of the ranking) and mean log loss (of the probabilities)."""

    average_precision: float
    log_loss: float

    @classmethod
    def of(cls, truth: Sequence[bool], logits: Sequence[float]) -> Grade:
        """Grade logits; there must be a fraud among the truth."""
        losses = [log_loss(logit, is_fraud=fraud) for fraud, logit in zip(truth, logits, strict=True)]
        return cls(average_precision(np.array(truth), np.array(logits)), sum(losses) / len(losses))


class ModelComparison(NamedTuple):
    """Pretrained and online model on the same transactions."""

    frauds: int
    pretrained: Grade
    online: Grade

    @classmethod
    def between(
        cls, scored: Sequence[Scored], start: int, end: int, truth: Mapping[str, bool]
    ) -> ModelComparison | None:
        """Compare them on event times from `start` to before `end`; None where there are too few frauds."""
        chosen = [each for each in scored if start <= each.timestamp < end]
        is_fraud = [truth[each.transaction_id] for each in chosen]
        if sum(is_fraud) < MIN_FRAUDS:
            return None
        return cls(
            sum(is_fraud),
            Grade.of(is_fraud, [each.pretrained for each in chosen]),
            Grade.of(is_fraud, [each.online for each in chosen]),
        )
