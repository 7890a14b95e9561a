"""Fit the pretrained model: a random forest of scikit-learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss, roc_auc_score

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.time import DAY
from fraud_service.evaluation.ranking import average_precision
from fraud_service.training.dataset import MIN_FRAUDS, Examples

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_HOLDOUT_MS: Final = 7 * DAY  # the holdout is the last quarter of the window, and no longer than this
MIN_ROWS: Final = 200
HOLDOUT_METRIC: Final = "held_out_average_precision"

# Frauds are rare, so a forest beats boosting (measured: docs/quality.md). Trees of 128 leaves are as good as fully
# grown ones on some data; on data with more structure, larger trees are much better.
PARAMETERS: Final = {"random_state": 1}
CANDIDATE_PARAMETERS: Final[tuple[dict[str, Any], ...]] = (
    {"n_estimators": 100, "max_leaf_nodes": 128, "min_samples_leaf": 5, "max_features": "sqrt"},
    {"n_estimators": 60, "max_leaf_nodes": 512, "min_samples_leaf": 2, "max_features": 0.3},
)
MIN_IMPROVEMENT: Final = 0.01  # average precision: a larger forest must earn its size
MAX_SAMPLES: Final = 200_000  # rows drawn for one tree


class FittedForest(msgspec.Struct, frozen=True):
    """A fitted forest with everything that its manifest records."""

    model: RandomForestClassifier
    examples: Examples
    parameters: dict[str, Any]
    metrics: dict[str, float]
    holdout_ms: int  # event time


def fit(examples: Examples) -> FittedForest:
    """Choose the parameters on a holdout at the end of the window, then fit on all rows. Deterministic.

    Raises `ConfigurationError` if there are too few transactions or too few legitimate ones to learn from.
    """
    rows, frauds = len(examples.labels), int(examples.labels.sum())
    if rows < MIN_ROWS or rows - frauds < MIN_FRAUDS:
        raise ConfigurationError(
            f"the training window has {frauds} known frauds in {rows} transactions and needs at least {MIN_ROWS} "
            f"transactions, {MIN_FRAUDS} of them legitimate: widen --train-from/--train-to"
        )
    first, last = int(examples.timestamps.min()), int(examples.timestamps.max())
    holdout_ms = min((last - first) // 4, MAX_HOLDOUT_MS)
    metrics, chosen = _choose_parameters(examples, examples.timestamps >= last - holdout_ms)
    return FittedForest(fit_forest(examples, chosen), examples, PARAMETERS | chosen, metrics, holdout_ms)


def fit_forest(examples: Examples, parameters: dict[str, Any]) -> RandomForestClassifier:
    """Fit a forest; the same rows and parameters give the same trees."""
    # Each tree has a seed of its own, so parallel fitting changes nothing. Prediction sums the trees in one order.
    samples = min(len(examples.labels), MAX_SAMPLES)
    model = RandomForestClassifier(**PARAMETERS, **parameters, max_samples=samples, n_jobs=-1)
    return model.fit(examples.features, examples.labels).set_params(n_jobs=1)


def _choose_parameters(examples: Examples, holdout: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return metrics and parameters of the first candidate, unless a later one is clearly better."""
    early, late = examples.where(~holdout), examples.where(holdout)
    if min(early.labels.sum(), late.labels.sum(), (~late.labels).sum()) < MIN_FRAUDS:
        return {}, CANDIDATE_PARAMETERS[0]  # too few for metrics that mean something
    best = _holdout_metrics(early, late, CANDIDATE_PARAMETERS[0]), CANDIDATE_PARAMETERS[0]
    for candidate in CANDIDATE_PARAMETERS[1:]:
        metrics = _holdout_metrics(early, late, candidate)
        if metrics[HOLDOUT_METRIC] > best[0][HOLDOUT_METRIC] + MIN_IMPROVEMENT:
            best = metrics, candidate
    return best


def _holdout_metrics(early: Examples, late: Examples, parameters: dict[str, Any]) -> dict[str, float]:
    truth, scores = late.labels, fit_forest(early, parameters).predict_proba(late.features)[:, 1]
    return {
        HOLDOUT_METRIC: round(average_precision(truth, scores), 4),
        "held_out_auc_roc": round(float(roc_auc_score(truth, scores)), 4),
        "held_out_log_loss": round(float(log_loss(truth, scores)), 5),
        "held_out_rows": float(late.labels.size),
        "held_out_frauds": float(truth.sum()),
    }


def prior(examples: Examples) -> float:
    """Return the logit of the fraud rate."""
    frauds, rows = float(examples.labels.sum()), float(len(examples.labels))
    return math.log(frauds / (rows - frauds))


def standardisation(examples: Examples) -> tuple[list[float], list[float]]:
    """Return centre and scale of asinh(feature); a constant feature has scale 1."""
    squashed = np.arcsinh(examples.features)
    deviations = squashed.std(axis=0)
    scale = np.where(deviations > 1e-6, deviations, 1.0)  # noqa: PLR2004 - rounding noise of a constant
    return squashed.mean(axis=0).round(6).tolist(), scale.round(6).tolist()
