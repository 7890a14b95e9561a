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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fraud_service.domain.events import Facts
    from fraud_service.domain.online_training import BoundaryResult, LearnerState, OnlineLearner, OnlineTrainer
    from fraud_service.domain.records import LabelledRecord
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.domain.snapshot import Snapshot


class LearnedLog(NamedTuple):
    """What the learner published.

    `examples` and `snapshots` are by the number of their boundary, `rows` of the risk by the version of their snapshot.
    Rows that compaction removed are not compared.
    """

    examples: Mapping[int, Iterable[LabelledRecord]]
    snapshots: Mapping[int, Snapshot]
    rows: Mapping[str, Mapping[str, bytes | None]]


class RebuiltBoundary(NamedTuple):
    """One rebuilt boundary. `differences` says how its snapshot or risk rows differ from the published ones.

    `published` is None if examples name the boundary, but no readable snapshot does.
    """

    published: Snapshot | None
    result: BoundaryResult
    differences: tuple[str, ...]


def rebuild(
    trainer: OnlineTrainer,
    state: LearnerState,
    models: Mapping[str, PretrainedModel],
    restore: Callable[[str], Callable[[bytes | None], OnlineLearner]],
    log: LearnedLog,
) -> Iterator[RebuiltBoundary]:
    """Train the labelled examples again, in order; ends before the first snapshot whose model is not available.

    Parameters
    ----------
    trainer
        Has an empty store, and the configured model.
    state
        The state of the learner before its first boundary.
    models
        Every pretrained model by version.
    restore
        Makes the online learner of a model from its last state.
    """
    known_at: dict[Facts, int] = {}  # when the last example of each payment became known: a correction reverts it
    for boundary in sorted(log.examples.keys() | log.snapshots.keys()):
        published = log.snapshots.get(boundary)
        model = trainer.pretrained.version if published is None else published.model
        if model not in models:
            return
        trainer.promote(models[model])
        known = [_example(record, known_at) for record in log.examples.get(boundary, [])]
        known.sort(key=training_order)
        result = trainer.close(boundary, state, known, restore(model)(state.model))
        state = result.progress
        published_rows = {} if result.snapshot is None else log.rows.get(result.snapshot.version, {})
        yield RebuiltBoundary(published, result, tuple(_differences(published, result, published_rows)))


def _example(record: LabelledRecord, known_at: dict[Facts, int]) -> Example:
    payment = facts(record)
    before, known_at[payment] = known_at.get(payment, 0), record.known_at
    scored = ScoredTransaction.of(record, record.features)
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
