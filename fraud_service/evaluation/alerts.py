"""What alerts catch: at the thresholds of the policy and near them, in money, and the largest frauds.

All figures about alerts are computed here, for the terminal, for the page and for programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraud_service.domain.decision import Policy
from fraud_service.domain.time import DAY

THRESHOLDS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995),
    *(0.998, 0.999),
)
NEIGHBOURS: Final = 2  # thresholds shown on each side of one that is set
MAX_LARGEST: Final = 10
MAX_CURRENCIES: Final = 3  # whose largest frauds are listed

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """Scored transactions in event order; arrays and sequences of length (rows,).

    `timestamps` are epoch milliseconds; `cards` are numbers, one for each card. `components` holds the probabilities by
    component; NaN means that the component failed, and ranks lowest. Where `is_labelled` is false, the truth is
    unknown, and `is_fraud` has no meaning. `policy` is None if its thresholds are not known.
    """

    timestamps: NDArray[np.int64]
    cards: NDArray[np.int64]
    is_fraud: Bools
    is_labelled: Bools
    amounts: Floats
    currencies: NDArray[np.str_]
    components: dict[str, Floats]
    flagged: Bools
    ids: Sequence[str] = ()
    reasons: Sequence[str] = ()
    policy: Policy | None = None

    def labelled(self) -> Scores:
        """Return the transactions whose truth is known, without ids and reasons."""
        known = self.is_labelled
        return Scores(
            timestamps=self.timestamps[known],
            cards=self.cards[known],
            is_fraud=self.is_fraud[known],
            is_labelled=known[known],
            amounts=self.amounts[known],
            currencies=self.currencies[known],
            components={name: values[known] for name, values in self.components.items()},
            flagged=self.flagged[known],
        )


class FraudMoney(msgspec.Struct, frozen=True):
    """Amount of all frauds in one currency, and of those that were caught."""

    frauds: float
    caught: float
    share: float | None


class AlertVolume(msgspec.Struct, frozen=True):
    """What alerts at a threshold catch.

    `precision` is the share of frauds among the labelled alerts, and `recall` the share of frauds with an alert.
    `value_recall` is the same share of the fraud amount; None with several currencies, for which `money` has a share
    each. `cards_bothered` counts cards with an alert on a legitimate transaction, and `unlabelled` alerts without
    a label. `setting` says which threshold of the policy this is: review, decline, or "" for none.
    """

    threshold: float
    alerts: int
    alerts_a_day: float
    caught: int
    precision: float | None
    recall: float | None
    value_recall: float | None
    money: dict[str, FraudMoney]
    cards_bothered: int
    unlabelled: int
    setting: str = ""


class FraudCase(msgspec.Struct, frozen=True):
    """One fraud; `timestamp` is epoch milliseconds, and `reason` the code of the strongest reason, "" without one."""

    transaction_id: str
    timestamp: int
    amount: float
    currency: str
    score: float
    reason: str


class LargestFrauds(msgspec.Struct, frozen=True):
    """The frauds of one currency with the largest amounts, in falling order."""

    caught: list[FraudCase]
    missed: list[FraudCase]


def threshold_table(scores: Scores) -> list[AlertVolume]:
    """Return what alerts at the thresholds of the policy and at those near them catch, in rising order.

    Some alerts do not depend on the threshold, as those of a reused id. They are in all rows.
    """
    policy = scores.policy
    if policy is None:
        return []
    blended = np.nan_to_num(scores.components["blended"])
    always = scores.flagged & (blended < policy.review)
    settings = {policy.decline: "decline", policy.review: "review"}
    chosen = set(settings)
    for threshold in settings:
        others = [one for one in THRESHOLDS if one not in settings]
        chosen.update([one for one in others if one < threshold][-NEIGHBOURS:])
        chosen.update([one for one in others if one > threshold][:NEIGHBOURS])
    return [alert_volume(scores, (blended >= one) | always, one, settings.get(one, "")) for one in sorted(chosen)]


def policy_alerts(scores: Scores) -> AlertVolume:
    """Return what the alerts of the policy catch."""
    if scores.policy is None:
        return alert_volume(scores, scores.flagged)
    return alert_volume(scores, scores.flagged, scores.policy.review, "review")


def alert_volume(scores: Scores, alerted: Bools, threshold: float = 0.0, setting: str = "") -> AlertVolume:
    """Return what these alerts catch."""
    frauds, judged = scores.is_fraud & scores.is_labelled, alerted & scores.is_labelled
    caught = alerted & frauds
    money = {
        currency: _fraud_money(scores.amounts[frauds & of], scores.amounts[caught & of])
        for currency in _currencies(scores.currencies[frauds])
        for of in [scores.currencies == currency]
    }
    return AlertVolume(
        threshold=rounded(threshold),
        alerts=int(alerted.sum()),
        alerts_a_day=rounded(alerted.sum() / count_days(scores.timestamps)),
        caught=int(caught.sum()),
        precision=share_of(caught.sum(), judged.sum()),
        recall=share_of(caught.sum(), frauds.sum()),
        value_recall=next(iter(money.values())).share if len(money) == 1 else None,
        money=money,
        cards_bothered=len(np.unique(scores.cards[judged & ~frauds])),
        unlabelled=int((alerted & ~scores.is_labelled).sum()),
        setting=setting,
    )


def _fraud_money(frauds: Floats, caught: Floats) -> FraudMoney:
    return FraudMoney(rounded(frauds.sum()), rounded(caught.sum()), share_of(caught.sum(), frauds.sum()))


def _currencies(column: NDArray[np.str_]) -> list[str]:
    """Return the different currencies, the most frequent first."""
    counts = Counter(column.tolist())
    return sorted(counts, key=lambda currency: (-counts[currency], currency))


def largest_frauds(scores: Scores) -> dict[str, LargestFrauds]:
    """Return the largest frauds of the currencies with the most frauds. Amounts of two currencies have no order."""
    if not len(scores.ids):
        return {}
    frauds = scores.is_fraud & scores.is_labelled
    found = {}
    for currency in _currencies(scores.currencies[frauds])[:MAX_CURRENCIES]:
        of = frauds & (scores.currencies == currency)
        found[currency] = LargestFrauds(*(_cases(scores, of & part) for part in (scores.flagged, ~scores.flagged)))
    return found


def _cases(scores: Scores, chosen: Bools) -> list[FraudCase]:
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-scores.amounts[rows], kind="stable")][:MAX_LARGEST].tolist()
    blended = scores.components["blended"]
    return [
        FraudCase(
            transaction_id=scores.ids[row],
            timestamp=int(scores.timestamps[row]),
            amount=float(scores.amounts[row]),
            currency=str(scores.currencies[row]),
            score=rounded(blended[row]),
            reason=scores.reasons[row],
        )
        for row in rows
    ]


def count_days(timestamps: NDArray[np.int64]) -> int:
    """Return the number of days, UTC, from the first transaction to the last."""
    return int(timestamps.max() // DAY - timestamps.min() // DAY) + 1


def share_of(part: Any, whole: Any) -> float | None:
    """Return a share; None of nothing."""
    return rounded(part / whole) if whole > 0 else None


def rounded(value: Any) -> float:
    """Round to six decimals, as all figures are."""
    return round(float(value), 6)
