"""Measures of a ranking whose scores are in arrays of shape (rows,)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fraud_service.domain.model_weighting import average_precision_of_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARDS_A_DAY: Final = 100


def average_precision(is_fraud: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Return the average precision; needs at least one fraud. NaN ranks lowest."""
    values, place = np.unique(np.where(np.isnan(scores), -np.inf, scores), return_inverse=True)
    frauds = np.bincount(place, weights=is_fraud, minlength=len(values))
    legitimate = np.bincount(place, weights=~is_fraud, minlength=len(values))
    return average_precision_of_groups(zip(frauds[::-1].tolist(), legitimate[::-1].tolist(), strict=True))


def card_precision(
    days: NDArray[np.int64], cards: NDArray[np.int64], is_fraud: NDArray[np.bool_], scores: NDArray[np.float64]
) -> float:
    """Return what a team finds that checks a hundred cards a day (Fraud Detection Handbook, CP@100).

    This is the mean over days of the share of defrauded cards among the hundred with the highest scores. The score of a
    card is its highest score of the day. A defrauded card that was found is left out on later days. Ties go to the card
    with the smaller number. There must be a row.
    """
    order = np.lexsort((cards, days))
    days, cards = days[order], cards[order]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(days) != 0) | (np.diff(cards) != 0)]))
    highest = np.maximum.reduceat(scores[order], starts)
    defrauded = np.logical_or.reduceat(is_fraud[order], starts)
    days, cards = days[starts], cards[starts]
    found: set[int] = set()
    shares = []
    for day in np.unique(days):
        today = np.flatnonzero(days == day)
        ranked = today[np.argsort(-highest[today], kind="stable")]
        checked = [place for place in ranked.tolist() if int(cards[place]) not in found][:CARDS_A_DAY]
        caught = {int(cards[place]) for place in checked if defrauded[place]}
        found |= caught
        shares.append(len(caught) / CARDS_A_DAY)
    return float(np.mean(shares))
