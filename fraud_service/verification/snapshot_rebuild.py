"""Rebuild snapshots from the labelled examples, boundary by boundary, and compare them bit for bit.

Every labelled example names its snapshot boundary, and every snapshot names its pretrained model. So the trainer, given
both, closes the same boundaries again.
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
    """One rebuilt boundary. `differences` says how its snapshot or risk rows differ from the published ones.

    `published` is None if examples name the boundary, but no readable snapshot does.
    """

    published: Snapshot | None
    result: BoundaryResult
    differences: tuple[str, ...]


class Rebuilder:
    """Train the labelled examples again.

    Parameters
    ----------
    store
        An empty store for the rows of merchants and cards.
    models
        Every pretrained model by version; the first is the configured one.
    restore
        Makes the online learner of a model from its last state.
    """

    def __init__(
        self,
        store: KeyValueStore,
        schedule: LearningSchedule,
        sampler: NegativeSampler,
        models: Mapping[str, PretrainedModel],
        restore: Callable[[str], Callable[[bytes | None], OnlineLearner]],
    ) -> None:
        self._schedule = schedule
        self._models = models
        self._restore = restore
        self._trainer = OnlineTrainer(store, schedule, sampler, next(iter(models.values())))

    def rebuild(
        self,
        first: int,
        examples: Mapping[int, Iterable[LabelledRecord]],
        snapshots: Iterable[Snapshot],
        rows: Mapping[str, Mapping[str, bytes | None]],
    ) -> Iterator[Rebuilt]:
        """Rebuild snapshots in order; ends before the first one whose model is not available.

        Parameters
        ----------
        first
            Event time of the first transaction ever scored, epoch milliseconds.
        examples
            The examples by the number of their boundary.
        rows
            The published risk rows by the version of their snapshot. Rows that compaction removed are not compared.
        """
        interval = self._schedule.interval
        by_boundary = {one.as_of // interval: one for one in snapshots}
        state, history = LearnerState.starting_at(first // interval), _History()
        for boundary in sorted(examples.keys() | by_boundary.keys()):
            published = by_boundary.get(boundary)
            model = self._trainer.pretrained.version if published is None else published.model
            if model not in self._models:
                return
            self._trainer.promote(self._models[model])
            known = sorted((history.example(record) for record in examples.get(boundary, [])), key=training_order)
            result = self._trainer.close(boundary, state, known, self._restore(model)(state.model))
            state = result.progress
            published_rows = {} if result.snapshot is None else rows.get(result.snapshot.version, {})
            yield Rebuilt(published, result, tuple(_differences(published, result, published_rows)))


class _History:
    """Remembers when the last example of each transaction became known: a correction reverts it."""

    def __init__(self) -> None:
        self._known_at: dict[Facts, int] = {}

    def example(self, record: LabelledRecord) -> Example:
        key = facts(record)
        before = self._known_at.get(key, 0)
        self._known_at[key] = record.known_at
        scored = ScoredTransaction.of(record, record, record.features)
        return Example(scored, record.is_fraud, record.source, record.known_at, record.corrects, before)


def _differences(published: Snapshot | None, result: BoundaryResult, rows: Mapping[str, bytes | None]) -> Iterator[str]:
    rebuilt = result.snapshot
    if rebuilt is None:
        yield "no example was trained by then: there should be no snapshot"
        return
    if published is None:
        yield "its snapshot is not on the topic, or cannot be read"
    elif rebuilt != published:
        fields = msgspec.structs.fields(published)
        changed = [one.name for one in fields if getattr(published, one.name) != getattr(rebuilt, one.name)]
        yield f"{', '.join(name for name in changed if name not in {'version', 'digest'})} differ"
    for key, row in sorted(rows.items()):
        if row != result.risk.get(key):
            yield f"risk row {key} differs"
