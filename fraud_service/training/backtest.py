"""Backtest: score a file as the live service would have, and say how good that was. The service without Kafka.

Every transaction is scored once, in event order, by what was known then; a label becomes known at its own time;
snapshots come into force at the same event times as live.
"""

from __future__ import annotations

from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from fraud_service.config import factories
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import rfc3339
from fraud_service.domain.features import NAMES
from fraud_service.domain.in_memory import FrozenLearner, InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.scoring import probability
from fraud_service.domain.time import DAY
from fraud_service.evaluation.metrics import Scores, evaluate
from fraud_service.evaluation.result import Result
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training.refit import LabelledWindow, evaluate_challenger

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.detector import Assessment
    from fraud_service.domain.events import LabelledTransaction
    from fraud_service.domain.online_training import BoundaryResult, OnlineLearner
    from fraud_service.domain.records import RefitRecord
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.training.history import History

SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("score", pa.float64()),
        ("pretrained", pa.float64()),
        ("online", pa.float64()),
        ("online_weight", pa.float64()),
        ("outcome", pa.string()),
        ("model", pa.string()),
        ("snapshot", pa.string()),
        ("is_fraud", pa.bool_()),
    ]
)


class Plan(msgspec.Struct, frozen=True):
    """What to backtest.

    `label_delay` is in milliseconds; transactions before `start` (epoch milliseconds) warm the state and are not
    reported, and every `refit_every` milliseconds after it a re-fit may replace the model. Without `online`, the
    pretrained model scores alone; labels still move the risk of merchants and cards.
    """

    source: str
    models: Path
    label_delay: int
    start: int | None = None
    online: bool = True
    refit_every: int | None = None

    def restore(self, model: OnnxForest) -> Callable[[bytes | None], OnlineLearner]:
        """Return what makes the online learner beside a model."""
        return factories.restore(model) if self.online else lambda _: FrozenLearner(model.untrained_online_model())


class RefitSchedule:
    """Watch the lessons, and every so often challenge the model that reigns."""

    def __init__(self, plan: Plan, champion: OnnxForest) -> None:
        self._plan = plan
        self._champion = champion
        self._window = LabelledWindow()
        self._next = 0
        self.outcomes: list[RefitRecord] = []
        self.promote: Callable[[OnnxForest, Callable[[bytes | None], OnlineLearner]], None] = lambda *_: None

    def observe(self, lesson: BoundaryResult) -> None:
        """Take in a lesson; at the boundary that is due, re-fit."""
        if self._plan.refit_every is None:
            return
        self._window.add(lesson.labelled())
        now = lesson.as_of
        if not self._next:
            self._next = (now if self._plan.start is None else self._plan.start) + self._plan.refit_every
        if now < self._next:
            return
        self._next += self._plan.refit_every
        outcome, artifact = evaluate_challenger(self._window.examples(), self._champion, now, self._plan.source)
        self.outcomes.append(outcome)
        if artifact is not None:
            self._champion = OnnxForest(artifact)
            self.promote(self._champion, self._plan.restore(self._champion))


class ResultTable:
    """The reported transactions, column by column, and what the figures need besides."""

    def __init__(self) -> None:
        self.cards: list[int] = []
        self.amounts: list[float] = []
        self._rows: list[tuple[Any, ...]] = []
        self.weights: list[tuple[int, float]] = []
        self.contributions = np.zeros(len(NAMES))
        self.explained = 0
        self._codes: dict[str, int] = {}
        self._snapshot = ""

    def add(self, event: LabelledTransaction, verdict: Assessment, snapshot: Snapshot, *, online: bool) -> None:
        """Take in one transaction and the snapshot in force. A repetition was reported before."""
        if verdict.is_duplicate:
            return
        transaction, decision = verdict.transaction, verdict.decision
        row = (  # in the order of the schema
            transaction.transaction_id,
            transaction.timestamp,
            decision.score,
            _probability(decision.pretrained_logit),
            _probability(decision.online_logit) if online else None,
            decision.online_weight if online else 0.0,
            decision.outcome.value,
            decision.model,
            decision.snapshot,
            event.is_fraud,
        )
        self._rows.append(row)
        self.cards.append(self._codes.setdefault(transaction.card_id, len(self._codes)))
        self.amounts.append(transaction.amount)
        if online and snapshot.version != self._snapshot:
            self._snapshot = snapshot.version
            self.weights.append((transaction.timestamp, round(snapshot.online_weight, 6)))
        if verdict.contributions is not None:
            self.contributions += np.abs(list(verdict.contributions.features.values()))
            self.explained += 1

    def table(self) -> pa.Table:
        """Return one row a transaction, in event order."""
        return pa.table(dict(zip(SCHEMA.names, zip(*self._rows, strict=True), strict=True)), schema=SCHEMA)

    def scores(self, table: pa.Table) -> Scores:
        """Return what the figures are computed from: the transactions whose label is known."""
        known = table["is_fraud"].is_valid().to_numpy()

        def column(name: str) -> Any:
            return table[name].to_numpy()[known]

        components = {"blended": "score", "pretrained": "pretrained", "online": "online"}
        values = {component: column(name) for component, name in components.items()}
        return Scores(
            timestamps=column("timestamp").astype("datetime64[ms]").astype(np.int64),
            cards=np.array(self.cards, dtype=np.int64)[known],
            is_fraud=column("is_fraud").astype(bool),
            amounts=np.array(self.amounts)[known],
            components={name: value for name, value in values.items() if not np.isnan(value).all()},
            flagged=column("outcome") != "approve",
        )

    def features(self) -> dict[str, float]:
        """Return the mean absolute contribution, in logits, of each feature to the flagged transactions."""
        means = self.contributions / max(self.explained, 1)
        return {name: round(float(mean), 6) for name, mean in zip(NAMES, means, strict=True)}


def backtest(
    history: History, plan: Plan, settings: Settings, progress: Callable[[], None] = lambda: None
) -> tuple[pa.Table, Result]:
    """Run over a history.

    Returns
    -------
    tuple
        One row a reported transaction, and the figures.

    Raises
    ------
    ConfigurationError
        When no transaction is left to report.
    ModelError
        When the model cannot be loaded.
    """
    model = OnnxForest.load(artifact.find(plan.models))
    refitting = RefitSchedule(plan, model)
    rehearsal = InMemoryService(
        Detector(model, factories.policy(settings)),
        factories.first_snapshot(model),
        plan.restore(model),
        msgspec.structs.replace(factories.calendar(settings), maturity=plan.label_delay),
        NegativeSampler(settings.negative_sample_rate if plan.online or plan.refit_every is not None else 0.0),
        plan.label_delay,
        observe=refitting.observe,
    )
    refitting.promote = rehearsal.promote
    reported = ResultTable()
    events, played = tee(history)
    for event, verdict in zip(events, rehearsal.run(played), strict=True):
        progress()
        if plan.start is None or event.transaction.timestamp >= plan.start:
            in_force = rehearsal.knowledge.at(event.transaction.timestamp).snapshot
            reported.add(event, verdict, in_force, online=plan.online)
    if not reported.cards:
        raise ConfigurationError("no transaction is left to report: check --from, --to and the file")
    table = reported.table()
    return table, _result(plan, model, reported, table, refitting.outcomes)


def _result(plan: Plan, model: OnnxForest, reported: ResultTable, table: pa.Table, refits: list[RefitRecord]) -> Result:
    times = table["timestamp"].cast(pa.int64())
    return Result(
        run={
            "source": plan.source,
            "from": rfc3339(times[0].as_py()),
            "to": rfc3339(times[-1].as_py()),
            "transactions": len(times),
            "label_delay_days": plan.label_delay / DAY,
            "model": model.version,
            "online": plan.online,
            "refit_every_days": None if plan.refit_every is None else plan.refit_every / DAY,
        },
        figures=evaluate(reported.scores(table)),
        weights=reported.weights,
        features=reported.features(),
        models=sorted(table["model"].unique().to_pylist()),
        refits=[{**msgspec.structs.asdict(outcome), "at": rfc3339(outcome.at)} for outcome in refits],
    )


def write_scores(table: pa.Table, path: Path) -> None:
    """Write the scores as Parquet. Raises `ConfigurationError` when that cannot be done."""
    try:
        parquet.write_table(table, path, compression="zstd")
    except OSError as error:
        raise ConfigurationError(f"--scores {path}: cannot be written: {error.strerror or error}") from None


def _probability(logit: float | None) -> float | None:
    return None if logit is None else probability(logit)
