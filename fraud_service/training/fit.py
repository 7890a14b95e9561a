"""Fit scikit-learn's random forest on features that the live core computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import log_loss, roc_auc_score

from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.in_memory import FrozenLearner, InMemoryService
from fraud_service.domain.online_model import ModelInput, ModelInputRows, OnlineModel
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.policy import Policy
from fraud_service.domain.snapshot import untrained
from fraud_service.domain.time import DAY, LearningSchedule
from fraud_service.evaluation.ranking import average_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fraud_service.domain.events import LabelledTransaction

MAX_HOLDOUT_SHARE: Final = 7 * DAY  # the end of the window that judges: its last quarter, at most so much
MIN_FRAUDS: Final = 20  # and as many genuine payments
MIN_ROWS: Final = 200
HOLDOUT_METRIC: Final = "held_out_average_precision"

# Measured in docs/adr/0008-forest.md: with frauds this rare a forest beats boosting. Trees of 128 leaves are as good as
# fully grown ones on some data, and much worse on data with more to tell.
PARAMETERS: Final = {"random_state": 1}
CANDIDATE_PARAMETERS: Final[tuple[dict[str, Any], ...]] = (
    {"n_estimators": 100, "max_leaf_nodes": 128, "min_samples_leaf": 5, "max_features": "sqrt"},
    {"n_estimators": 60, "max_leaf_nodes": 512, "min_samples_leaf": 2, "max_features": 0.3},
)
MIN_IMPROVEMENT: Final = 0.01  # average precision: a larger forest must earn its size
MAX_ROWS: Final = 200_000  # drawn for one tree


class Window(msgspec.Struct, frozen=True):
    """Which transactions are fitted, [start, end), and how late labels come; all epoch milliseconds or milliseconds.

    What lies before `start` warms profiles and risk. Labels known after `end` + `label_delay` are not used.
    """

    start: int
    end: int
    label_delay: int


class Examples(msgspec.Struct, frozen=True):
    """A training set: features of shape (rows, 42), labels and event times of shape (rows,)."""

    features: NDArray[np.float64]
    labels: NDArray[np.bool_]
    timestamps: NDArray[np.int64]


class Fitted(msgspec.Struct, frozen=True):
    """A fitted model with what its manifest tells."""

    model: RandomForestClassifier
    examples: Examples
    parameters: dict[str, Any]
    metrics: dict[str, float]
    judged: int  # milliseconds of event time


class _NoModel:
    """Stands in for the pretrained model while there is none: features need no score."""

    version = "none"
    prior = 0.0
    features_on_path = ()

    def encode(self, rows: Sequence[Features]) -> ModelInputRows:
        return ModelInputRows([ModelInput(0.0, [0.0] * len(NAMES), [])] * len(rows))

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(row.vector())


def collect(
    history: Iterable[LabelledTransaction], window: Window, progress: Callable[[], None] = lambda: None
) -> Examples:
    """Run the core over a history and collect features and labels of the training window.

    Raises
    ------
    ConfigurationError
        When the window holds too few frauds to learn from.
    """
    calendar = LearningSchedule(maturity=window.label_delay)
    learner = FrozenLearner(OnlineModel.untrained())
    start = untrained("none", learner.export())
    detector = Detector(_NoModel(), Policy(review=2.0, decline=2.0))  # nothing is flagged: reasons would cost time
    rehearsal = InMemoryService(detector, start, lambda _: learner, calendar, NegativeSampler(0.0), window.label_delay)
    rows, labels, timestamps = [], [], []
    events = [event for event in history if event.transaction.timestamp < window.end]
    for event, verdict in zip(events, rehearsal.run(events), strict=True):
        progress()
        if event.transaction.timestamp >= window.start and verdict.features is not None:
            rows.append(verdict.features.vector())
            labels.append(_known_fraud(event, window))
            timestamps.append(event.transaction.timestamp)
    if sum(labels) < MIN_FRAUDS:
        raise ConfigurationError(
            f"the training window holds {sum(labels)} known frauds in {len(rows)} transactions, at least "
            f"{MIN_FRAUDS} are needed: widen --train-from/--train-to or shorten --label-delay"
        )
    return Examples(np.array(rows), np.array(labels), np.array(timestamps))


def _known_fraud(event: LabelledTransaction, window: Window) -> bool:
    label = event.label(window.label_delay)
    return label is not None and label.is_fraud and label.labelled_at <= window.end + window.label_delay


def fit(examples: Examples) -> Fitted:
    """Choose and judge on the end of the window, then fit on everything. The same examples give the same model.

    Raises
    ------
    ConfigurationError
        When there is too little to tell frauds and genuine payments apart.
    """
    rows, frauds = len(examples.labels), int(examples.labels.sum())
    if rows < MIN_ROWS or rows - frauds < MIN_FRAUDS:
        raise ConfigurationError(
            f"the training window holds {frauds} known frauds in {rows} transactions, at least {MIN_ROWS} "
            f"transactions and {MIN_FRAUDS} genuine ones are needed: widen --train-from/--train-to"
        )
    first, last = int(examples.timestamps.min()), int(examples.timestamps.max())
    judged = min((last - first) // 4, MAX_HOLDOUT_SHARE)
    late = examples.timestamps >= last - judged
    metrics, choice = _chosen(examples, late)
    parameters = PARAMETERS | choice
    return Fitted(forest(examples.features, examples.labels, choice), examples, parameters, metrics, judged)


def _chosen(examples: Examples, late: NDArray[np.bool_]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the figures and the settings of the best choice: the first, unless another one is clearly better."""
    if not _is_large_enough(examples, late):
        return {}, CANDIDATE_PARAMETERS[0]
    best = _score_holdout(examples, late, CANDIDATE_PARAMETERS[0]), CANDIDATE_PARAMETERS[0]
    for choice in CANDIDATE_PARAMETERS[1:]:
        metrics = _score_holdout(examples, late, choice)
        if metrics[HOLDOUT_METRIC] > best[0][HOLDOUT_METRIC] + MIN_IMPROVEMENT:
            best = metrics, choice
    return best


def forest(features: NDArray[np.float64], labels: NDArray[np.bool_], choice: dict[str, Any]) -> RandomForestClassifier:
    """Fit a forest with the settings of a choice; the same rows give the same trees."""
    # Trees have seeds of their own, so they may grow side by side; their sum is taken in one order.
    rows = min(len(labels), MAX_ROWS)
    model = RandomForestClassifier(**PARAMETERS, **choice, max_samples=rows, n_jobs=-1).fit(features, labels)
    return model.set_params(n_jobs=1)


def _is_large_enough(examples: Examples, late: NDArray[np.bool_]) -> bool:
    """Whether there are enough frauds on both sides, and enough genuine payments, for figures that mean something."""
    early_frauds, late_frauds = examples.labels[~late].sum(), examples.labels[late].sum()
    return bool(min(early_frauds, late_frauds, (~examples.labels[late]).sum()) >= MIN_FRAUDS)


def _score_holdout(examples: Examples, late: NDArray[np.bool_], choice: dict[str, Any]) -> dict[str, float]:
    model = forest(examples.features[~late], examples.labels[~late], choice)
    truth, scores = examples.labels[late], model.predict_proba(examples.features[late])[:, 1]
    return {
        HOLDOUT_METRIC: round(average_precision(truth, scores), 4),
        "held_out_auc_roc": round(float(roc_auc_score(truth, scores)), 4),
        "held_out_log_loss": round(float(log_loss(truth, scores)), 5),
        "held_out_rows": float(late.sum()),
        "held_out_frauds": float(truth.sum()),
    }


def prior(examples: Examples) -> float:
    """Return the logit of the fraud rate."""
    frauds, rows = float(examples.labels.sum()), float(len(examples.labels))
    return math.log(frauds / (rows - frauds))


def standardisation(examples: Examples) -> tuple[list[float], list[float]]:
    """Return centre and scale of asinh(feature); a feature that never varies gets scale 1."""
    squashed = np.arcsinh(examples.features)
    deviations = squashed.std(axis=0)
    scale = np.where(deviations > 1e-6, deviations, 1.0)  # noqa: PLR2004 - rounding noise of a constant
    return squashed.mean(axis=0).round(6).tolist(), scale.round(6).tolist()
