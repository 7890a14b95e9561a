"""Metrics of a run: how well each component ranks frauds, in total and by week, and what the alerts would catch.

A `Result` has the metrics of a run and its parameters. It is written as JSON, to compare later runs with it.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.complaints import in_words
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.time import DAY
from fraud_service.evaluation.ranking import average_precision, card_precision

FORMAT: Final = 1  # of a result
WEEK: Final = 7 * DAY
MAX_CURVE_POINTS: Final = 200
HISTOGRAM_BINS: Final = 40
MAX_LOGIT: Final = 12.0  # the histogram covers [-MAX_LOGIT, MAX_LOGIT]
MIN_PROBABILITY: Final = 1e-6  # before a logarithm, probabilities are clipped to [this, 1 - this]
CALIBRATION_GROUPS: Final = 10
ALERTS_A_DAY: Final = (5, 10, 20, 50, 100, 200, 500)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Scores(msgspec.Struct, frozen=True):
    """Scored transactions with a known label, in event order; arrays of shape (rows,).

    `timestamps` are epoch milliseconds; `cards` are numbers, one for each card. `components` holds the probabilities by
    component; NaN means that the component failed, and ranks lowest.
    """

    timestamps: NDArray[np.int64]
    cards: NDArray[np.int64]
    is_fraud: Bools
    amounts: Floats
    components: dict[str, Floats]
    flagged: Bools


class Week(msgspec.Struct, frozen=True):
    """Metrics of seven days; `start` is UTC midnight in epoch milliseconds."""

    start: int
    rows: int
    frauds: int
    average_precision: float | None
    auc_roc: float | None
    card_precision_100: float | None


class Bin(msgspec.Struct, frozen=True):
    """Mean score and fraud share of a tenth of the transactions, by rank of their score."""

    score: float
    fraud_share: float
    rows: int


class AlertVolume(msgspec.Struct, frozen=True):
    """What alerts at a threshold catch; `value_recall` is the share of the fraud amount."""

    threshold: float
    alerts_a_day: float
    precision: float | None
    recall: float | None
    value_recall: float | None


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
    """All metrics of a run, rounded to six decimals. `operating` describes the alerts of the policy."""

    rows: int
    frauds: int
    operating: AlertVolume | None
    components: dict[str, ComponentFigures]


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters and metrics of a run.

    `weights`: weight of the online model by event time (epoch milliseconds). `features`: mean absolute contribution to
    flagged transactions, in logits. `models`: versions that scored. `refits`: outcome of each re-fit.
    """

    format: int = FORMAT
    run: dict[str, Any]
    figures: Figures
    weights: list[tuple[int, float]]
    features: dict[str, float]
    models: list[str]
    refits: list[dict[str, Any]]


def encode_result(result: Result) -> bytes:
    """Encode as indented JSON; equal results give equal bytes."""
    return msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n"


def decode_result(data: bytes, name: str) -> Result:
    """Decode the content of the file `name`. Raises `ConfigurationError` if it is not a result."""
    try:
        result = msgspec.json.decode(data, type=Result)
    except UNREADABLE as error:
        raise ConfigurationError(f"{name}: not the --json of a backtest: {in_words(str(error))}") from None
    if result.format != FORMAT:
        raise ConfigurationError(
            f"{name}: has format {result.format}, this version reads {FORMAT}: run the backtest again"
        )
    return result


def evaluate(scores: Scores) -> Figures:
    """Compute all metrics; an empty input and a single class are allowed."""
    if not len(scores.is_fraud):
        return Figures(0, 0, None, {})
    return Figures(
        rows=len(scores.is_fraud),
        frauds=int(scores.is_fraud.sum()),
        operating=_volume(scores, scores.flagged, 0.0),
        components={name: _component(scores, given) for name, given in scores.components.items()},
    )


def _component(scores: Scores, given: Floats) -> ComponentFigures:
    failed, truth = np.isnan(given), scores.is_fraud
    ranked = np.where(failed, 0.0, given)
    chance = np.clip(ranked, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return ComponentFigures(
        failed=int(failed.sum()),
        **_ranking_metrics(scores.timestamps, scores.cards, truth, ranked),
        log_loss=_round(-np.log(np.where(truth, chance, 1 - chance)).mean()),
        brier=_round(((ranked - truth) ** 2).mean()),
        weeks=_weeks(scores, ranked),
        precision_recall=_precision_recall(truth, ranked),
        roc=_roc(truth, ranked),
        distribution=_distribution(truth, chance),
        calibration=_calibration(truth, ranked),
        volume=[_volume(scores, ranked >= t, t) for t in _thresholds(scores.timestamps, ranked)],
    )


def _ranking_metrics(
    timestamps: NDArray[np.int64], cards: NDArray[np.int64], truth: Bools, ranked: Floats
) -> dict[str, float | None]:
    is_mixed = truth.any() and not truth.all()
    return {
        "average_precision": _round(average_precision(truth, ranked)) if truth.any() else None,
        "auc_roc": _round(roc_auc_score(truth, ranked)) if is_mixed else None,
        "card_precision_100": _round(card_precision(timestamps // DAY, cards, truth, ranked)),
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
    return [(_round(a), _round(b)) for a, b in zip(x[chosen], y[chosen], strict=True)]


def _distribution(truth: Bools, chance: Floats) -> Distribution:
    edges = np.linspace(-MAX_LOGIT, MAX_LOGIT, HISTOGRAM_BINS + 1)
    # The logit of MIN_PROBABILITY is outside of the edges.
    logits = np.log(chance / (1 - chance)).clip(-MAX_LOGIT, MAX_LOGIT)
    legitimate, frauds = (np.histogram(logits[part], edges)[0].tolist() for part in (~truth, truth))
    return Distribution([_round(edge) for edge in edges], legitimate, frauds)


def _calibration(truth: Bools, ranked: Floats) -> list[Bin]:
    order = np.argsort(ranked, kind="stable")
    groups = [group for group in np.array_split(order, CALIBRATION_GROUPS) if len(group)]
    return [Bin(_round(ranked[g].mean()), _round(truth[g].mean()), len(g)) for g in groups]


def _thresholds(timestamps: NDArray[np.int64], ranked: Floats) -> list[float]:
    """Return the threshold for each entry of ALERTS_A_DAY, as far as there are enough transactions."""
    days, descending = _days(timestamps), np.sort(ranked)[::-1]
    places = [round(alerts * days) - 1 for alerts in ALERTS_A_DAY]
    return [float(descending[place]) for place in places if place < len(descending)]


def _volume(scores: Scores, alerted: Bools, threshold: float) -> AlertVolume:
    caught = alerted & scores.is_fraud
    return AlertVolume(
        threshold=_round(threshold),
        alerts_a_day=_round(alerted.sum() / _days(scores.timestamps)),
        precision=_share(caught.sum(), alerted.sum()),
        recall=_share(caught.sum(), scores.is_fraud.sum()),
        value_recall=_share(scores.amounts[caught].sum(), scores.amounts[scores.is_fraud].sum()),
    )


def _days(timestamps: NDArray[np.int64]) -> int:
    return int(timestamps.max() // DAY - timestamps.min() // DAY) + 1


def _share(part: Any, whole: Any) -> float | None:
    return _round(part / whole) if whole > 0 else None


def _round(value: Any) -> float:
    return round(float(value), 6)
