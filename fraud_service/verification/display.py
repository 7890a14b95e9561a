"""Turn profiles, risk and snapshots into readable figures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fraud_service.domain.events import rfc3339
from fraud_service.domain.profile import RECENT
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from fraud_service.domain.profile import Profile
    from fraud_service.domain.risk import Risk
    from fraud_service.domain.snapshot import Snapshot

Figures = dict[str, Any]


def profile_figures(profile: Profile) -> Figures:
    """Return the figures of a profile; amounts are in the currency of each payment.

    A profile has fingerprints of merchants, countries and devices, so only their number is known.
    """
    if profile.count == 0:
        return {"payments": 0}
    days, place, recent = profile.days, profile.place, [*RECENT.iter_unpack(profile.recent)]
    return {
        "payments": profile.count,
        "first_seen": rfc3339(profile.first_seen),
        "last_seen": rfc3339(profile.last_seen),
        "usual_amount": round(math.expm1(profile.usual_log_amount), 2),
        "deviation_of_log_amount": round(profile.deviation, 4),
        "payments_30d": sum(days.counts),
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
                "outcome": profile.decision(ago).outcome.value,
            }
            for ago, (_, timestamp, amount, *_) in zip(range(len(recent), 0, -1), recent, strict=True)
        ],
    }


def risk_figures(risk: Risk, as_of: int) -> Figures:
    """Return the labels up to a snapshot boundary; times are those of transactions."""
    ((labelled, frauds),) = risk.labelled(as_of, 30)
    return {
        "labelled_30d": labelled,
        "frauds_30d": frauds,
        "streak_of_frauds": risk.streak,
        "unexplained_in_streak": risk.lowamount_frauds,
        "streak_began": _moment(risk.streak_began),
        "last_fraud": _moment(risk.last_fraud),
        "last_genuine": _moment(risk.last_genuine),
        "days": [
            {"day": rfc3339(one.day * DAY)[:10], "labelled": one.labelled, "frauds": one.frauds} for one in risk.days
        ],
    }


def snapshot_figures(snapshot: Snapshot) -> Figures:
    """Return the fields of a snapshot without its weights."""
    return {
        "version": snapshot.version,
        "as_of": rfc3339(snapshot.as_of),
        "effective_from": rfc3339(snapshot.effective_from),
        "model": snapshot.model,
        "online_weight": snapshot.online_weight,
        "examples": snapshot.examples,
        "label_horizon": rfc3339(snapshot.label_horizon),
        "risk_rows_changed": snapshot.risk_rows,
        "risk_digest": snapshot.risk_digest,
        "digest": snapshot.digest,
    }


def _moment(timestamp: int | None) -> str | None:
    return None if timestamp is None else rfc3339(timestamp)
