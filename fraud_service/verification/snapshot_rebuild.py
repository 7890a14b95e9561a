"""Snapshots rebuilt: what the labelled examples teach, boundary by boundary, must be what was published, bit for bit.

Every labelled example names the boundary at which it was taught, and every snapshot the pretrained model beside which
it was; so the teacher, given both, closes the same boundaries again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from fraud_service.domain.events import facts
from fraud_service.domain.label_join import training_order
from fraud_service.domain.label_join_rows import Example, ScoredTransaction
from fraud_service.domain.online_training import LearnerState, OnlineTrainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fraud_service.domain.events import Facts
    from fraud_service.domain.label_join import KeyValueStore
    from fraud_service.domain.online_training import BoundaryResult, NegativeSampler, OnlineLearner
    from fraud_service.domain.records import LabelledRecord
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.domain.time import LearningSchedule


class Rebuilt(NamedTuple):
    """One boundary taught again. `differences` says in what its snapshot or risk rows are not the published ones.

    `published` is None where examples name the boundary, and no readable snapshot does.
    """

    published: Snapshot | None
    lesson: BoundaryResult
    differences: tuple[str, ...]


class Rebuilder:
    """Teach again what was taught.

    Parameters
    ----------
    store
        An empty store: the rows of merchants and cards are rebuilt in it.
    models
        Every pretrained model by version.
    restore
        Makes the online learner beside a model from its last state.
    """

    def __init__(
        self,
        store: KeyValueStore,
        calendar: LearningSchedule,
        sampling: NegativeSampler,
        models: Mapping[str, PretrainedModel],
        restore: Callable[[str], Callable[[bytes | None], OnlineLearner]],
    ) -> None:
        self._calendar = calendar
        self._models = models
        self._restore = restore
        self._teacher = OnlineTrainer(store, calendar, sampling, next(iter(models.values())))

    def rebuild(
        self,
        first: int,
        examples: Mapping[int, Iterable[LabelledRecord]],
        snapshots: Iterable[Snapshot],
        rows: Mapping[str, Mapping[str, bytes | None]],
    ) -> Iterator[Rebuilt]:
        """Rebuild snapshots in order; ends before the first one that names a model that is not here.

        Parameters
        ----------
        first
            Event time of the first transaction ever scored, epoch milliseconds.
        examples
            What was taught, by the number of its boundary.
        rows
            The risk rows there are by the version of their snapshot; what compaction removed is not compared.
        """
        interval = self._calendar.interval
        published = {one.as_of // interval: one for one in snapshots}
        progress, taught_at = LearnerState.starting_at(first // interval), _TaughtAt()
        for boundary in sorted(examples.keys() | published.keys()):
            there = published.get(boundary)
            model = self._teacher.pretrained.version if there is None else there.model
            if model not in self._models:
                return
            self._teacher.promote(self._models[model])
            known = sorted((taught_at.example(record) for record in examples.get(boundary, [])), key=training_order)
            lesson = self._teacher.close(boundary, progress, known, self._restore(model)(progress.model))
            progress = lesson.progress
            there_rows = {} if lesson.snapshot is None else rows.get(lesson.snapshot.version, {})
            yield Rebuilt(there, lesson, tuple(_differences(there, lesson, there_rows)))


class _TaughtAt:
    """When the opposite of what a correction says was taught."""

    def __init__(self) -> None:
        self._known_at: dict[Facts, int] = {}

    def example(self, record: LabelledRecord) -> Example:
        key = facts(record)
        before = self._known_at.get(key, 0)
        self._known_at[key] = record.known_at
        scored = ScoredTransaction.of(record, record, record.features)
        return Example(scored, record.is_fraud, record.source, record.known_at, record.corrects, before)


def _differences(published: Snapshot | None, lesson: BoundaryResult, rows: Mapping[str, bytes | None]) -> Iterator[str]:
    rebuilt = lesson.snapshot
    if rebuilt is None:
        yield "nothing had been taught: there should be no snapshot"
        return
    if published is None:
        yield "there is no such snapshot on its topic, or it cannot be read"
    elif rebuilt != published:
        fields = msgspec.structs.fields(published)
        changed = [one.name for one in fields if getattr(published, one.name) != getattr(rebuilt, one.name)]
        yield f"{', '.join(name for name in changed if name not in {'version', 'digest'})} differ"
    for key, row in sorted(rows.items()):
        if row != lesson.risk.get(key):
            yield f"risk row {key} differs"
