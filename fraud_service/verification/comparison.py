"""Compare the logged decisions with those of another model or other thresholds, on the features in the scores.

Features do not depend on the model, so they are taken from the log, and the snapshots are those that the scores name.
The online model of a snapshot was trained beside one pretrained model. Beside another one the candidate decides without
an online model. Only a backtest trains one for it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from itertools import groupby, islice, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.decision import Outcome
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.snapshot import SnapshotView
from fraud_service.verification.decisions import MAX_BATCH, FixedSnapshot, decide_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fraud_service.domain.decision import Decision
    from fraud_service.domain.detector import Detector
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.online_model import OnlineModel
    from fraud_service.domain.records import LabelledRecord, ScoreRecord
    from fraud_service.verification.decisions import TimeRange
    from fraud_service.verification.matching import Pair

BANDS: Final = (10, 50, 200, 1000)  # bounds of the amount, in its own currency
UNKNOWN: Final = "unknown"


class ChangedDecision(NamedTuple):
    """One transaction with its logged decision and that of the candidate. `reason` is the strongest, "" without one."""

    timestamp: int
    card_id: str
    transaction_id: str
    merchant_id: str
    amount: float
    currency: str
    country: str
    score: float
    outcome: Outcome
    reason: str
    candidate_score: float
    candidate_outcome: Outcome
    candidate_reason: str

    @property
    def was_flagged(self) -> bool:
        """Whether the logged decision is an alert."""
        return self.outcome is not Outcome.APPROVE

    @property
    def is_flagged(self) -> bool:
        """Whether the candidate's decision is an alert."""
        return self.candidate_outcome is not Outcome.APPROVE


Payment = tuple[str, str, int, float, str]


def payment_identity(record: ChangedDecision | ScoreRecord | LabelledRecord) -> Payment:
    """Return the identity of a payment without its currency, which older records do not have."""
    return record.card_id, record.transaction_id, record.timestamp, record.amount, record.merchant_id


class Truth(NamedTuple):
    """Which payments were fraud: by the examples of a payment, otherwise by the labels of its transaction id."""

    examples: Mapping[Payment, bool]
    labels: Mapping[tuple[str, str], bool]

    def of(self, row: ChangedDecision) -> bool | None:
        """Return whether a payment was fraud; None if that is unknown."""
        return self.examples.get(payment_identity(row), self.labels.get((row.card_id, row.transaction_id)))


class AlertStats(msgspec.Struct, frozen=True):
    """Alerts of one policy. `value` is the total amount of the frauds among them, by currency.

    `cards_bothered` counts cards with an alert on a legitimate transaction, `unlabelled` alerts without a label yet.
    """

    alerts: int
    declined: int
    frauds: int
    value: dict[str, float]
    cards_bothered: int
    unlabelled: int


class SegmentStats(msgspec.Struct, frozen=True):
    """Changes in a part of the transactions: alerts that only the candidate raises, and those that it does not."""

    transactions: int
    gained: AlertStats
    lost: AlertStats


class Comparison(msgspec.Struct, frozen=True):
    """The candidate compared with the log.

    `by_reason` groups alerts by the strongest reason of the side that raised them. `left_out` counts scores that name
    an unknown snapshot or cannot be read. `value` is the total amount of the frauds, by currency.
    """

    candidate: dict[str, str | float]
    transactions: int
    labelled: int
    frauds: int
    value: dict[str, float]
    left_out: int
    as_decided: AlertStats
    as_candidate: AlertStats
    all: SegmentStats
    by_reason: dict[str, SegmentStats]
    by_country: dict[str, SegmentStats]
    by_amount: dict[str, SegmentStats]


def view_for(view: SnapshotView, model: str, untrained: OnlineModel) -> SnapshotView:
    """Return the view for a candidate model: without the online model of a snapshot that has another model."""
    if view.snapshot.model == model:
        return view
    snapshot = msgspec.structs.replace(view.snapshot, model=model, online=untrained, online_weight=0.0)
    return SnapshotView(snapshot, view.table)


class Comparer:
    """Decide with a candidate, pair by pair. `left_out` counts scores with an unknown snapshot or unreadable ones."""

    def __init__(self, detector: Detector, views: Mapping[str, SnapshotView], time_range: TimeRange) -> None:
        self._detector = detector
        self._views = views
        self._time_range = time_range
        self.left_out = 0

    def compare(self, pairs: Iterable[Pair]) -> Iterator[ChangedDecision]:
        """Decide the pairs of a partition. A duplicate repeats an earlier decision and is skipped."""
        for version, decided in groupby(self._decided(pairs), key=lambda one: one[0].snapshot):
            snapshot = FixedSnapshot(self._views[version])
            while batch := list(islice(decided, MAX_BATCH)):
                records, transactions = [record for record, _ in batch], [transaction for _, transaction in batch]
                assessments = decide_again(self._detector, transactions, records, snapshot)
                yield from map(_changed, records, transactions, (one.decision for one in assessments))

    def _decided(self, pairs: Iterable[Pair]) -> Iterator[tuple[ScoreRecord, Transaction]]:
        for one in pairs:
            if one.head is None or not self._time_range.has(one.head.timestamp):
                continue
            try:
                record = one.record()
            except InvalidRecord:
                self.left_out += 1
                continue
            if record.features is None:
                continue
            if record.snapshot in self._views:
                yield record, one.transaction or record.transaction()
            else:
                self.left_out += 1


def _changed(record: ScoreRecord, transaction: Transaction, candidate: Decision) -> ChangedDecision:
    return ChangedDecision(
        record.timestamp,
        record.card_id,
        record.transaction_id,
        record.merchant_id,
        record.amount,
        record.currency,
        transaction.country or UNKNOWN,
        record.score,
        record.outcome,
        record.reasons[0].code if record.reasons else "",
        candidate.score,
        candidate.outcome,
        candidate.reasons[0].code if candidate.reasons else "",
    )


def summarise(
    rows: Sequence[ChangedDecision], truth: Truth, candidate: dict[str, str | float], left_out: int
) -> Comparison:
    """Count the changes. `candidate` describes the candidate in the result."""
    known = [truth.of(row) for row in rows]
    return Comparison(
        candidate=candidate,
        transactions=len(rows),
        labelled=sum(one is not None for one in known),
        frauds=sum(one is True for one in known),
        value=_totals(row for row, one in zip(rows, known, strict=True) if one),
        left_out=left_out,
        as_decided=_stats([(row, row.outcome) for row in rows if row.was_flagged], truth),
        as_candidate=_stats([(row, row.candidate_outcome) for row in rows if row.is_flagged], truth),
        all=_segment(rows, truth),
        by_reason=_segments(rows, truth, lambda row: row.candidate_reason if row.is_flagged else row.reason),
        by_country=_segments(rows, truth, lambda row: row.country),
        by_amount=_segments(rows, truth, lambda row: _band(row.amount), _BANDS),
    )


def _segments(
    rows: Iterable[ChangedDecision],
    truth: Truth,
    name_of: Callable[[ChangedDecision], str],
    order: Sequence[str] | None = None,
) -> dict[str, SegmentStats]:
    parts: dict[str, list[ChangedDecision]] = defaultdict(list)
    for row in rows:
        parts[name_of(row) or UNKNOWN].append(row)
    names = [name for name in order or sorted(parts) if name in parts]
    found = {name: _segment(parts[name], truth) for name in names}
    return {name: one for name, one in found.items() if one.gained.alerts or one.lost.alerts}


def _segment(rows: Sequence[ChangedDecision], truth: Truth) -> SegmentStats:
    gained = [(row, row.candidate_outcome) for row in rows if row.is_flagged and not row.was_flagged]
    lost = [(row, row.outcome) for row in rows if row.was_flagged and not row.is_flagged]
    return SegmentStats(len(rows), _stats(gained, truth), _stats(lost, truth))


def _stats(alerts: Sequence[tuple[ChangedDecision, Outcome]], truth: Truth) -> AlertStats:
    known = [(row, truth.of(row)) for row, _ in alerts]
    return AlertStats(
        alerts=len(alerts),
        declined=sum(outcome is Outcome.DECLINE for _, outcome in alerts),
        frauds=sum(one is True for _, one in known),
        value=_totals(row for row, one in known if one),
        cards_bothered=len({row.card_id for row, one in known if one is False}),
        unlabelled=sum(one is None for _, one in known),
    )


_BANDS: Final = (*(f"{low} to {high}" for low, high in pairwise((0, *BANDS))), f"from {BANDS[-1]}")


def _band(amount: float) -> str:
    return _BANDS[bisect_right(BANDS, amount)]


def _totals(rows: Iterable[ChangedDecision]) -> dict[str, float]:
    amounts = defaultdict[str, list[float]](list)
    for row in rows:
        amounts[row.currency].append(row.amount)
    return {currency: round(math.fsum(amounts[currency]), 3) for currency in sorted(amounts)}
