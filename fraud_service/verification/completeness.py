"""Check that every input has one score or dead letter, and every flagged score one alert, in the order of the log.

Scores and alerts are in the partition of the same number as their inputs, and in the same order.
Reading the three side by side proves completeness and the order of each card's transactions, in bounded memory.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.complaints import in_words
from fraud_service.domain.decision import Outcome
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.events import TEST_CURRENCY, facts
from fraud_service.domain.records import AlertRecord, ScoreRecord, alert_id
from fraud_service.kafka.dead_letters import content_hash
from fraud_service.verification.labels_and_snapshots import PublishedBoundaries, ScoredIds
from fraud_service.verification.matching import Matcher, identify
from fraud_service.verification.report import FindingKind

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from fraud_service.kafka.dead_letters import LetterHeaders
    from fraud_service.kafka.topic_reader import OffsetRange, Record
    from fraud_service.verification.matching import Pair
    from fraud_service.verification.report import Findings

ALERT_ID: Final = "ce_id"

_alerts = msgspec.json.Decoder(AlertRecord)


class PartitionScope(NamedTuple):
    """Which part of a partition to check. Inputs and scores outside `inputs` and `scores` are only matched.

    `committed` is the group's offset on the inputs, None before its first commit. If older records expired or are left
    out, `incomplete_until_ms` is the broker's time of the first ones, otherwise -1. The counterpart of a record up to
    then may be missing. `alerts_incomplete_until_ms` is the same for alerts, which have their own retention. Alerts
    from `open_alerts` on may belong to scores that were not visible when the offsets were captured.
    """

    topic: str
    partition: int
    inputs: OffsetRange
    scores: OffsetRange
    committed: int | None
    open_alerts: int
    incomplete_until_ms: int = -1
    alerts_incomplete_until_ms: int = -1
    boundaries: PublishedBoundaries = PublishedBoundaries(0)


class UnmatchedRecords:
    """Inputs without a score and scores without an input, whose counterpart may be in another partition."""

    def __init__(self) -> None:
        self.inputs: dict[Hashable, list[Record]] = {}
        self.scores: dict[Hashable, list[tuple[Record, bool]]] = {}  # and whether the input has another score
        self.scored = ScoredIds()

    def merge(self, other: UnmatchedRecords) -> None:
        """Add the records of another partition."""
        for key, inputs in other.inputs.items():
            self.inputs.setdefault(key, []).extend(inputs)
        for key, scores in other.scores.items():
            self.scores.setdefault(key, []).extend(scores)
        self.scored.merge(other.scored)

    def resolve(self, findings: Findings) -> None:
        """Match across partitions, and report what is left.

        A producer without murmur2 may send an input to another partition than the earlier inputs of its card. Such a
        card may have a profile in two partitions.
        """
        for key, inputs in self.inputs.items():
            scores = self.scores.get(key, [])
            for entry in inputs:
                other = next((one for one in scores if one[0].partition != entry.partition), None)
                if other is None:
                    findings.add(FindingKind.MISSING, entry, "a processed input has neither a score nor a dead letter")
                else:
                    scores.remove(other)
                    detail = f"its score is in partition {other[0].partition}: set partitioner=murmur2 on its producer"
                    findings.add(FindingKind.WRONG_PARTITION, entry, detail)
        for scores in self.scores.values():
            for entry, is_repeated in scores:
                if is_repeated:
                    findings.add(FindingKind.DUPLICATED, entry, "a second score of one input")
                else:
                    findings.add(FindingKind.UNEXPECTED, entry, "a score without an input")


class CompletenessCheck:
    """Check one partition: filter its inputs through `inputs`, pass every pair to `take`, then call `finish`.

    `letters` are the dead letters of the partition by offset. `alerts` are read only as far as the scores need them.
    `unmatched` receives inputs and scores whose counterpart is not in this partition.
    """

    def __init__(
        self,
        scope: PartitionScope,
        letters: Mapping[int, LetterHeaders],
        alerts: Iterable[Record],
        unmatched: UnmatchedRecords,
        findings: Findings,
    ) -> None:
        self._scope = scope
        self._letters = letters
        self._unmatched = unmatched
        self._findings = findings
        self._rejected: set[int] = set()
        self._payments = ScoredPayments()
        self._alerts = Matcher(self._read_alerts(alerts))

    def inputs(self, entries: Iterable[Record]) -> Iterator[Record]:
        """Yield the inputs that have no dead letter."""
        begin = self._scope.inputs.begin
        for entry in entries:
            letter = self._letters.get(entry.offset)
            if entry.offset >= begin:
                self._findings.count("inputs")
                if letter is not None:
                    self._rejected.add(entry.offset)
                    if letter.content is not None and letter.content != content_hash(entry.value):
                        self._findings.add(FindingKind.ALTERED, entry, "its dead letter has other bytes")
            if letter is None:
                yield entry

    def take(self, pair: Pair) -> None:
        """Check the next pair."""
        scope, entry, score = self._scope, pair.input, pair.score
        if entry is not None and entry.offset < scope.inputs.begin:
            entry = None
        elif entry is not None and score is None:
            self._on_missing_score(entry)
        if score is None or score.offset < scope.scores.begin:
            return
        self._findings.count("scores")
        try:
            record = pair.record()
        except InvalidRecord as error:
            self._findings.add(FindingKind.UNREADABLE, score, str(error))
            return
        is_counted = entry is not None and not record.is_duplicate and record.currency != TEST_CURRENCY
        self._payments.add(score, record, is_counted=is_counted)
        if entry is not None:
            self._unmatched.scored.add(record.card_id, record.transaction_id)
            self._compare(pair, entry, score, record)
        elif pair.input is None:
            self._on_missing_input(pair, score, record)
        if is_counted and self._scope.boundaries.forgets(record.timestamp, score.timestamp):
            detail = "the payment was older than the label retention when it was scored: its labels have no effect"
            self._findings.add(FindingKind.FORGOTTEN, score, detail)
        self._check_score(score, record)

    def finish(self) -> None:
        """Report alerts and dead letters that have no score or input, and payments that count twice or not at all."""
        for entry, record in self._alerts.rest():
            self._on_surplus_alert(entry, record)
        scope = self._scope
        for offset in self._payments.repeated():
            detail = "the payment was sent again after many others of its card: its profile counts it twice"
            self._findings.add_at(FindingKind.REPEATED, self._payments.topic, scope.partition, offset, detail)
        for offset in self._payments.wrong_duplicates():
            detail = "it repeats the decision on another payment under its id"
            self._findings.add_at(FindingKind.DUPLICATE_FLAG, self._payments.topic, scope.partition, offset, detail)
        for offset in sorted(set(self._letters) - self._rejected):
            if scope.inputs.begin <= offset < scope.inputs.end:
                detail = f"a dead letter ({self._letters[offset].reason}) names this offset, where there is no input"
                self._findings.add_at(FindingKind.UNEXPECTED, scope.topic, scope.partition, offset, detail)

    def _compare(self, pair: Pair, entry: Record, score: Record, record: ScoreRecord) -> None:
        if not pair.in_order:
            self._findings.add(FindingKind.OUT_OF_ORDER, score, f"the score of input {entry.offset} is out of order")
        if score.key != entry.key:
            self._findings.add(FindingKind.ALTERED, score, f"its key differs from that of input {entry.offset}")
        if pair.transaction is not None and facts(pair.transaction) != facts(record):
            self._findings.add(FindingKind.ALTERED, score, f"its fields differ from those of input {entry.offset}")

    def _check_score(self, score: Record, record: ScoreRecord) -> None:
        self._findings.count("duplicates", record.is_duplicate)
        self._findings.count("reused_ids", record.is_id_reused and not record.is_duplicate)
        if record.outcome is not Outcome.APPROVE and not record.is_duplicate:
            self._findings.count("flagged")
            self._check_alert(score, record)

    def _check_alert(self, score: Record, record: ScoreRecord) -> None:
        key = record.card_id, record.transaction_id
        had_alert = self._alerts.has_matched(key)
        found = self._alerts.take(key)
        if found is None:
            if score.timestamp <= max(self._scope.incomplete_until_ms, self._scope.alerts_incomplete_until_ms):
                self._findings.count("alerts_expired")
            elif not had_alert:  # otherwise the second score is the fault
                self._findings.add(FindingKind.MISSING, score, "a flagged transaction has no alert")
            return
        (entry, alert), in_order = found
        if not in_order:
            self._findings.add(FindingKind.OUT_OF_ORDER, entry, f"the alert of score {score.offset} is out of order")
        decided = (record.outcome, record.score, record.model, record.snapshot, record.reasons)
        if (alert.outcome, alert.score, alert.model, alert.snapshot, alert.reasons) != decided:
            self._findings.add(FindingKind.ALTERED, entry, f"its decision differs from that of score {score.offset}")
        if facts(alert.transaction) != facts(record):
            self._findings.add(FindingKind.ALTERED, entry, f"its transaction differs from that of score {score.offset}")
        for surplus in self._alerts.surplus():
            self._on_surplus_alert(*surplus)

    def _read_alerts(self, entries: Iterable[Record]) -> Iterator[tuple[Hashable, tuple[Record, AlertRecord]]]:
        for entry in entries:
            self._findings.count("alerts")
            try:
                record = _alerts.decode(entry.value or b"")
            except UNREADABLE as error:
                self._findings.add(FindingKind.UNREADABLE, entry, f"an alert cannot be read: {in_words(str(error))}")
                continue
            if entry.header(ALERT_ID) != alert_id(record.transaction):
                self._findings.add(FindingKind.ALTERED, entry, "the id of the alert is not that of its transaction")
            yield (record.transaction.card_id, record.transaction.transaction_id), (entry, record)

    def _on_missing_score(self, entry: Record) -> None:
        if self._scope.committed is None or entry.offset >= self._scope.committed:
            self._findings.count("pending")
        elif entry.timestamp <= self._scope.incomplete_until_ms:
            self._findings.count("scores_expired")
        else:
            self._unmatched.inputs.setdefault(identify(entry)[0], []).append(entry)

    def _on_missing_input(self, pair: Pair, score: Record, record: ScoreRecord) -> None:
        if score.timestamp <= self._scope.incomplete_until_ms:
            self._findings.count("scores_of_older_inputs")
        else:
            key = record.card_id, record.transaction_id
            self._unmatched.scores.setdefault(key, []).append((score, pair.is_repeated))

    def _on_surplus_alert(self, entry: Record, record: AlertRecord) -> None:
        if entry.timestamp <= self._scope.incomplete_until_ms:
            self._findings.count("alerts_of_older_inputs")
        elif entry.offset >= self._scope.open_alerts:
            self._findings.count("alerts_in_flight")
        elif self._alerts.has_matched((record.transaction.card_id, record.transaction.transaction_id)):
            self._findings.add(FindingKind.DUPLICATED, entry, "a second alert of one flagged transaction")
        else:
            self._findings.add(FindingKind.UNEXPECTED, entry, "an alert without a score")


class ScoredPayments:
    """The scored payments of one partition, in 24 to 32 bytes each: finds faults that need all of them at the end.

    Keeps hashes only. The chance that two payments of a hundred million share one is below one in a thousand.
    """

    def __init__(self) -> None:
        self.topic = ""
        self._names, self._payments, self._offsets = array("q"), array("q"), array("q")
        self._duplicates = array("q"), array("q"), array("q"), array("q")  # positions, names, payments, offsets

    def add(self, score: Record, record: ScoreRecord, *, is_counted: bool) -> None:
        """Add the next score. `is_counted`: its payment should count once in the profile of its card."""
        self.topic = score.topic
        name, payment = hash((record.card_id, record.transaction_id)), hash(facts(record))
        if record.is_duplicate:
            fields = len(self._names), name, payment, score.offset
            for column, value in zip(self._duplicates, fields, strict=True):
                column.append(value)
            return
        self._names.append(name)
        self._payments.append(payment)
        self._offsets.append(score.offset if is_counted else -1)

    def repeated(self) -> Iterator[int]:
        """Yield the offsets of the scores that count a payment a second time."""
        offsets, payments = (np.array(column, dtype=np.int64) for column in (self._offsets, self._payments))
        counted = np.flatnonzero(offsets >= 0)
        is_repeated = np.ones(len(counted), dtype=bool)
        is_repeated[np.unique(payments[counted], return_index=True)[1]] = False
        return map(int, offsets[counted[is_repeated]])

    def wrong_duplicates(self) -> Iterator[int]:
        """Yield the offsets of scores marked as duplicates whose payment was not scored before, unlike its id."""
        _, names, payments, _ = map(set, self._duplicates)
        first_names: dict[int, int] = {}  # to the position of the first score
        first_payments: dict[int, int] = {}
        for position, (name, payment) in enumerate(zip(self._names, self._payments, strict=True)):
            if name in names:
                first_names.setdefault(name, position)
            if payment in payments:
                first_payments.setdefault(payment, position)
        for position, name, payment, offset in zip(*self._duplicates, strict=True):
            if first_names.get(name, position) < position <= first_payments.get(payment, position):
                yield offset
