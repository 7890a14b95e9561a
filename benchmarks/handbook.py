"""The protocol of the Fraud Detection Handbook: fifteen features and weekly folds without cards of known frauds.

Each fold trains on seven days, waits seven days for the labels, and tests on the next seven. Implemented from the
definition in Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible machine learning for credit card fraud
detection", ULB 2022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fraud_service.evaluation.ranking import card_precision
from fraud_service.training.dataset import Examples
from fraud_service.training.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DAY = 86_400_000
WEEK = 7  # days of training, of waiting and of testing
WINDOWS = (1, 7, 30)  # days


class Payments(NamedTuple):
    """All payments of a file in event order: arrays of shape (rows,), and our features of shape (rows, 42)."""

    timestamps: NDArray[np.int64]
    cards: NDArray[np.int64]
    merchants: NDArray[np.int64]
    amounts: NDArray[np.float64]
    is_fraud: NDArray[np.bool_]
    features: NDArray[np.float64]

    @property
    def days(self) -> NDArray[np.int64]:
        """Number of the UTC day of each payment, counted from the first."""
        return self.timestamps // DAY - self.timestamps[0] // DAY


Predict = "Callable[[NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float64]]"


def fifteen(payments: Payments) -> NDArray[np.float64]:
    """Return the Handbook's features: amount, weekend, night, and window statistics of the card and the terminal."""
    hours, weekdays = payments.timestamps // 3_600_000 % 24, (payments.timestamps // DAY + 3) % 7
    columns = [payments.amounts, weekdays >= 5, hours <= 6]  # noqa: PLR2004 - Saturday; until 6:59
    columns += _windows(payments.cards, payments.timestamps, payments.amounts, 0)
    columns += _windows(payments.merchants, payments.timestamps, payments.is_fraud.astype(float), WEEK * DAY)
    return np.column_stack(columns).astype(float)


def _windows(
    keys: NDArray[np.int64], times: NDArray[np.int64], values: NDArray[np.float64], delay: int
) -> list[NDArray[Any]]:
    """Return count and mean of a key's values in each window that ends `delay` milliseconds before the payment."""
    order = np.lexsort((times, keys))
    place = (keys * (1 << 45) + times - times.min())[order]
    begins = np.searchsorted(keys[order], keys[order])
    sums = np.concatenate([[0.0], np.cumsum(values[order])])

    def until(ago: int) -> NDArray[np.int64]:
        return np.maximum(np.searchsorted(place, place - ago, side="right"), begins)

    columns = []
    for window in WINDOWS:
        low, high = until(delay + window * DAY), until(delay)
        count = high - low
        mean = np.where(count > 0, (sums[high] - sums[low]) / np.maximum(count, 1), 0.0)
        for column in (count, mean):
            columns.append(np.empty(len(keys)))
            columns[-1][order] = column
    return columns


def folds(
    payments: Payments, first_test_days: list[int], predict: Predict, warmed: int | None = None
) -> NDArray[np.float64]:
    """Return AUC ROC, average precision and card precision@100 of each fold, shape (folds, 3).

    With `warmed`, the model trains on all days from that one up to the end of the usual training week.
    """
    found = []
    for start in first_test_days:
        days = payments.days
        first = start - 2 * WEEK if warmed is None else warmed
        train, test = (days >= first) & (days < start - WEEK), _tested(payments, start)
        scores, truth = predict(train, test), payments.is_fraud[test]
        cards = card_precision(days[test], payments.cards[test], truth, scores)
        found.append((roc_auc_score(truth, scores), average_precision_score(truth, scores), cards))
    return np.array(found)


def _tested(payments: Payments, start: int) -> NDArray[np.bool_]:
    """Select the test days, without the cards that have a known fraud by then."""
    days, chosen = payments.days, np.zeros(len(payments.cards), dtype=bool)
    for day in range(start, start + WEEK):
        is_known = payments.is_fraud & (days >= start - 2 * WEEK) & (days < day - WEEK + (day == start))
        chosen |= (days == day) & ~np.isin(payments.cards, np.unique(payments.cards[is_known]))
    return chosen


def baselines(payments: Payments) -> dict[str, Predict]:
    """Return the baseline models on the fifteen features: those of the Handbook, and gradient boosting."""
    rows = fifteen(payments)

    def fitted(make: Callable[[], Any]) -> Predict:
        def predict(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> NDArray[np.float64]:
            model = make().fit(rows[train], payments.is_fraud[train])
            scores: NDArray[np.float64] = model.predict_proba(rows[test])[:, 1]
            return scores

        return predict

    return {
        "logistic regression, 15 features": fitted(
            lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        ),
        "random forest, 15 features": fitted(lambda: RandomForestClassifier(100, n_jobs=-1, random_state=1)),
        "gradient boosting, 15 features": fitted(
            lambda: HistGradientBoostingClassifier(max_leaf_nodes=8, learning_rate=0.1, random_state=1)
        ),
    }


def ours(payments: Payments, columns: list[int] | None = None) -> Predict:
    """Return our pretrained model as `train` fits it; with `columns`, on those features only."""
    rows = payments.features if columns is None else payments.features[:, columns]

    def predict(train: NDArray[np.bool_], test: NDArray[np.bool_]) -> NDArray[np.float64]:
        examples = Examples(rows[train], payments.is_fraud[train], payments.timestamps[train])
        scores: NDArray[np.float64] = fit(examples).model.predict_proba(rows[test])[:, 1]
        return scores

    return predict
