"""Verification: profiles rebuilt by folding, every decision made again with the snapshot that its score names.

A score is a function of the transactions of its card, and of the snapshot and the model it names; so the same core
must come to the same bytes. Where retention has cut the history of a card, its profile cannot be rebuilt: then only
that the decision follows from the features in the log is proved, and counted apart.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.decision import Decision, Reason
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.features import MAX_AGE_H
from fraud_service.domain.profile import SCHEMA, Profile
from fraud_service.domain.records import decode_score, encode_record, score_record
from fraud_service.domain.snapshot import UNTRAINED
from fraud_service.verification.differences import Finding, Kind, difference

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from fraud_service.domain.detector import Assessment, Detector
    from fraud_service.domain.events import Transaction
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.domain.snapshot_store import SnapshotView
    from fraud_service.verification.pairing import Pair

MAX_BATCH: Final = 1024
FIRST: Final = b'"card_age":0.0,"hours_since_last":720.0'  # so begin the features of a card that was not known


class TimeRange(NamedTuple):
    """Event time that is reported, in epoch milliseconds: from `begin` up to, but without, `end`."""

    begin: int = 0
    end: int = 1 << 62

    def has(self, timestamp: int) -> bool:
        """Whether an event time lies within."""
        return self.begin <= timestamp < self.end


class FixedSnapshot:
    """The snapshot that a score names, whatever the event time."""

    def __init__(self, view: SnapshotView) -> None:
        self._view = view

    def at(self, timestamp: int) -> SnapshotView:  # noqa: ARG002 - as a scorer asks
        """Return it."""
        return self._view


class KnownSnapshots(NamedTuple):
    """All that the log says was ever in force: views by the version of their snapshot, and the versions of models."""

    views: Mapping[str, SnapshotView]
    models: Container[str]


class _Batch:
    """Pairs that name the same snapshot, assessed together."""

    def __init__(self) -> None:
        self.version = ""
        self.empty()

    def empty(self) -> None:
        self.pairs: list[tuple[Transaction, bytes]] = []
        self.offsets: list[int] = []
        self.records: list[ScoreRecord] = []
        self.cards: set[str] = set()

    def takes(self, version: str) -> bool:
        return (not self.pairs or self.version == version) and len(self.pairs) < MAX_BATCH

    def add(self, version: str, offset: int, transaction: Transaction, score: bytes) -> None:
        self.version = version
        self.pairs.append((transaction, score))
        self.offsets.append(offset)
        self.cards.add(transaction.card_id)


class Checkpoint(msgspec.Struct, frozen=True):
    """How far the verification of a partition came, and all it needs to go on from these offsets.

    `schema` is that of the profiles.
    """

    schema: int
    transaction: int
    score: int
    has_begun: bool
    cut_cards: dict[str, bool]
    counts: dict[str, int]
    findings: list[Finding]
    profiles: dict[str, Profile]


class Verifier:
    """Verify one partition, pair by pair, and count what was found.

    `identical` counts the decisions that were made again from the transactions, byte for byte; `follow` those of cards
    whose history retention has cut: byte for byte what follows from their features; `unproved` repetitions of theirs.
    `begun_anew` counts cards that were unknown again after they had been known: they were erased, or somebody altered
    their state. `cut` counts scores whose transaction retention has removed, `waiting` transactions behind the last
    score, `outside` what lies outside the span. All else is a difference.

    Parameters
    ----------
    is_cut
        Whether retention has removed the first transactions.
    """

    def __init__(
        self, partition: int, detector: Detector, taught: KnownSnapshots, span: TimeRange, *, is_cut: bool
    ) -> None:
        self._partition = partition
        self._detector = detector
        self._taught = taught
        self._span = span
        self._is_cut = is_cut
        self._has_begun = not is_cut
        self._cut_cards: dict[str, bool] = {}
        self._rebuilt, self._given = _Batch(), _Batch()
        self.profiles: dict[str, Profile] = {}
        self.counts: Counter[str] = Counter()

    def verify(self, pairs: Iterable[Pair]) -> Iterator[Finding]:
        """Take in the pairs of the partition in order; yields what differs."""
        for one in pairs:
            yield from self.take(one)
        yield from self.flush()

    def standing(self, transaction: int, score: int, findings: list[Finding]) -> Checkpoint:
        """Return how far it is, flushed, before these offsets; the profiles in it are its own."""
        return Checkpoint(
            SCHEMA, transaction, score, self._has_begun, self._cut_cards, dict(self.counts), findings, self.profiles
        )

    def go_on(self, standing: Checkpoint) -> None:
        """Go on where another verifier of the partition stood."""
        self._has_begun, self._cut_cards = standing.has_begun, standing.cut_cards
        self.counts.update(standing.counts)
        self.profiles = standing.profiles

    def is_rebuilt(self, card_id: str) -> bool:
        """Whether the profile of a card is what its transactions made it: retention has not cut its history."""
        return not self._cut_cards.get(card_id, False)

    def take(self, one: Pair) -> Iterator[Finding]:
        """Take in one pair; yields what differs among those that came to be assessed with it."""
        if one.transaction is None:
            yield from self._without_transaction(one)
            return
        self._has_begun = True
        if one.head is None or one.score is None:
            yield from self._without_score(one, one.transaction)
            return
        transaction, head, score = one.transaction, one.head, one.score
        if not self._span.has(transaction.timestamp):
            self.counts["outside"] += 1
            yield from self._fold(transaction, score)
            return
        unknown = self._unknown(head.snapshot, head.model)
        if unknown is not None:
            yield self._finding(unknown[0], one, unknown[1])
            yield from self._fold(transaction, score)
            return
        is_given = self._is_cut and self._is_incomplete(transaction.card_id, score)
        record = _scored(score) if is_given else None
        if is_given and record is None:
            self.counts["unproved"] += 1  # a repetition: what was decided first may lie before the cut
            return
        lane = self._given if is_given else self._rebuilt
        if FIRST in score and (transaction.card_id in lane.cards or transaction.card_id in self.profiles):
            yield from self._begin_anew(transaction.card_id)
        # A repetition names the snapshot of its first decision; it is not scored, and fits into any batch.
        version = lane.version if head.is_duplicate and lane.pairs else head.snapshot
        if not lane.takes(version):
            yield from self._assess(lane)
        lane.add(version, one.offset, transaction, score)
        if record is not None:
            lane.records.append(record)

    def _begin_anew(self, card_id: str) -> Iterator[Finding]:
        """Forget a card: its score says that the scorer did not know it any more, as after an erasure."""
        yield from self._assess(self._rebuilt)
        self.counts["begun_anew"] += self.profiles.pop(card_id, None) is not None

    def _without_transaction(self, one: Pair) -> Iterator[Finding]:
        if one.score is None:
            yield self._finding(Kind.UNREADABLE, one, "the transaction cannot be read, and there is no dead letter")
        elif not self._has_begun:
            self.counts["cut"] += 1
        elif one.head is None:
            yield self._finding(Kind.SCORE_UNREADABLE, one, "the record on the scores topic cannot be read")
        elif self._span.has(one.head.timestamp):
            yield self._finding(Kind.INPUT_MISSING, one, "no such transaction is left on this partition")

    def _without_score(self, one: Pair, transaction: Transaction) -> Iterator[Finding]:
        if one.is_waiting:
            self.counts["waiting"] += 1
        elif self._span.has(transaction.timestamp):
            yield self._finding(Kind.SCORE_MISSING, one, "neither a score nor a dead letter")
        yield from self._fold(transaction, None)

    def _unknown(self, snapshot: str, model: str) -> tuple[Kind, str] | None:
        if model not in self._taught.models:
            return Kind.MODEL_UNKNOWN, f"model {model} is neither the configured one nor a promoted one"
        if snapshot not in self._taught.views:
            return Kind.SNAPSHOT_UNKNOWN, f"snapshot {snapshot} is not on its topic, or does not prove itself"
        return None

    def _is_incomplete(self, card_id: str, score: bytes) -> bool:
        """Whether a card was there before the first transaction that is left: its first features say so."""
        known = self._cut_cards.get(card_id)
        if known is None:
            record = _scored(score)
            features = None if record is None else record.features
            is_first = features is not None and features.card_age == 0.0 and features.hours_since_last == MAX_AGE_H
            known = self._cut_cards[card_id] = not is_first
        return known

    def _fold(self, transaction: Transaction, score: bytes | None) -> Iterator[Finding]:
        """Take a transaction into its profile with the decision that was logged, without making it again."""
        if self._is_cut and self._is_incomplete(transaction.card_id, score or b""):
            return
        yield from self._assess(self._rebuilt)
        fold(transaction, self.profiles, score, self._detector, self._taught.views[UNTRAINED])

    def flush(self) -> Iterator[Finding]:
        """Assess all that waits for more; yields what differs."""
        yield from self._assess(self._rebuilt)
        yield from self._assess(self._given)

    def _assess(self, lane: _Batch) -> Iterator[Finding]:
        if not lane.pairs:
            return
        transactions, knowledge = [one for one, _ in lane.pairs], FixedSnapshot(self._taught.views[lane.version])
        if lane is self._given:
            features = [one.features for one in lane.records if one.features is not None]
            verdicts = self._detector.decide_from_features(
                transactions, features, knowledge, [r.is_id_reused for r in lane.records]
            )
        else:
            verdicts = self._detector.assess(transactions, self.profiles, knowledge)
        proved = "follow" if lane is self._given else "identical"
        for (_, score), offset, verdict in zip(lane.pairs, lane.offsets, verdicts, strict=True):
            record = score_record(verdict)
            if encode_record(record) == score:
                self.counts[proved] += 1
            else:
                yield self._differing(offset, verdict, *difference(record, score))
        lane.empty()

    def _differing(self, offset: int, verdict: Assessment, kind: Kind, detail: str) -> Finding:
        transaction = verdict.transaction
        self.counts[kind] += 1
        return Finding(
            kind,
            self._partition,
            offset,
            transaction.transaction_id,
            transaction.card_id,
            transaction.timestamp,
            detail,
        )

    def _finding(self, kind: Kind, one: Pair, detail: str) -> Finding:
        self.counts[kind] += 1
        known = one.transaction or one.head
        if known is None:
            return Finding(kind, self._partition, one.offset, None, None, None, detail)
        return Finding(kind, self._partition, one.offset, known.transaction_id, known.card_id, known.timestamp, detail)


def fold(
    transaction: Transaction, profiles: dict[str, Profile], score: bytes | None, detector: Detector, blind: SnapshotView
) -> None:
    """Take a transaction into its card's profile, with the decision that was logged.

    Parameters
    ----------
    blind
        What to decide with where no decision can be read.
    """
    profile = profiles.get(transaction.card_id) or Profile()
    if profile.find_duplicate(transaction).age:
        return
    try:
        decision = decision_of(decode_score(score))
    except InvalidRecord:
        detector.assess([transaction], profiles, FixedSnapshot(blind))
        return
    profile.update(transaction)
    profile.add_decision(decision)
    profiles[transaction.card_id] = profile


def decision_of(record: ScoreRecord) -> Decision:
    """Return the decision that a record tells of."""
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


def _scored(score: bytes) -> ScoreRecord | None:
    """Return the record of a scored transaction; None for a repetition, or a record that cannot be read."""
    try:
        record = decode_score(score)
    except InvalidRecord:
        return None
    return None if record.features is None else record
