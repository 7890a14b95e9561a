"""Score and learn a history in event order without Kafka.

The scoring and training code is that of the live service; tests compare both. A transaction uses the snapshot that is
active at its event time. A label takes effect at its own event time. Training and backtests use this module.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.label_join import Ignored, LabelJoin, examples_due
from fraud_service.domain.online_training import LearnerState, OnlineTrainer
from fraud_service.domain.records import score_record
from fraud_service.domain.snapshot import SnapshotStore

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


MAX_BATCH: Final = 1024  # transactions


class MemoryStore(dict[str, bytes]):
    """A `KeyValueStore` in a dictionary."""

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self.pop(key, None)


class FrozenLearner:
    """An online learner that never changes its model, for runs that train only risk."""

    def __init__(self, model: OnlineModel) -> None:
        self._model = model

    def learn(self, encoded: ModelInput, *, is_fraud: bool, weight: float) -> None:
        """Ignore the example."""

    def state(self) -> bytes:
        """Return an empty state."""
        return b""

    def export(self) -> OnlineModel:
        """Return the model of the constructor."""
        return self._model


class InMemoryService:
    """Scores labelled transactions, and trains at each snapshot boundary.

    `restore` makes the online learner from its last state. `label_delay_ms` is the time from a transaction to its label
    where the history has no label time.
    """

    def __init__(
        self,
        detector: Detector,
        initial: Snapshot,
        restore: Callable[[bytes | None], OnlineLearner],
        schedule: LearningSchedule,
        sampling: NegativeSampler,
        label_delay_ms: int,
    ) -> None:
        self._detector = detector
        self._restore = restore
        self._schedule = schedule
        self._label_delay = label_delay_ms
        self.ignored: Counter[Ignored] = Counter()
        self._pending = MemoryStore()
        self._join = LabelJoin(self._pending, schedule, lambda cause: self.ignored.update([cause]))
        self._trainer = OnlineTrainer(MemoryStore(), schedule, sampling, detector.pretrained)
        self._labels: list[tuple[int, str, int, Label]] = []
        self._number = count()  # breaks ties in the heap, so that labels are never compared
        self.profiles: dict[str, Profile] = {}
        self.snapshots = SnapshotStore(initial)
        self.progress = LearnerState()

    def run(
        self, history: Iterable[LabelledTransaction], observe: Callable[[BoundaryResult], None] = lambda _: None
    ) -> Iterator[Assessment]:
        """Score a history in event order; yield one assessment per transaction.

        Transactions between two boundaries are scored in batches, because snapshots change only at boundaries.
        `observe` receives the result of every boundary, before its snapshot is received. It may call `promote`.
        """
        batch: list[LabelledTransaction] = []
        for event in history:
            if batch and (event.transaction.timestamp >= self._next_boundary() or len(batch) == MAX_BATCH):
                yield from self._score(batch)
                batch = []
            if not batch:
                self._close_boundaries(event.transaction.timestamp, observe)
            batch.append(event)
        yield from self._score(batch)

    def _score(self, batch: list[LabelledTransaction]) -> list[Assessment]:
        assessments = self._detector.assess([event.transaction for event in batch], self.profiles, self.snapshots)
        for event, assessment in zip(batch, assessments, strict=True):
            if assessment.features is not None:
                self._join.add_scored(score_record(assessment), self.progress.closed)
            label = event.label(self._label_delay)
            if label is not None:
                heappush(self._labels, (label.labelled_at, label.transaction_id, next(self._number), label))
        return assessments

    def _next_boundary(self) -> int:
        return (self.progress.closed + 1) * self._schedule.interval_ms

    def _close_boundaries(self, now: int, observe: Callable[[BoundaryResult], None]) -> None:
        """Close the boundaries up to `now`, each with the labels known by then."""
        if self.progress.closed < 0:
            self.progress = LearnerState.starting_at(now // self._schedule.interval_ms)
        state = self.progress.towards(now // self._schedule.interval_ms, self._schedule.interval_ms)
        if state is not self.progress:
            self._join.restart(self.progress.closed, state.closed)
        self.progress = state
        while self._next_boundary() <= now:
            self._skip_silence(now)
            boundary = self.progress.closed + 1
            self._deliver_labels(boundary * self._schedule.interval_ms)
            examples = examples_due([self._join], boundary)
            result = self._trainer.close(boundary, self.progress, examples, self._restore(self.progress.model))
            self.progress = result.progress
            observe(result)
            self._receive(result)

    def _skip_silence(self, now: int) -> None:
        """Pass the boundaries that change nothing: no payment and no label waits for them, and they publish nothing.

        A file may have gaps of years, with a hundred thousand such boundaries.
        """
        if self.progress.is_silent(self._schedule.interval_ms) and not self._is_due():
            until = min(now, self._labels[0][0]) if self._labels else now
            closed = max(self.progress.closed, until // self._schedule.interval_ms - 1)
            self.progress = msgspec.structs.replace(self.progress, closed=closed)

    def _is_due(self) -> bool:
        """Whether the join has an item for a later boundary. Items from before a restart of the schedule stay."""
        lists = (key.split("/") for key in self._pending if key.startswith("d/"))
        return any(int(names[1]) > self.progress.closed for names in lists)

    def _deliver_labels(self, until: int) -> None:
        while self._labels and self._labels[0][0] <= until:
            label = heappop(self._labels)[3]
            if self._schedule.is_forgotten(label.labelled_at, self.progress.closed):  # as in the learner
                self.ignored[Ignored.LATE_LABEL] += 1
            else:
                self._join.add_label(label, self.progress.closed)

    def promote(self, model: PretrainedModel, restore: Callable[[bytes | None], OnlineLearner]) -> None:
        """Train beside another pretrained model from the next snapshot on.

        A `ModelRegistry` calls this. It also registers the model with the detector and with `snapshots`.
        """
        self._trainer.promote(model)
        self._restore = restore

    def _receive(self, result: BoundaryResult) -> None:
        if result.snapshot is None:
            return
        for key, row in result.risk.items():
            self.snapshots.receive_risk(result.snapshot.version, key, row)
        self.snapshots.receive_snapshot(result.snapshot)
        self.snapshots.apply_received()
