"""Fit scikit-learn's random forest on features that the live core computed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from fraud_service.domain.detector import Detector
from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.ledger import Calendar
from fraud_service.domain.online import OnlineModel
from fraud_service.domain.policy import Policy
from fraud_service.domain.profile import DAY
from fraud_service.domain.snapshot import untaught
from fraud_service.domain.teaching import Sampling
from fraud_service.errors import ConfigurationError
from fraud_service.offline import NoLearner, Rehearsal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from fraud_service.history import LabelledTransaction

LONGEST_JUDGED: Final = 7 * DAY  # the end of the window that judges: its last quarter, at most so much
FEWEST_FRAUDS: Final = 20  # and as many genuine payments
FEWEST_ROWS: Final = 200

# Measured in docs/architecture.md: with frauds this rare a forest beats boosting, and trees of 128 leaves lose nothing.
PARAMETERS: Final = {"n_estimators": 100, "max_leaf_nodes": 128, "random_state": 1}
LEAF_SIZES: Final = (5, 20, 60)  # `min_samples_leaf`: the most labels of noise call for the largest


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

    def logits(self, rows: Sequence[Features]) -> list[float]:
        return [0.0] * len(rows)

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
    calendar = Calendar(maturity=window.label_delay)
    learner = NoLearner(OnlineModel.untaught([0.0] * len(NAMES), [1.0] * len(NAMES)))
    start = untaught("none", learner.export())
    detector = Detector(_NoModel(), Policy(review=2.0, decline=2.0))  # nothing is flagged: reasons would cost time
    rehearsal = Rehearsal(detector, start, lambda _: learner, calendar, Sampling(0.0), window.label_delay)
    rows, labels, timestamps = [], [], []
    events = [event for event in history if event.transaction.timestamp < window.end]
    for event, verdict in zip(events, rehearsal.play(events), strict=True):
        progress()
        if event.transaction.timestamp >= window.start and verdict.features is not None:
            rows.append(verdict.features.vector())
            labels.append(_known_fraud(event, window))
            timestamps.append(event.transaction.timestamp)
    if sum(labels) < FEWEST_FRAUDS:
        raise ConfigurationError(
            f"the training window holds {sum(labels)} known frauds in {len(rows)} transactions, at least "
            f"{FEWEST_FRAUDS} are needed: widen --train-from/--train-to or shorten --label-delay"
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
    if rows < FEWEST_ROWS or rows - frauds < FEWEST_FRAUDS:
        raise ConfigurationError(
            f"the training window holds {frauds} known frauds in {rows} transactions, at least {FEWEST_ROWS} "
            f"transactions and {FEWEST_FRAUDS} genuine ones are needed: widen --train-from/--train-to"
        )
    first, last = int(examples.timestamps.min()), int(examples.timestamps.max())
    judged = min((last - first) // 4, LONGEST_JUDGED)
    late = examples.timestamps >= last - judged
    trials = [(_judged(examples, late, leaf), leaf) for leaf in LEAF_SIZES] if _can_judge(examples, late) else []
    # Of equal ones the first: the smallest leaves.
    metrics, leaf = max(trials, key=lambda trial: trial[0]["held_out_average_precision"], default=({}, LEAF_SIZES[0]))
    parameters = PARAMETERS | {"min_samples_leaf": leaf}
    return Fitted(_forest(examples.features, examples.labels, leaf), examples, parameters, metrics, judged)


def _forest(features: NDArray[np.float64], labels: NDArray[np.bool_], leaf: int) -> RandomForestClassifier:
    # Trees have seeds of their own, so they may grow side by side; their sum is taken in one order.
    model = RandomForestClassifier(**PARAMETERS, min_samples_leaf=leaf, n_jobs=-1).fit(features, labels)
    return model.set_params(n_jobs=1)


def _can_judge(examples: Examples, late: NDArray[np.bool_]) -> bool:
    """Whether there are enough frauds on both sides, and enough genuine payments, for figures that mean something."""
    early_frauds, late_frauds = examples.labels[~late].sum(), examples.labels[late].sum()
    return bool(min(early_frauds, late_frauds, (~examples.labels[late]).sum()) >= FEWEST_FRAUDS)


def _judged(examples: Examples, late: NDArray[np.bool_], leaf: int) -> dict[str, float]:
    model = _forest(examples.features[~late], examples.labels[~late], leaf)
    truth, scores = examples.labels[late], model.predict_proba(examples.features[late])[:, 1]
    return {
        "held_out_average_precision": round(float(average_precision_score(truth, scores)), 4),
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
