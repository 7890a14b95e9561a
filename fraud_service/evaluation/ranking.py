"""Average precision of scores in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fraud_service.domain import ranking

if TYPE_CHECKING:
    from numpy.typing import NDArray


def average_precision(is_fraud: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the average precision; needs at least one fraud.

    Parameters
    ----------
    is_fraud, scores
        Of shape (rows,). NaN ranks lowest.
    """
    values, place = np.unique(np.where(np.isnan(scores), -np.inf, scores), return_inverse=True)
    frauds = np.bincount(place, weights=is_fraud, minlength=len(values))
    genuine = np.bincount(place, weights=~is_fraud, minlength=len(values))
    return ranking.average_precision(zip(frauds[::-1].tolist(), genuine[::-1].tolist(), strict=True))
