"""A small world of cards, merchants and fraudsters, drawn from a seed.

Cards have a home, a spending level, a rate, favourite merchants nearby, a phase of the day and one or two devices; now
and then they travel. Merchants have a country, a place and a category with its typical amounts; a quarter of them sell
online, where there is a device but no place. Amounts are in euro, times in UTC. About 0.9 % of all payments are frauds:

- *card testing*: on a stolen number, a burst of tiny online payments from a new device, then a few large ones;
- *skimmer*: for weeks most payments at one terminal are made with copied cards, in unremarkable amounts;
- *takeover*: for days, some payments are multiples of what is usual, mostly at night, abroad, from a new device;
- *impossible travel*: a counterfeit pays overseas within an hour of a genuine payment, by magstripe or keyed;
- *lookalike*: from the drift day on, and instead of card testing and takeover, amounts a little above the card's mean,
  online at merchants it never visited, at night, from its usual device.

Genuine life overlaps with all of it: new devices, large purchases, journeys, payments at night. Of a fraud one learns
by a chargeback, the customer or an analyst; of a genuine payment when it settles, seven days later.

A seed gives the same rows on every machine. Each part of the world draws from its own generator, and the drift
only adds and removes rows from its day on: the rows before are the same with and without it.
"""

# ruff: noqa: PLR2004 - the figures are the world: names would hide them

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
import numpy as np

from fraud_service.domain.events import LabelSource
from fraud_service.errors import ConfigurationError
from fraud_service.history import arrow

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bytes = NDArray[np.int8]
    Bools = NDArray[np.bool_]

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

# fmt: off
COUNTRIES: Final = ("DE", "FR", "IT", "ES", "NL", "AT", "US", "BR", "TH")
HOME_COUNTRIES: Final = 6  # cards live in the first six; the others are an ocean away
_LATITUDE: Final = np.array([50.5, 46.8, 43.5, 40.0, 52.2, 47.6, 39.0, -15.8, 14.5])
_LONGITUDE: Final = np.array([10.0, 2.5, 12.0, -3.7, 5.2, 14.1, -95.0, -48.0, 101.0])
_COUNTRY_OF: Final = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8])  # of twenty merchants

# Categories (ISO 18245) and their typical amounts: eight with a terminal, then four online.
CATEGORIES: Final = ("5411", "5541", "5812", "5814", "5912", "5651", "5732", "7011", "5815", "5816", "5964", "4722")
_TYPICAL: Final = np.array([35.0, 50.0, 28.0, 11.0, 18.0, 60.0, 150.0, 140.0, 9.0, 15.0, 50.0, 180.0])
_TERMINAL_CATEGORIES: Final = 8

_ACTIVITY: Final = np.array([2, 1, 1, 1, 1, 3, 8, 18, 28, 34, 38, 46, 52, 46, 38, 36, 42, 52, 56, 46, 32, 20, 11, 5])
# fmt: on
_BUSY: Final = np.concatenate([[0], np.cumsum(_ACTIVITY)]) / _ACTIVITY.sum()
ENTRY_MODES: Final = ("contactless", "chip", "magstripe", "keyed", "ecommerce")
CONTACTLESS, CHIP, MAGSTRIPE, KEYED, ONLINE = range(5)
CONTACTLESS_LIMIT: Final = 50.0
_SOURCES: Final = (LabelSource.CHARGEBACK, LabelSource.CUSTOMER, LabelSource.ANALYST, LabelSource.SETTLEMENT)

_FAVOURITES: Final = 8  # terminals; as many online merchants
FEWEST_MERCHANTS: Final = 40  # with these, every country has merchants with a terminal and online


class Pattern(IntEnum):
    """What a transaction is in truth. Not written to files: nobody would know."""

    GENUINE = 0
    CARD_TESTING = 1
    SKIMMER = 2
    TAKEOVER = 3
    IMPOSSIBLE_TRAVEL = 4
    LOOKALIKE = 5


# Each part of the world has a random generator of its own, numbered; a pattern has its own number.
_MERCHANTS, _CARDS, _GENUINE, _SOURCE, _DELAY = range(100, 105)

# Frauds of each pattern per genuine payment; a lookalike takes the place of card testing and takeover.
SHARES: Final = {
    Pattern.CARD_TESTING: 0.0023,
    Pattern.SKIMMER: 0.0030,
    Pattern.TAKEOVER: 0.0024,
    Pattern.IMPOSSIBLE_TRAVEL: 0.0016,
    Pattern.LOOKALIKE: 0.0045,
}


@dataclass(frozen=True)
class World:
    """What to simulate. `start` is epoch milliseconds; from `drift_day` on (0 is the first) fraud is another.

    Raises
    ------
    ConfigurationError
        When a figure is too small, or the drift day lies outside the days.
    """

    seed: int = 1
    cards: int = 2_000
    merchants: int = 1_000
    days: int = 60
    start: int = 1_704_067_200_000
    drift_day: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"seed": 0, "cards": 1, "merchants": FEWEST_MERCHANTS, "days": 1, "start": 0}.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.drift_day is not None and not 0 <= self.drift_day < self.days:
            raise ConfigurationError(f"drift_day={self.drift_day}: must be from 0 to {self.days - 1}, the last day")

    @property
    def drift(self) -> int:
        """Milliseconds after `start` at which fraud changes; the end where it does not."""
        return DAY * (self.days if self.drift_day is None else self.drift_day)

    def draw(self, stream: int) -> np.random.Generator:
        """Give the generator of one part of the world, at its beginning."""
        return np.random.Generator(np.random.PCG64([self.seed, int(stream)]))


class Simulation(NamedTuple):
    """A simulated world, one array element per transaction in event order.

    `columns` are those of the file, in its order; where unknown, `device_id` is None, and a coordinate NaN. `pattern`
    tells what each transaction is in truth.
    """

    columns: dict[str, NDArray[Any]]
    pattern: Bytes


def simulate(world: World) -> Simulation:
    """Draw the transactions of a world, with labels. The same world gives the same rows on every machine."""
    shops = _open_shops(world)
    people = _settle_people(world, shops)
    genuine = _live(world, people, shops)
    rows = _Rows.joined(
        _skim(world, shops, genuine),
        _test_cards(world, people, shops, len(genuine.time)),
        _take_over(world, people, shops, len(genuine.time)),
        _travel_impossibly(world, people, shops, genuine),
        _look_alike(world, people, shops, genuine),
    )
    rows = rows.where((rows.time >= 0) & (rows.time < world.days * DAY))
    rows = rows.where(np.argsort(rows.time, kind="stable"))
    return Simulation(_columns(world, shops, rows), rows.pattern)


def write(world: World, path: Path) -> int:
    """Simulate a world into a .parquet, .csv or .jsonl file that `History.open` reads; give the number of rows.

    Raises
    ------
    ConfigurationError
        When the name ends otherwise, or pyarrow is missing (JSON Lines need none).
    """
    writers = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_json_lines}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise ConfigurationError(f"{path}: cannot tell the format from the name; it must end in {', '.join(writers)}")
    simulation = simulate(world)
    writer(simulation, path)
    return len(simulation.pattern)


# --- Merchants and cards ----------------------------------------------------------------------------------------------


class _Shops(NamedTuple):
    """Merchants, each array by merchant; and where to find those of a country that sell online or not."""

    country: Ints
    online: Bools
    category: Ints
    latitude: Floats
    longitude: Floats
    directory: Ints  # merchants ordered by (online, country)
    first: Ints  # (2, countries): where they begin in the directory
    total: Ints  # (2, countries): how many they are

    def pick(self, chance: Floats, *, online: bool, country: Ints) -> Ints:
        """Pick a merchant of each country by a chance in [0, 1)."""
        sort = int(online)
        offset = (chance * self.total[sort][country]).astype(np.int64)
        found: Ints = self.directory[self.first[sort][country] + offset]
        return found


def _open_shops(world: World) -> _Shops:
    rng, n = world.draw(_MERCHANTS), world.merchants
    slot = np.argsort(rng.random(n), kind="stable")
    country = _COUNTRY_OF[slot % len(_COUNTRY_OF)]
    online = slot // len(_COUNTRY_OF) % 4 == 0
    chance, east, north = rng.random(n), rng.normal(size=n), rng.normal(size=n)
    terminals = _TERMINAL_CATEGORIES
    category = np.where(
        online, terminals + (chance * (len(CATEGORIES) - terminals)).astype(int), (chance * terminals).astype(int)
    )
    key = online * len(COUNTRIES) + country
    count = np.bincount(key, minlength=2 * len(COUNTRIES))
    shape = (2, len(COUNTRIES))
    return _Shops(
        country=country,
        online=online,
        category=category,
        latitude=(_LATITUDE[country] + 1.2 * north).round(4),
        longitude=(_LONGITUDE[country] + 1.5 * east).round(4),
        directory=np.argsort(key, kind="stable"),
        first=(np.cumsum(count) - count).reshape(shape),
        total=count.reshape(shape),
    )


class _People(NamedTuple):
    """Cards, each array by card. A journey leads to a country, from one day to another."""

    country: Ints
    level: Floats  # what they spend, relative to others
    deviation: Floats  # of the logarithm of their amounts
    rate: Floats  # transactions per day
    phase: Floats  # hours by which their day is late
    online: Floats  # share of payments online
    devices: Ints  # (cards, 2): the same twice for those who have one
    terminals: Ints  # (cards, favourites): merchants nearby
    websites: Ints  # (cards, favourites)
    journey: Ints  # (cards, journeys, 3): country, first day, day of return


def _settle_people(world: World, shops: _Shops) -> _People:
    rng, n = world.draw(_CARDS), world.cards
    country = _COUNTRY_OF[rng.integers(0, 17, n)]
    level, deviation = np.exp(0.45 * rng.normal(size=n)), 0.35 + 0.4 * rng.random(n)
    devices = rng.integers(0, 2**32, (n, 2))
    devices[:, 1] = np.where(rng.random(n) < 0.5, devices[:, 0], devices[:, 1])  # half have one
    anywhere = rng.integers(0, HOME_COUNTRIES, (n, _FAVOURITES))
    abroad = rng.random((n, _FAVOURITES)) < 0.4  # websites of other countries
    return _People(
        country=country,
        level=level,
        deviation=deviation,
        rate=0.3 + 5.7 * rng.random(n) ** 2,
        phase=np.floor(12 * rng.random(n) - 6) / 4,
        online=0.05 + 0.4 * rng.random(n) ** 2,
        devices=devices,
        terminals=_nearby(rng, shops, country),
        websites=shops.pick(
            rng.random((n, _FAVOURITES)) ** 1.5, online=True, country=np.where(abroad, anywhere, country[:, None])
        ),
        journey=_plan_journeys(rng, world),
    )


def _nearby(rng: np.random.Generator, shops: _Shops, country: Ints) -> Ints:
    """Choose favourite terminals, (cards, favourites): the nearest of some that one has heard of."""
    n = len(country)
    known = shops.pick(rng.random((n, 3 * _FAVOURITES)), online=False, country=country[:, None])
    north, east = rng.normal(size=n), rng.normal(size=n)
    home_latitude, home_longitude = _LATITUDE[country] + 1.2 * north, _LONGITUDE[country] + 1.5 * east
    # A plane will do within a country: a degree of longitude is about 0.7 of a degree of latitude.
    away = (shops.latitude[known] - home_latitude[:, None]) ** 2
    away += (0.7 * (shops.longitude[known] - home_longitude[:, None])) ** 2
    nearest = np.argsort(away, axis=1, kind="stable")[:, :_FAVOURITES]
    return np.take_along_axis(known, nearest, axis=1)


def _plan_journeys(rng: np.random.Generator, world: World) -> Ints:
    """Give every card a chance of a journey per two months."""
    shape = (world.cards, -(-world.days // 60))
    country = rng.integers(0, len(COUNTRIES), shape)
    leaves = rng.integers(0, 60, shape) + 60 * np.arange(shape[1])
    nights = np.where(rng.random(shape) < 0.35, rng.integers(2, 11, shape), 0)  # a third of them go
    return np.stack([country, leaves, leaves + nights], axis=-1)


# --- Rows -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Transactions in the making, one element each; `time` is milliseconds after the start, `device` -1 where none."""

    time: Ints
    card: Ints
    merchant: Ints
    amount: Floats
    entry: Ints
    device: Ints
    pattern: Bytes

    @classmethod
    def of(cls, pattern: Pattern, shape: tuple[int, ...], **arrays: Any) -> _Rows:
        """Spread arrays over a shape such as (campaigns, payments), and flatten them."""
        spread = {name: np.broadcast_to(array, shape).ravel() for name, array in arrays.items()}
        whole = {name: array.astype(np.int64) for name, array in spread.items() if name != "amount"}
        return cls(**whole, amount=spread["amount"], pattern=np.full(int(np.prod(shape)), pattern, np.int8))

    @classmethod
    def joined(cls, *parts: _Rows) -> _Rows:
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def where(self, chosen: NDArray[Any]) -> _Rows:
        return _Rows(**{name: array[chosen] for name, array in vars(self).items()})


def _usual(people: _People, card: Ints) -> Floats:
    """Give about the mean amount of each card."""
    return 54.0 * people.level[card]


def _time_of_day(chance: Floats, phase: Floats) -> Ints:
    """Turn chances into milliseconds after midnight, many by day and few by night."""
    hour: Floats = (np.interp(chance, _BUSY, np.arange(25.0)) + phase) % 24
    return np.minimum((hour * HOUR).astype(np.int64), DAY - 1)


# --- Genuine payments -------------------------------------------------------------------------------------------------


def _live(world: World, people: _People, shops: _Shops) -> _Rows:
    rng = world.draw(_GENUINE)
    counts = _poisson(rng, people.rate, world.days)
    card, day = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    chances = rng.random((len(card), 8)).T
    merchant = _where_they_pay(people, shops, card, day, chances[:4])
    amount = _what_they_pay(people, card, _TYPICAL[shops.category[merchant]], rng.normal(size=len(card)), chances[4])
    online, small = shops.online[merchant], amount < CONTACTLESS_LIMIT
    how, device = chances[6:]
    first, second = people.devices[card].T
    new = rng.integers(0, 2**32, len(card))
    return _Rows.of(
        Pattern.GENUINE,
        card.shape,
        time=day * DAY + _time_of_day(chances[5], people.phase[card]),
        card=card,
        merchant=merchant,
        amount=amount,
        entry=np.select(
            [online, how < 0.01, how < 0.04, (how < 0.8) & small], [ONLINE, KEYED, MAGSTRIPE, CONTACTLESS], CHIP
        ),
        device=np.where(online, np.select([device < 0.04, device < 0.3], [new, second], first), -1),
    )


def _poisson(rng: np.random.Generator, rate: Floats, days: int) -> Ints:
    """Draw (cards, days) counts by inversion, which unlike numpy's own method will not change between versions."""
    chance = rng.random((len(rate), days))
    counts = np.zeros(chance.shape, np.int64)
    term = np.exp(-rate)
    below = term.copy()
    for k in range(1, 31):
        counts += chance >= below[:, None]
        term *= rate / k
        below += term
    return counts


def _where_they_pay(people: _People, shops: _Shops, card: Ints, day: Ints, chances: Floats) -> Ints:
    """Choose merchants: mostly favourites, sometimes any of the country; abroad on a journey."""
    channel, habit, which, other = chances
    country = people.country[card]
    for trip in range(people.journey.shape[1]):
        abroad, leaves, returns = people.journey[card, trip].T
        country = np.where((leaves <= day) & (day < returns), abroad, country)
    favourite = (which**2 * _FAVOURITES).astype(np.int64)
    at_home = (country == people.country[card]) & (habit < 0.88)  # else they try something new
    terminal = np.where(at_home, people.terminals[card, favourite], shops.pick(other, online=False, country=country))
    anywhere = shops.pick(other, online=True, country=(which * HOME_COUNTRIES).astype(np.int64))
    website = np.where(habit < 0.75, people.websites[card, favourite], anywhere)  # the same
    return np.where(channel < people.online[card], website, terminal)


def _what_they_pay(people: _People, card: Ints, typical: Floats, normal: Floats, chance: Floats) -> Floats:
    """Combine what is typical of merchant and card; one payment in a hundred is a large purchase."""
    here = 30.0 * (typical / 30.0) ** 0.7
    large = np.where(chance < 0.01, 3.0 + 300.0 * chance, 1.0)  # 3 to 6 times as much
    amount: Floats = here * people.level[card] * large * np.exp(people.deviation[card] * normal)
    return amount


# --- Fraud ------------------------------------------------------------------------------------------------------------


def _campaigns(pattern: Pattern, genuine: int, payments: float) -> int:
    """Give the number of campaigns with so many payments on average that reach the pattern's share."""
    return min(genuine, max(1, round(SHARES[pattern] * genuine / payments)))


def _skim(world: World, shops: _Shops, genuine: _Rows) -> _Rows:
    """Turn payments at compromised terminals into frauds: only in the place do they differ from others."""
    rng, n = world.draw(Pattern.SKIMMER), world.merchants
    turn, when, length, share = rng.random((n, 4)).T
    begin = ((world.days + 10) * when - 10) * DAY  # some before the first day
    end, share = begin + (14 + 14 * length) * DAY, np.where(shops.online, 0.0, 0.6 + 0.3 * share)
    at = genuine.merchant
    hit = (begin[at] <= genuine.time) & (genuine.time < end[at]) & (rng.random(len(at)) < share[at])
    # Terminals differ much in traffic: compromise one after the other until there are enough frauds; the last one is
    # found out early.
    in_turn = np.lexsort((genuine.time, turn[at], ~hit))[: min(hit.sum(), round(SHARES[Pattern.SKIMMER] * len(at)))]
    pattern = genuine.pattern.copy()
    pattern[in_turn] = Pattern.SKIMMER
    return replace(genuine, pattern=pattern)


def _test_cards(world: World, people: _People, shops: _Shops, genuine: int) -> _Rows:
    """Try stolen numbers with tiny amounts, seconds apart; then take as much as possible."""
    rng, n = world.draw(Pattern.CARD_TESTING), _campaigns(Pattern.CARD_TESTING, genuine, 8.5)
    shape, place = (n, 12), np.arange(12)  # up to eight tests, then up to four purchases
    test = place < 8  # the tests
    card, device = rng.integers(0, world.cards, (n, 1)), rng.integers(0, 2**32, (n, 1))
    happens = np.where(test, place < rng.integers(3, 9, (n, 1)), place - 8 < rng.integers(2, 5, (n, 1)))
    begin, pause, size, which = rng.random((n, 1)), rng.random(shape), rng.random(shape), rng.random(shape)
    gap = np.where(test, 8_000 + 80_000 * pause, 2 * MINUTE + 25 * MINUTE * pause) * happens
    rows = _Rows.of(
        Pattern.CARD_TESTING,
        shape,
        time=begin * world.days * DAY + np.cumsum(gap, axis=1),
        card=card,
        merchant=shops.pick(which, online=True, country=rng.integers(0, len(COUNTRIES), (n, 1))),
        amount=np.where(test, 0.5 + 2.5 * size, _usual(people, card) * (3 + 7 * size)),
        entry=ONLINE,
        device=device,
    )
    return rows.where(happens.ravel() & (rows.time < world.drift))


def _take_over(world: World, people: _People, shops: _Shops, genuine: int) -> _Rows:
    """Shop with someone else's account for 3 to 10 days, next to its owner."""
    rng, n = world.draw(Pattern.TAKEOVER), _campaigns(Pattern.TAKEOVER, genuine, 7.5)
    shape = (n, 24)
    card, device = rng.integers(0, world.cards, (n, 1)), rng.integers(0, 2**32, (n, 1))
    begin, length = rng.integers(0, world.days, (n, 1)), rng.integers(3, 11, (n, 1))
    happens = np.arange(24) < 2 + people.rate[card] * length * (0.2 + 0.4 * rng.random((n, 1)))
    day, hour, night, size, which, near = rng.random((6, *shape))
    abroad = (people.country[card] + rng.integers(1, len(COUNTRIES), shape)) % len(COUNTRIES)
    rows = _Rows.of(
        Pattern.TAKEOVER,
        shape,
        time=(begin + np.floor(day * length)) * DAY
        + np.floor(hour * HOUR * np.where(night < 0.75, 6, 24)),  # mostly before six
        card=card,
        merchant=shops.pick(which, online=True, country=np.where(near < 0.3, people.country[card], abroad)),
        amount=_usual(people, card) * (3 + 5 * size),
        entry=ONLINE,
        device=device,
    )
    return rows.where(happens.ravel() & (rows.time < world.drift))


def _travel_impossibly(world: World, people: _People, shops: _Shops, genuine: _Rows) -> _Rows:
    """Pay with a counterfeit overseas, 5 to 60 minutes after the card itself paid at a terminal."""
    rng, n = world.draw(Pattern.IMPOSSIBLE_TRAVEL), _campaigns(Pattern.IMPOSSIBLE_TRAVEL, len(genuine.time), 1.6)
    seen = np.flatnonzero(genuine.entry != ONLINE)
    row = seen[(rng.random((min(n, len(seen)), 1)) * len(seen)).astype(np.int64)]
    shape = (len(row), 3)
    happens = np.arange(3) < 1 + np.floor(2.2 * rng.random((len(row), 1)))
    delay, wait, which, how = rng.random((4, *shape))
    overseas = len(COUNTRIES) - HOME_COUNTRIES
    far = rng.integers(0, overseas, (len(row), 1))
    far = np.where(shops.country[genuine.merchant[row]] == HOME_COUNTRIES + far, (far + 1) % overseas, far)
    pause = np.where(np.arange(3) == 0, 5 * MINUTE + 35 * MINUTE * delay, 2 * MINUTE + 8 * MINUTE * wait)
    card = genuine.card[row]
    rows = _Rows.of(
        Pattern.IMPOSSIBLE_TRAVEL,
        shape,
        time=genuine.time[row] + np.cumsum(pause, axis=1),
        card=card,
        merchant=shops.pick(which, online=False, country=HOME_COUNTRIES + far),
        amount=_usual(people, card) * np.exp(0.5 * rng.normal(size=shape)),
        entry=np.where(how < 0.7, MAGSTRIPE, KEYED),  # the rest is typed in
        device=-1,
    )
    return rows.where(happens.ravel())


def _look_alike(world: World, people: _People, shops: _Shops, genuine: _Rows) -> _Rows:
    """From the drift day on: shop at night from the card's own device, at merchants new to it, for a bit more."""
    rng, left = world.draw(Pattern.LOOKALIKE), world.days - world.drift // DAY
    n = _campaigns(Pattern.LOOKALIKE, len(genuine.time) * left // world.days, 3.0)
    shape, tries = (n, 5), (n, 5, 12)
    card = rng.integers(0, world.cards, (n, 1))
    happens = np.arange(5) < rng.integers(1, 6, (n, 1))
    begin, day, hour, size = world.drift // DAY + left * rng.random((n, 1)), *rng.random((3, *shape))
    candidates = shops.pick(rng.random(tries), online=True, country=rng.integers(0, HOME_COUNTRIES, tries))
    visits = np.unique(genuine.card * world.merchants + genuine.merchant)
    new = ~np.isin(card[:, :, None] * world.merchants + candidates, visits)
    first_new = np.argmax(new, axis=2)[:, :, None]
    rows = _Rows.of(
        Pattern.LOOKALIKE,
        shape,
        time=np.floor(begin + 5 * day) * DAY + 5 * hour * HOUR,
        card=card,
        merchant=np.take_along_axis(candidates, first_new, axis=2)[:, :, 0],
        amount=_usual(people, card) * (1.1 + 0.9 * size),
        entry=ONLINE,
        device=people.devices[card, 0],
    )
    return rows.where(happens.ravel())


# --- Columns and files ------------------------------------------------------------------------------------------------


def _columns(world: World, shops: _Shops, rows: _Rows) -> dict[str, NDArray[Any]]:
    online, fraud = rows.entry == ONLINE, rows.pattern != Pattern.GENUINE
    devices, index = np.unique(rows.device, return_inverse=True)
    delay, source = _labels(world, fraud)
    return {
        "transaction_id": np.array([f"t-{number:09d}" for number in range(len(fraud))]),
        "timestamp": world.start + rows.time,
        "card_id": np.array([f"c-{number:05d}" for number in range(world.cards)])[rows.card],
        "merchant_id": np.array([f"m-{number:04d}" for number in range(world.merchants)])[rows.merchant],
        "amount": np.clip(rows.amount, 0.2, 9_999).round(2),
        "currency": np.full(len(fraud), "EUR"),
        "merchant_category_code": np.array(CATEGORIES)[shops.category[rows.merchant]],
        "country": np.array(COUNTRIES)[shops.country[rows.merchant]],
        "entry_mode": np.array(ENTRY_MODES)[rows.entry],
        "device_id": np.array([None if number < 0 else f"d-{number:08x}" for number in devices], object)[index],
        "latitude": np.where(online, np.nan, shops.latitude[rows.merchant]),
        "longitude": np.where(online, np.nan, shops.longitude[rows.merchant]),
        "is_fraud": fraud,
        "labelled_at": world.start + rows.time + delay,
        "label_source": np.array(_SOURCES)[source],
    }


def _labels(world: World, fraud: Bools) -> tuple[Ints, Ints]:
    """Draw how long (ms) it takes until one knows, and by whom (as index of `_SOURCES`)."""
    who, when = world.draw(_SOURCE).random((len(fraud), 2)).T
    chargeback = np.minimum(5 * DAY * np.exp(0.7 * world.draw(_DELAY).normal(size=len(fraud))), 30 * DAY)
    customer, analyst = HOUR * (2 + 46 * when), MINUTE * (5 + 355 * when)
    source = np.select([~fraud, who < 0.6, who < 0.85], [3, 0, 1], 2)
    return np.choose(source, [chargeback, customer, analyst, np.float64(7 * DAY)]).astype(np.int64), source


def _table(simulation: Simulation) -> Any:
    library = arrow()
    columns = simulation.columns.items()
    return library.table({name: library.array(column, from_pandas=True) for name, column in columns})


def _write_parquet(simulation: Simulation, path: Path) -> None:
    arrow("pyarrow.parquet").write_table(_table(simulation), path)


def _write_csv(simulation: Simulation, path: Path) -> None:
    arrow("pyarrow.csv").write_csv(_table(simulation), path)


def _write_json_lines(simulation: Simulation, path: Path) -> None:
    encode = msgspec.json.Encoder().encode
    names, columns = simulation.columns.keys(), [_known(column) for column in simulation.columns.values()]
    with path.open("wb") as file:
        for values in zip(*columns, strict=True):
            row = zip(names, values, strict=True)  # without what is unknown
            file.write(encode({name: value for name, value in row if value is not None}) + b"\n")


def _known(column: NDArray[Any]) -> list[Any]:
    """Turn a column into Python values, NaN into None."""
    values: list[Any] = column.tolist()
    return [None if math.isnan(value) else value for value in values] if column.dtype.kind == "f" else values
