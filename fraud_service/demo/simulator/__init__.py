"""Simulate the payments, frauds and labels of a small set of cards and merchants, from a seed.

A card has a home, a spending level, a rate, favourite merchants nearby, a phase of the day and one or two devices. Some
cards travel. A quarter of the merchants sell online: their payments have a device but no coordinates. Amounts are in
euro, times in UTC. About 0.9 % of all payments are frauds, in the patterns of `fraud.py`. Legitimate payments overlap
with every pattern. A chargeback, the customer or an analyst labels a fraud; settlement labels the others after seven
days.

A seed gives the same rows on every machine. Each part of the world draws from its own generator. The drift adds and
removes rows only from its day on, so the earlier rows are the same with and without it.
"""

from fraud_service.demo.simulator.simulation import Simulation, simulate, write
from fraud_service.demo.simulator.world import Pattern, World
from fraud_service.domain.time import DAY, HOUR, MINUTE

__all__ = ["DAY", "HOUR", "MINUTE", "Pattern", "Simulation", "World", "simulate", "write"]
