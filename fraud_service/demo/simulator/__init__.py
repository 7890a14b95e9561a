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

from fraud_service.demo.simulator.files import write
from fraud_service.demo.simulator.simulation import Simulation, simulate
from fraud_service.demo.simulator.world import Pattern, World
from fraud_service.domain.time import DAY, HOUR, MINUTE

__all__ = ["DAY", "HOUR", "MINUTE", "Pattern", "Simulation", "World", "simulate", "write"]
