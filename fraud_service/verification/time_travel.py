"""Read the history of one card, and the profile and risk at any event time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from fraud_service.config import factories
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.profile import RECENT, Profile
from fraud_service.domain.time import DAY, rfc3339
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.verification import log_reader, snapshots
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.matching import Pair, pair

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.domain.risk import Risk
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.verification.snapshots import Figures


class CardHistory(NamedTuple):
    """The transactions of one card on one partition, with their scores."""

    pairs: list[Pair]
    is_truncated: bool

    @classmethod
    def read(cls, reader: TopicReader, settings: Settings, partition: int, card_id: str) -> CardHistory:
        """Read a card's transactions and scores from the beginning of their partition."""
        topics, key = settings.topics, card_id.encode()
        is_truncated = reader.offset_ranges(topics.transactions)[partition].begin > 0
        scores = [entry for entry in reader.read(topics.scores, partition) if entry.key == key]
        accepted = log_reader.read_accepted(reader, settings, "transactions", [partition])
        inputs = [entry for entry in accepted if entry.key == key]
        return cls(list(pair(inputs, scores, is_truncated=is_truncated)), is_truncated)


def profile_at(settings: Settings, card_id: str, at: int) -> Figures:
    """Return the profile of a card at an event time: the fold of its transactions until then.

    Raises `ConfigurationError` when its partition has no transaction of the card.
    """
    broadcasts = snapshots.load_broadcasts(settings)
    with log_reader.open_reader(settings) as reader:
        partition = murmur2_partition(card_id.encode(), len(reader.offset_ranges(settings.topics.transactions)))
        history = CardHistory.read(reader, settings, partition, card_id)
    if not history.pairs:
        raise ConfigurationError(f"--card {card_id}: partition {partition} has no transaction of it")
    past = [one for one in history.pairs if one.transaction is not None and one.transaction.timestamp <= at]
    verifier = broadcasts.verifier(factories.policy(settings), TimeRange(0, 0), is_truncated=history.is_truncated)
    for _ in verifier.verify(past):
        pass
    profile = verifier.profiles.get(card_id)
    if profile is None and history.is_truncated and past:
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


def profile_figures(profile: Profile) -> Figures:
    """Return the figures of a profile; its amounts are in one currency, the last payments in that of each.

    A profile has fingerprints of merchants, countries and devices, so only their number is known.
    """
    if profile.count == 0:
        return {"payments": 0}
    days, place, recent = profile.days, profile.place, [*RECENT.iter_unpack(profile.recent)]
    return {
        "payments": profile.count,
        "first_seen": rfc3339(profile.first_seen),
        "last_seen": rfc3339(profile.last_seen),
        "currency": profile.currency or None,
        "amounts": profile.amounts,
        "usual_amount": round(math.expm1(profile.usual_log_amount), 2),
        "deviation_of_log_amount": round(profile.deviation, 4),
        "payments_30d": sum(days.counts),
        "amounts_30d": sum(days.amounts),
        "in_other_currencies_30d": sum(days.others),
        "total_30d": round(math.fsum(days.totals), 2),
        "largest_30d": max(days.largest, default=0.0),
        "unusually_high_30d": sum(days.outliers),
        "merchants_remembered": len(profile.merchants),
        "countries_remembered": len(profile.countries),
        "devices_remembered": len(profile.devices),
        "last_place": None
        if place is None
        else f"{place.latitude:.4f}, {place.longitude:.4f} at {rfc3339(place.timestamp)}",
        "last_payments": [
            {
                "timestamp": rfc3339(timestamp),
                "amount": amount,
                "currency": currency.decode().strip("\0") or None,
                "outcome": profile.decision(ago).outcome.value,
            }
            for ago, (_, timestamp, amount, _, currency) in zip(range(len(recent), 0, -1), recent, strict=True)
        ],
    }


def risk_figures(risk: Risk, as_of: int) -> Figures:
    """Return the labels up to a snapshot boundary; times are those of transactions."""
    ((labelled, frauds),) = risk.labelled(as_of, 30)
    return {
        "labelled_30d": labelled,
        "frauds_30d": frauds,
        "streak_of_frauds": risk.streak,
        "low_amount_frauds_in_streak": risk.lowamount_frauds,
        "streak_started": _moment(risk.streak_started_at),
        "last_fraud": _moment(risk.last_fraud),
        "last_legitimate": _moment(risk.last_legitimate),
        "days": [
            {"day": rfc3339(one.day * DAY)[:10], "labelled": one.labelled, "frauds": one.frauds} for one in risk.days
        ],
    }


def _moment(timestamp: int | None) -> str | None:
    return None if timestamp is None else rfc3339(timestamp)
