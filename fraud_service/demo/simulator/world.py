"""Describe the world to simulate, and draw its merchants and cards."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


COUNTRIES: Final = ("DE", "FR", "IT", "ES", "NL", "AT", "US", "BR", "TH")
HOME_COUNTRIES: Final = 6  # cards are from the first six; the others are overseas
_LATITUDE: Final = np.array([50.5, 46.8, 43.5, 40.0, 52.2, 47.6, 39.0, -15.8, 14.5])
_LONGITUDE: Final = np.array([10.0, 2.5, 12.0, -3.7, 5.2, 14.1, -95.0, -48.0, 101.0])
_COUNTRY_OF: Final = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8])  # of each twenty merchants

# Categories (ISO 18245) and their typical amounts in euro: eight with a terminal, then four online.
CATEGORIES: Final = ("5411", "5541", "5812", "5814", "5912", "5651", "5732", "7011", "5815", "5816", "5964", "4722")
TYPICAL: Final = np.array([35.0, 50.0, 28.0, 11.0, 18.0, 60.0, 150.0, 140.0, 9.0, 15.0, 50.0, 180.0])
_TERMINAL_CATEGORIES: Final = 8

FAVOURITES: Final = 8  # terminals of each card, and also its number of online merchants
MIN_MERCHANTS: Final = 40  # gives every country both terminals and online merchants


class Pattern(IntEnum):
    """The true pattern of a transaction. Files leave it out, since real data has no such column."""

    LEGITIMATE = 0
    CARD_TESTING = 1
    SKIMMER = 2
    TAKEOVER = 3
    IMPOSSIBLE_TRAVEL = 4
    LOOKALIKE = 5


class Part(IntEnum):
    """The parts of the world that have their own random generator. Each fraud pattern has one too."""

    MERCHANTS = 100
    CARDS = 101
    PAYMENTS = 102
    LABEL_SOURCE = 103
    LABEL_DELAY = 104


@dataclass(frozen=True)
class World:
    """What to simulate. `start` is epoch milliseconds. Fraud patterns change on `drift_day` (0 is the first day)."""

    seed: int = 1
    cards: int = 2_000
    merchants: int = 1_000
    days: int = 60
    start: int = 1_704_067_200_000
    drift_day: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"seed": 0, "cards": 1, "merchants": MIN_MERCHANTS, "days": 1, "start": 0}.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name}={getattr(self, name)}: must be at least {least}")
        if self.drift_day is not None and not 0 <= self.drift_day < self.days:
            raise ConfigurationError(f"drift_day={self.drift_day}: must be from 0 to {self.days - 1}, the last day")

    @property
    def drift(self) -> int:
        """When the fraud patterns change, in milliseconds after `start`; without a drift day, the end."""
        return DAY * (self.days if self.drift_day is None else self.drift_day)

    def generator(self, part: Part | Pattern) -> np.random.Generator:
        """Return a fresh generator for one part of the world."""
        return np.random.Generator(np.random.PCG64([self.seed, int(part)]))


class Merchants(NamedTuple):
    """Merchants, one array element each, with a directory by country and by online or terminal."""

    country: Ints
    online: Bools
    category: Ints
    latitude: Floats
    longitude: Floats
    directory: Ints  # merchants ordered by (online, country)
    first: Ints  # (2, countries): index of the first in the directory
    total: Ints  # (2, countries): number of merchants

    def pick(self, chance: Floats, *, online: bool, country: Ints) -> Ints:
        """Pick a merchant of each country by a uniform draw in [0, 1)."""
        sort = int(online)
        offset = (chance * self.total[sort][country]).astype(np.int64)
        found: Ints = self.directory[self.first[sort][country] + offset]
        return found


def make_merchants(world: World) -> Merchants:
    """Draw the merchants."""
    rng, n = world.generator(Part.MERCHANTS), world.merchants
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
    return Merchants(
        country=country,
        online=online,
        category=category,
        latitude=(_LATITUDE[country] + 1.2 * north).round(4),
        longitude=(_LONGITUDE[country] + 1.5 * east).round(4),
        directory=np.argsort(key, kind="stable"),
        first=(np.cumsum(count) - count).reshape(shape),
        total=count.reshape(shape),
    )


class Cards(NamedTuple):
    """Cards, one array element each. A journey has a country, a first day and a day of return."""

    country: Ints
    level: Floats  # spending relative to other cards
    deviation: Floats  # standard deviation of the logarithm of the amounts
    rate: Floats  # transactions per day
    phase: Floats  # hours by which the card's day is later than usual
    online: Floats  # share of payments online
    devices: Ints  # (cards, 2): the same twice for a card with one device
    terminals: Ints  # (cards, favourites): merchants nearby
    websites: Ints  # (cards, favourites)
    journey: Ints  # (cards, journeys, 3): country, first day, day of return


def make_cards(world: World, shops: Merchants) -> Cards:
    """Draw the cards."""
    rng, n = world.generator(Part.CARDS), world.cards
    country = _COUNTRY_OF[rng.integers(0, 17, n)]
    level, deviation = np.exp(0.45 * rng.normal(size=n)), 0.35 + 0.4 * rng.random(n)
    devices = rng.integers(0, 2**32, (n, 2))
    devices[:, 1] = np.where(rng.random(n) < 0.5, devices[:, 0], devices[:, 1])  # half of the cards have one device
    anywhere = rng.integers(0, HOME_COUNTRIES, (n, FAVOURITES))
    abroad = rng.random((n, FAVOURITES)) < 0.4  # websites of other countries
    return Cards(
        country=country,
        level=level,
        deviation=deviation,
        rate=0.3 + 5.7 * rng.random(n) ** 2,
        phase=np.floor(12 * rng.random(n) - 6) / 4,
        online=0.05 + 0.4 * rng.random(n) ** 2,
        devices=devices,
        terminals=_nearby(rng, shops, country),
        websites=shops.pick(
            rng.random((n, FAVOURITES)) ** 1.5, online=True, country=np.where(abroad, anywhere, country[:, None])
        ),
        journey=_plan_journeys(rng, world),
    )


def _nearby(rng: np.random.Generator, shops: Merchants, country: Ints) -> Ints:
    """Choose favourite terminals, (cards, favourites): the nearest of three times as many random ones."""
    n = len(country)
    known = shops.pick(rng.random((n, 3 * FAVOURITES)), online=False, country=country[:, None])
    north, east = rng.normal(size=n), rng.normal(size=n)
    home_latitude, home_longitude = _LATITUDE[country] + 1.2 * north, _LONGITUDE[country] + 1.5 * east
    # A plane is accurate enough within a country. A degree of longitude is about 0.7 of a degree of latitude.
    away = (shops.latitude[known] - home_latitude[:, None]) ** 2
    away += (0.7 * (shops.longitude[known] - home_longitude[:, None])) ** 2
    nearest = np.argsort(away, axis=1, kind="stable")[:, :FAVOURITES]
    return np.take_along_axis(known, nearest, axis=1)


def _plan_journeys(rng: np.random.Generator, world: World) -> Ints:
    """Plan at most one journey per card and two months. About a third of the draws become journeys."""
    shape = (world.cards, -(-world.days // 60))
    country = rng.integers(0, len(COUNTRIES), shape)
    leaves = rng.integers(0, 60, shape) + 60 * np.arange(shape[1])
    nights = np.where(rng.random(shape) < 0.35, rng.integers(2, 11, shape), 0)  # 0 nights: no journey
    return np.stack([country, leaves, leaves + nights], axis=-1)
