"""A case: one decision found in the log, everything it rested on, what became known later, and the decision made again.

Without a card every partition of the scores is searched, which takes as long as reading them; a card names its
partition (murmur2), and a moment the hour around it. The raw transactions of the card are read from the beginning of
its partition.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ArchiveError, ConfigurationError, InvalidRecord
from fraud_service.domain.events import Label, Transaction, facts, rfc3339
from fraud_service.domain.policy import Policy
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.records import (
    LabelledRecord,
    ScoreRecord,
    alert_id,
    decode_labelled,
    decode_score,
)
from fraud_service.domain.time import HOUR
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.verification import snapshots, topic_views
from fraud_service.verification.comparison import payment
from fraud_service.verification.decision_verifier import FixedSnapshot, TimeRange
from fraud_service.verification.display import (
    Figures,
    profile_figures,
    risk_figures,
    snapshot_figures,
)
from fraud_service.verification.time_travel import CardHistory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.domain.scoring import Contributions
    from fraud_service.kafka.topic_reader import Record, TopicReader
    from fraud_service.verification.pairing import Pair
    from fraud_service.verification.topic_views import Broadcasts

AROUND: Final = HOUR  # milliseconds searched before and after a given moment
FIRST: Final = "first"
REPETITION: Final = "repetition"
REUSED: Final = "reused id"
FLAG_ALL: Final = Policy(review=0.0, decline=2.0)  # only flagged transactions are explained


class Place(NamedTuple):
    """Where a decision lies on the topic of scores."""

    partition: int
    offset: int
    record: ScoreRecord


class Use(msgspec.Struct, frozen=True):
    """One payment under a transaction id, by its score. `kind` is one of `FIRST`, `REPETITION` and `REUSED`."""

    kind: str
    timestamp: int
    amount: float
    currency: str
    merchant_id: str
    outcome: str
    score: float


class Case(msgspec.Struct, frozen=True):
    """Everything about one decision.

    `proof` is `identical` when the decision made again from the card's raw transactions has the same bytes, `follow`
    when the card's history was cut and the decision follows from the features in the log; anything else is the kind of
    difference, told in `detail`. `base` and `contributions` add up to the logit of the score. `profile` and the risk
    are None where they are unknown. `uses` are all payments of the card under this transaction id, in order, and
    `number` says which of those that were scored this one is, from 1.
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
    labels: list[Label]
    taught: list[dict[str, Any]]
    uses: list[Use] = []
    number: int = 1


def explain(
    settings: Settings, transaction_id: str, card: str | None = None, at: int | None = None, number: int | None = None
) -> Case:
    """Put the case of a transaction together; its first decision, where the same payment came more than once.

    Parameters
    ----------
    at
        When it was scored, by the broker's clock, epoch milliseconds.
    number
        Which payment under this id, from 1; without it the newest, or the one that was scored at `at`.

    Raises
    ------
    ArchiveError
        When there is no such decision where it was looked for, or a topic cannot be read.
    ConfigurationError
        When there are fewer payments under this id.
    """
    with topic_views.opened(settings) as archive:
        place = _find(archive, settings, transaction_id, card, at)
    told = snapshots.load_broadcasts(settings)
    with topic_views.opened(settings) as archive:
        history = CardHistory.read(archive, settings, place.partition, place.record.card_id)
        uses, decided = _uses(history.pairs, transaction_id)
        place, number = _chosen(place, decided, at, number)
        labels = [
            label
            for label in topic_views.labels(archive, settings, [place.partition])
            if (label.card_id, label.transaction_id) == (place.record.card_id, transaction_id)
        ]
        lessons = _lessons(archive, settings, place.record)
    case = _case(settings, told, place, history, labels, lessons)
    return msgspec.structs.replace(case, uses=uses, number=number)


def _find(archive: TopicReader, settings: Settings, transaction_id: str, card: str | None, at: int | None) -> Place:
    topic = settings.topics.scores
    spans = archive.spans(topic)
    partitions = sorted(spans) if card is None else [murmur2_partition(card.encode(), len(spans))]
    begins = None if at is None else archive.since(topic, max(at - AROUND, 0))
    ends = None if at is None else archive.since(topic, at + AROUND)
    needle = msgspec.json.encode(transaction_id)
    for partition in partitions:
        begin, end = (None, None) if begins is None or ends is None else (begins[partition], ends[partition])
        for entry in archive.read(topic, partition, begin, end):
            if needle in (entry.value or b"") and (record := _record(entry, transaction_id, card)) is not None:
                return Place(partition, entry.offset, record)
    where = f"on {topic}, partition {', '.join(map(str, partitions))}"
    when = "" if at is None else f", an hour around {rfc3339(at)} of the broker's clock"
    raise ArchiveError(f"no decision on transaction {transaction_id!r} {where}{when}")


def _uses(pairs: Sequence[Pair], transaction_id: str) -> tuple[list[Use], list[Place]]:
    """Return all uses of an id by a card, and those of them that were scored."""
    uses: list[Use] = []
    decided: list[Place] = []
    for one in pairs:
        if one.head is None or one.head.transaction_id != transaction_id:
            continue
        try:
            record = decode_score(one.score)
        except InvalidRecord:
            continue
        kind = REPETITION if record.is_duplicate else REUSED if decided or record.is_id_reused else FIRST
        said = record.timestamp, record.amount, record.currency, record.merchant_id
        uses.append(Use(kind, *said, record.outcome.value, record.score))
        if not record.is_duplicate:
            decided.append(Place(-1, one.offset if one.behind is None else one.behind - 1, record))
    return uses, decided


def _chosen(place: Place, decided: list[Place], at: int | None, number: int | None) -> tuple[Place, int]:
    """Return the payment that is asked for, and its number among those under its id."""
    if number is not None and not 1 <= number <= len(decided):
        raise ConfigurationError(f"--payment {number}: {len(decided)} payments under this id were scored")
    if number is None and at is None:
        number = len(decided)
    if number is None:
        number = next((n for n, one in enumerate(decided, start=1) if one.offset == place.offset), 0)
    if number == 0:  # its score lies under another key than its card's
        return place, 1
    return decided[number - 1]._replace(partition=place.partition), number


def _record(entry: Record, transaction_id: str, card: str | None) -> ScoreRecord | None:
    try:
        record = decode_score(entry.value)
    except InvalidRecord:
        return None
    is_it = record.transaction_id == transaction_id and card in {None, record.card_id}
    return record if is_it and not record.is_duplicate else None


def _lessons(archive: TopicReader, settings: Settings, record: ScoreRecord) -> list[dict[str, Any]]:
    """Return what was taught of a transaction; examples lie in the partition of its merchant."""
    spans = archive.spans(settings.topics.labelled)
    partition = murmur2_partition(record.merchant_id.encode(), len(spans))
    found: list[LabelledRecord] = []
    for entry in archive.read(settings.topics.labelled, partition):
        if msgspec.json.encode(record.transaction_id) in (entry.value or b""):
            with suppress(InvalidRecord):  # a foreign record: nobody taught it
                example = decode_labelled(entry.value or b"")
                if payment(example) == payment(record):
                    found.append(example)
    return [
        {
            "is_fraud": one.is_fraud,
            "source": None if one.source is None else one.source.value,
            "known_at": rfc3339(one.known_at),
            "taught_at": rfc3339(one.boundary_ms),
            "corrects": one.corrects,
            "weight": one.weight,
        }
        for one in found
    ]


def _case(
    settings: Settings,
    told: Broadcasts,
    place: Place,
    history: CardHistory,
    labels: list[Label],
    lessons: list[dict[str, Any]],
) -> Case:
    record = place.record
    number = _number(history.pairs, record)
    before, target = history.pairs[:number], history.pairs[number : number + 1]
    verifier = history.verifier(settings, told, TimeRange(record.timestamp, record.timestamp + 1))
    for _ in verifier.verify(before):
        pass  # what was wrong before is not what is asked
    profile = decode_profile(encode_profile(verifier.profiles.get(record.card_id) or Profile()))
    earlier = verifier.counts.copy()
    findings = list(verifier.verify(target))
    proved = [name for name in ("identical", "follow") if verifier.counts[name] > earlier[name]]
    view = told.views.get(record.snapshot)
    explanation = _contributions(told, record)
    is_known = bool(target) and verifier.is_rebuilt(record.card_id)
    transaction = target[0].transaction if target else None
    return Case(
        place={"topic": settings.topics.scores, "partition": place.partition, "offset": place.offset},
        score=record,
        alert_id=None if transaction is None or record.outcome == "approve" else alert_id(transaction),
        transaction=transaction,
        proof=proved[0] if proved else findings[0].kind.value if findings else "input_missing",
        detail="; ".join(finding.detail for finding in findings),
        base=None if explanation is None else explanation.base,
        contributions={} if explanation is None else _strongest_first(explanation),
        profile=profile_figures(profile) if is_known else None,
        merchant_risk=None if view is None else risk_figures(view.merchant(record.merchant_id), view.snapshot.as_of),
        card_risk=None if view is None else risk_figures(view.card(record.card_id), view.snapshot.as_of),
        snapshot=None if view is None else snapshot_figures(view.snapshot),
        labels=labels,
        taught=lessons,
    )


def _number(pairs: Sequence[Pair], record: ScoreRecord) -> int:
    """Return which of the card's pairs was decided in this record."""
    for number, one in enumerate(pairs):
        if one.head is not None and one.head.transaction_id == record.transaction_id and not one.head.is_duplicate:
            with suppress(InvalidRecord):
                if facts(decode_score(one.score)) == facts(record):
                    return number
    return len(pairs)


def _contributions(told: Broadcasts, record: ScoreRecord) -> Contributions | None:
    """Split the logit of a score by feature, whatever its outcome was."""
    view = told.views.get(record.snapshot)
    if record.features is None or view is None or record.model not in told.models:
        return None
    detector = Detector(told.models[record.model], FLAG_ALL)
    (verdict,) = detector.decide_from_features(
        [record.transaction()], [record.features], FixedSnapshot(view), [record.is_id_reused]
    )
    return verdict.contributions


def _strongest_first(explanation: Contributions) -> dict[str, float]:
    return dict(sorted(explanation.features.items(), key=lambda item: (-abs(item[1]), item[0])))
