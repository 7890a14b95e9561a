"""The whole loop without Kafka: history in event order through the detector and the learner's fold.

Scorer and learner are the same pure core as live; only the topics are missing. A transaction is scored by what was
known at its event time, a label becomes known at its own. Used to train, and as the live service's oracle.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from fraud_service.domain.label_join import LabelJoin, examples_due
from fraud_service.domain.label_join_rows import ScoredTransaction
from fraud_service.domain.online_training import LearnerState, OnlineTrainer
from fraud_service.domain.snapshot_store import SnapshotStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.domain.detector import Assessment, Detector
    from fraud_service.domain.events import Label, LabelledTransaction
    from fraud_service.domain.online_model import ModelInput, OnlineModel
    from fraud_service.domain.online_training import BoundaryResult, NegativeSampler, OnlineLearner
    from fraud_service.domain.profile import Profile
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.domain.time import LearningSchedule


MAX_BATCH: Final = 1024


class MemoryStore:
    """A `Store` in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none."""
        return self.values.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""
        self.values[key] = value

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self.values.pop(key, None)


class FrozenLearner:
    """Stands in for an online learner where only risk is learned; its model stays as it is given."""

    def __init__(self, model: OnlineModel) -> None:
        self._model = model

    def learn(self, encoded: ModelInput, *, is_fraud: bool, weight: float) -> None:
        """Learn nothing."""

    def state(self) -> bytes:
        """Return nothing."""
        return b""

    def export(self) -> OnlineModel:
        """Return the model as it was given."""
        return self._model


class InMemoryService:
    """Drive detector and teacher over labelled transactions.

    Parameters
    ----------
    restore
        Makes the online learner from its last state.
    label_delay
        Milliseconds after which a label becomes known where the history does not say when.
    observe
        Is told of every lesson, and may promote another model then.
    """

    def __init__(
        self,
        detector: Detector,
        initial: Snapshot,
        restore: Callable[[bytes | None], OnlineLearner],
        calendar: LearningSchedule,
        sampling: NegativeSampler,
        label_delay: int,
        *,
        observe: Callable[[BoundaryResult], None] = lambda _: None,
    ) -> None:
        self._detector = detector
        self._restore = restore
        self._observe = observe
        self._calendar = calendar
        self._label_delay = label_delay
        self._ledger = LabelJoin(MemoryStore(), calendar)
        self._teacher = OnlineTrainer(MemoryStore(), calendar, sampling, detector.pretrained)
        self._labels: list[tuple[int, str, int, Label]] = []
        self._number = count()  # two labels are never compared, whatever they have in common
        self.profiles: dict[str, Profile] = {}
        self.knowledge = SnapshotStore(initial)
        self.progress = LearnerState()

    def run(self, history: Iterable[LabelledTransaction]) -> Iterator[Assessment]:
        """Score every transaction of a history in order; yields one verdict each.

        Between two boundaries nothing is learned, so transactions are scored in batches.
        """
        batch: list[LabelledTransaction] = []
        for event in history:
            if batch and (event.transaction.timestamp >= self._next_boundary() or len(batch) == MAX_BATCH):
                yield from self._score(batch)
                batch = []
            if not batch:
                self._pass_time(event.transaction.timestamp)
            batch.append(event)
        yield from self._score(batch)

    def _score(self, batch: list[LabelledTransaction]) -> list[Assessment]:
        verdicts = self._detector.assess([event.transaction for event in batch], self.profiles, self.knowledge)
        for event, verdict in zip(batch, verdicts, strict=True):
            if verdict.features is not None:
                self._ledger.add_entry(
                    ScoredTransaction.of(verdict.transaction, verdict.decision, verdict.features), self.progress.closed
                )
            self._queue_label(event)
        return verdicts

    def _next_boundary(self) -> int:
        return (self.progress.closed + 1) * self._calendar.interval

    def _pass_time(self, now: int) -> None:
        """Close the boundaries before `now`, each with the labels known by then."""
        if self.progress.closed < 0:
            self.progress = LearnerState.beginning(now // self._calendar.interval)
        while self._next_boundary() <= now:
            boundary = self.progress.closed + 1
            self._deliver_labels(boundary * self._calendar.interval)
            self._apply(self._lesson(boundary))

    def _deliver_labels(self, until: int) -> None:
        while self._labels and self._labels[0][0] <= until:
            label = heappop(self._labels)[3]
            if not self._calendar.is_forgotten(label.labelled_at, self.progress.closed):  # as the learner refuses it
                self._ledger.add_label(label, self.progress.closed)

    def _lesson(self, boundary: int) -> BoundaryResult:
        learner = self._restore(self.progress.model)
        return self._teacher.close(boundary, self.progress, examples_due([self._ledger], boundary), learner)

    def promote(self, model: PretrainedModel, restore: Callable[[bytes | None], OnlineLearner]) -> None:
        """Have another pretrained model score from the next snapshot on."""
        untaught = restore(None).export()
        self._detector.register_model(model)
        self.knowledge.register_model(model.version, len(untaught.leaf_weights))
        self._teacher.promote(model)
        self._restore = restore

    def _apply(self, lesson: BoundaryResult) -> None:
        self.progress = lesson.progress
        self._observe(lesson)
        if lesson.snapshot is None:
            return
        for key, row in lesson.risk.items():
            self.knowledge.receive_risk(lesson.snapshot.version, key, row)
        self.knowledge.receive_snapshot(lesson.snapshot)
        self.knowledge.apply_received()

    def _queue_label(self, event: LabelledTransaction) -> None:
        label = event.label(self._label_delay)
        if label is not None:
            heappush(self._labels, (label.labelled_at, label.transaction_id, next(self._number), label))
