"""Recompute every decision from the log, and compare it with the logged score byte for byte.

A score is a function of the transactions of its card and of the snapshot and the model that it names. So the same core
must produce the same bytes. If retention removed the first transactions of a card, its profile cannot be rebuilt. Then
the check starts from the features in the score, and the decision is counted apart.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fraud_service.domain.decision import Decision, Reason
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import MAX_AGE_H, NAMES
from fraud_service.domain.local_time import at_offset
from fraud_service.domain.profile import SCHEMA, Profile
from fraud_service.domain.records import decode_score, encode_record, score_record
from fraud_service.domain.snapshot import UNTRAINED
from fraud_service.verification.report import Finding, FindingKind

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from fraud_service.domain.detector import Assessment, Detector
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.domain.snapshot import SnapshotView
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.verification.matching import Head, Pair

MAX_BATCH: Final = 1024
FIRST_FEATURES: Final = b'"card_age_days":0.0,"hours_since_last":720.0'  # the first features of an unknown card
NUMBERS: Final = ("score", "pretrained_logit", "online_logit", "online_weight", "pretrained", "online")


class TimeRange(NamedTuple):
    """Event times to report, in epoch milliseconds, `end` excluded."""

    begin: int = 0
    end: int = 1 << 62

    def has(self, timestamp: int) -> bool:
        """Whether an event time is in the range."""
        return self.begin <= timestamp < self.end


class FixedSnapshot(NamedTuple):
    """One snapshot for every event time: the one that a score names."""

    view: SnapshotView

    def at(self, timestamp: int) -> SnapshotView:  # noqa: ARG002 - the interface of a SnapshotStore
        """Return the snapshot."""
        return self.view


class _Batch:
    """Decisions that name the same snapshot, to be assessed together.

    `rows` has for each the input, its transaction, the logged score, and the record to take the features from.
    """

    def __init__(self) -> None:
        self.version = ""
        self.rows: list[tuple[Record, Transaction, bytes, ScoreRecord | None]] = []
        self.cards: set[str] = set()

    def accepts(self, version: str) -> bool:
        return not self.rows or (self.version == version and len(self.rows) < MAX_BATCH)


class Checkpoint(msgspec.Struct, frozen=True):
    """State of a `DecisionVerifier`, to resume it at these offsets. `schema` is that of the profiles."""

    schema: int
    input_offset: int
    score_offset: int
    has_started: bool
    expired_cards: dict[str, bool]
    counts: dict[str, int]
    findings: list[Finding]
    profiles: dict[str, Profile]

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"its profiles have schema {self.schema}, this version reads {SCHEMA}")


class DecisionVerifier:
    """Verify one partition, pair by pair.

    `counts` has the number of findings of each kind, and these:

    | count | decisions |
    | --- | --- |
    | `identical` | recomputed from the transactions, byte for byte equal |
    | `from_features` | recomputed from the logged features, because the card's first transactions expired; equal |
    | `unproved` | repeat a decision that may have expired |
    | `cards_forgotten` | not decisions but cards that became unknown again: erased, or their state was altered |
    | `inputs_expired` | scores whose transaction expired |
    | `pending` | transactions after the last score |
    | `out_of_range` | outside the requested event times |

    `views` has every published snapshot by version, `models` the versions of every published model.
    `is_truncated` says that retention removed the first transactions.
    """

    def __init__(
        self,
        detector: Detector,
        views: Mapping[str, SnapshotView],
        models: Container[str],
        time_range: TimeRange,
        *,
        is_truncated: bool,
    ) -> None:
        self._detector = detector
        self._views = views
        self._models = models
        self._time_range = time_range
        self._is_truncated = is_truncated
        self._has_started = not is_truncated
        self._expired_cards: dict[str, bool] = {}
        self._rebuilt, self._given = _Batch(), _Batch()
        self.profiles: dict[str, Profile] = {}
        self.counts: Counter[str] = Counter()

    def verify(self, pairs: Iterable[Pair]) -> Iterator[Finding]:
        """Verify the pairs of the partition, in order."""
        for one in pairs:
            yield from self.take(one)
        yield from self.flush()

    def checkpoint(self, input_offset: int, score_offset: int, findings: list[Finding]) -> Checkpoint:
        """Return the state after `flush`, to resume at these offsets."""
        state = self._has_started, self._expired_cards, dict(self.counts), findings, self.profiles
        return Checkpoint(SCHEMA, input_offset, score_offset, *state)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Take over the state of an earlier verification of the partition."""
        self._has_started, self._expired_cards = checkpoint.has_started, checkpoint.expired_cards
        self.counts.update(checkpoint.counts)
        self.profiles = checkpoint.profiles

    def is_rebuilt(self, card_id: str) -> bool:
        """Whether the profile of a card contains all its transactions: none of them expired."""
        return not self._expired_cards.get(card_id, False)

    def take(self, pair: Pair) -> Iterator[Finding]:
        """Verify one pair, together with the pairs that wait for the same snapshot.

        The first row that applies decides:

        | input | score | result |
        | --- | --- | --- |
        | missing | any | `inputs_expired` before the first input, otherwise UNREADABLE or UNEXPECTED |
        | unreadable | any | UNREADABLE |
        | read | missing | `pending` after the last score, otherwise MISSING; update the profile |
        | outside the range | read | `out_of_range`; update the profile |
        | read | names an unknown model or snapshot | MODEL_UNKNOWN or SNAPSHOT_UNKNOWN; update the profile |
        | of a card with expired ones | a duplicate | `unproved` |
        | of a card with expired ones | read | decide from the logged features |
        | read | read | decide from the rebuilt profile |
        """
        entry, transaction, head = pair.input, pair.transaction, pair.head
        if entry is None:
            yield from self._without_input(pair)
            return
        self._has_started = True
        if transaction is None:
            yield self._finding(
                FindingKind.UNREADABLE, pair, "the transaction cannot be read, and it has no dead letter"
            )
            return
        if head is None or pair.score is None:
            yield from self._without_score(pair, transaction)
            return
        score = pair.score.value or b""
        if not self._time_range.has(transaction.timestamp):
            self.counts["out_of_range"] += 1
            yield from self._update_profile(transaction, score)
            return
        if not pair.in_order:
            yield self._finding(FindingKind.OUT_OF_ORDER, pair, f"its score at {pair.score.offset} is out of order")
        if head.model not in self._models:
            detail = f"model {head.model} is neither the configured one nor a promoted one"
            yield self._finding(FindingKind.MODEL_UNKNOWN, pair, detail)
        elif head.snapshot not in self._views:
            detail = f"snapshot {head.snapshot} is not on its topic, or it fails its digest"
            yield self._finding(FindingKind.SNAPSHOT_UNKNOWN, pair, detail)
        else:
            yield from self._recompute(entry, transaction, head, score)
            return
        yield from self._update_profile(transaction, score)

    def _recompute(self, entry: Record, transaction: Transaction, head: Head, score: bytes) -> Iterator[Finding]:
        """Add a decision to the batch of its snapshot, and assess the batch if it is full."""
        batch, record = self._rebuilt, None
        transaction = at_offset(transaction, head.utc_offset_min)
        if self._is_truncated and self._has_expired(transaction.card_id, score):
            batch, record = self._given, _scored(score)
            if record is None:
                self.counts["unproved"] += 1
                return
        if FIRST_FEATURES in score and (transaction.card_id in batch.cards or transaction.card_id in self.profiles):
            # The scorer had lost the profile of the card, for example after an erasure.
            yield from self._assess(self._rebuilt)
            self.counts["cards_forgotten"] += self.profiles.pop(transaction.card_id, None) is not None
        # A duplicate names the snapshot of the first decision, but it is not scored: it fits into any batch.
        version = batch.version if head.is_duplicate and batch.rows else head.snapshot
        if not batch.accepts(version):
            yield from self._assess(batch)
        batch.version = version
        batch.rows.append((entry, transaction, score, record))
        batch.cards.add(transaction.card_id)

    def _without_input(self, pair: Pair) -> Iterator[Finding]:
        if not self._has_started:
            self.counts["inputs_expired"] += 1
        elif pair.head is None:
            yield self._finding(FindingKind.UNREADABLE, pair, "the score cannot be read")
        elif self._time_range.has(pair.head.timestamp):
            yield self._finding(FindingKind.UNEXPECTED, pair, "its transaction is not on this partition")

    def _without_score(self, pair: Pair, transaction: Transaction) -> Iterator[Finding]:
        if pair.is_pending:
            self.counts["pending"] += 1
        elif self._time_range.has(transaction.timestamp):
            yield self._finding(FindingKind.MISSING, pair, "neither a score nor a dead letter")
        yield from self._update_profile(transaction, None)

    def misplaced(self, pair: Pair, detail: str) -> Finding:
        """Return the finding about an input outside the partition of its card. Its decision is not recomputed."""
        return self._finding(FindingKind.WRONG_PARTITION, pair, detail)

    def _has_expired(self, card_id: str, score: bytes) -> bool:
        """Whether transactions of a card expired: the features of the first one left say so."""
        known = self._expired_cards.get(card_id)
        if known is None:
            record = _scored(score)
            features = None if record is None else record.features
            is_first = features is not None and features.card_age_days == 0.0 and features.hours_since_last == MAX_AGE_H
            known = self._expired_cards[card_id] = not is_first
        return known

    def _update_profile(self, transaction: Transaction, score: bytes | None) -> Iterator[Finding]:
        """Add a transaction to its profile with the logged decision, or an untrained one if there is none."""
        if self._is_truncated and self._has_expired(transaction.card_id, score or b""):
            return
        yield from self._assess(self._rebuilt)
        profile = self.profiles.get(transaction.card_id) or Profile()
        if profile.find_duplicate(transaction).age:
            return
        try:
            decision = decision_of(decode_score(score))
        except InvalidRecord:
            self._detector.assess([transaction], self.profiles, FixedSnapshot(self._views[UNTRAINED]))
            return
        profile.update(transaction)
        profile.add_decision(decision)
        self.profiles[transaction.card_id] = profile

    def flush(self) -> Iterator[Finding]:
        """Assess the pairs that wait for more of the same snapshot."""
        yield from self._assess(self._rebuilt)
        yield from self._assess(self._given)

    def _assess(self, batch: _Batch) -> Iterator[Finding]:
        if not batch.rows:
            return
        rows, snapshot = batch.rows, FixedSnapshot(self._views[batch.version])
        batch.rows, batch.cards = [], set()
        transactions = [transaction for _, transaction, _, _ in rows]
        if batch is self._given:
            records = [record for *_, record in rows if record is not None]
            count, assessments = "from_features", decide_again(self._detector, transactions, records, snapshot)
        else:
            count, assessments = "identical", self._detector.assess(transactions, self.profiles, snapshot)
        for (entry, transaction, score, _), assessment in zip(rows, assessments, strict=True):
            record = score_record(assessment)
            if encode_record(record) == score:
                self.counts[count] += 1
            else:
                kind, detail = difference(record, score)
                yield self._finding_about(kind, entry, transaction, detail)

    def _finding(self, kind: FindingKind, pair: Pair, detail: str) -> Finding:
        entry = pair.score if pair.input is None else pair.input
        if entry is None:
            raise AssertionError("a pair has an input or a score")
        return self._finding_about(kind, entry, pair.transaction or pair.head, detail)

    def _finding_about(self, kind: FindingKind, entry: Record, about: Any, detail: str) -> Finding:
        self.counts[kind] += 1
        place = entry.topic, entry.partition, entry.offset
        if about is None:
            return Finding(kind, *place, detail)
        return Finding(kind, *place, detail, about.transaction_id, about.card_id, about.timestamp)


def decide_again(
    detector: Detector, transactions: Sequence[Transaction], records: Sequence[ScoreRecord], snapshot: FixedSnapshot
) -> list[Assessment]:
    """Decide from the features in score records; none of the records may be a duplicate."""
    features = [record.features for record in records if record.features is not None]
    transactions = [at_offset(one, record.utc_offset_min) for one, record in zip(transactions, records, strict=True)]
    return detector.decide_from_features(transactions, features, snapshot, [one.is_id_reused for one in records])


def decision_of(record: ScoreRecord) -> Decision:
    """Return the decision in a score record."""
    return Decision(
        outcome=record.outcome,
        score=record.score,
        pretrained_logit=record.pretrained_logit,
        online_logit=record.online_logit,
        online_weight=record.online_weight,
        model=record.model,
        snapshot=record.snapshot,
        is_stale=record.is_stale,
        reasons=tuple(Reason(one.code, one.text, one.contribution) for one in record.reasons),
    )


def difference(expected: ScoreRecord, logged: bytes) -> tuple[FindingKind, str]:
    """Return the first cause why a logged score is not the expected one, byte for byte."""
    try:
        found = decode_score(logged)
    except InvalidRecord as error:
        return FindingKind.UNREADABLE, str(error)
    if found.is_duplicate != expected.is_duplicate:
        return FindingKind.DUPLICATE_FLAG, _values(found, expected, ["is_duplicate"])
    if found.features is not None and expected.features is not None and found.features != expected.features:
        return FindingKind.FEATURES, _values(
            found.features, expected.features, _changed(NAMES, found.features, expected.features)
        )
    changed = _changed(found.__struct_fields__, found, expected)
    for kind, names in (
        (FindingKind.SCORE, NUMBERS),
        (FindingKind.OUTCOME, ("outcome",)),
        (FindingKind.REASONS, ("reasons",)),
        (FindingKind.FACTS, changed),
    ):
        of_kind = [name for name in names if name in changed]
        if of_kind:
            return kind, _values(found, expected, of_kind)
    return FindingKind.ENCODING, "equal values in other bytes"


def _changed(names: Iterable[str], found: Any, expected: Any) -> list[str]:
    return [name for name in names if getattr(found, name) != getattr(expected, name)]


def _values(found: Any, expected: Any, names: Iterable[str]) -> str:
    return "; ".join(
        f"{name}: logged {_text(getattr(found, name))}, recomputed {_text(getattr(expected, name))}" for name in names
    )


def _text(value: Any) -> str:
    return repr(value) if isinstance(value, float) else msgspec.json.encode(value).decode()


def _scored(score: bytes) -> ScoreRecord | None:
    """Return the record of a scored transaction; None for a duplicate, or if it cannot be read."""
    try:
        record = decode_score(score)
    except InvalidRecord:
        return None
    return None if record.features is None else record
