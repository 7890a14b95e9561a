"""Compare a candidate model or threshold with the decisions on the live topics, and measure its quality."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.text import money
from fraud_service.evaluation.alerts import Scores
from fraud_service.evaluation.html import section, table
from fraud_service.evaluation.metrics import Result, evaluate
from fraud_service.evaluation.report import report
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.verification import comparison, log_reader, replay, snapshots
from fraud_service.verification.comparison import ChangedDecision, Comparison, Truth
from fraud_service.verification.worker_pool import run_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.domain.decision import Outcome
    from fraud_service.verification.comparison import AlertStats
    from fraud_service.verification.log_reader import Broadcasts


class Candidate(msgspec.Struct, frozen=True):
    """What to compare with the log: thresholds, and a model from a folder or a promoted version."""

    policy: Policy
    folder: Path | None = None
    version: str | None = None


class WhatIfResult(msgspec.Struct, frozen=True):
    """All rows in the order of event time, their labels, and the figures."""

    rows: list[ChangedDecision]
    truth: Truth
    figures: Comparison
    policy: Policy


def compare(
    settings: Settings, asked: replay.Plan, candidate: Candidate, progress: Callable[[int], None] = lambda _: None
) -> WhatIfResult:
    """Decide every transaction of the log with a candidate; `progress` receives the number of further scores."""
    parts = run_in_processes(_compare, [(settings, share, candidate) for share in replay.split_plan(asked)], progress)
    rows = [row for part, _ in parts for row in part]
    rows.sort(key=lambda row: (row.timestamp, row.card_id, row.transaction_id))  # equal rows keep their order
    truth = _truth(settings)
    described: dict[str, str | float] = {"review": candidate.policy.review, "decline": candidate.policy.decline}
    if candidate.folder is not None:
        described["model"] = artifact.read(artifact.find_folder(candidate.folder)).manifest.version
    elif candidate.version is not None:
        described["model"] = candidate.version
    return WhatIfResult(
        rows,
        truth,
        comparison.summarise(rows, truth, described, sum(left_out for _, left_out in parts)),
        candidate.policy,
    )


def _compare(
    settings: Settings, asked: replay.Plan, candidate: Candidate, count: Callable[[], None]
) -> tuple[list[ChangedDecision], int]:
    broadcasts = snapshots.load_broadcasts(settings)
    model, views = _model(candidate, broadcasts), broadcasts.views
    if model is None:
        detector = broadcasts.detector(candidate.policy)
    else:
        detector, untrained = Detector(model, candidate.policy), model.untrained_online_model()
        views = {name: comparison.view_for(view, model.version, untrained) for name, view in views.items()}
    comparer = comparison.Comparer(detector, views, asked.time_range)
    rows: list[ChangedDecision] = []
    for partition in asked.scores:
        rows += comparer.compare(replay.pairs(settings, asked, partition, count))
    return rows, comparer.left_out


def _model(candidate: Candidate, broadcasts: Broadcasts) -> OnnxForest | None:
    if candidate.folder is not None:
        return OnnxForest.load(artifact.find_folder(candidate.folder))
    if candidate.version is None:
        return None
    model = broadcasts.models.get(candidate.version)
    if model is None:
        raise ConfigurationError(f"--version {candidate.version}: there are only {', '.join(broadcasts.models)}")
    return model


def _truth(settings: Settings) -> Truth:
    """Return the last example of each payment, and the newest label of each transaction id."""
    with log_reader.open_reader(settings) as reader:
        labels = list(log_reader.read_labels(reader, settings, reader.offset_ranges(settings.topics.labels)))
        examples = list(log_reader.read_labelled_examples(reader, settings))
    labels.sort(key=lambda label: (label.labelled_at, label.is_fraud))
    examples.sort(key=lambda record: (record.boundary_ms, record.known_at))
    return Truth(
        {comparison.payment_identity(record): record.is_fraud for record in examples},
        {(label.card_id, label.transaction_id): label.is_fraud for label in labels},
    )


def page(settings: Settings, found: WhatIfResult) -> str:
    """Write the report of a backtest for the candidate, with the log to compare it with, and the changes."""
    figures = found.figures
    candidate = _result(f"{settings.topics.scores}, candidate", found, found.policy)
    logged = _result(settings.topics.scores, found, None)
    sides = {
        "as decided": figures.as_decided,
        "the candidate": figures.as_candidate,
        "gained": figures.all.gained,
        "lost": figures.all.lost,
    }
    changes = section(
        "What would have changed",
        "Gained are the alerts that only the candidate raises, and lost those that it does not raise any more. The "
        "value is that of the frauds among the alerts. Cards bothered had an alert on a legitimate payment.",
        table(
            ["", "alerts", "declined", "frauds", "value caught", "cards bothered", "without a label"],
            [[name, *_counts(side)] for name, side in sides.items()],
        ),
    )
    segments = {"reason": figures.by_reason, "country": figures.by_country, "amount": figures.by_amount}
    for title, parts in segments.items():
        changes += section(
            f"By {title}",
            "Only parts in which an alert was gained or lost.",
            table(
                [title, "transactions", "gained", "frauds", "value", "lost", "frauds", "value"],
                [[name, part.transactions, *_alerts(part.gained), *_alerts(part.lost)] for name, part in parts.items()],
            ),
        )
    return report(candidate, logged, changes, f"What if: {settings.topics.scores} with other decisions")


def _counts(side: AlertStats) -> list[Any]:
    return [_value(side.value) if name == "value" else count for name, count in msgspec.structs.asdict(side).items()]


def _alerts(side: AlertStats) -> tuple[int, int, str]:
    return side.alerts, side.frauds, _value(side.value)


def _value(value: dict[str, float]) -> str:
    return ", ".join(money(amount, currency) for currency, amount in value.items()) or "-"


def _result(source: str, found: WhatIfResult, policy: Policy | None) -> Result:
    """Return the metrics of the candidate; without its policy, those of the log."""
    rows, truth, codes = found.rows, [found.truth.of(row) for row in found.rows], dict[str, int]()
    is_candidate = policy is not None
    outcomes: Sequence[Outcome] = [row.candidate_outcome if is_candidate else row.outcome for row in rows]
    scores = Scores(
        timestamps=np.array([row.timestamp for row in rows], dtype=np.int64),
        cards=np.array([codes.setdefault(row.card_id, len(codes)) for row in rows], dtype=np.int64),
        is_fraud=np.array([one is True for one in truth], dtype=bool),
        is_labelled=np.array([one is not None for one in truth], dtype=bool),
        amounts=np.array([row.amount for row in rows]),
        currencies=np.array([row.currency for row in rows], dtype=np.str_),
        components={"blended": np.array([row.candidate_score if is_candidate else row.score for row in rows])},
        flagged=np.array([outcome != "approve" for outcome in outcomes], dtype=bool),
        ids=[row.transaction_id for row in rows],
        reasons=[row.candidate_reason if is_candidate else row.reason for row in rows],
        policy=policy,
    )
    run_facts = {"source": source, "transactions": len(rows), **(found.figures.candidate if is_candidate else {})}
    return Result(run=run_facts, figures=evaluate(scores), weights=[], features={}, models=[], refits=[])
