"""`fraud-service demo`: the whole service for a minute, on simulated payments at accelerated event time.

`setup` starts scorer and learner and makes their topics, `monitor` counts the records on the topics, `screen` draws the
counts, and `run` puts them together.
"""

from __future__ import annotations

from fraud_service.demo.run import run
from fraud_service.demo.setup import DemoError, Plan

__all__ = ["DemoError", "Plan", "run"]
