"""Simulate the payments, frauds and labels of a small set of cards and merchants, from a seed.

A card has a home, a spending level, a rate, favourite merchants nearby, a phase of the day and one or two devices. Some
cards travel. A merchant has a country, coordinates and a category with a typical amount. A quarter of the merchants
sell online: their payments have a device but no coordinates. Amounts are in euro, times in UTC. About 0.9 % of all
payments are frauds:

- *card testing*: a burst of tiny online payments on a stolen number from a new device, then a few large ones;
- *skimmer*: copied cards make most payments at one terminal for weeks, in typical amounts;
- *takeover*: some payments over several days are multiples of the card's mean, mostly at night, abroad, from a new
  device;
- *impossible travel*: a counterfeit pays overseas within an hour of a genuine payment, by magstripe or keyed;
- *lookalike*: amounts a little above the card's mean, online at merchants new to the card, at night, from its usual
  device. This pattern replaces card testing and takeover from the drift day on.

Genuine payments overlap with every pattern: they include new devices, large purchases, journeys and payments at night.
A chargeback, the customer or an analyst labels a fraud. Settlement labels a genuine payment after seven days.

A seed gives the same rows on every machine. Each part of the world draws from its own generator. The drift adds and
removes rows only from its day on, so the earlier rows are the same with and without it.
"""

from fraud_service.demo.simulator.simulation import Simulation, simulate, write
from fraud_service.demo.simulator.world import Pattern, World
from fraud_service.domain.time import DAY, HOUR, MINUTE

__all__ = ["DAY", "HOUR", "MINUTE", "Pattern", "Simulation", "World", "simulate", "write"]
