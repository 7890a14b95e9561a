"""What is wrong with a message is said in words, without types, paths or patterns of Python."""

from __future__ import annotations

import json
import re

import pytest

from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import decode_label, decode_transaction

PAYMENT = {
    "transaction_id": "t-1",
    "timestamp": 1_700_000_000_000,
    "card_id": "c-1",
    "merchant_id": "m-1",
    "amount": 12.5,
    "currency": "EUR",
}
LABEL = {
    "transaction_id": "t-1",
    "card_id": "c-1",
    "is_fraud": True,
    "labelled_at": 1_700_000_000_000,
    "source": "analyst",
}
OPTIONAL = ("merchant_category_code", "country", "entry_mode", "device_id", "ip", "latitude", "longitude")
ODD = [None, True, "", "x", "-1", "x" * 300, "eur\n", -1, 1.5, 1e300, [], {}, [1], {"a": 1}]
TECHNICAL = re.compile(r"Expected|regex|`\$|\^|\bstr\b|\bint\b|\bfloat\b|\bbool\b|Invalid|Object|\|")


def details(decode, valid):
    """Return the detail of every refusal of a message with one odd or missing value."""
    for field in (*valid, *OPTIONAL):
        left = {name: value for name, value in valid.items() if name != field}
        for message in (left, *({**valid, field: value} for value in ODD)):
            try:
                decode(json.dumps(message).encode())
            except InvalidEvent as error:
                yield field, error.detail


@pytest.mark.parametrize(("decode", "valid"), [(decode_transaction, PAYMENT), (decode_label, LABEL)])
def test_every_refusal_names_the_field_and_is_written_in_words(decode, valid):
    found = list(details(decode, valid))
    assert len(found) > 40
    for field, detail in found:
        assert f"`{field}`" in detail
        assert not TECHNICAL.search(detail), detail


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"currency": "euro"}, "`currency` must be three capital letters, such as EUR"),
        ({"amount": "12,50"}, "`amount` must be digits with a decimal point, such as 12.50"),
        ({"amount": -1}, "`amount` must be at least 0"),
        ({"card_id": 7}, "`card_id` must be text, not a whole number"),
        ({"card_id": "x" * 129}, "`card_id` must have at most 128 characters"),
        ({"merchant_id": ""}, "`merchant_id` must have at least 1 character"),
        ({"latitude": 91}, "`latitude` must be at most 90"),
        ({"timestamp": None}, "`timestamp` must be a whole number or text, not null"),
    ],
)
def test_a_detail_says_what_to_write(change, detail):
    with pytest.raises(InvalidEvent) as caught:
        decode_transaction(json.dumps(PAYMENT | change).encode())
    assert caught.value.detail == detail


@pytest.mark.parametrize("value", [b"[]", b"1", b'"x"', b"null"])
def test_a_message_that_is_no_object_is_described_in_words(value):
    with pytest.raises(InvalidEvent) as caught:
        decode_transaction(value)
    assert caught.value.detail.startswith("the record must be an object, not ")
