"""Backtest: score a history as the live service would have scored it, without Kafka, and measure the result.

The backtest scores every transaction once, in event order, with what was known then. A label counts from the time at
which it became known. Snapshots take effect at the same event times as live.
"""

from __future__ import annotations

from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import structlog
from pyarrow import compute as pc
from pyarrow import parquet

from fraud_service.config import factories
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.features import NAMES
from fraud_service.domain.in_memory import FrozenLearner, InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.scoring import probability
from fraud_service.domain.time import DAY, instant, rfc3339
from fraud_service.evaluation.alerts import Scores
from fraud_service.evaluation.metrics import Result, evaluate
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.registry import ModelRegistry
from fraud_service.training.dataset import LastLabels
from fraud_service.training.label_coverage import LabelCoverage
from fraud_service.training.refit import LabelledWindow, evaluate_challenger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.decision import Policy
    from fraud_service.domain.detector import Assessment
    from fraud_service.domain.events import LabelledTransaction
    from fraud_service.domain.online_training import BoundaryResult, OnlineLearner
    from fraud_service.domain.records import RefitRecord
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.training.history import History

log = structlog.get_logger(__name__)

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


class BacktestPlan(msgspec.Struct, frozen=True):
    """What to backtest.

    Transactions before `start` (epoch milliseconds) only warm the state. A re-fit may
    replace the model every `refit_every` milliseconds after `start`. Without `online`, only the pretrained model
    scores; labels still update the risk of merchants and cards.
    """

    source: str
    models: Path
    label_delay_ms: int
    start: int | None = None
    online: bool = True
    refit_every_ms: int | None = None

    def restore(self, model: OnnxForest) -> Callable[[bytes | None], OnlineLearner]:
        """Return the factory of the online learner for a pretrained model."""
        return (
            factories.learner_factory(model) if self.online else lambda _: FrozenLearner(model.untrained_online_model())
        )


class RefitSchedule:
    """Collect labels, and evaluate a challenger against the active model at regular boundaries."""

    def __init__(self, plan: BacktestPlan, models: ModelRegistry) -> None:
        self._plan = plan
        self._models = models
        self._window = LabelledWindow()
        self._next = 0
        self.outcomes: list[RefitRecord] = []

    def observe(self, result: BoundaryResult) -> None:
        """Add the labels of a boundary; if a re-fit is due and its challenger wins, activate the challenger."""
        if self._plan.refit_every_ms is None:
            return
        self._window.add(result.labelled())
        now = result.as_of
        if not self._next:
            self._next = (now if self._plan.start is None else self._plan.start) + self._plan.refit_every_ms
        if now < self._next:
            return
        while self._next <= now:  # no boundary is observed in a silence of months
            self._next += self._plan.refit_every_ms
        champion = self._models.active
        outcome, promoted = evaluate_challenger(self._window.examples(), champion, now, self._plan.source)
        self.outcomes.append(outcome)
        if promoted is not None:
            self._models.activate(OnnxForest(promoted))


class ResultTable:
    """The reported transactions by column, and what the metrics need besides."""

    def __init__(self, label_delay_ms: int) -> None:
        self._last_labels = LastLabels(label_delay_ms)
        self.online_weights: list[tuple[int, float]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._cards: list[int] = []
        self._amounts: list[float] = []
        self._currencies: list[str] = []
        self._reasons: list[str] = []
        self._card_numbers: dict[str, int] = {}
        self._snapshot = ""
        self._contributions = np.zeros(len(NAMES))
        self._explained = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, event: LabelledTransaction, assessment: Assessment, snapshot: Snapshot, *, online: bool) -> None:
        """Add a transaction with the active snapshot. Of a duplicate only the label counts."""
        self._last_labels.add(event, is_duplicate=assessment.is_duplicate)
        if assessment.is_duplicate:
            return
        transaction, decision = assessment.transaction, assessment.decision
        row = (  # in the order of the schema, without the label
            transaction.transaction_id,
            transaction.timestamp,
            decision.score,
            _probability(decision.pretrained_logit),
            _probability(decision.online_logit) if online else None,
            decision.online_weight if online else 0.0,
            decision.outcome.value,
            decision.model,
            decision.snapshot,
        )
        self._rows.append(row)
        self._cards.append(self._card_numbers.setdefault(transaction.card_id, len(self._card_numbers)))
        self._amounts.append(transaction.amount)
        self._currencies.append(transaction.currency)
        self._reasons.append(decision.reasons[0].code if decision.reasons else "")
        if online and snapshot.version != self._snapshot:
            self._snapshot = snapshot.version
            self.online_weights.append((transaction.timestamp, round(snapshot.online_weight, 6)))
        if assessment.contributions is not None:
            self._contributions += np.abs(list(assessment.contributions.features.values()))
            self._explained += 1

    def table(self) -> pa.Table:
        """Return one row for each transaction, in event order. A label is null if the history has none."""
        labels = [None if label is None else label[1] for label in self._last_labels]
        return pa.table(dict(zip(SCHEMA.names, (*zip(*self._rows, strict=True), labels), strict=True)), schema=SCHEMA)

    def scores(self, table: pa.Table, policy: Policy) -> Scores:
        """Return the input of the metrics.

        A transaction without a label is unknown. But where all labels say fraud, it counts as legitimate, as in
        training and in the live service: such a history lists only frauds.
        """
        is_fraud = pc.fill_null(table["is_fraud"], fill_value=False).to_numpy().astype(bool)
        known = table["is_fraud"].is_valid().to_numpy()
        lists_frauds = is_fraud.any() and not (known & ~is_fraud).any()
        components = {"blended": "score", "pretrained": "pretrained", "online": "online"}
        values = {component: table[name].to_numpy() for component, name in components.items()}
        return Scores(
            timestamps=table["timestamp"].to_numpy().astype("datetime64[ms]").astype(np.int64),
            cards=np.array(self._cards, dtype=np.int64),
            is_fraud=is_fraud,
            is_labelled=np.ones_like(known) if lists_frauds else known,
            amounts=np.array(self._amounts),
            currencies=np.array(self._currencies, dtype=np.str_),
            components={name: value for name, value in values.items() if not np.isnan(value).all()},
            flagged=table["outcome"].to_numpy() != "approve",
            ids=[row[0] for row in self._rows],
            reasons=self._reasons,
            policy=policy,
        )

    def mean_contributions(self) -> dict[str, float]:
        """Return the mean absolute contribution, in logits, of each feature to the flagged transactions."""
        means = self._contributions / max(self._explained, 1)
        return {name: round(float(mean), 6) for name, mean in zip(NAMES, means, strict=True)}


def backtest(
    history: History, plan: BacktestPlan, settings: Settings, progress: Callable[[], None] = lambda: None
) -> tuple[pa.Table, Result]:
    """Run a backtest; return a table with one row for each reported transaction, and the metrics.

    Raises `ConfigurationError` if no transaction is left to report, and `ModelError` if the model cannot be loaded.
    """
    model, policy = OnnxForest.load(artifact.find_folder(plan.models)), factories.policy(settings)
    detector = Detector(model, policy, time_zone=settings.time_zone)
    service = InMemoryService(
        detector,
        factories.first_snapshot(model),
        plan.restore(model),
        msgspec.structs.replace(factories.learning_schedule(settings), label_maturity_ms=plan.label_delay_ms),
        NegativeSampler(settings.negative_sample_rate if plan.online or plan.refit_every_ms is not None else 0.0),
        plan.label_delay_ms,
    )
    models = ModelRegistry(
        model,
        on_activated=lambda active: service.promote(active, plan.restore(active)),
        detector=detector,
        snapshots=service.snapshots,
    )
    refits = RefitSchedule(plan, models)
    reported, coverage = ResultTable(plan.label_delay_ms), LabelCoverage(plan.label_delay_ms)
    events, scored = tee(history)
    for event, assessment in zip(events, service.run(scored, refits.observe), strict=True):
        progress()
        coverage.add(event)
        if plan.start is None or event.transaction.timestamp >= plan.start:
            active = service.snapshots.at(event.transaction.timestamp).snapshot
            reported.add(event, assessment, active, online=plan.online)
    if service.ignored:
        log.warning("label_join_ignored", **{str(cause): count for cause, count in service.ignored.items()})
    if not reported:
        raise ConfigurationError("no transaction is left to report: check --from, --to and the file")
    return _result(plan, model, reported, coverage, refits.outcomes, policy)


def _overlap(model: OnnxForest, first: int, last: int) -> Iterator[str]:
    """Warn if the model was trained on days that are measured."""
    training = model.manifest.training
    try:
        begin, end = (instant(training[name], name) for name in ("from", "to"))
    except (KeyError, InvalidEvent):  # models of other tools may not have them
        return
    if first < end and begin <= last:
        yield (
            f"the model was trained on payments from {training['from']} to {training['to']} "
            f"({training.get('source', 'an unknown source')}), and these days are measured too. If they are the same "
            f"payments, the figures are too good: measure days after them, with --from"
        )


def _result(
    plan: BacktestPlan,
    model: OnnxForest,
    reported: ResultTable,
    coverage: LabelCoverage,
    refits: list[RefitRecord],
    policy: Policy,
) -> tuple[pa.Table, Result]:
    table = reported.table()
    times = table["timestamp"].cast(pa.int64())
    figures = evaluate(reported.scores(table, policy))
    assumed = int(table["is_fraud"].null_count) - figures.unlabelled
    result = Result(
        run={
            "source": plan.source,
            "from": rfc3339(times[0].as_py()),
            "to": rfc3339(times[-1].as_py()),
            "transactions": len(times),
            "label_delay_days": plan.label_delay_ms / DAY,
            "model": model.version,
            "online": plan.online,
            "refit_every_days": None if plan.refit_every_ms is None else plan.refit_every_ms / DAY,
        },
        figures=figures,
        weights=reported.online_weights,
        features=reported.mean_contributions(),
        models=sorted(table["model"].unique().to_pylist()),
        refits=[{**msgspec.structs.asdict(outcome), "at": rfc3339(outcome.at)} for outcome in refits],
        warnings=[*coverage.warnings(figures, assumed), *_overlap(model, times[0].as_py(), times[-1].as_py())],
    )
    return table, result


def write_scores(table: pa.Table, path: Path) -> None:
    """Write the scores as Parquet. Raises `ConfigurationError` if the file cannot be written."""
    try:
        parquet.write_table(table, path, compression="zstd")
    except OSError as error:
        raise ConfigurationError(f"--scores {path}: cannot be written: {error.strerror or error}") from None


def _probability(logit: float | None) -> float | None:
    return None if logit is None else probability(logit)
