"""Train from end to end: from a history to an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.dataset import TrainingWindow, collect
from fraud_service.training.export import export
from fraud_service.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fraud_service.models.artifact import Manifest
    from fraud_service.training.history import History


def train(
    history: History,
    folder: Path,
    *,
    start: int | None,
    label_delay: int,
    source: str,
    progress: Callable[[], None] = lambda: None,
) -> Manifest:
    """Train on a history and write the artifact.

    `start` is the event time of the first transaction in the training set. Without it, the first third of the history
    only warms the profiles. A label known more than `label_delay` milliseconds after the end is not used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)  # fail now rather than after an hour of training
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: cannot create the folder: {error.strerror}") from None
    times = [event.transaction.timestamp for event in history]
    if not times:
        raise ConfigurationError("the history has no transaction: check --train-to and the file")
    begin = start if start is not None else times[0] + (times[-1] - times[0]) // 3
    window = TrainingWindow(begin, times[-1] + 1, label_delay)
    return export(fit(collect(history, window, progress)), window, source, folder)
