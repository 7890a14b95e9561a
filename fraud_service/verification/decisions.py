"""Every input has exactly one score or dead letter, every flagged score exactly one alert, all in the order of the log.

A partition's scores lie in the partition of the same number, in the order of their inputs, and so do its alerts. So
inputs, scores and alerts of one number are read side by side: what meets in order proves completeness and the order of
each card's transactions at once, in memory that does not grow with the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.decision import Outcome
from fraud_service.domain.errors import InvalidEvent, InvalidRecord
from fraud_service.domain.events import Transaction, decode_transaction, facts
from fraud_service.domain.records import AlertRecord, ScoreRecord, alert_id, decode_score
from fraud_service.kafka.dead_letters import content_hash
from fraud_service.verification.findings import Kind
from fraud_service.verification.stream_matcher import Matcher
from fraud_service.verification.transaction_ids import Uses

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from fraud_service.kafka.dead_letters import LetterHeaders
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.verification.findings import Findings

ALERT_ID: Final = "ce_id"

_alerts = msgspec.json.Decoder(AlertRecord)


class PartitionScope(NamedTuple):
    """Which part of a partition is looked at.

    Inputs lie from `begin` up to `end`; `committed` is the group's offset, None before its first. `moment` is the
    broker's time of the first records when older ones are left out (retention, or asked for), otherwise -1: of what is
    as old as that, the partner may be among those. Alerts are kept for another time than scores: `alerts_moment` is
    theirs. Alerts from `unsettled` on may belong to scores that were not visible yet.
    """

    topic: str
    partition: int
    begin: int
    end: int
    committed: int | None
    unsettled: int
    moment: int = -1
    alerts_moment: int = -1


class _Head(msgspec.Struct, frozen=True):
    """What tells a transaction from others, also where the rest of it would be refused today."""

    card_id: str
    transaction_id: str


class _Input(NamedTuple):
    entry: Record
    transaction: Transaction | None


class _Scored(NamedTuple):
    entry: Record
    record: ScoreRecord


class _Alert(NamedTuple):
    entry: Record
    record: AlertRecord


class Unmatched(NamedTuple):
    """An input without a score, or a score without an input: in another partition it may have its partner."""

    inputs: dict[Hashable, list[Record]]
    scores: dict[Hashable, list[tuple[Record, bool]]]

    @classmethod
    def none(cls) -> Unmatched:
        """Return where nothing is loose."""
        return cls({}, {})


class Decisions:
    """Follow one partition from its inputs to its scores and alerts.

    Parameters
    ----------
    letters
        The dead letters of this partition of the input, by offset.
    loose
        Takes what finds no partner here; `settle` looks for it in the other partitions.
    """

    def __init__(
        self, scope: PartitionScope, letters: Mapping[int, LetterHeaders], loose: Unmatched, findings: Findings
    ) -> None:
        self._scope = scope
        self._letters = letters
        self._loose = loose
        self._findings = findings
        self._refused: set[int] = set()
        self._uses = Uses()
        self._scored: Matcher[_Input, _Scored] = Matcher(self._on_no_score, self._on_no_input)
        self._alerted: Matcher[_Scored, _Alert] = Matcher(self._on_no_alert, self._on_no_score_of_alert)

    def follow(self, inputs: Iterable[Record], scores: Iterable[Record], alerts: Iterable[Record]) -> None:
        """Read all three to their ends, each only as far as the others need it."""
        alerts = iter(alerts)
        for entry, is_input in _side_by_side(iter(inputs), iter(scores), self._scored):
            if is_input:
                self._input(entry)
                continue
            self._score(entry)
            while self._alerted.lead > 0 and (alert := next(alerts, None)) is not None:
                self._alert(alert)
        for alert in alerts:
            self._alert(alert)
        self._scored.finish()
        self._alerted.finish()
        self._check_letters()

    def _input(self, entry: Record) -> None:
        self._findings.count("inputs")
        letter = self._letters.get(entry.offset)
        if letter is not None:
            self._refused.add(entry.offset)
            if letter.content is not None and letter.content != content_hash(entry.value):
                self._findings.wrong(Kind.ALTERED, entry, "its dead letter holds other bytes")
            return
        key, transaction = _identify(entry)
        pair = self._scored.expect(key, _Input(entry, transaction))
        if pair is not None:
            self._compare(pair.expected, pair.found, in_order=pair.in_order)

    def _score(self, entry: Record) -> None:
        self._findings.count("scores")
        try:
            record = decode_score(entry.value)
        except InvalidRecord as error:
            self._findings.wrong(Kind.UNREADABLE, entry, str(error))
            return
        scored = _Scored(entry, record)
        pair = self._scored.find((record.card_id, record.transaction_id), scored)
        if pair is not None:
            self._compare(pair.expected, pair.found, in_order=pair.in_order)
        self._findings.count("repeated", record.is_duplicate)
        self._findings.count("reused_ids", record.is_id_reused and not record.is_duplicate)
        if self._uses.repeats_another(record):
            self._findings.wrong(Kind.DECISION, entry, "it repeats the decision on another payment under its id")
        if record.outcome is not Outcome.APPROVE and not record.is_duplicate:
            self._findings.count("flagged")
            raised = self._alerted.expect((record.card_id, record.transaction_id), scored)
            if raised is not None:
                self._compare_alert(raised.expected, raised.found, in_order=raised.in_order)

    def _alert(self, entry: Record) -> None:
        self._findings.count("alerts")
        try:
            record = _alerts.decode(entry.value or b"")
        except UNREADABLE as error:
            self._findings.wrong(Kind.UNREADABLE, entry, f"an alert cannot be read: {error}")
            return
        if entry.header(ALERT_ID) != alert_id(record.transaction):
            self._findings.wrong(Kind.ALTERED, entry, "the id of the alert is not that of its transaction")
        key = record.transaction.card_id, record.transaction.transaction_id
        pair = self._alerted.find(key, _Alert(entry, record))
        if pair is not None:
            self._compare_alert(pair.expected, pair.found, in_order=pair.in_order)

    def _compare(self, source: _Input, scored: _Scored, *, in_order: bool) -> None:
        entry, record, transaction = scored.entry, scored.record, source.transaction
        if not in_order:
            self._findings.wrong(Kind.REORDERED, entry, f"the score of input {source.entry.offset} is not in its turn")
        if entry.key != source.entry.key:
            self._findings.wrong(Kind.ALTERED, entry, f"its key is not that of input {source.entry.offset}")
        if transaction is not None and facts(transaction) != facts(record):
            self._findings.wrong(Kind.ALTERED, entry, f"it does not say what input {source.entry.offset} says")

    def _compare_alert(self, scored: _Scored, alert: _Alert, *, in_order: bool) -> None:
        entry, said, record = alert.entry, alert.record, scored.record
        if not in_order:
            self._findings.wrong(Kind.REORDERED, entry, f"the alert of score {scored.entry.offset} is not in its turn")
        decided = (record.outcome, record.score, record.model, record.snapshot, record.reasons)
        if (said.outcome, said.score, said.model, said.snapshot, said.reasons) != decided:
            self._findings.wrong(Kind.ALTERED, entry, f"it does not say what score {scored.entry.offset} decided")
        if facts(said.transaction) != facts(record):
            self._findings.wrong(Kind.ALTERED, entry, f"its transaction is not that of score {scored.entry.offset}")

    def _on_no_score(self, key: Hashable, source: _Input, _: bool) -> None:
        if self._scope.committed is None or source.entry.offset >= self._scope.committed:
            self._findings.count("pending")
        elif source.entry.timestamp <= self._scope.moment:
            self._findings.count("scores_expired")
        else:
            self._loose.inputs.setdefault(key, []).append(source.entry)

    def _on_no_input(self, key: Hashable, scored: _Scored, is_double: bool) -> None:
        if scored.entry.timestamp <= self._scope.moment:
            self._findings.count("scores_of_older_inputs")
        else:
            self._loose.scores.setdefault(key, []).append((scored.entry, is_double))

    def _on_no_alert(self, _: Hashable, scored: _Scored, is_double: bool) -> None:
        if scored.entry.timestamp <= max(self._scope.moment, self._scope.alerts_moment):
            self._findings.count("alerts_expired")
        elif not is_double:  # the transaction has its alert; what is wrong is the second score
            self._findings.wrong(Kind.LOST, scored.entry, "a flagged transaction has no alert")

    def _on_no_score_of_alert(self, _: Hashable, alert: _Alert, is_double: bool) -> None:
        if alert.entry.timestamp <= self._scope.moment:
            self._findings.count("alerts_of_older_inputs")
        elif alert.entry.offset >= self._scope.unsettled:
            self._findings.count("alerts_in_flight")
        elif is_double:
            self._findings.wrong(Kind.DOUBLED, alert.entry, "a second alert for one flagged transaction")
        else:
            self._findings.wrong(Kind.UNEXPECTED, alert.entry, "an alert that no score accounts for")

    def _check_letters(self) -> None:
        scope = self._scope
        for offset in sorted(set(self._letters) - self._refused):
            if scope.begin <= offset < scope.end:
                what = f"a dead letter ({self._letters[offset].reason}) names this offset, where no input lies"
                self._findings.wrong_at(Kind.UNEXPECTED, scope.topic, scope.partition, offset, what)


def resolve_unmatched(loose: Unmatched, findings: Findings) -> None:
    """Bring together what has its partner in another partition, and say of the rest what it is.

    A producer that partitions by other rules than its card's murmur2 puts inputs where their scores do not lie: such a
    card's profile may be in two places.
    """
    for key, inputs in loose.inputs.items():
        scores = loose.scores.get(key, [])
        for entry in inputs:
            partner = next((found for found in scores if found[0].partition != entry.partition), None)
            if partner is None:
                findings.wrong(Kind.LOST, entry, "an input that was processed has neither score nor dead letter")
            else:
                scores.remove(partner)
                what = f"its score lies in partition {partner[0].partition}: set partitioner=murmur2 on its producer"
                findings.wrong(Kind.MISPLACED, entry, what)
    for scores in loose.scores.values():
        for entry, is_double in scores:
            if is_double:
                findings.wrong(Kind.DOUBLED, entry, "a second score for one input")
            else:
                findings.wrong(Kind.UNEXPECTED, entry, "a score that no input accounts for")


def _side_by_side(
    inputs: Iterator[Record], scores: Iterator[Record], matcher: Matcher[_Input, _Scored]
) -> Iterator[tuple[Record, bool]]:
    """Read from whichever side is behind, so that neither waits long for the other; True marks an input."""
    while True:
        is_input = matcher.lead <= 0
        entry = next(inputs if is_input else scores, None)
        if entry is None:
            break
        yield entry, is_input
    for entry in inputs:
        yield entry, True
    for entry in scores:
        yield entry, False


def _identify(entry: Record) -> tuple[Hashable, Transaction | None]:
    try:
        transaction = decode_transaction(entry.value)
    except InvalidEvent:
        try:
            head = msgspec.json.decode(entry.value or b"", type=_Head)
        except UNREADABLE:
            return entry.offset, None
        return (head.card_id, head.transaction_id), None
    return (transaction.card_id, transaction.transaction_id), transaction
