"""Read the history of one card, and the profile and risk at any event time."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import rfc3339
from fraud_service.domain.profile import Profile
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.verification import log_reader, replay, snapshots
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.display import Figures, profile_figures, risk_figures
from fraud_service.verification.matching import Pair, pair

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.verification.decisions import DecisionVerifier
    from fraud_service.verification.log_reader import Broadcasts


class CardHistory(NamedTuple):
    """The transactions of one card on one partition, with their scores."""

    pairs: list[Pair]
    is_cut: bool

    @classmethod
    def read(cls, reader: TopicReader, settings: Settings, partition: int, card_id: str) -> CardHistory:
        """Read a card's transactions and scores from the beginning of their partition."""
        topics, key = settings.topics, card_id.encode()
        is_cut = reader.spans(topics.transactions)[partition].begin > 0
        rejected = log_reader.dead_letters(reader, settings).of(topics.transactions, partition)
        scores = [entry for entry in reader.read(topics.scores, partition) if entry.key == key]
        inputs = [
            entry
            for entry in reader.read(topics.transactions, partition)
            if entry.key == key and entry.offset not in rejected
        ]
        return cls(list(pair(inputs, scores, is_cut=is_cut)), is_cut)

    def verifier(self, settings: Settings, broadcasts: Broadcasts, time_range: TimeRange) -> DecisionVerifier:
        """Return a verifier of the card's decisions."""
        return replay.decision_verifier(settings, broadcasts, time_range, is_cut=self.is_cut)


def profile_at(settings: Settings, card_id: str, at: int) -> Figures:
    """Return the profile of a card at an event time: the fold of its transactions until then.

    Raises
    ------
    ConfigurationError
        When its partition has no transaction of the card.
    """
    broadcasts = snapshots.load_broadcasts(settings)
    with log_reader.opened(settings) as reader:
        partition = murmur2_partition(card_id.encode(), len(reader.spans(settings.topics.transactions)))
        history = CardHistory.read(reader, settings, partition, card_id)
    if not history.pairs:
        raise ConfigurationError(f"--card {card_id}: partition {partition} has no transaction of it")
    past = [one for one in history.pairs if one.transaction is not None and one.transaction.timestamp <= at]
    verifier = history.verifier(settings, broadcasts, TimeRange(0, 0))
    for _ in verifier.verify(past):
        pass
    profile = verifier.profiles.get(card_id)
    if profile is None and history.is_cut and past:
        return {"card_id": card_id, "at": rfc3339(at), "history": "its first transactions expired: no profile"}
    view = broadcasts.store.at(at)
    return {
        "card_id": card_id,
        "at": rfc3339(at),
        "profile": profile_figures(profile or Profile()),
        "risk": risk_figures(view.card(card_id), view.snapshot.as_of),
        "snapshot": view.snapshot.version,
    }


def merchant_at(settings: Settings, merchant_id: str, at: int) -> Figures:
    """Return the risk of a merchant in the snapshot that was active at an event time."""
    view = snapshots.load_broadcasts(settings).store.at(at)
    return {
        "merchant_id": merchant_id,
        "at": rfc3339(at),
        "risk": risk_figures(view.merchant(merchant_id), view.snapshot.as_of),
        "snapshot": view.snapshot.version,
    }
