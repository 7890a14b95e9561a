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
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.policy import Decision
from fraud_service.domain.reading import UNREADABLE
from fraud_service.errors import InvalidRecord

if TYPE_CHECKING:
    from fraud_service.domain.events import Transaction

SCHEMA: Final = 4

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
HOURS_KEPT: Final = 24
DAYS_KEPT: Final = 30
RECENT_KEPT: Final = 16
MERCHANTS_KEPT: Final = 32
COUNTRIES_KEPT: Final = 8
DEVICES_KEPT: Final = 8

# The card's usual amount is a running mean of log(1 + amount) in which no payment moves the mean by more than
# `REACH` deviations (Huber's idea of bounded influence): a fraud does not become the new normal.
REACH: Final = 3.0
HIGH: Final = 3.0
SLOWEST: Final = 0.02
DEVIATION_PRIOR: Final = 0.5
DEVIATION_FLOOR: Final = 0.05
ENOUGH_TO_JUDGE: Final = 5


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


# One of the card's last transactions: its fingerprint, when it was, its amount, and the merchant's fingerprint.
RECENT: Final = struct.Struct("<8sqdI")


class Profile(msgspec.Struct, array_like=True, gc=False):
    """The state of one card. Lists are ordered by arrival, the newest last.

    What is remembered of the last transactions stays packed, and so do the decisions on them: they are looked at when
    another one comes within the hour, or one of them again, and a profile is read and written every time.
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

    def remembered(self, transaction_id: str) -> int:
        """Return how many transactions ago this one came already, among the last `RECENT_KEPT`; 0 if it did not."""
        identity = fingerprint64(transaction_id)
        if identity not in self.recent:  # nearly always; it may also lie across other figures
            return 0
        known = [known for known, *_ in RECENT.iter_unpack(self.recent)]
        return len(known) - known.index(identity) if identity in known else 0

    def decision(self, ago: int) -> Decision:
        """Return what was decided on the transaction so many transactions ago."""
        if ago > len(self.decisions):
            raise AssertionError("a transaction is decided before it can be repeated")
        return _decision_decoder.decode(self.decisions[-ago])

    def decide(self, decision: Decision) -> None:
        """Note what was decided on the oldest transaction that was folded and has no decision yet."""
        self.decisions.append(_encoder.encode(decision))
        del self.decisions[:-RECENT_KEPT]

    def unusualness(self, amount: float) -> float:
        """How many of the card's own deviations the amount lies above its usual amount; 0 before the first."""
        if self.count == 0:
            return 0.0
        return (math.log1p(amount) - self.usual) / max(self.deviation, DEVIATION_FLOOR)

    def is_high(self, amount: float) -> bool:
        """Whether the amount is unusually high for this card, once enough payments are known to judge."""
        return self.count >= ENOUGH_TO_JUDGE and self.unusualness(amount) > HIGH

    def fold(self, transaction: Transaction) -> None:
        """Take in one transaction. What is decided on it is noted later, by `decide`."""
        high = self.is_high(transaction.amount)
        self._learn_amount(transaction.amount)
        self._count(transaction, high=high)
        self._note_company(transaction)
        self.recent = self.recent[-(RECENT_KEPT - 1) * RECENT.size :] + RECENT.pack(
            fingerprint64(transaction.transaction_id),
            transaction.timestamp,
            transaction.amount,
            fingerprint32(transaction.merchant_id),
        )

    def _learn_amount(self, amount: float) -> None:
        value = math.log1p(amount)
        if self.count == 0:
            self.usual = value
            return
        pace = max(1.0 / (self.count + 1), SLOWEST)
        reach = REACH * max(self.deviation, DEVIATION_FLOOR)
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

    def _note_company(self, transaction: Transaction) -> None:
        merchant = fingerprint32(transaction.merchant_id)
        self.merchants[merchant] = self.merchants.pop(merchant, 0) + 1  # popped and put back: the most recent is last
        if len(self.merchants) > MERCHANTS_KEPT:
            del self.merchants[next(iter(self.merchants))]
        if transaction.country is not None:
            self.countries = _moved_last(self.countries, transaction.country, COUNTRIES_KEPT)
        if transaction.device_id is not None:
            self.devices = _moved_last(self.devices, transaction.device_id, DEVICES_KEPT)
        if transaction.latitude is not None and transaction.longitude is not None:
            self.place = Place(transaction.latitude, transaction.longitude, transaction.timestamp)


def _moved_last(known: list[int], text: str, kept: int) -> list[int]:
    seen = fingerprint32(text)
    if known and known[-1] == seen:  # nearly always
        return known
    return [*[other for other in known if other != seen], seen][-kept:]


@lru_cache(maxsize=16)  # asked twice for each transaction
def fingerprint64(text: str) -> bytes:
    """Sixty-four bits that name a transaction within a card; stable across processes and machines."""
    return blake2b(text.encode(), digest_size=8).digest()


@lru_cache(maxsize=4096)  # asked several times for one transaction, and the same merchants and countries come again
def fingerprint32(text: str) -> int:
    """Thirty-two bits that name a merchant, country or device within a card."""
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
    if profile.schema != SCHEMA:
        _require_schema(data)
    if len(profile.recent) % RECENT.size:
        raise InvalidRecord("a card's profile in the state store cannot be read: a recent transaction is cut off")
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
