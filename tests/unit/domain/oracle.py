"""Every feature once more, from the raw history and by the written contract: no state, no cleverness, nothing shared.

`history` holds the transactions of one card that arrived before, in arrival order and without repetitions; `facts` what
labels said of a merchant or card, in the order in which they became known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.domain.events import Transaction

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NEVER = 720.0


@dataclass(frozen=True)
class Fact:
    """One label: when it became known, when the transaction was made, and what it says."""

    known_at: int
    made_at: int
    is_fraud: bool
    is_explained: bool = False


def without_repetitions(arrivals: Iterable[Transaction]) -> list[Transaction]:
    """Drop what came again while it was still among the last 16 of the card."""
    history: list[Transaction] = []
    for arrival in arrivals:
        if all(_named(arrival) != _named(earlier) for earlier in history[-16:]):
            history.append(arrival)
    return history


def _named(payment: Transaction) -> tuple[object, ...]:
    """Return what two messages about the same payment have in common."""
    return payment.transaction_id, payment.timestamp, payment.amount, payment.currency, payment.merchant_id


def card_features(now: Transaction, history: list[Transaction]) -> dict[str, float]:
    """Recompute what the transaction itself and its card's history say."""
    return {**_itself(now), **_pace(now, history), **_amounts(now, history), **_company(now, history)}


def _itself(now: Transaction) -> dict[str, float]:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now.timestamp, minutes=now.utc_offset_min or 0)
    return {
        "amount": now.amount,
        "hour_of_day": moment.hour,
        "is_night": 1 if moment.hour < 6 else 0,
        "is_weekend": 1 if moment.strftime("%a") in {"Sat", "Sun"} else 0,
        "is_card_not_present": 1 if now.entry_mode in {"ecommerce", "keyed", "E-Commerce", "81", "MOTO"} else 0,
    }


def _in_buckets(now: Transaction, history: list[Transaction], size: int, span: int, kept: int) -> list[Transaction]:
    """Find what is in the current UTC bucket and the span - 1 before it, where buckets are kept.

    The kept buckets are those of the newest event time of the card and the kept - 1 before it.
    """
    if not history:
        return []
    newest_kept = max(earlier.timestamp for earlier in history) // size
    current = now.timestamp // size
    return [
        earlier
        for earlier in history
        if current - span + 1 <= earlier.timestamp // size <= current
        and earlier.timestamp // size >= newest_kept - kept + 1
    ]


def _days(now: Transaction, history: list[Transaction], span: int) -> list[Transaction]:
    return _in_buckets(now, history, DAY, span, kept=30)


def _of_currency(history: list[Transaction]) -> tuple[str, list[Transaction], list[Transaction]]:
    """Return the card's currency by the written rule, the payments in its statistics, and all unusually high ones."""
    currency, in_use, high, newest_day = "", [], [], 0
    since: list[Any] = []  # all with an amount since the currency began, while their day is kept
    for payment in history:
        if payment.timestamp // DAY > newest_day:
            newest_day = payment.timestamp // DAY
            since = [earlier for earlier in since if earlier.timestamp // DAY > newest_day - 30]
        if payment.amount == 0:
            continue
        own = [earlier for earlier in since if earlier.currency == currency] if payment.currency != currency else since
        if currency and payment.currency != currency and len(own) < (len(since) + 1) / 4:
            high += _high(in_use)
            currency, in_use, since = "", [], []
        if currency in {"", payment.currency}:
            currency = payment.currency
            in_use.append(payment)
        if payment.timestamp // DAY > newest_day - 30:
            since.append(payment)
    return currency, in_use, high + _high(in_use)


def _total(transactions: list[Transaction]) -> float:
    return math.fsum(earlier.amount for earlier in transactions)


def _mean(transactions: list[Transaction]) -> float:
    return _total(transactions) / len(transactions) if transactions else 0.0


def _pace(now: Transaction, history: list[Transaction]) -> dict[str, float]:
    age = 0.0
    idle = NEVER
    if history:
        age = min(max(0.0, (now.timestamp - min(earlier.timestamp for earlier in history)) / DAY), 30.0)
        idle = min(max(0.0, (now.timestamp - max(earlier.timestamp for earlier in history)) / HOUR), NEVER)
    last_hour = [earlier for earlier in history[-16:] if 0 <= now.timestamp - earlier.timestamp < 60 * MINUTE]
    one_day = _in_buckets(now, history, HOUR, 24, kept=24)
    month = _days(now, history, 30)
    usual_rate = len(month) / min(age + 1, 30)
    return {
        "card_age_days": age,
        "hours_since_last": idle,
        "count_10m": len([earlier for earlier in last_hour if now.timestamp - earlier.timestamp < 10 * MINUTE]),
        "count_1h": len(last_hour),
        "small_payments_1h": len([earlier for earlier in last_hour if earlier.amount <= 2.00]),
        "distinct_merchants_1h": len({earlier.merchant_id for earlier in last_hour}),
        "count_1d": len(one_day),
        "count_7d": len(_days(now, history, 7)),
        "count_30d": len(month),
        "velocity_ratio": len(one_day) / usual_rate if usual_rate else 0.0,
    }


def _unusual(amounts: list[float]) -> list[float]:
    """How far each amount is above the robust mean of those before it, in robust deviations.

    The mean starts at the first value, the deviation at 0.5 (never below 0.05 in use). The n-th value moves both by the
    share max(1 / n, 0.02): the mean towards the value, but at most by that share of 3 deviations; the deviation towards
    the distance that was taken into account.
    """
    found = [0.0]
    mean, deviation = math.log(1 + amounts[0]), 0.5
    for n, amount in enumerate(amounts[1:], start=2):
        off = math.log(1 + amount) - mean
        found.append(off / max(deviation, 0.05))
        share = max(1 / n, 0.02)
        taken = math.copysign(min(abs(off), 3 * max(deviation, 0.05)), off)
        mean, deviation = mean + share * taken, (1 - share) * deviation + share * abs(taken)
    return found


def _high(in_use: list[Transaction]) -> list[Transaction]:
    """Find the amounts that were unusual when they came: judged by all that had come before, at least five."""
    unusual = _unusual([payment.amount for payment in in_use]) if in_use else []
    return [payment for n, payment in enumerate(in_use) if n >= 5 and unusual[n] > 3]


def _amounts(now: Transaction, history: list[Transaction]) -> dict[str, float]:
    currency, in_use, unusual = _of_currency(history)
    mine, high = {id(earlier) for earlier in in_use}, {id(earlier) for earlier in unusual}

    def of_card(transactions: list[Transaction]) -> list[Transaction]:
        return [earlier for earlier in transactions if id(earlier) in mine]

    found = {
        "amount_outliers_3d": sum(id(earlier) in high for earlier in _days(now, history, 3)),
        "amount_outliers_14d": sum(id(earlier) in high for earlier in _days(now, history, 14)),
    }
    if now.amount == 0 or currency not in {"", now.currency}:
        cold = {"total_1d": 0, "mean_7d": 0, "mean_30d": 0, "amount_to_mean": 1, "amount_to_largest": 1}
        return found | cold | {"amount_zscore": 0}
    month = of_card(_days(now, history, 30))
    mean, largest = _mean(month), max((earlier.amount for earlier in month), default=0.0)
    return found | {
        "total_1d": _total(of_card(_in_buckets(now, history, HOUR, 24, kept=24))),
        "mean_7d": _mean(of_card(_days(now, history, 7))),
        "mean_30d": mean,
        "amount_to_mean": min(now.amount / mean, 1000) if mean else 1.0,
        "amount_to_largest": min(now.amount / largest, 1000) if largest else 1.0,
        "amount_zscore": max(-20.0, min(20.0, _unusual([*(earlier.amount for earlier in in_use), now.amount])[-1])),
    }


def _latest_distinct(values: list[str], most: int) -> list[str]:
    """Return the most recent distinct values."""
    distinct: list[str] = []
    for value in reversed(values):
        if value not in distinct:
            distinct.append(value)
    return distinct[:most]


def _visits(merchant: str, history: list[Transaction]) -> int:
    """Count the visits to a merchant since it was last not among the 32 most recent ones."""
    visits = 0
    others: set[str] = set()
    for earlier in reversed(history):
        if earlier.merchant_id == merchant:
            visits += 1
            others = set()
        else:
            others.add(earlier.merchant_id)
        if len(others) == 32:
            break
    return visits


def _is_new(value: str | None, earlier: list[str | None]) -> int:
    known = [text for text in earlier if text is not None]
    return 1 if value is not None and known and value not in _latest_distinct(known, 8) else 0


def _company(now: Transaction, history: list[Transaction]) -> dict[str, float]:
    distance, speed = _travel(now, history)
    return {
        "merchant_visits": min(_visits(now.merchant_id, history), 30.0),
        "is_new_country": _is_new(now.country, [earlier.country for earlier in history]),
        "is_new_device": _is_new(now.device_id, [earlier.device_id for earlier in history]),
        "distance_km": distance,
        "speed_kmh": speed,
    }


def _travel(now: Transaction, history: list[Transaction]) -> tuple[float, float]:
    here = _direction(now)
    known = [earlier for earlier in history if _direction(earlier) is not None]
    there = _direction(known[-1]) if known else None
    if here is None or there is None:
        return 0.0, 0.0
    across = math.dist((0, 0, 0), _cross(here, there))
    along = sum(a * b for a, b in zip(here, there, strict=True))
    distance = 6371.0088 * math.atan2(across, along)
    hours = max(abs(now.timestamp - known[-1].timestamp) / HOUR, 1 / 60)
    return distance, min(distance / hours, 20_000.0)


def _direction(at: Transaction) -> tuple[float, float, float] | None:
    """Return the place as a point on the unit sphere."""
    if at.latitude is None or at.longitude is None:
        return None
    north, east = math.radians(at.latitude), math.radians(at.longitude)
    return math.cos(north) * math.cos(east), math.cos(north) * math.sin(east), math.sin(north)


def _cross(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def risk_features(now: int, merchant: list[Fact], card: list[Fact], as_of: int) -> dict[str, float]:
    """Recompute what labels say of merchant and card as of the boundary `as_of`."""
    found: dict[str, float] = {}
    for days in (1, 7, 30):
        known = _known(merchant, as_of, days)
        found[f"merchant_labelled_{days}d"] = len(known)
        found[f"merchant_fraud_share_{days}d"] = sum(f.is_fraud for f in known) / len(known) if known else 0.0
    streak: list[Fact] = []
    for fact in reversed(merchant):
        if not fact.is_fraud:
            break
        streak.append(fact)
    found["merchant_streak"] = min(len(streak), 100)
    found["merchant_lowamount_frauds"] = min(sum(not fact.is_explained for fact in streak), 100)
    found["merchant_streak_age_hours"] = _hours_since(now, streak[-1:]) if streak else 0.0
    found["merchant_hours_since_legitimate"] = _hours_since(now, [fact for fact in merchant if not fact.is_fraud])
    found["merchant_hours_since_lowamount_fraud"] = _hours_since(
        now, [fact for fact in merchant if fact.is_fraud and not fact.is_explained]
    )
    for days in (7, 30):
        found[f"card_frauds_{days}d"] = sum(fact.is_fraud for fact in _known(card, as_of, days))
    found["card_hours_since_fraud"] = _hours_since(now, [fact for fact in card if fact.is_fraud])
    return found


def _known(facts: list[Fact], as_of: int, days: int) -> list[Fact]:
    today = as_of // DAY
    return [fact for fact in facts if today - days <= fact.known_at // DAY <= today]


def _hours_since(now: int, facts: list[Fact]) -> float:
    """Return the time since the transaction of which it became known last."""
    return min(max(0.0, (now - facts[-1].made_at) / HOUR), NEVER) if facts else NEVER
