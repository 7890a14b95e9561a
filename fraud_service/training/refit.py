"""Re-fit: fit a challenger on recent labels, and promote it only if it beats the champion on the newest of them.

Both are evaluated on a holdout of the last labelled days, which the challenger has not seen. A promoted model is then
fitted again with those days included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from fraud_service.domain.events import facts
from fraud_service.domain.records import RefitRecord
from fraud_service.domain.time import DAY
from fraud_service.evaluation.ranking import average_precision
from fraud_service.training.dataset import MIN_FRAUDS, Examples, TrainingWindow, logits
from fraud_service.training.fit import CANDIDATE_PARAMETERS, PARAMETERS, FittedForest, fit_forest
from fraud_service.training.pipeline import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from fraud_service.domain.events import Facts
    from fraud_service.domain.records import LabelledRecord
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.models.artifact import Artifact

HOLDOUT_MS: Final = 7 * DAY  # event time of the newest labelled transactions
MAX_AGE_MS: Final = 60 * DAY  # event time; the window drops older examples
SPANS_MS: Final = (MAX_AGE_MS, 14 * DAY)  # candidates for the training span: after a drift the short one wins
MARGIN: Final = 0.01  # average precision
TRIAL_TREES: Final = 40  # enough to choose the span; a promoted model has all trees
CHALLENGER_PARAMETERS: Final = CANDIDATE_PARAMETERS[0]


def max_trees() -> int:
    """Return the number of trees that `evaluate_challenger` reports as progress."""
    return int(TRIAL_TREES * len(SPANS_MS) + CHALLENGER_PARAMETERS["n_estimators"])


class LabelledWindow:
    """The labelled transactions of the last 60 days. A corrected label replaces the earlier one."""

    def __init__(self) -> None:
        self._rows: dict[Facts, tuple[int, tuple[float, ...], bool]] = {}

    def add(self, records: Iterable[LabelledRecord]) -> None:
        """Add labels."""
        for record in records:
            self._rows[facts(record)] = record.timestamp, record.features.vector(), record.is_fraud

    def examples(self) -> Examples | None:
        """Return the examples in event order, without those that are too old; None if the window is empty."""
        newest = max((timestamp for timestamp, *_ in self._rows.values()), default=0)
        self._rows = {key: row for key, row in self._rows.items() if row[0] > newest - MAX_AGE_MS}
        rows = sorted((timestamp, key, values, is_fraud) for key, (timestamp, values, is_fraud) in self._rows.items())
        if not rows:
            return None
        return Examples(
            np.array([values for _, _, values, _ in rows]),
            np.array([is_fraud for *_, is_fraud in rows]),
            np.array([timestamp for timestamp, *_ in rows]),
        )


def evaluate_challenger(
    examples: Examples | None,
    champion: PretrainedModel,
    at: int,
    source: str,
    margin: float = MARGIN,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[RefitRecord, Artifact | None]:
    """Fit challengers and compare the best one with the champion.

    Parameters
    ----------
    at
        Event time of the re-fit, epoch milliseconds.
    source
        Where the labels come from, for the model card.
    margin
        Average precision by which the challenger must be better.
    progress
        Receives the number of further trees, `max_trees()` in all. Trees that are not needed count as done.

    Returns
    -------
    tuple
        The outcome, and the artifact to promote; None if the champion stays.
    """
    rows, frauds = (0, 0) if examples is None else (len(examples.labels), int(examples.labels.sum()))
    unevaluated = RefitRecord(at, champion.version, None, None, margin, 0.0, rows, frauds, None)
    if examples is None or shortage(examples) is not None:
        return unevaluated, None
    early, holdout = _split(examples)
    trials = ((_evaluate_span(early, holdout, span, progress), span) for span in SPANS_MS)
    best, span = max(trials, key=lambda trial: trial[0])
    current = _average_precision(holdout.labels, logits(champion, holdout.features))
    outcome = msgspec.structs.replace(unevaluated, champion=current, challenger=best, span_days=span / DAY)
    if not best > current + margin:
        progress(CHALLENGER_PARAMETERS["n_estimators"])
        return outcome, None
    artifact = _build_challenger(_newest(examples, span), source, outcome, progress)
    return msgspec.structs.replace(outcome, promoted=artifact.manifest.version), artifact


def shortage(examples: Examples | None) -> str | None:
    """Say what a comparison lacks; None if there is enough."""
    if examples is None:
        return "there is no labelled example"
    early, holdout = (int(part.labels.sum()) for part in _split(examples))
    if min(early, holdout) >= MIN_FRAUDS:
        return None
    return (
        f"there are {holdout} known frauds on the last {HOLDOUT_MS / DAY:g} days and {early} before, and a comparison "
        f"needs {MIN_FRAUDS} of both"
    )


def _split(examples: Examples) -> tuple[Examples, Examples]:
    """Return the examples before the holdout, and those of it."""
    is_late = examples.timestamps > examples.timestamps.max() - HOLDOUT_MS
    return examples.where(~is_late), examples.where(is_late)


def _evaluate_span(early: Examples, holdout: Examples, span: int, progress: Callable[[int], None]) -> float:
    """Fit a small forest on the last `span` milliseconds before the holdout and return its average precision."""
    chosen = _newest(early, span)
    if chosen.labels.sum() < MIN_FRAUDS:
        progress(TRIAL_TREES)
        return 0.0
    model = fit_forest(chosen, CHALLENGER_PARAMETERS | {"n_estimators": TRIAL_TREES}, progress)
    return _average_precision(holdout.labels, model.predict_proba(holdout.features)[:, 1])


def _newest(examples: Examples, span: int) -> Examples:
    return examples.where(examples.timestamps > examples.timestamps.max() - span)


def _build_challenger(
    examples: Examples, source: str, outcome: RefitRecord, progress: Callable[[int], None]
) -> Artifact:
    metrics: dict[str, Any] = {
        "champion_average_precision": outcome.champion,
        "challenger_average_precision": outcome.challenger,
        "margin": outcome.margin,
    }
    forest = FittedForest(
        fit_forest(examples, CHALLENGER_PARAMETERS, progress),
        examples,
        PARAMETERS | CHALLENGER_PARAMETERS,
        metrics,
        holdout_ms=HOLDOUT_MS,
    )
    end = int(examples.timestamps.max()) + 1
    window = TrainingWindow(int(examples.timestamps.min()), end, max(outcome.at - end, 0))
    return build(forest, window, source)


def _average_precision(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return round(average_precision(truth, scores), 6)
