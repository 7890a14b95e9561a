"""Payments for small tests."""

from __future__ import annotations

from fraud_service.domain.events import Transaction

START = 1_700_000_000_000


def payment(number: int, card: str = "c-1", **facts) -> Transaction:
    return Transaction(
        **{
            "transaction_id": f"t-{number}",
            "timestamp": START + number * 600_000,
            "card_id": card,
            "merchant_id": f"m-{number % 5}",
            "amount": 20.0 + number % 7,
            "currency": "EUR",
            **facts,
        }
    )
