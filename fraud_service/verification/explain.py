"""Explain one decision: its inputs, what became known later, and whether the recomputed decision is identical.

A card names its partition (murmur2), and a moment the hour around it. Without both, the whole score log is searched.
The transactions of the card are read from the beginning of its partition.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fraud_service.config import factories
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError, InvalidRecord, TopicReadError
from fraud_service.domain.events import Label, Transaction
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.records import ScoreRecord, alert_id, decode_score, readable_examples
from fraud_service.domain.time import HOUR, rfc3339
from fraud_service.kafka.dead_letters import DETAIL, REASON, SOURCE_TOPIC
from fraud_service.kafka.partitioner import explain_misplaced, murmur2_partition
from fraud_service.verification import log_reader, snapshots
from fraud_service.verification.comparison import payment_identity
from fraud_service.verification.decisions import FixedSnapshot, TimeRange, decide_again
from fraud_service.verification.matching import identify
from fraud_service.verification.report import FindingKind
from fraud_service.verification.snapshots import Figures, snapshot_figures
from fraud_service.verification.time_travel import CardHistory, profile_figures, risk_figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.domain.scoring import Contributions
    from fraud_service.domain.snapshot import SnapshotView
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.verification.log_reader import Broadcasts
    from fraud_service.verification.matching import Pair

SEARCH_MS: Final = HOUR  # searched before and after a given moment
FIRST: Final = "first"
DUPLICATE: Final = "duplicate"
REUSED: Final = "reused id"
FLAG_ALL: Final = Policy(review=0.0, decline=2.0)  # only flagged transactions have contributions


class Place(NamedTuple):
    """Where a decision is on the scores topic. `position` is its number in the history of its card, if it has one."""

    partition: int
    offset: int
    record: ScoreRecord
    position: int | None = None


class Use(msgspec.Struct, frozen=True):
    """One payment under a transaction id, by its score. `kind` is one of `FIRST`, `DUPLICATE` and `REUSED`."""

    kind: str
    timestamp: int
    amount: float
    currency: str
    merchant_id: str
    outcome: str
    score: float


class Case(msgspec.Struct, frozen=True):
    """Everything about one decision.

    `proof` is `identical` if the decision recomputed from the card's transactions has the same bytes. It is
    `from_features` if transactions of the card expired and the decision follows from the features in its score.
    Otherwise it is the kind of the difference, with its `detail`. `base` and `contributions` add up to the logit of the
    score. `profile` and the risk are None if they are unknown. `examples` is what the learner trained on. `uses` are
    all payments of the card under this transaction id, in order. `number` is the position of this one among those that
    were scored, from 1.
    """

    place: dict[str, int | str]
    score: ScoreRecord
    alert_id: str | None
    transaction: Transaction | None
    proof: str
    detail: str
    base: float | None
    contributions: dict[str, float]
    profile: Figures | None
    merchant_risk: Figures | None
    card_risk: Figures | None
    snapshot: Figures | None
    labels: list[Label] = []
    examples: list[dict[str, Any]] = []
    uses: list[Use] = []
    number: int = 1


def explain(
    settings: Settings, transaction_id: str, card: str | None = None, at: int | None = None, number: int | None = None
) -> Case:
    """Explain the decision on a transaction: its first one, if the same payment came more than once.

    Parameters
    ----------
    at
        When it was scored, by the broker's clock, epoch milliseconds.
    number
        Which payment under this id, from 1. By default the newest, or the one that was scored at `at`.
    """
    with log_reader.open_reader(settings) as reader:
        place = _find(reader, settings, transaction_id, card, at)
    broadcasts = snapshots.load_broadcasts(settings)
    with log_reader.open_reader(settings) as reader:
        history = CardHistory.read(reader, settings, place.partition, place.record.card_id)
        uses, decided = _uses(history.pairs, transaction_id)
        place, number = _choose(place, decided, at, number)
        labels = [
            label
            for label in log_reader.read_labels(reader, settings, [place.partition])
            if (label.card_id, label.transaction_id) == (place.record.card_id, transaction_id)
        ]
        examples = _examples(reader, settings, place.record)
        misplaced = None if history.is_truncated else _misplaced(reader, settings, place, history)
    case = _case(settings, broadcasts, place, history)
    if misplaced is not None:
        kind = FindingKind.WRONG_PARTITION.value
        case = msgspec.structs.replace(case, proof=kind, detail=misplaced)
    return msgspec.structs.replace(case, labels=labels, examples=examples, uses=uses, number=number)


def _find(reader: TopicReader, settings: Settings, transaction_id: str, card: str | None, at: int | None) -> Place:
    topic = settings.topics.scores
    spans = reader.offset_ranges(topic)
    partitions = sorted(spans) if card is None else [murmur2_partition(card.encode(), len(spans))]
    begins: dict[int, int] = {} if at is None else reader.offsets_since(topic, max(at - SEARCH_MS, 0))
    ends: dict[int, int] = {} if at is None else reader.offsets_since(topic, at + SEARCH_MS)
    needle = msgspec.json.encode(transaction_id)
    for partition in partitions:
        for entry in reader.read(topic, partition, begins.get(partition), ends.get(partition)):
            if needle in (entry.value or b""):
                with suppress(InvalidRecord):
                    record = decode_score(entry.value)
                    is_wanted = record.transaction_id == transaction_id and card in {None, record.card_id}
                    if is_wanted and not record.is_duplicate:
                        return Place(partition, entry.offset, record)
    for entry in log_reader.read_all_partitions(reader, settings.topics.dead_letters):
        if needle in (entry.value or b"") and entry.header(SOURCE_TOPIC) == settings.topics.transactions:
            raise TopicReadError(
                f"there is no decision on transaction {transaction_id!r}: it is a dead letter "
                f"({entry.header(REASON)}: {entry.header(DETAIL)})"
            )
    where = f"on {topic}, partition {', '.join(map(str, partitions))}"
    when = "" if at is None else f", an hour around {rfc3339(at)} of the broker's clock"
    raise TopicReadError(f"no decision on transaction {transaction_id!r} {where}{when}")


def _misplaced(reader: TopicReader, settings: Settings, place: Place, history: CardHistory) -> str | None:
    """Look for the transaction of a score in the other partitions; say where it is, and what its producer must change.

    Returns None if it is in the partition of its score, or nowhere.
    """
    record, key = place.record, place.record.card_id.encode()
    wanted = (record.card_id, record.transaction_id)
    if any(one.input is not None and identify(one.input)[0] == wanted for one in history.pairs):
        return None
    topic = settings.topics.transactions
    partitions = reader.offset_ranges(topic)
    for number in partitions.keys() - {place.partition}:
        for entry in reader.read(topic, number):
            if entry.key == key and identify(entry)[0] == wanted:
                return f"{topic}[{number}]@{entry.offset}: {explain_misplaced(key, number, len(partitions))}"
    return None


def _uses(pairs: Sequence[Pair], transaction_id: str) -> tuple[list[Use], list[Place]]:
    """Return all uses of an id by a card, and those of them that were scored."""
    uses: list[Use] = []
    decided: list[Place] = []
    for position, one in enumerate(pairs):
        if one.score is None or one.head is None or one.head.transaction_id != transaction_id:
            continue
        try:
            record = one.record()
        except InvalidRecord:
            continue
        kind = DUPLICATE if record.is_duplicate else REUSED if decided or record.is_id_reused else FIRST
        fields = record.timestamp, record.amount, record.currency, record.merchant_id
        uses.append(Use(kind, *fields, record.outcome.value, record.score))
        if not record.is_duplicate:
            decided.append(Place(one.score.partition, one.score.offset, record, position))
    return uses, decided


def _choose(place: Place, decided: list[Place], at: int | None, number: int | None) -> tuple[Place, int]:
    """Return the requested payment, and its number among those under its id."""
    if number is not None and not 1 <= number <= len(decided):
        raise ConfigurationError(f"--payment {number}: {len(decided)} payments under this id were scored")
    if number is None and at is None:
        number = len(decided)
    if number is None:
        number = next((n for n, one in enumerate(decided, start=1) if one.offset == place.offset), 0)
    if number == 0:  # the key of its score is not its card
        return place, 1
    return decided[number - 1], number


def _examples(reader: TopicReader, settings: Settings, record: ScoreRecord) -> list[dict[str, Any]]:
    """Return the labelled examples of a transaction; they are in the partition of its merchant."""
    spans = reader.offset_ranges(settings.topics.labelled)
    partition = murmur2_partition(record.merchant_id.encode(), len(spans))
    needle = msgspec.json.encode(record.transaction_id)
    values = (entry.value or b"" for entry in reader.read(settings.topics.labelled, partition))
    return [
        {
            "is_fraud": one.is_fraud,
            "source": None if one.source is None else one.source.value,
            "known_at": rfc3339(one.known_at),
            "boundary": rfc3339(one.boundary_ms),
            "corrects": one.corrects,
            "weight": one.weight,
        }
        for one in readable_examples(value for value in values if needle in value)
        if payment_identity(one) == payment_identity(record)
    ]


def _case(settings: Settings, broadcasts: Broadcasts, place: Place, history: CardHistory) -> Case:
    """Recompute the decision.

    Step 1: fold the card's earlier transactions; their differences are not reported.
    Step 2: verify the decision itself.
    Step 3: look up the snapshot that it names, and split the logit of its score by feature.
    """
    record = place.record
    position = len(history.pairs) if place.position is None else place.position
    before, target = history.pairs[:position], history.pairs[position : position + 1]
    time_range = TimeRange(record.timestamp, record.timestamp + 1)
    verifier = broadcasts.verifier(factories.policy(settings), time_range, is_truncated=history.is_truncated)
    for _ in verifier.verify(before):
        pass
    profile = decode_profile(encode_profile(verifier.profiles.get(record.card_id) or Profile()))
    earlier = verifier.counts.copy()
    findings = list(verifier.verify(target))
    proved = [name for name in ("identical", "from_features") if verifier.counts[name] > earlier[name]]
    view = broadcasts.views.get(record.snapshot)
    explanation = _contributions(broadcasts, view, record)
    is_known = bool(target) and verifier.is_rebuilt(record.card_id)
    transaction = target[0].transaction if target else None
    return Case(
        place={"topic": settings.topics.scores, "partition": place.partition, "offset": place.offset},
        score=record,
        alert_id=None if transaction is None or record.outcome == "approve" else alert_id(transaction),
        transaction=transaction,
        proof=proved[0] if proved else findings[0].kind.value if findings else FindingKind.UNEXPECTED.value,
        detail="; ".join(finding.detail for finding in findings),
        base=None if explanation is None else explanation.base,
        contributions={} if explanation is None else _strongest_first(explanation),
        profile=profile_figures(profile) if is_known else None,
        merchant_risk=None if view is None else risk_figures(view.merchant(record.merchant_id), view.snapshot.as_of),
        card_risk=None if view is None else risk_figures(view.card(record.card_id), view.snapshot.as_of),
        snapshot=None if view is None else snapshot_figures(view.snapshot),
    )


def _contributions(broadcasts: Broadcasts, view: SnapshotView | None, record: ScoreRecord) -> Contributions | None:
    """Split the logit of a score by feature, whatever its outcome was."""
    if record.features is None or view is None or record.model not in broadcasts.models:
        return None
    detector = Detector(broadcasts.models[record.model], FLAG_ALL)
    (assessment,) = decide_again(detector, [record.transaction()], [record], FixedSnapshot(view))
    return assessment.contributions


def _strongest_first(explanation: Contributions) -> dict[str, float]:
    return dict(sorted(explanation.features.items(), key=lambda item: (-abs(item[1]), item[0])))
