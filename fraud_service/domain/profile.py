"""What a card has done: one compact record, folded one transaction at a time.

The record is bounded (12 KiB) whatever the card does: counters in hourly and daily buckets, a few remembered merchants,
countries and devices, and the last transactions with what was decided on them. Buckets follow event time in UTC; what
is older than the newest transaction of the card by more than the span of a ring has no bucket any more and only counts
in the lifetime figures. The written contract of every figure is `fraud_service.domain.features`.
"""

from __future__ import annotations

import math
import struct
import zlib
from bisect import bisect_right
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.decision import Decision
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.time import DAY, HOUR

if TYPE_CHECKING:
    from fraud_service.domain.events import Transaction

SCHEMA: Final = 5
PREVIOUS_SCHEMA: Final = (
    4  # its merchants, countries and devices are CRC-32, and its last transactions have no currency
)

HOURS_KEPT: Final = 24
DAYS_KEPT: Final = 30
RECENT_KEPT: Final = 16
MERCHANTS_KEPT: Final = 32
COUNTRIES_KEPT: Final = 8
DEVICES_KEPT: Final = 8

# The card's usual amount is a running mean of log(1 + amount) in which no payment moves the mean by more than
# `CLIP_DEVIATIONS` deviations (Huber's idea of bounded influence): a fraud does not become the new normal.
CLIP_DEVIATIONS: Final = 3.0
OUTLIER_DEVIATIONS: Final = 3.0
MIN_LEARNING_RATE: Final = 0.02
DEVIATION_PRIOR: Final = 0.5
DEVIATION_FLOOR: Final = 0.05
MIN_PAYMENTS_TO_JUDGE: Final = 5


class Buckets(msgspec.Struct, array_like=True, gc=False):
    """What happened in each hour or day of event time, column by column, the newest last.

    `numbers` counts hours or days since the epoch; there is a bucket only where something happened.
    """

    numbers: list[int] = []
    counts: list[int] = []
    totals: list[float] = []

    def window(self, newest: int, length: int) -> slice:
        """Return where the buckets of a window lie: of `newest` and what comes before it, so many in all."""
        numbers = self.numbers
        end = len(numbers)
        if end and numbers[-1] > newest:  # the transaction is late
            end = bisect_right(numbers, newest)
        return slice(bisect_right(numbers, newest - length, 0, end), end)

    def place(self, number: int, forgotten: int) -> int | None:
        """Find or open a bucket, dropping those up to `forgotten`; None for a time that is forgotten already."""
        numbers = self.numbers
        if numbers and numbers[0] <= forgotten:
            self._forget(bisect_right(numbers, forgotten))
        if number <= forgotten:
            return None
        position = len(numbers)
        if position and numbers[-1] >= number:  # not newer than all the others
            position = bisect_right(numbers, number)
            if position and numbers[position - 1] == number:
                return position - 1
        self._open(position, number)
        return position

    def _open(self, position: int, number: int) -> None:
        self.numbers.insert(position, number)
        self.counts.insert(position, 0)
        self.totals.insert(position, 0.0)

    def _forget(self, oldest: int) -> None:
        del self.numbers[:oldest], self.counts[:oldest], self.totals[:oldest]


class Days(Buckets):
    """The same of days, with the largest amount of each and the number of amounts unusual for the card by then."""

    largest: list[float] = []
    high: list[int] = []

    def _open(self, position: int, number: int) -> None:
        super()._open(position, number)
        self.largest.insert(position, 0.0)
        self.high.insert(position, 0)

    def _forget(self, oldest: int) -> None:
        super()._forget(oldest)
        del self.largest[:oldest], self.high[:oldest]


class Place(msgspec.Struct, array_like=True, gc=False):
    """Where and when the card was last used with known coordinates, in degrees."""

    latitude: float
    longitude: float
    timestamp: int


# One of the card's last transactions: its id's fingerprint, event time, amount, the merchant's fingerprint, currency.
RECENT: Final = struct.Struct("<8sqdQ3s")
RECENT_4: Final = struct.Struct("<8sqdI")
UNKNOWN_CURRENCY: Final = bytes(3)  # of a transaction that schema 4 remembered; it matches every currency


class Duplicate(NamedTuple):
    """Whether a transaction is among the last ones of its card.

    `ago` says how many transactions before it came already, 0 if it did not. `is_id_reused` says that only its id is
    among them, with other content.
    """

    ago: int = 0
    is_id_reused: bool = False


NEW: Final = Duplicate()


class Profile(msgspec.Struct, array_like=True, gc=False):
    """The state of one card. Lists are ordered by arrival, the newest last.

    What is remembered of the last transactions stays packed, and so do the decisions on them: they are looked at when
    another one comes within the hour, or one of them again, and a profile is read and written every time.
    `has_crcs` says that schema 4 began it: fingerprints may still be CRC-32.
    """

    schema: int = SCHEMA
    count: int = 0
    first_seen: int = 0
    last_seen: int = 0
    usual: float = 0.0
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

    def duplicate_age(self, transaction: Transaction) -> Duplicate:
        """Look a transaction up among the last `RECENT_KEPT`.

        Two messages are the same transaction when id, event time, amount, currency and merchant agree. Whatever else
        they say, of a device or a place, may differ.
        """
        identity = fingerprint64(transaction.transaction_id)
        if identity not in self.recent:  # nearly always; it may also lie across other figures
            return NEW
        rows = [*RECENT.iter_unpack(self.recent)]
        same_id = [place for place, row in enumerate(rows) if row[0] == identity]
        for place in same_id:
            if _agrees(rows[place], transaction):
                return Duplicate(len(rows) - place)
        return Duplicate(is_id_reused=bool(same_id))

    def decision(self, ago: int) -> Decision:
        """Return what was decided on the transaction so many transactions ago."""
        if ago > len(self.decisions):
            raise AssertionError("a transaction is decided before it can be repeated")
        return _decision_decoder.decode(self.decisions[-ago])

    def decide(self, decision: Decision) -> None:
        """Note what was decided on the oldest transaction that was folded and has no decision yet."""
        self.decisions.append(_encoder.encode(decision))
        del self.decisions[:-RECENT_KEPT]

    def amount_zscore(self, amount: float) -> float:
        """How many of the card's own deviations the amount lies above its usual amount; 0 before the first."""
        if self.count == 0:
            return 0.0
        return (math.log1p(amount) - self.usual) / max(self.deviation, DEVIATION_FLOOR)

    def is_amount_outlier(self, amount: float) -> bool:
        """Whether the amount is unusually high for this card, once enough payments are known to judge."""
        return self.count >= MIN_PAYMENTS_TO_JUDGE and self.amount_zscore(amount) > OUTLIER_DEVIATIONS

    def update(self, transaction: Transaction) -> None:
        """Take in one transaction. What is decided on it is noted later, by `decide`."""
        high = self.is_amount_outlier(transaction.amount)
        self._learn_amount(transaction.amount)
        self._count(transaction, high=high)
        self._note_merchant_and_device(transaction)
        self.recent = self.recent[-(RECENT_KEPT - 1) * RECENT.size :] + RECENT.pack(
            fingerprint64(transaction.transaction_id),
            transaction.timestamp,
            transaction.amount,
            fingerprint(transaction.merchant_id),
            transaction.currency.encode(),
        )

    def visits(self, merchant_id: str) -> int:
        """Return how often the card paid this merchant, since it was last not among the most recent ones."""
        visits = self.merchants.get(fingerprint(merchant_id), 0)
        if not visits and self.has_crcs:
            return self.merchants.get(fingerprint32(merchant_id), 0)
        return visits

    def is_new(self, text: str | None, known: list[int]) -> bool:
        """Whether a country or device is none of those that are known; False where none is, or the text is absent."""
        if text is None or not known or fingerprint(text) in known:
            return False
        return not (self.has_crcs and fingerprint32(text) in known)

    def _learn_amount(self, amount: float) -> None:
        value = math.log1p(amount)
        if self.count == 0:
            self.usual = value
            return
        pace = max(1.0 / (self.count + 1), MIN_LEARNING_RATE)
        reach = CLIP_DEVIATIONS * max(self.deviation, DEVIATION_FLOOR)
        step = min(max(value - self.usual, -reach), reach)
        self.usual += pace * step
        self.deviation += pace * (abs(step) - self.deviation)

    def _count(self, transaction: Transaction, *, high: bool) -> None:
        timestamp, amount = transaction.timestamp, transaction.amount
        self.first_seen = min(self.first_seen, timestamp) if self.count else timestamp
        self.last_seen = newest = max(self.last_seen, timestamp)
        self.count += 1
        hours, hour = self.hours, self.hours.place(timestamp // HOUR, newest // HOUR - HOURS_KEPT)
        if hour is not None:
            hours.counts[hour] += 1
            hours.totals[hour] += amount
        days, day = self.days, self.days.place(timestamp // DAY, newest // DAY - DAYS_KEPT)
        if day is not None:
            days.counts[day] += 1
            days.totals[day] += amount
            days.largest[day] = max(days.largest[day], amount)
            days.high[day] += high

    def _note_merchant_and_device(self, transaction: Transaction) -> None:
        merchant = fingerprint(transaction.merchant_id)
        if self.has_crcs:
            self._upgrade(transaction, merchant)
        self.merchants[merchant] = self.merchants.pop(merchant, 0) + 1  # popped and put back: the most recent is last
        if len(self.merchants) > MERCHANTS_KEPT:
            del self.merchants[next(iter(self.merchants))]
        if transaction.country is not None:
            self.countries = _moved_last(self.countries, transaction.country, COUNTRIES_KEPT)
        if transaction.device_id is not None:
            self.devices = _moved_last(self.devices, transaction.device_id, DEVICES_KEPT)
        if transaction.latitude is not None and transaction.longitude is not None:
            self.place = Place(transaction.latitude, transaction.longitude, transaction.timestamp)

    def _upgrade(self, transaction: Transaction, merchant: int) -> None:
        """Replace what schema 4 noted of this merchant, country and device."""
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
    """Whether a remembered transaction of the same id is this one."""
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


@lru_cache(maxsize=16)  # asked twice for each transaction
def fingerprint64(text: str) -> bytes:
    """Sixty-four bits that name a transaction within a card; stable across processes and machines."""
    return blake2b(text.encode(), digest_size=8).digest()


NOT_LEGACY: Final = 1 << 63  # set in every fingerprint, so that none is taken for a CRC-32


@lru_cache(maxsize=4096)  # asked several times for one transaction, and the same merchants and countries come again
def fingerprint(text: str) -> int:
    """Sixty-three bits that name a merchant, country or device within a card; nobody can aim at a given one."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") | NOT_LEGACY


@lru_cache(maxsize=4096)  # as above: every merchant, country and device that is new to a card is looked up here too
def fingerprint32(text: str) -> int:
    """Return what named a merchant, country or device in schema 4: a CRC-32. It stays valid until it is met again."""
    return zlib.crc32(text.encode())


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Profile)
_decision_decoder = msgspec.msgpack.Decoder(Decision)


def encode_profile(profile: Profile) -> bytes:
    """Write a profile as msgpack, the schema version first."""
    return _encoder.encode(profile)


def decode_profile(data: bytes) -> Profile:
    """Read a profile back.

    Raises
    ------
    InvalidRecord
        When the bytes are no profile, or one of another schema version.
    """
    try:
        profile = _decoder.decode(data)
    except UNREADABLE as error:
        _require_schema(data)
        raise InvalidRecord(f"a card's profile in the state store cannot be read: {error}") from error
    size = RECENT.size
    if profile.schema == PREVIOUS_SCHEMA:
        size = RECENT_4.size
    elif profile.schema != SCHEMA:
        _require_schema(data)
    if len(profile.recent) % size:
        raise InvalidRecord("a card's profile in the state store cannot be read: a recent transaction is cut off")
    if profile.schema == PREVIOUS_SCHEMA:
        profile.recent = b"".join(RECENT.pack(*row, UNKNOWN_CURRENCY) for row in RECENT_4.iter_unpack(profile.recent))
        profile.schema, profile.has_crcs = SCHEMA, True
    return profile


class _Head(msgspec.Struct, array_like=True):
    """How every profile begins, whatever follows."""

    schema: int


def _require_schema(data: bytes) -> None:
    """Raise `InvalidRecord` when these bytes say that they are of another schema version."""
    with suppress(*UNREADABLE):
        head = msgspec.msgpack.decode(data, type=_Head)
        if head.schema != SCHEMA:
            raise InvalidRecord(
                f"a card's profile has schema {head.schema}; this version reads {SCHEMA}. Start over with "
                "`fraud-service reset` on the scorer's group, or go back to the version that wrote it"
            )
