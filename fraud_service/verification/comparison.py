"""Comparison: what another model, or other thresholds, would have decided on the features that were scored.

Features do not depend on who decides, so they are taken from the log. The snapshots in force are those that the scores
name, risk included. Their online model was taught beside the model it names: beside another one it says nothing, and
the candidate decides alone, until it would have been taught, which a replay does not do (a backtest does).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.decision import Outcome
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.records import decode_score
from fraud_service.domain.snapshot_store import SnapshotView
from fraud_service.verification.decision_verifier import MAX_BATCH, FixedSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fraud_service.domain.detector import Detector
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.online_model import OnlineModel
    from fraud_service.domain.records import LabelledRecord, ScoreRecord
    from fraud_service.verification.decision_verifier import TimeRange
    from fraud_service.verification.pairing import Pair

BANDS: Final = (10, 50, 200, 1000)  # of the amount, in whatever currency it came
UNKNOWN: Final = "unknown"


class ChangedDecision(NamedTuple):
    """One transaction as it was decided, and as the candidate would have. `reason` is the strongest, "" without one."""

    timestamp: int
    card_id: str
    transaction_id: str
    merchant_id: str
    amount: float
    country: str
    score: float
    outcome: Outcome
    reason: str
    candidate_score: float
    candidate_outcome: Outcome
    candidate_reason: str


Payment = tuple[str, str, int, float, str]


def payment(said: ChangedDecision | ScoreRecord | LabelledRecord) -> Payment:
    """Return the identity of a payment without its currency, which older records do not have."""
    return said.card_id, said.transaction_id, said.timestamp, said.amount, said.merchant_id


class Truth(NamedTuple):
    """Whether payments were fraud: by what was taught of each payment, else by labels, which name only an id."""

    taught: Mapping[Payment, bool]
    labelled: Mapping[tuple[str, str], bool]

    def of(self, row: ChangedDecision) -> bool | None:
        """Return whether it was fraud; None if that is unknown."""
        said = self.labelled.get((row.card_id, row.transaction_id))
        return self.taught.get(payment(row), said)


class AlertStats(msgspec.Struct, frozen=True):
    """What one policy did: `value` is the amount of the frauds among its alerts.

    `cards_bothered` counts cards with an alert on a transaction that is labelled legitimate; `unlabelled` are alerts of
    which nothing is known yet.
    """

    alerts: int
    declined: int
    frauds: int
    value: float
    cards_bothered: int
    unlabelled: int


class SegmentStats(msgspec.Struct, frozen=True):
    """What changes in a part of the transactions: alerts that only the candidate raises, and those it would not."""

    transactions: int
    gained: AlertStats
    lost: AlertStats


class Comparison(msgspec.Struct, frozen=True):
    """The candidate beside the log. `by_reason` sorts alerts by the strongest reason of whoever raised them."""

    candidate: dict[str, str | float]
    transactions: int
    labelled: int
    frauds: int
    value: float
    left_out: int
    as_decided: AlertStats
    as_candidate: AlertStats
    all: SegmentStats
    by_reason: dict[str, SegmentStats]
    by_country: dict[str, SegmentStats]
    by_amount: dict[str, SegmentStats]


def standing_in(views: Iterable[SnapshotView], model: str, untaught: OnlineModel) -> dict[str, SnapshotView]:
    """Return the views as a candidate model would have used them: with its own online model or an untaught one."""
    return {view.snapshot.version: _with(view, model, untaught) for view in views}


def _with(view: SnapshotView, model: str, untaught: OnlineModel) -> SnapshotView:
    if view.snapshot.model == model:
        return view
    return SnapshotView(
        msgspec.structs.replace(view.snapshot, model=model, online=untaught, online_weight=0.0), view.table
    )


class Comparer:
    """Decide anew, pair by pair. `left_out` counts what names a snapshot that is not here, or cannot be read."""

    def __init__(self, detector: Detector, views: Mapping[str, SnapshotView], span: TimeRange) -> None:
        self._detector = detector
        self._views = views
        self._span = span
        self._waiting: list[tuple[ScoreRecord, Transaction]] = []
        self.left_out = 0

    def compare(self, pairs: Iterable[Pair]) -> Iterator[ChangedDecision]:
        """Take in the pairs of a partition; a repetition was decided before and is not counted again."""
        for one in pairs:
            if one.head is None or one.score is None or not self._span.has(one.head.timestamp):
                continue
            try:
                record = decode_score(one.score)
            except InvalidRecord:
                self.left_out += 1
                continue
            if record.features is None:
                continue
            if record.snapshot not in self._views:
                self.left_out += 1
                continue
            waiting = self._waiting
            if waiting and (waiting[0][0].snapshot != record.snapshot or len(waiting) == MAX_BATCH):
                yield from self._decide()
            self._waiting.append((record, one.transaction or record.transaction()))
        yield from self._decide()

    def _decide(self) -> Iterator[ChangedDecision]:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        verdicts = self._detector.decide_from_features(
            [transaction for _, transaction in waiting],
            [record.features for record, _ in waiting if record.features is not None],
            FixedSnapshot(self._views[waiting[0][0].snapshot]),
            [record.is_id_reused for record, _ in waiting],
        )
        for (record, transaction), verdict in zip(waiting, verdicts, strict=True):
            yield ChangedDecision(
                record.timestamp,
                record.card_id,
                record.transaction_id,
                record.merchant_id,
                record.amount,
                transaction.country or UNKNOWN,
                record.score,
                record.outcome,
                record.reasons[0].code if record.reasons else "",
                verdict.decision.score,
                verdict.decision.outcome,
                verdict.decision.reasons[0].code if verdict.decision.reasons else "",
            )


def summary(
    rows: Sequence[ChangedDecision], truth: Truth, candidate: dict[str, str | float], left_out: int
) -> Comparison:
    """Count what the candidate would have changed.

    Parameters
    ----------
    truth
        Whether a transaction was fraud, as far as it is known.
    candidate
        What the candidate is, for the reader.
    """
    known = [truth.of(row) for row in rows]
    return Comparison(
        candidate=candidate,
        transactions=len(rows),
        labelled=sum(one is not None for one in known),
        frauds=sum(one is True for one in known),
        value=_cents(math.fsum(row.amount for row, one in zip(rows, known, strict=True) if one)),
        left_out=left_out,
        as_decided=_side([(row, row.outcome) for row in rows if _was(row)], truth),
        as_candidate=_side([(row, row.candidate_outcome) for row in rows if _is(row)], truth),
        all=_segment(rows, truth),
        by_reason=_segments(rows, truth, lambda row: (row.candidate_reason if _is(row) else row.reason) or UNKNOWN),
        by_country=_segments(rows, truth, lambda row: row.country),
        by_amount=_segments(rows, truth, lambda row: _band(row.amount)),
    )


def _was(row: ChangedDecision) -> bool:
    return row.outcome is not Outcome.APPROVE


def _is(row: ChangedDecision) -> bool:
    return row.candidate_outcome is not Outcome.APPROVE


def _segments(
    rows: Iterable[ChangedDecision], truth: Truth, name_of: Callable[[ChangedDecision], str]
) -> dict[str, SegmentStats]:
    parts: dict[str, list[ChangedDecision]] = defaultdict(list)
    for row in rows:
        parts[name_of(row)].append(row)
    found = {name: _segment(parts[name], truth) for name in sorted(parts)}
    return {name: one for name, one in found.items() if one.gained.alerts or one.lost.alerts}


def _segment(rows: Sequence[ChangedDecision], truth: Truth) -> SegmentStats:
    return SegmentStats(
        len(rows),
        gained=_side([(row, row.candidate_outcome) for row in rows if _is(row) and not _was(row)], truth),
        lost=_side([(row, row.outcome) for row in rows if _was(row) and not _is(row)], truth),
    )


def _side(alerts: Sequence[tuple[ChangedDecision, Outcome]], truth: Truth) -> AlertStats:
    known = [(row, truth.of(row)) for row, _ in alerts]
    return AlertStats(
        alerts=len(alerts),
        declined=sum(outcome is Outcome.DECLINE for _, outcome in alerts),
        frauds=sum(one is True for _, one in known),
        value=_cents(math.fsum(row.amount for row, one in known if one)),
        cards_bothered=len({row.card_id for row, one in known if one is False}),
        unlabelled=sum(one is None for _, one in known),
    )


def _band(amount: float) -> str:
    above = [bound for bound in BANDS if amount >= bound]
    below = [bound for bound in BANDS if amount < bound]
    if not below:
        return f"from {above[-1]}"
    return f"{above[-1] if above else 0} to {below[0]}"


def _cents(value: float) -> float:
    return round(value, 2)
