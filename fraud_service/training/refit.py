"""Re-fit: a challenger from recently labelled transactions, promoted only when it beats the champion on the newest.

Both are judged on the last labelled days, which the challenger has not seen. The one that is promoted is then fitted on
everything, those days included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from fraud_service.domain.events import facts
from fraud_service.domain.features import Features
from fraud_service.domain.records import RefitRecord
from fraud_service.domain.time import DAY
from fraud_service.evaluation.ranking import average_precision
from fraud_service.training.export import build
from fraud_service.training.fit import (
    CANDIDATE_PARAMETERS,
    MIN_FRAUDS,
    PARAMETERS,
    Examples,
    Fitted,
    Window,
    forest,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fraud_service.domain.events import Facts
    from fraud_service.domain.records import LabelledRecord
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.models.artifact import Artifact

HOLDOUT_DAYS: Final = 7 * DAY  # of event time: the newest labelled transactions judge
MEMORY: Final = 60 * DAY  # older examples are forgotten
SPANS: Final = (MEMORY, 14 * DAY)  # what a challenger is fitted on: after a change less is more
MARGIN: Final = 0.01  # average precision
TRIAL_TREES: Final = 40  # enough to choose by; the one that is promoted has all of its choice


class LabelledWindow:
    """The labelled transactions of the last weeks; a correction replaces what was said before."""

    def __init__(self) -> None:
        self._rows: dict[Facts, tuple[int, tuple[float, ...], bool]] = {}

    def add(self, records: Iterable[LabelledRecord]) -> None:
        """Take in labelled examples."""
        for record in records:
            self._rows[facts(record)] = record.timestamp, record.features.vector(), record.is_fraud

    def examples(self) -> Examples | None:
        """Return the examples of `MEMORY`, in event order, and forget older ones; None when there are none."""
        newest = max((timestamp for timestamp, *_ in self._rows.values()), default=0)
        self._rows = {key: row for key, row in self._rows.items() if row[0] > newest - MEMORY}
        rows = sorted((timestamp, key, values, is_fraud) for key, (timestamp, values, is_fraud) in self._rows.items())
        if not rows:
            return None
        return Examples(
            np.array([values for _, _, values, _ in rows]),
            np.array([is_fraud for *_, is_fraud in rows]),
            np.array([timestamp for timestamp, *_ in rows]),
        )


def evaluate_challenger(
    examples: Examples | None, champion: PretrainedModel, at: int, source: str, margin: float = MARGIN
) -> tuple[RefitRecord, Artifact | None]:
    """Fit challengers and judge them beside the champion.

    Parameters
    ----------
    examples
        What is labelled by now.
    at
        Event time of the re-fit, epoch milliseconds.
    margin
        Average precision by which the challenger must be better.

    Returns
    -------
    tuple
        What was found, and the artifact to promote; None when the champion stays.
    """
    if examples is None:
        return RefitRecord(at, champion.version, None, None, margin, 0.0, 0, 0, None), None
    late = examples.timestamps > examples.timestamps.max() - HOLDOUT_DAYS
    nothing = RefitRecord(
        at, champion.version, None, None, margin, 0.0, len(examples.labels), int(examples.labels.sum()), None
    )
    if min(examples.labels[late].sum(), examples.labels[~late].sum()) < MIN_FRAUDS:
        return nothing, None
    truth = examples.labels[late]
    trials = [(_evaluate_span(examples, late, span), span) for span in SPANS]
    best, span = max(trials, key=lambda trial: trial[0])
    reigning = _precision(truth, _logits(champion, examples.features[late]))
    outcome = msgspec.structs.replace(nothing, champion=reigning, challenger=best, span_days=span / DAY)
    if not best > reigning + margin:
        return outcome, None
    artifact = _fitted(_within(examples, span), at, source, outcome)
    return msgspec.structs.replace(outcome, promoted=artifact.manifest.version), artifact


def _evaluate_span(examples: Examples, late: NDArray[np.bool_], span: int) -> float:
    early = _within(examples, span, before=late)
    if early.labels.sum() < MIN_FRAUDS:
        return 0.0
    model = forest(early.features, early.labels, CANDIDATE_PARAMETERS[0] | {"n_estimators": TRIAL_TREES})
    return _precision(examples.labels[late], model.predict_proba(examples.features[late])[:, 1])


def _within(examples: Examples, span: int, before: NDArray[np.bool_] | None = None) -> Examples:
    """Return the examples of the last `span` milliseconds, without those that judge."""
    known = np.ones(len(examples.labels), dtype=bool) if before is None else ~before
    chosen = known & (examples.timestamps > examples.timestamps[known].max() - span)
    return Examples(examples.features[chosen], examples.labels[chosen], examples.timestamps[chosen])


def _fitted(examples: Examples, at: int, source: str, outcome: RefitRecord) -> Artifact:
    model = forest(examples.features, examples.labels, CANDIDATE_PARAMETERS[0])
    metrics = {"champion_average_precision": outcome.champion, "challenger_average_precision": outcome.challenger}
    known: dict[str, Any] = {name: value for name, value in metrics.items() if value is not None}
    fitted = Fitted(
        model, examples, PARAMETERS | CANDIDATE_PARAMETERS[0], known | {"margin": outcome.margin}, HOLDOUT_DAYS
    )
    end = int(examples.timestamps.max()) + 1
    return build(fitted, Window(int(examples.timestamps.min()), end, max(at - end, 0)), source)


def _logits(model: PretrainedModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array(model.encode([Features(*row) for row in rows.tolist()]).logits)


def _precision(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    return round(average_precision(truth, scores), 6)
