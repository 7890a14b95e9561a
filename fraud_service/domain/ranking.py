"""Average precision, the figure of merit for a ranking of transactions in which fraud is rare."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def average_precision(groups: Iterable[tuple[float, float]]) -> float:
    """Return the average precision of a ranking.

    Each fraud contributes the precision among all transactions that score at least as high as it does.

    Parameters
    ----------
    groups
        The counts of frauds and of genuine transactions at each score, the highest score first. There must be a fraud.

    Examples
    --------
    >>> average_precision([(1, 0), (1, 0), (0, 5)])  # both frauds rank first
    1.0
    >>> average_precision([(1, 0), (0, 1), (0, 1), (1, 0)])  # precision 1/1 and 2/4
    0.75
    >>> average_precision([(1, 3)])  # one score for all: the share of fraud
    0.25
    """
    area = caught = alerted = 0.0
    for frauds, genuine in groups:
        caught += frauds
        alerted += frauds + genuine
        if frauds > 0:
            area += frauds * caught / alerted
    return area / caught
