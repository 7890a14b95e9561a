"""Hold transactions as columns of numbers, and simulate the legitimate payments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fraud_service.demo.simulator.world import FAVOURITES, HOME_COUNTRIES, TYPICAL, Part, Pattern
from fraud_service.domain.time import DAY, HOUR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fraud_service.demo.simulator.world import Cards, Floats, Ints, Merchants, World

    Bytes = NDArray[np.int8]

ENTRY_MODES: Final = ("contactless", "chip", "magstripe", "keyed", "ecommerce")
CONTACTLESS, CHIP, MAGSTRIPE, KEYED, ONLINE = range(5)
CONTACTLESS_LIMIT: Final = 50.0

# The relative number of payments in each hour of the day, and the share of the day's payments before each hour.
_ACTIVITY: Final = np.array([2, 1, 1, 1, 1, 3, 8, 18, 28, 34, 38, 46, 52, 46, 38, 36, 42, 52, 56, 46, 32, 20, 11, 5])
_CUMULATIVE_ACTIVITY: Final = np.concatenate([[0], np.cumsum(_ACTIVITY)]) / _ACTIVITY.sum()


@dataclass(frozen=True)
class Rows:
    """Transactions as arrays, one element each. `time` is milliseconds after the start; `device` is -1 for none."""

    time: Ints
    card: Ints
    merchant: Ints
    amount: Floats
    entry: Ints
    device: Ints
    pattern: Bytes

    @classmethod
    def of(cls, pattern: Pattern, shape: tuple[int, ...], **arrays: Any) -> Rows:
        """Broadcast arrays to a shape such as (campaigns, payments), and flatten them."""
        spread = {name: np.broadcast_to(array, shape).ravel() for name, array in arrays.items()}
        whole = {name: array.astype(np.int64) for name, array in spread.items() if name != "amount"}
        return cls(**whole, amount=spread["amount"], pattern=np.full(int(np.prod(shape)), pattern, np.int8))

    @classmethod
    def joined(cls, *parts: Rows) -> Rows:
        """Concatenate parts in their order."""
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def where(self, chosen: NDArray[Any]) -> Rows:
        """Select rows by a mask, or reorder them by their indices."""
        return Rows(**{name: array[chosen] for name, array in vars(self).items()})


def usual_amount(people: Cards, card: Ints) -> Floats:
    """Return the approximate mean amount of each card, in euro."""
    return 54.0 * people.level[card]


def _time_of_day(chance: Floats, phase: Floats) -> Ints:
    """Map uniform draws to milliseconds after midnight, most of them by day."""
    hour: Floats = (np.interp(chance, _CUMULATIVE_ACTIVITY, np.arange(25.0)) + phase) % 24
    return np.minimum((hour * HOUR).astype(np.int64), DAY - 1)


def simulate_payments(world: World, people: Cards, shops: Merchants) -> Rows:
    """Draw the legitimate payments, ordered by card and day."""
    rng = world.generator(Part.PAYMENTS)
    counts = _poisson(rng, people.rate, world.days)
    card, day = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    chances = rng.random((len(card), 8)).T
    merchant = _choose_merchants(people, shops, card, day, chances[:4])
    amount = _draw_amounts(people, card, TYPICAL[shops.category[merchant]], rng.normal(size=len(card)), chances[4])
    online, small = shops.online[merchant], amount < CONTACTLESS_LIMIT
    how, device = chances[6:]
    first, second = people.devices[card].T
    new = rng.integers(0, 2**32, len(card))
    return Rows.of(
        Pattern.LEGITIMATE,
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
    """Draw (cards, days) counts by inversion, since numpy may change its own method between versions."""
    chance = rng.random((len(rate), days))
    counts = np.zeros(chance.shape, np.int64)
    term = np.exp(-rate)
    below = term.copy()
    for k in range(1, 31):
        counts += chance >= below[:, None]
        term *= rate / k
        below += term
    return counts


def _choose_merchants(people: Cards, shops: Merchants, card: Ints, day: Ints, chances: Floats) -> Ints:
    """Choose merchants: mostly favourites, sometimes any merchant of the country, and abroad during a journey."""
    channel, habit, which, other = chances
    country = people.country[card]
    for trip in range(people.journey.shape[1]):
        abroad, leaves, returns = people.journey[card, trip].T
        country = np.where((leaves <= day) & (day < returns), abroad, country)
    favourite = (which**2 * FAVOURITES).astype(np.int64)
    at_home = (country == people.country[card]) & (habit < 0.88)  # otherwise any merchant of the country
    terminal = np.where(at_home, people.terminals[card, favourite], shops.pick(other, online=False, country=country))
    anywhere = shops.pick(other, online=True, country=(which * HOME_COUNTRIES).astype(np.int64))
    website = np.where(habit < 0.75, people.websites[card, favourite], anywhere)
    return np.where(channel < people.online[card], website, terminal)


def _draw_amounts(people: Cards, card: Ints, typical: Floats, normal: Floats, chance: Floats) -> Floats:
    """Combine the typical amounts of merchant and card. One payment in a hundred is a large purchase."""
    here = 30.0 * (typical / 30.0) ** 0.7
    large = np.where(chance < 0.01, 3.0 + 300.0 * chance, 1.0)  # 3 to 6 times as much
    amount: Floats = here * people.level[card] * large * np.exp(people.deviation[card] * normal)
    return amount
