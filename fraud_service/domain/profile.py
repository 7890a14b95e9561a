"""The profile of a card: one compact record, updated with one transaction at a time.

A profile never exceeds 16 KiB. It holds counters in hourly and daily buckets, the most recent merchants, countries and
devices, and the last transactions with their decisions. Buckets follow event time in UTC. A transaction older than the
oldest bucket changes only the lifetime figures. `fraud_service.domain.features.contract` defines every figure.
"""

from __future__ import annotations

import math
import struct
import zlib
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.decision import Decision
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.profile_buckets import Buckets, Days
from fraud_service.domain.time import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.domain.events import Transaction

SCHEMA: Final = 6
# Schema 5 compared amounts of all currencies, and counted amounts of zero.
# Schema 4 has CRC-32 fingerprints of merchants, countries and devices, and no currency in its last transactions, too.
PREVIOUS_SCHEMAS: Final = frozenset({4, 5})
CRC_SCHEMA: Final = 4

HOURS_KEPT: Final = 24
DAYS_KEPT: Final = 30
RECENT_KEPT: Final = 16
MERCHANTS_KEPT: Final = 32
COUNTRIES_KEPT: Final = 8
DEVICES_KEPT: Final = 8

# The card's usual amount is a running mean of log(1 + amount). A payment moves it as if it were at most
# `CLIP_DEVIATIONS` deviations away (bounded influence, after Huber), so that one large fraud does not raise it much.
CLIP_DEVIATIONS: Final = 3.0
OUTLIER_DEVIATIONS: Final = 3.0
MIN_LEARNING_RATE: Final = 0.02
DEVIATION_PRIOR: Final = 0.5
DEVIATION_FLOOR: Final = 0.05
MIN_PAYMENTS_TO_JUDGE: Final = 5
# If less than this share of the card's amounts in 30 days is in its currency, the next other currency becomes its own.
MIN_SHARE_OF_CURRENCY: Final = 0.25


class Place(msgspec.Struct, array_like=True, gc=False):
    """The last payment with coordinates: degrees (WGS 84) and epoch milliseconds."""

    latitude: float
    longitude: float
    timestamp: int


# One of the last transactions: fingerprint of its id, event time, amount, fingerprint of the merchant, currency.
RECENT: Final = struct.Struct("<8sqdQ3s")
RECENT_4: Final = struct.Struct("<8sqdI")
UNKNOWN_CURRENCY: Final = bytes(3)  # in transactions of schema 4; it matches every currency


class DuplicateCheck(NamedTuple):
    """The result of looking a transaction up among the last ones of its card.

    `age` counts transactions back from the newest, 1 for the newest and 0 if there is no match. `is_id_reused`: the id
    matches, but the content differs.
    """

    age: int = 0
    is_id_reused: bool = False


NOT_FOUND: Final = DuplicateCheck()


class Profile(msgspec.Struct, array_like=True, gc=False):
    """The state of one card. Lists are ordered by arrival, the newest last.

    The last transactions and their decisions stay packed: every payment reads and writes the profile, but few payments
    look at them. `has_crcs`: schema 4 began the profile, so some fingerprints may still be CRC-32. `currency` is that
    of all statistics of amounts (`totals`, `largest`, `outliers`, usual amount), and `amounts` their number.
    """

    schema: int = SCHEMA
    count: int = 0
    first_seen: int = 0
    last_seen: int = 0
    usual_log_amount: float = 0.0
    deviation: float = DEVIATION_PRIOR
    hours: Buckets = msgspec.field(default_factory=Buckets)
    days: Days = msgspec.field(default_factory=Days)
    recent: bytes = b""
    decisions: list[bytes] = []
    merchants: dict[int, int] = {}
    countries: list[int] = []
    devices: list[int] = []
    place: Place | None = None
    has_crcs: bool = False
    currency: str = ""
    amounts: int = 0

    def find_duplicate(self, transaction: Transaction) -> DuplicateCheck:
        """Look a transaction up among the last `RECENT_KEPT`.

        Two messages are the same transaction when id, event time, amount, currency and merchant agree. All other fields
        may differ.
        """
        identity = fingerprint64(transaction.transaction_id)
        if identity not in self.recent:  # nearly always; a match may still span other fields
            return NOT_FOUND
        rows = [*RECENT.iter_unpack(self.recent)]
        same_id = [index for index, row in enumerate(rows) if row[0] == identity]
        for index in same_id:
            if _agrees(rows[index], transaction):
                return DuplicateCheck(len(rows) - index)
        return DuplicateCheck(is_id_reused=bool(same_id))

    def decision(self, age: int) -> Decision:
        """Return the decision on the transaction at an age as in `DuplicateCheck`."""
        if age > len(self.decisions):
            raise AssertionError("the card's profile has no decision on a transaction that it contains")
        return _decision_decoder.decode(self.decisions[-age])

    def add_decision(self, decision: Decision) -> None:
        """Store the decision on the oldest transaction that has none yet."""
        self.decisions.append(_encoder.encode(decision))
        del self.decisions[:-RECENT_KEPT]

    def can_compare(self, transaction: Transaction) -> bool:
        """Whether the payment has an amount, in the currency of the card's other amounts."""
        return transaction.amount > 0 and (transaction.currency == self.currency or not self.currency)

    def amount_zscore(self, amount: float) -> float:
        """Return how many deviations the amount exceeds the card's usual amount; 0 before the first amount."""
        if self.amounts == 0:
            return 0.0
        return (math.log1p(amount) - self.usual_log_amount) / max(self.deviation, DEVIATION_FLOOR)

    def update(self, transaction: Transaction) -> None:
        """Add one transaction; `add_decision` stores its decision later."""
        hour, day = self._count(transaction)
        if transaction.amount > 0:
            self._add_amount(transaction, hour, day)
        self._update_merchant_device_and_place(transaction)
        self.recent = self.recent[-(RECENT_KEPT - 1) * RECENT.size :] + RECENT.pack(
            fingerprint64(transaction.transaction_id),
            transaction.timestamp,
            transaction.amount,
            fingerprint(transaction.merchant_id),
            transaction.currency.encode(),
        )

    def visits(self, merchant_id: str) -> int:
        """Return how often the card paid this merchant while it stayed among the most recent merchants."""
        visits = self.merchants.get(fingerprint(merchant_id), 0)
        if not visits and self.has_crcs:
            return self.merchants.get(fingerprint32(merchant_id), 0)
        return visits

    def is_new(self, text: str | None, known: list[int]) -> bool:
        """Whether a country or device is not among the known ones. False if none is known or the text is absent."""
        if text is None or not known or fingerprint(text) in known:
            return False
        return not (self.has_crcs and fingerprint32(text) in known)

    def _add_amount(self, transaction: Transaction, hour: int | None, day: int | None) -> None:
        """Add an amount to the statistics, if it is in the card's currency."""
        amount, days = transaction.amount, self.days
        if transaction.currency != self.currency and not self._takes(transaction.currency):
            if day is not None:
                days.others[day] += 1
            return
        is_outlier = self.amounts >= MIN_PAYMENTS_TO_JUDGE and self.amount_zscore(amount) > OUTLIER_DEVIATIONS
        self._update_usual_amount(amount)
        self.amounts += 1
        if hour is not None:
            self.hours.totals[hour] += amount
        if day is not None:
            days.amounts[day] += 1
            days.totals[day] += amount
            days.largest[day] = max(days.largest[day], amount)
            days.outliers[day] += is_outlier

    def _takes(self, currency: str) -> bool:
        """Whether another currency becomes that of the card; then the statistics of amounts start again."""
        if self.currency:
            own, others = sum(self.days.amounts), sum(self.days.others)
            if own >= MIN_SHARE_OF_CURRENCY * (own + others + 1):
                return False
            self.amounts, self.usual_log_amount, self.deviation = 0, 0.0, DEVIATION_PRIOR
            self.hours.totals = [0.0] * len(self.hours.numbers)
            self.days.restart()
        self.currency = currency
        return True

    def _update_usual_amount(self, amount: float) -> None:
        value = math.log1p(amount)
        if self.amounts == 0:
            self.usual_log_amount = value
            return
        rate = max(1.0 / (self.amounts + 1), MIN_LEARNING_RATE)
        max_step = CLIP_DEVIATIONS * max(self.deviation, DEVIATION_FLOOR)
        step = min(max(value - self.usual_log_amount, -max_step), max_step)
        self.usual_log_amount += rate * step
        self.deviation += rate * (abs(step) - self.deviation)

    def _count(self, transaction: Transaction) -> tuple[int | None, int | None]:
        """Count the payment; return the positions of its hour and its day, None where they have expired."""
        timestamp = transaction.timestamp
        self.first_seen = min(self.first_seen, timestamp) if self.count else timestamp
        self.last_seen = newest = max(self.last_seen, timestamp)
        self.count += 1
        hours, hour = self.hours, self.hours.position_of(timestamp // HOUR, newest // HOUR - HOURS_KEPT)
        if hour is not None:
            hours.counts[hour] += 1
        days, day = self.days, self.days.position_of(timestamp // DAY, newest // DAY - DAYS_KEPT)
        if day is not None:
            days.counts[day] += 1
        return hour, day

    def _update_merchant_device_and_place(self, transaction: Transaction) -> None:
        merchant = fingerprint(transaction.merchant_id)
        if self.has_crcs:
            self._upgrade(transaction, merchant)
        self.merchants[merchant] = self.merchants.pop(merchant, 0) + 1  # re-inserted, so that the most recent is last
        if len(self.merchants) > MERCHANTS_KEPT:
            del self.merchants[next(iter(self.merchants))]
        if transaction.country is not None:
            self.countries = _moved_last(self.countries, transaction.country, COUNTRIES_KEPT)
        if transaction.device_id is not None:
            self.devices = _moved_last(self.devices, transaction.device_id, DEVICES_KEPT)
        if transaction.latitude is not None and transaction.longitude is not None:
            self.place = Place(transaction.latitude, transaction.longitude, transaction.timestamp)

    def _upgrade(self, transaction: Transaction, merchant: int) -> None:
        """Replace the CRC-32 fingerprints of this merchant, country and device."""
        old = fingerprint32(transaction.merchant_id)
        if old in self.merchants:
            self.merchants[merchant] = self.merchants.pop(old)
            rows = [[*row] for row in RECENT.iter_unpack(self.recent)]
            for row in rows:
                row[3] = merchant if row[3] == old else row[3]
            self.recent = b"".join(RECENT.pack(*row) for row in rows)
        self.countries = _upgraded(self.countries, transaction.country)
        self.devices = _upgraded(self.devices, transaction.device_id)


def _agrees(row: tuple[bytes, int, float, int, bytes], transaction: Transaction) -> bool:
    """Whether a packed transaction with the same id is this one."""
    _, timestamp, amount, merchant, currency = row
    return (
        (timestamp, amount) == (transaction.timestamp, transaction.amount)
        and merchant in {fingerprint(transaction.merchant_id), fingerprint32(transaction.merchant_id)}
        and currency in {transaction.currency.encode(), UNKNOWN_CURRENCY}
    )


def _moved_last(known: list[int], text: str, kept: int) -> list[int]:
    seen = fingerprint(text)
    if known and known[-1] == seen:  # nearly always
        return known
    return [*[other for other in known if other != seen], seen][-kept:]


def _upgraded(known: list[int], text: str | None) -> list[int]:
    return known if text is None else [fingerprint(text) if one == fingerprint32(text) else one for one in known]


@lru_cache(maxsize=16)  # two calls per transaction
def fingerprint64(text: str) -> bytes:
    """Return 64 bits that identify a transaction within a card, the same on every machine."""
    return blake2b(text.encode(), digest_size=8).digest()


NOT_LEGACY: Final = 1 << 63  # set in every fingerprint, so that none equals a CRC-32


@lru_cache(maxsize=4096)  # several calls per transaction, and merchants and countries recur
def fingerprint(text: str) -> int:
    """Return 63 bits of BLAKE2b that identify a merchant, country or device within a card.

    An attacker cannot find another id with a given fingerprint.

    >>> fingerprint("merchant-1") == fingerprint("merchant-2")
    False
    >>> fingerprint("merchant-1") >= NOT_LEGACY
    True
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") | NOT_LEGACY


@lru_cache(maxsize=4096)  # as above: also called for each merchant, country and device that is new to a card
def fingerprint32(text: str) -> int:
    """Return the CRC-32 fingerprint of schema 4. `Profile.update` replaces it when the merchant or device recurs."""
    return zlib.crc32(text.encode())


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Profile)
encode_profile: Final[Callable[[Profile], bytes]] = _encoder.encode
_decision_decoder = msgspec.msgpack.Decoder(Decision)


def decode_profile(data: bytes) -> Profile:
    """Decode a profile; upgrade it from schema 4 or 5. Raises `InvalidRecord` for other bytes or schemas."""
    try:
        profile = _decoder.decode(data)
        if profile.schema in PREVIOUS_SCHEMAS:
            _convert(profile)
        RECENT.iter_unpack(profile.recent)  # fails if a transaction is truncated
    except (*UNREADABLE, struct.error) as error:
        _require_schema(data)
        raise InvalidRecord(f"a card's profile in the state store cannot be read: {error}") from error
    if profile.schema != SCHEMA:
        _require_schema(data)
    return profile


def _convert(profile: Profile) -> None:
    """Convert a profile of a previous schema. Its currency is the most frequent one of its last payments."""
    if profile.schema == CRC_SCHEMA:
        rows = RECENT_4.iter_unpack(profile.recent)
        profile.recent = b"".join(RECENT.pack(*row, UNKNOWN_CURRENCY) for row in rows)
        profile.has_crcs = True
    currencies = [row[4] for row in RECENT.iter_unpack(profile.recent) if row[2] > 0 and row[4] != UNKNOWN_CURRENCY]
    if currencies:  # otherwise the next payment sets it
        profile.currency = max(reversed(currencies), key=currencies.count).decode()
    profile.amounts = profile.count
    profile.days.amounts = [*profile.days.counts]
    profile.days.others = [0] * len(profile.days.counts)
    profile.schema = SCHEMA


class _Head(msgspec.Struct, array_like=True):
    """The first field of a profile of any schema."""

    schema: int


def _require_schema(data: bytes) -> None:
    """Raise `InvalidRecord` if the bytes begin with an unsupported schema version."""
    with suppress(*UNREADABLE):
        schema = msgspec.msgpack.decode(data, type=_Head).schema
        if schema not in {SCHEMA, *PREVIOUS_SCHEMAS}:
            raise InvalidRecord(
                f"a card's profile has schema {schema}; this version reads {SCHEMA}. Rebuild the state with "
                "`fraud-service reset` on the scorer's group, or go back to the version that wrote it"
            )
