"""`fraud-service demo`: the whole service for a minute, on simulated payments at accelerated event time.

`stage` sets up broker, topics, scorer and learner, and takes them down again; `tally` counts what the topics show;
`view` draws it; `show` is the performance itself.
"""

from __future__ import annotations

from fraud_service.demo.run import run
from fraud_service.demo.setup import DemoError, Plan

__all__ = ["DemoError", "Plan", "run"]
