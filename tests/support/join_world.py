"""Drive label joins as the learner does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.worlds import DictStore

from fraud_service.domain.label_join import LabelJoin, examples_due
from fraud_service.domain.time import LearningSchedule

if TYPE_CHECKING:
    from fraud_service.domain.events import Label
    from fraud_service.domain.label_join_rows import Example
    from fraud_service.domain.records import ScoreRecord

SCHEDULE = LearningSchedule(interval_ms=10, activation_delay_ms=2, label_maturity_ms=100, label_retention_ms=1000)
Trained = tuple[int, str, bool, int, bool]  # boundary, transaction, is fraud, label time, is correction


@dataclass
class World:
    """One or more label joins, driven as the learner drives them."""

    partitions: int = 1
    closed: int = -1
    trained: list[Trained] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    sweeps: int = 0  # entries per sweep; 0 for no sweeps

    def __post_init__(self) -> None:
        self.stores = [DictStore() for _ in range(self.partitions)]
        self.joins = [LabelJoin(store, SCHEDULE) for store in self.stores]

    def _join(self, transaction_id: str) -> LabelJoin:
        return self.joins[sum(transaction_id.encode()) % self.partitions]

    def score(self, record: ScoreRecord) -> bool:
        return self._join(record.transaction_id).add_scored(record, self.closed)

    def label(self, word: Label) -> bool:
        return self._join(word.transaction_id).add_label(word, self.closed)

    def close(self, until: int) -> list[Trained]:
        """Close the boundaries up to this time; returns the learned examples."""
        before = len(self.trained)
        while (self.closed + 1) * SCHEDULE.interval_ms <= until:
            boundary = self.closed + 1
            self.sweep(boundary)
            for example in examples_due(self.joins, boundary):
                self.examples.append(example)
                name = example.scored.transaction_id
                self.trained.append((boundary, name, example.is_fraud, example.known_at, example.corrects))
            self.closed = boundary
        return self.trained[before:]

    def sweep(self, boundary: int) -> None:
        """Sweep as the learner does when many entries are due. It must not change the result."""
        if self.sweeps:
            for join in self.joins:
                place = 0
                while place < join.count(boundary):
                    place = join.sweep(boundary, place, self.sweeps)
