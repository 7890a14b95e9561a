"""Fit the pretrained model: a random forest of scikit-learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss, roc_auc_score

from fraud_service.domain.decision import Policy
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.time import DAY
from fraud_service.evaluation.alerts import AlertVolume, Scores, alert_volume
from fraud_service.evaluation.ranking import average_precision
from fraud_service.models.onnx_forest import LAPLACE
from fraud_service.training.dataset import MIN_FRAUDS, Examples

if TYPE_CHECKING:
    from collections.abc import Callable

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
TREES_PER_STEP: Final = 10  # of the progress


class HeldOut(msgspec.Struct, frozen=True):
    """What alerts on the held-out days catch: those of a forest that was fitted without them."""

    alerts: AlertVolume
    rows: int
    frauds: int


class FittedForest(msgspec.Struct, frozen=True):
    """A fitted forest with everything that its manifest records.

    `held_out` is None if there were too few frauds for it; `missing` then says what is missing.
    """

    model: RandomForestClassifier
    examples: Examples
    parameters: dict[str, Any]
    metrics: dict[str, float]
    holdout_ms: int  # event time
    held_out: HeldOut | None = None
    missing: str = ""


def max_trees() -> int:
    """Return the number of trees that `fit` reports as progress: those that it fits at most."""
    counts: list[int] = [candidate["n_estimators"] for candidate in CANDIDATE_PARAMETERS]
    return sum(counts) + max(counts)


def fit(
    examples: Examples, policy: Policy | None = None, progress: Callable[[int], None] = lambda _: None
) -> FittedForest:
    """Choose the parameters on a holdout at the end of the window, then fit on all rows. Deterministic.

    `policy` has the review threshold of the alerts on the holdout; by default that of the settings. `progress` receives
    the number of further trees.

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
    late = examples.timestamps >= last - holdout_ms
    early, holdout = examples.where(~late), examples.where(late)
    missing = _shortage(early, holdout, holdout_ms)
    metrics: dict[str, float] = {}
    chosen, held_out = CANDIDATE_PARAMETERS[0], None
    if not missing:
        chosen, scores = _choose_parameters(early, holdout, progress)
        metrics, held_out = _holdout_metrics(holdout.labels, scores), _held_out(holdout, scores, policy or Policy())
    trials = [] if missing else CANDIDATE_PARAMETERS
    progress(max_trees() - sum(one["n_estimators"] for one in (*trials, chosen)))  # these are not needed
    forest = fit_forest(examples, chosen, progress)
    return FittedForest(forest, examples, PARAMETERS | chosen, metrics, holdout_ms, held_out, missing)


def fit_forest(
    examples: Examples, parameters: dict[str, Any], progress: Callable[[int], None] = lambda _: None
) -> RandomForestClassifier:
    """Fit a forest; the same rows and parameters give the same trees."""
    # Each tree has a seed of its own, so parallel fitting changes nothing. Prediction sums the trees in one order.
    samples, trees = min(len(examples.labels), MAX_SAMPLES), parameters["n_estimators"]
    model = RandomForestClassifier(**PARAMETERS, **parameters, max_samples=samples, n_jobs=-1, warm_start=True)
    for fitted in range(0, trees, TREES_PER_STEP):
        step = min(TREES_PER_STEP, trees - fitted)
        model.set_params(n_estimators=fitted + step).fit(examples.features, examples.labels)
        progress(step)
    return model.set_params(n_jobs=1, warm_start=False)


def _shortage(early: Examples, holdout: Examples, holdout_ms: int) -> str:
    """Say what the days before the holdout or those of it lack for metrics that mean something; "" if nothing."""
    frauds, before = int(holdout.labels.sum()), int(early.labels.sum())
    if min(frauds, before, len(holdout.labels) - frauds) >= MIN_FRAUDS:
        return ""
    return (
        f"known frauds are {frauds} of {len(holdout.labels)} payments on the last {holdout_ms / DAY:.2g} days, and "
        f"{before} before; figures need {MIN_FRAUDS} of both, and {MIN_FRAUDS} legitimate payments"
    )


def _choose_parameters(
    early: Examples, holdout: Examples, progress: Callable[[int], None]
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Return parameters and holdout scores of the first candidate, unless a later one is clearly better."""
    trials = [(one, _holdout_scores(early, holdout, one, progress)) for one in CANDIDATE_PARAMETERS]
    best, *others = [(one, scores, _average_precision(holdout.labels, scores)) for one, scores in trials]
    for trial in others:
        if trial[2] > best[2] + MIN_IMPROVEMENT:
            best = trial
    return best[0], best[1]


def _holdout_scores(
    early: Examples, holdout: Examples, parameters: dict[str, Any], progress: Callable[[int], None]
) -> NDArray[np.float64]:
    model = fit_forest(early, parameters, progress)
    return model.predict_proba(holdout.features)[:, 1]  # type: ignore[no-any-return]


def _average_precision(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return round(average_precision(truth, scores), 4)


def _held_out(holdout: Examples, shares: NDArray[np.float64], policy: Policy) -> HeldOut | None:
    """Return the alerts at the review threshold; None without the facts of the payments."""
    known = holdout.payments
    if known is None:
        return None
    served = (shares + LAPLACE) / (1 + 2 * LAPLACE)  # as the service smooths them
    scores = Scores(
        timestamps=holdout.timestamps,
        cards=known.cards,
        is_fraud=holdout.labels,
        is_labelled=np.ones(len(holdout.labels), dtype=bool),
        amounts=known.amounts,
        currencies=known.currencies,
        components={},
        flagged=served >= policy.review,
    )
    return HeldOut(alert_volume(scores, scores.flagged, policy.review), len(holdout.labels), int(holdout.labels.sum()))


def _holdout_metrics(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> dict[str, float]:
    return {
        HOLDOUT_METRIC: _average_precision(truth, scores),
        "held_out_auc_roc": round(float(roc_auc_score(truth, scores)), 4),
        "held_out_log_loss": round(float(log_loss(truth, scores)), 5),
        "held_out_rows": float(truth.size),
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
