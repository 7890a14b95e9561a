"""What the log holds of one card, and profile and risk as they were at any event time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fraud_service.config import factories
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import rfc3339
from fraud_service.domain.profile import Profile
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.verification import snapshots, topic_views
from fraud_service.verification.decision_verifier import TimeRange, Verifier
from fraud_service.verification.display import Figures, profile_figures, risk_figures
from fraud_service.verification.pairing import Pair, pair

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import Record, TopicReader
    from fraud_service.verification.topic_views import Broadcasts


class CardHistory(NamedTuple):
    """What one partition holds of one card, transactions with their scores."""

    partition: int
    pairs: list[Pair]
    is_cut: bool

    @classmethod
    def read(cls, archive: TopicReader, settings: Settings, partition: int, card_id: str) -> CardHistory:
        """Read a card's transactions and scores from the beginning of their partition."""
        names, key = settings.topics, card_id.encode()
        begin = archive.spans(names.transactions)[partition].begin
        refused = topic_views.refused_offsets(archive, settings).get(partition, set())
        scores = _of_card(archive.read(names.scores, partition), key)
        transactions = _of_card(archive.read(names.transactions, partition), key)
        return cls(partition, list(pair(transactions, scores, refused, is_cut=begin > 0)), begin > 0)

    def verifier(self, settings: Settings, told: Broadcasts, span: TimeRange) -> Verifier:
        """Return what decides again."""
        detector = told.detector(factories.policy(settings))
        return Verifier(self.partition, detector, told.taught(), span, is_cut=self.is_cut)


def _of_card(entries: Iterator[Record], key: bytes) -> list[tuple[int, bytes | None]]:
    return [(entry.offset, entry.value) for entry in entries if entry.key == key]


def profile_at(settings: Settings, card_id: str, at: int) -> Figures:
    """Return the profile of a card as it was at an event time: folded from what had arrived by then.

    Raises
    ------
    ConfigurationError
        When nothing of the card is on its partition.
    """
    told = snapshots.load_broadcasts(settings)
    with topic_views.opened(settings) as archive:
        partition = murmur2_partition(card_id.encode(), len(archive.spans(settings.topics.transactions)))
        history = CardHistory.read(archive, settings, partition, card_id)
    if not history.pairs:
        raise ConfigurationError(f"--card {card_id}: no transaction of it is on partition {partition}")
    past = [one for one in history.pairs if one.transaction is not None and one.transaction.timestamp <= at]
    verifier = history.verifier(settings, told, TimeRange(0, 0))
    for _ in verifier.verify(past):
        pass
    profile = verifier.profiles.get(card_id)
    if profile is None and history.is_cut and past:
        return {"card_id": card_id, "at": rfc3339(at), "history": "cut by retention: it cannot be rebuilt"}
    view = told.knowledge.at(at)
    return {
        "card_id": card_id,
        "at": rfc3339(at),
        "profile": profile_figures(profile or Profile()),
        "risk": risk_figures(view.card(card_id), view.snapshot.as_of),
        "snapshot": view.snapshot.version,
    }


def merchant_at(settings: Settings, merchant_id: str, at: int) -> Figures:
    """Return the risk of a merchant in the snapshot that was in force at an event time."""
    view = snapshots.load_broadcasts(settings).knowledge.at(at)
    return {
        "merchant_id": merchant_id,
        "at": rfc3339(at),
        "risk": risk_figures(view.merchant(merchant_id), view.snapshot.as_of),
        "snapshot": view.snapshot.version,
    }
