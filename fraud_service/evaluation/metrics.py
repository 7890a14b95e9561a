"""Metrics of a run: how well each component ranks frauds, in total and by week, and what the alerts would catch.

A `Result` has the metrics of a run and its parameters. It is written as JSON, to compare later runs with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.complaints import in_words
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.time import DAY
from fraud_service.evaluation.alerts import (
    AlertVolume,
    Bools,
    Floats,
    LargestFrauds,
    Scores,
    alert_volume,
    count_days,
    largest_frauds,
    policy_alerts,
    rounded,
    threshold_table,
)
from fraud_service.evaluation.ranking import average_precision, card_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT: Final = 2  # of a result
WEEK: Final = 7 * DAY
MAX_CURVE_POINTS: Final = 200
HISTOGRAM_BINS: Final = 40
MAX_LOGIT: Final = 12.0  # the histogram covers [-MAX_LOGIT, MAX_LOGIT]
MIN_PROBABILITY: Final = 1e-6  # before a logarithm, probabilities are clipped to [this, 1 - this]
CALIBRATION_BANDS: Final = (0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9)  # scores between which groups are formed
ALERTS_A_DAY: Final = (5, 10, 20, 50, 100, 200, 500)


class Week(msgspec.Struct, frozen=True):
    """Metrics of seven days; `start` is UTC midnight in epoch milliseconds."""

    start: int
    rows: int
    frauds: int
    average_precision: float | None
    auc_roc: float | None
    card_precision_100: float | None


class Bin(msgspec.Struct, frozen=True):
    """Mean score and fraud share of the transactions with a score from `low` to `high`."""

    low: float
    high: float
    score: float
    fraud_share: float
    rows: int


class Distribution(msgspec.Struct, frozen=True):
    """Histograms of the logits; `edges` has one entry more than the counts."""

    edges: list[float]
    legitimate: list[int]
    frauds: list[int]


class ComponentFigures(msgspec.Struct, frozen=True):
    """Metrics of one component; None where the data does not determine a metric."""

    failed: int
    average_precision: float | None
    auc_roc: float | None
    card_precision_100: float | None
    log_loss: float | None
    brier: float | None
    weeks: list[Week]
    precision_recall: list[tuple[float, float]]
    roc: list[tuple[float, float]]
    distribution: Distribution
    calibration: list[Bin]
    volume: list[AlertVolume]


class Figures(msgspec.Struct, frozen=True):
    """All metrics of a run, rounded to six decimals.

    `rows` counts the labelled transactions. `operating` describes the alerts of the policy, and `thresholds` those of
    others near it. `largest` has the currencies with the most frauds.
    """

    rows: int
    frauds: int
    operating: AlertVolume | None
    components: dict[str, ComponentFigures]
    unlabelled: int = 0
    thresholds: list[AlertVolume] = []
    largest: dict[str, LargestFrauds] = {}


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters and metrics of a run.

    `weights`: weight of the online model by event time (epoch milliseconds). `features`: mean absolute contribution to
    flagged transactions, in logits. `models`: versions that scored. `refits`: outcome of each re-fit. `warnings`: what
    could not be measured, and what makes figures doubtful, in sentences.
    """

    format: int = FORMAT
    run: dict[str, Any]
    figures: Figures
    weights: list[tuple[int, float]]
    features: dict[str, float]
    models: list[str]
    refits: list[dict[str, Any]]
    warnings: list[str] = []


class _Versioned(msgspec.Struct):
    """The format of a result, which is read first."""

    format: int


def encode_result(result: Result) -> bytes:
    """Encode as indented JSON; equal results give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def decode_result(data: bytes, name: str) -> Result:
    """Decode the content of the file `name`. Raises `ConfigurationError` if it is not a result."""
    try:
        found = msgspec.json.decode(data, type=_Versioned).format
        if found == FORMAT:
            return msgspec.json.decode(data, type=Result)
    except UNREADABLE as error:
        raise ConfigurationError(f"{name}: not the --json of a backtest: {in_words(str(error))}") from None
    raise ConfigurationError(f"{name}: has format {found}, this version reads {FORMAT}: run the backtest again")


def evaluate(scores: Scores) -> Figures:
    """Compute all metrics; an empty input, missing labels and a single class are allowed."""
    known, rows = scores.labelled(), len(scores.timestamps)
    labelled = len(known.timestamps)
    return Figures(
        rows=labelled,
        frauds=int(known.is_fraud.sum()),
        operating=policy_alerts(scores) if rows else None,
        components={name: _component(scores, known, name) for name in scores.components} if labelled else {},
        unlabelled=rows - labelled,
        thresholds=threshold_table(scores) if labelled else [],
        largest=largest_frauds(scores),
    )


def _component(every: Scores, scores: Scores, name: str) -> ComponentFigures:
    """Return the metrics of a component: alerts of every transaction, all else of the labelled ones."""
    given = scores.components[name]
    failed, truth = np.isnan(given), scores.is_fraud
    ranked = np.where(failed, 0.0, given)
    chance = np.clip(ranked, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    alerting = np.nan_to_num(every.components[name])
    return ComponentFigures(
        failed=int(failed.sum()),
        **_ranking_metrics(scores.timestamps, scores.cards, truth, ranked),
        log_loss=rounded(-np.log(np.where(truth, chance, 1 - chance)).mean()),
        brier=rounded(((ranked - truth) ** 2).mean()),
        weeks=_weeks(scores, ranked),
        precision_recall=_precision_recall(truth, ranked),
        roc=_roc(truth, ranked),
        distribution=_distribution(truth, chance),
        calibration=_calibration(truth, ranked),
        volume=[alert_volume(every, alerting >= t, t) for t in _daily_thresholds(every.timestamps, alerting)],
    )


def _ranking_metrics(
    timestamps: NDArray[np.int64], cards: NDArray[np.int64], truth: Bools, ranked: Floats
) -> dict[str, float | None]:
    is_mixed = truth.any() and not truth.all()
    return {
        "average_precision": rounded(average_precision(truth, ranked)) if truth.any() else None,
        "auc_roc": rounded(roc_auc_score(truth, ranked)) if is_mixed else None,
        "card_precision_100": rounded(card_precision(timestamps // DAY, cards, truth, ranked)),
    }


def _weeks(scores: Scores, ranked: Floats) -> list[Week]:
    first = int(scores.timestamps.min() // DAY * DAY)
    number = (scores.timestamps - first) // WEEK
    weeks = []
    for week in np.unique(number).tolist():
        part = number == week
        truth = scores.is_fraud[part]
        metrics = _ranking_metrics(scores.timestamps[part], scores.cards[part], truth, ranked[part])
        weeks.append(Week(first + week * WEEK, len(truth), int(truth.sum()), **metrics))
    return weeks


def _precision_recall(truth: Bools, ranked: Floats) -> list[tuple[float, float]]:
    if not truth.any():
        return []
    precision, recall, _ = precision_recall_curve(truth, ranked)
    return _thinned(recall[::-1], precision[::-1])


def _roc(truth: Bools, ranked: Floats) -> list[tuple[float, float]]:
    if not truth.any() or truth.all():
        return []
    wrong, right, _ = roc_curve(truth, ranked)
    return _thinned(wrong, right)


def _thinned(x: Floats, y: Floats) -> list[tuple[float, float]]:
    """Select points at about equal distances along the curve."""
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    chosen = np.unique(np.searchsorted(length, np.linspace(0.0, length[-1], MAX_CURVE_POINTS)).clip(max=len(x) - 1))
    return [(rounded(a), rounded(b)) for a, b in zip(x[chosen], y[chosen], strict=True)]


def _distribution(truth: Bools, chance: Floats) -> Distribution:
    edges = np.linspace(-MAX_LOGIT, MAX_LOGIT, HISTOGRAM_BINS + 1)
    # The logit of MIN_PROBABILITY is outside of the edges.
    logits = np.log(chance / (1 - chance)).clip(-MAX_LOGIT, MAX_LOGIT)
    legitimate, frauds = (np.histogram(logits[part], edges)[0].tolist() for part in (~truth, truth))
    return Distribution([rounded(edge) for edge in edges], legitimate, frauds)


def _calibration(truth: Bools, ranked: Floats) -> list[Bin]:
    bounds = (0.0, *CALIBRATION_BANDS, 1.0)
    number = np.digitize(ranked, CALIBRATION_BANDS)
    groups = [(band, number == band) for band in np.unique(number).tolist()]
    return [
        Bin(bounds[band], bounds[band + 1], rounded(ranked[g].mean()), rounded(truth[g].mean()), int(g.sum()))
        for band, g in groups
    ]


def _daily_thresholds(timestamps: NDArray[np.int64], ranked: Floats) -> list[float]:
    """Return the threshold for each entry of ALERTS_A_DAY, as far as there are enough transactions."""
    days, descending = count_days(timestamps), np.sort(ranked)[::-1]
    places = [round(alerts * days) - 1 for alerts in ALERTS_A_DAY]
    return [float(descending[place]) for place in places if place < len(descending)]
