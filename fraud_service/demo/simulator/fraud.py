"""Simulate the fraud patterns."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np

from fraud_service.demo.simulator.payments import KEYED, MAGSTRIPE, ONLINE, Rows, usual_amount
from fraud_service.demo.simulator.world import COUNTRIES, HOME_COUNTRIES, Pattern
from fraud_service.domain.time import DAY, HOUR, MINUTE

if TYPE_CHECKING:
    from fraud_service.demo.simulator.world import Cards, Merchants, World

# Frauds of each pattern per legitimate payment. Lookalikes replace card testing and takeover from the drift day on.
SHARES: Final = {
    Pattern.CARD_TESTING: 0.0023,
    Pattern.SKIMMER: 0.0030,
    Pattern.TAKEOVER: 0.0024,
    Pattern.IMPOSSIBLE_TRAVEL: 0.0016,
    Pattern.LOOKALIKE: 0.0045,
}


def simulate_fraud(world: World, people: Cards, shops: Merchants, legitimate: Rows) -> Rows:
    """Return the legitimate payments, some turned into skimmer frauds, then the frauds of the other patterns."""
    return Rows.joined(
        _skim(world, shops, legitimate),
        _test_cards(world, people, shops, len(legitimate.time)),
        _take_over(world, people, shops, len(legitimate.time)),
        _travel_impossibly(world, people, shops, legitimate),
        _look_alike(world, people, shops, legitimate),
    )


def _campaigns(pattern: Pattern, legitimate: int, payments: float) -> int:
    """Return how many campaigns of `payments` payments on average reach the pattern's share."""
    return min(legitimate, max(1, round(SHARES[pattern] * legitimate / payments)))


def _skim(world: World, shops: Merchants, legitimate: Rows) -> Rows:
    """Turn payments at compromised terminals into frauds, which differ from other payments only in the terminal."""
    rng, n = world.generator(Pattern.SKIMMER), world.merchants
    turn, when, length, share = rng.random((n, 4)).T
    begin = ((world.days + 10) * when - 10) * DAY  # some before the first day
    end, share = begin + (14 + 14 * length) * DAY, np.where(shops.online, 0.0, 0.6 + 0.3 * share)
    at = legitimate.merchant
    hit = (begin[at] <= legitimate.time) & (legitimate.time < end[at]) & (rng.random(len(at)) < share[at])
    # Traffic differs greatly between terminals, so compromise one after the other until there are enough frauds. The
    # limit ends the last compromise early.
    in_turn = np.lexsort((legitimate.time, turn[at], ~hit))[: min(hit.sum(), round(SHARES[Pattern.SKIMMER] * len(at)))]
    pattern = legitimate.pattern.copy()
    pattern[in_turn] = Pattern.SKIMMER
    return replace(legitimate, pattern=pattern)


def _test_cards(world: World, people: Cards, shops: Merchants, legitimate: int) -> Rows:
    """Test stolen numbers with tiny payments 8 to 88 seconds apart, then make two to four large purchases."""
    rng, n = world.generator(Pattern.CARD_TESTING), _campaigns(Pattern.CARD_TESTING, legitimate, 8.5)
    shape, place = (n, 12), np.arange(12)  # up to eight tests, then up to four purchases
    test = place < 8
    card, device = rng.integers(0, world.cards, (n, 1)), rng.integers(0, 2**32, (n, 1))
    happens = np.where(test, place < rng.integers(3, 9, (n, 1)), place - 8 < rng.integers(2, 5, (n, 1)))
    begin, pause, size, which = rng.random((n, 1)), rng.random(shape), rng.random(shape), rng.random(shape)
    gap = np.where(test, 8_000 + 80_000 * pause, 2 * MINUTE + 25 * MINUTE * pause) * happens
    rows = Rows.of(
        Pattern.CARD_TESTING,
        shape,
        time=begin * world.days * DAY + np.cumsum(gap, axis=1),
        card=card,
        merchant=shops.pick(which, online=True, country=rng.integers(0, len(COUNTRIES), (n, 1))),
        amount=np.where(test, 0.5 + 2.5 * size, usual_amount(people, card) * (3 + 7 * size)),
        entry=ONLINE,
        device=device,
    )
    return rows.where(happens.ravel() & (rows.time < world.drift))


def _take_over(world: World, people: Cards, shops: Merchants, legitimate: int) -> Rows:
    """Shop with a stolen account for 3 to 10 days, while its owner still uses it."""
    rng, n = world.generator(Pattern.TAKEOVER), _campaigns(Pattern.TAKEOVER, legitimate, 7.5)
    shape = (n, 24)
    card, device = rng.integers(0, world.cards, (n, 1)), rng.integers(0, 2**32, (n, 1))
    begin, length = rng.integers(0, world.days, (n, 1)), rng.integers(3, 11, (n, 1))
    happens = np.arange(24) < 2 + people.rate[card] * length * (0.2 + 0.4 * rng.random((n, 1)))
    day, hour, night, size, which, near = rng.random((6, *shape))
    abroad = (people.country[card] + rng.integers(1, len(COUNTRIES), shape)) % len(COUNTRIES)
    rows = Rows.of(
        Pattern.TAKEOVER,
        shape,
        time=(begin + np.floor(day * length)) * DAY
        + np.floor(hour * HOUR * np.where(night < 0.75, 6, 24)),  # mostly before six
        card=card,
        merchant=shops.pick(which, online=True, country=np.where(near < 0.3, people.country[card], abroad)),
        amount=usual_amount(people, card) * (3 + 5 * size),
        entry=ONLINE,
        device=device,
    )
    return rows.where(happens.ravel() & (rows.time < world.drift))


def _travel_impossibly(world: World, people: Cards, shops: Merchants, legitimate: Rows) -> Rows:
    """Pay overseas with a counterfeit, 5 to 60 minutes after the owner of the card paid at a terminal."""
    rng, n = (
        world.generator(Pattern.IMPOSSIBLE_TRAVEL),
        _campaigns(Pattern.IMPOSSIBLE_TRAVEL, len(legitimate.time), 1.6),
    )
    seen = np.flatnonzero(legitimate.entry != ONLINE)
    row = seen[(rng.random((min(n, len(seen)), 1)) * len(seen)).astype(np.int64)]
    shape = (len(row), 3)
    happens = np.arange(3) < 1 + np.floor(2.2 * rng.random((len(row), 1)))
    delay, wait, which, how = rng.random((4, *shape))
    overseas = len(COUNTRIES) - HOME_COUNTRIES
    far = rng.integers(0, overseas, (len(row), 1))
    far = np.where(shops.country[legitimate.merchant[row]] == HOME_COUNTRIES + far, (far + 1) % overseas, far)
    pause = np.where(np.arange(3) == 0, 5 * MINUTE + 35 * MINUTE * delay, 2 * MINUTE + 8 * MINUTE * wait)
    card = legitimate.card[row]
    rows = Rows.of(
        Pattern.IMPOSSIBLE_TRAVEL,
        shape,
        time=legitimate.time[row] + np.cumsum(pause, axis=1),
        card=card,
        merchant=shops.pick(which, online=False, country=HOME_COUNTRIES + far),
        amount=usual_amount(people, card) * np.exp(0.5 * rng.normal(size=shape)),
        entry=np.where(how < 0.7, MAGSTRIPE, KEYED),
        device=-1,
    )
    return rows.where(happens.ravel())


def _look_alike(world: World, people: Cards, shops: Merchants, legitimate: Rows) -> Rows:
    """Shop from the drift day on: at night, from the card's own device, at new merchants, a little above its mean."""
    rng, left = world.generator(Pattern.LOOKALIKE), world.days - world.drift // DAY
    n = _campaigns(Pattern.LOOKALIKE, len(legitimate.time) * left // world.days, 3.0)
    shape, tries = (n, 5), (n, 5, 12)
    card = rng.integers(0, world.cards, (n, 1))
    happens = np.arange(5) < rng.integers(1, 6, (n, 1))
    begin, day, hour, size = world.drift // DAY + left * rng.random((n, 1)), *rng.random((3, *shape))
    candidates = shops.pick(rng.random(tries), online=True, country=rng.integers(0, HOME_COUNTRIES, tries))
    visits = np.unique(legitimate.card * world.merchants + legitimate.merchant)
    new = ~np.isin(card[:, :, None] * world.merchants + candidates, visits)
    first_new = np.argmax(new, axis=2)[:, :, None]
    rows = Rows.of(
        Pattern.LOOKALIKE,
        shape,
        time=np.floor(begin + 5 * day) * DAY + 5 * hour * HOUR,
        card=card,
        merchant=np.take_along_axis(candidates, first_new, axis=2)[:, :, 0],
        amount=usual_amount(people, card) * (1.1 + 0.9 * size),
        entry=ONLINE,
        device=people.devices[card, 0],
    )
    return rows.where(happens.ravel())
