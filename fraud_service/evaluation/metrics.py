"""Figures of a run: how well each component ranks, over all and by week, and what an alert policy would have caught."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from fraud_service.domain.time import DAY
from fraud_service.evaluation.card_precision import card_precision
from fraud_service.evaluation.ranking import average_precision

if TYPE_CHECKING:
    from collections.abc import Sequence

WEEK: Final = 7 * DAY
CURVE: Final = 200  # points of a curve at most
BINS: Final = 40  # of the distribution, from -LOGITS to LOGITS
LOGITS: Final = 12.0
SMALLEST: Final = 1e-6  # probabilities are cut off here, and as far below 1, where a logarithm is taken
GROUPS: Final = 10  # of the calibration
ALERTS_A_DAY: Final = (5, 10, 20, 50, 100, 200, 500)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Scores(msgspec.Struct, frozen=True):
    """Scored transactions whose label is known, in event order; arrays of shape (rows,).

    `timestamps` are epoch milliseconds, `cards` any numbers that tell cards apart. `components` holds the probabilities
    of each component, NaN where it failed, which ranks lowest.
    """

    timestamps: NDArray[np.int64]
    cards: NDArray[np.int64]
    is_fraud: Bools
    amounts: Floats
    components: dict[str, Floats]
    flagged: Bools


class Week(msgspec.Struct, frozen=True):
    """Seven days; `start` is UTC midnight in epoch milliseconds."""

    start: int
    rows: int
    frauds: int
    average_precision: float | None
    auc_roc: float | None
    card_precision_100: float | None


class Bin(msgspec.Struct, frozen=True):
    """A tenth of the transactions, alike in score: their mean score and their share of frauds."""

    score: float
    fraud_share: float
    rows: int


class AlertVolume(msgspec.Struct, frozen=True):
    """What alerts from a threshold on would have caught; `value_recall` is the share of the amount of fraud."""

    threshold: float
    alerts_a_day: float
    precision: float | None
    recall: float | None
    value_recall: float | None


class Distribution(msgspec.Struct, frozen=True):
    """Transactions by bin of their logit; `edges` has one entry more than the counts."""

    edges: list[float]
    genuine: list[int]
    frauds: list[int]


class ComponentFigures(msgspec.Struct, frozen=True):
    """How good one component was. Figures that the data cannot tell are None."""

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
    """All figures of a run, rounded to six decimals. `operating` is what the policy itself flagged."""

    rows: int
    frauds: int
    operating: AlertVolume | None
    components: dict[str, ComponentFigures]


def evaluate(scores: Scores) -> Figures:
    """Compute all figures. Neither an empty input nor one of a single class is an error."""
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
    chance = np.clip(ranked, SMALLEST, 1 - SMALLEST)
    return ComponentFigures(
        failed=int(failed.sum()),
        average_precision=_average_precision(truth, ranked),
        auc_roc=auc_roc(truth, ranked),
        card_precision_100=_rounded(card_precision(scores.timestamps // DAY, scores.cards, truth, ranked)),
        log_loss=_rounded(-np.log(np.where(truth, chance, 1 - chance)).mean()),
        brier=_rounded(((ranked - truth) ** 2).mean()),
        weeks=_weeks(scores, ranked),
        precision_recall=_precision_recall(truth, ranked),
        roc=_roc(truth, ranked),
        distribution=_distribution(truth, chance),
        calibration=_calibration(truth, ranked),
        volume=[_volume(scores, ranked >= t, t) for t in _thresholds(scores.timestamps, ranked)],
    )


def _average_precision(truth: Bools, ranked: Floats) -> float | None:
    return _rounded(average_precision(truth, ranked)) if truth.any() else None


def auc_roc(truth: Bools, ranked: Floats) -> float | None:
    """Return the area under the ROC curve; None with one class only."""
    return _rounded(roc_auc_score(truth, ranked)) if truth.any() and not truth.all() else None


def _weeks(scores: Scores, ranked: Floats) -> list[Week]:
    first = int(scores.timestamps.min() // DAY * DAY)
    number = (scores.timestamps - first) // WEEK
    weeks = []
    for week in range(int(number.max()) + 1):
        part = number == week
        if not part.any():
            continue
        truth, own = scores.is_fraud[part], ranked[part]
        cards = card_precision(scores.timestamps[part] // DAY, scores.cards[part], truth, own)
        weeks.append(
            Week(
                first + week * WEEK,
                int(part.sum()),
                int(truth.sum()),
                _average_precision(truth, own),
                auc_roc(truth, own),
                _rounded(cards),
            )
        )
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
    """Take points at about equal steps along the curve."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    chosen = np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], CURVE)).clip(max=len(x) - 1))
    return [(_round(a), _round(b)) for a, b in zip(x[chosen], y[chosen], strict=True)]


def _distribution(truth: Bools, chance: Floats) -> Distribution:
    edges = np.linspace(-LOGITS, LOGITS, BINS + 1)
    # Lowest and highest of what `SMALLEST` leaves lie beyond the edges.
    logits = np.log(chance / (1 - chance)).clip(-LOGITS, LOGITS)
    genuine, frauds = (np.histogram(logits[part], edges)[0].tolist() for part in (~truth, truth))
    return Distribution([_round(edge) for edge in edges], genuine, frauds)


def _calibration(truth: Bools, ranked: Floats) -> list[Bin]:
    order = np.argsort(ranked, kind="stable")
    groups = [group for group in np.array_split(order, GROUPS) if len(group)]
    return [Bin(_round(ranked[g].mean()), _round(truth[g].mean()), len(g)) for g in groups]


def _thresholds(timestamps: NDArray[np.int64], ranked: Floats) -> list[float]:
    """Return thresholds that give about so many alerts a day."""
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


def _rounded(value: Any) -> float | None:
    return None if value is None else _round(value)


def _round(value: Any) -> float:
    return round(float(value), 6)


def headline(figures: Figures, names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Return some figures of every component, by component."""
    return {
        component: {name: getattr(found, name) for name in names} for component, found in figures.components.items()
    }
