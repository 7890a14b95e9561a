"""Histories to train on, and the number of trees in a test."""

from __future__ import annotations

from typing import Any

from support.worlds import DAY, HOUR, MONDAY, transaction

from fraud_service.domain.events import LabelledTransaction

QUICK_TREES = 15


def hourly_history(count: int, **facts: Any) -> list[LabelledTransaction]:
    """Create one payment an hour. Every third is a fraud with a label a day later."""
    return [
        LabelledTransaction(
            transaction(f"t{n:04}", MONDAY + n * HOUR, **({"amount": 900.0 if n % 3 == 0 else 20.0} | facts)),
            is_fraud=n % 3 == 0,
            labelled_at=MONDAY + n * HOUR + DAY,
        )
        for n in range(count)
    ]
