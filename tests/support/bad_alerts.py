"""Invalid alerts: value and headers, by the fault."""

from __future__ import annotations

import json
from typing import Any

ESCAPE = "\x1b]0;owned\x07\u202e"
KEY = b"no alert"
HEADERS = [("ce_id", b"0f3a7d5e-0000-5a53-9c60-0c1b5f1de001"), ("ce_time", b"2026-01-31T12:00:00Z")]
PAYMENT = {"transaction_id": "t-bad", "card_id": "c-bad", "amount": 1.5, "currency": "EUR"}
ALERT = {"transaction": PAYMENT, "score": 0.99, "outcome": "decline", "reasons": [{"code": "X", "text": "text"}]}


def changed(**changes: Any) -> bytes:
    return json.dumps({**ALERT, **changes}).encode()


def of(**changes: Any) -> bytes:
    return changed(transaction={**PAYMENT, **changes})


BAD_ALERTS: dict[str, tuple[bytes | None, list[tuple[str, bytes | None]] | None]] = {
    "no value": (None, HEADERS),
    "empty": (b"", HEADERS),
    "not JSON": (ESCAPE.encode(), HEADERS),
    "not UTF-8": (b'{"transaction": "\xff"}', HEADERS),
    "deep": (b"[" * 100_000, HEADERS),
    "a number of thousands of digits": (b"9" * 10_000, HEADERS),
    "a list": (b"[]", HEADERS),
    "no transaction": (b"{}", HEADERS),
    "a transaction that is a text": (changed(transaction="t"), HEADERS),
    "no card": (of(card_id=None), HEADERS),
    "a card that is a number": (of(card_id=7), HEADERS),
    "a card of half a character": (of(card_id="\ud800"), HEADERS),
    "a card that is long": (of(card_id="c" * 129), HEADERS),
    "no transaction_id": (of(transaction_id=None), HEADERS),
    "a score that is a text": (changed(score="high"), HEADERS),
    "a score that is not a number": (changed(score=float("nan")), HEADERS),
    "reasons that are a text": (changed(reasons="many"), HEADERS),
    "reasons that are texts": (changed(reasons=["many"]), HEADERS),
    "a reason without a text": (changed(reasons=[{"code": "X"}]), HEADERS),
    "huge": (changed(padding="x" * 300_000), HEADERS),
    "no headers": (changed(), None),
    "no ce_id": (changed(), [("ce_time", b"2026-01-31T12:00:00Z")]),
    "a ce_id without a value": (changed(), [("ce_id", None), HEADERS[1]]),
    "a ce_id that is not a text": (changed(), [("ce_id", b"\xff"), HEADERS[1]]),
}
BAD_FOR_CASES = {
    "an amount that is true": (of(amount=True), HEADERS),
    "an amount without end": (of(amount=float("inf")), HEADERS),
    "an amount of hundreds of digits": (of(amount=10**300), HEADERS),
    "a currency that is a list": (of(currency=["EUR"]), HEADERS),
    "an outcome that is none": (changed(outcome=None), HEADERS),
}
