"""Malformed messages: value, key, and the expected reason of the dead letter."""

from __future__ import annotations

import json

from fraud_service.domain.errors import DeadLetterReason

START = 1_700_000_000_000
BROKER_TIME = 4_102_444_800_000  # the year 2100: later than every valid event of a test
GOOD = {
    "transaction_id": "t-1",
    "timestamp": START,
    "card_id": "c-1",
    "merchant_id": "m-1",
    "amount": "12.50",
    "currency": "EUR",
}


def text(**changes) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(name: str) -> bytes:
    return json.dumps({field: value for field, value in GOOD.items() if field != name}).encode()


MALFORMED = [
    (None, b"c-1", DeadLetterReason.EMPTY),
    (b"", b"c-1", DeadLetterReason.EMPTY),
    (b"{", b"c-1", DeadLetterReason.NOT_JSON),
    (b"not json", b"c-1", DeadLetterReason.NOT_JSON),
    (b"\x00\x01\x02", b"c-1", DeadLetterReason.NOT_JSON),
    (b'{"transaction_id": "\xff"}', b"c-1", DeadLetterReason.NOT_UTF8),
    (b"[1, 2]", b"c-1", DeadLetterReason.NOT_AN_OBJECT),
    (b'"text"', b"c-1", DeadLetterReason.NOT_AN_OBJECT),
    (b"null", b"c-1", DeadLetterReason.NOT_AN_OBJECT),
    (text(padding="x" * 70_000), b"c-1", DeadLetterReason.TOO_LARGE),
    (without("transaction_id"), b"c-1", DeadLetterReason.MISSING_FIELD),
    (without("card_id"), b"c-1", DeadLetterReason.MISSING_FIELD),
    (without("timestamp"), b"c-1", DeadLetterReason.MISSING_FIELD),
    (without("amount"), b"c-1", DeadLetterReason.MISSING_FIELD),
    (without("currency"), b"c-1", DeadLetterReason.MISSING_FIELD),
    (text(card_id=""), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(card_id="c" * 129), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(merchant_id=7), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(currency="euro"), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(latitude=91), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(card_id="c-1\x1b[2J"), b"c-1\x1b[2J", DeadLetterReason.INVALID_FIELD),
    (text(merchant_id="m\u202e1"), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(longitude="east"), b"c-1", DeadLetterReason.INVALID_FIELD),
    (text(timestamp="yesterday"), b"c-1", DeadLetterReason.INVALID_TIMESTAMP),
    (text(timestamp="2024-01-01T00:00:00"), b"c-1", DeadLetterReason.INVALID_TIMESTAMP),
    (text(timestamp=-1), b"c-1", DeadLetterReason.INVALID_TIMESTAMP),
    (text(timestamp=START // 1000), b"c-1", DeadLetterReason.INVALID_TIMESTAMP),
    (text(timestamp=START * 1000), b"c-1", DeadLetterReason.INVALID_TIMESTAMP),
    (text(card_id="4.00E+15"), b"4.00E+15", DeadLetterReason.INVALID_FIELD),
    (text(timestamp=BROKER_TIME + 300_001), b"c-1", DeadLetterReason.FUTURE_TIMESTAMP),
    (text(amount=-0.01), b"c-1", DeadLetterReason.INVALID_AMOUNT),
    (text(amount="NaN"), b"c-1", DeadLetterReason.INVALID_AMOUNT),
    (text(amount="1e5"), b"c-1", DeadLetterReason.INVALID_AMOUNT),
    (text(amount=10**14), b"c-1", DeadLetterReason.INVALID_AMOUNT),
    (text(), None, DeadLetterReason.MISSING_KEY),
    (text(), b"c-2", DeadLetterReason.KEY_MISMATCH),
    (text(), b"\xff", DeadLetterReason.KEY_MISMATCH),
    (text(note="paid with 4111 1111 1111 1111"), b"c-1", DeadLetterReason.CARD_NUMBER),
    (text(card_id="5555555555554444"), b"5555555555554444", DeadLetterReason.CARD_NUMBER),
    (b"{4111111111111111", b"c-1", DeadLetterReason.CARD_NUMBER),
    (text(), b"378282246310005", DeadLetterReason.CARD_NUMBER),
    (text(cvv="123"), b"c-1", DeadLetterReason.SENSITIVE_DATA),
    (text(note=";4111111111111111=25121011000012300000?"), b"c-1", DeadLetterReason.SENSITIVE_DATA),
]
