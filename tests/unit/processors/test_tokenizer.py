"""The tokenizer's step: what comes out of it has tokens of known keys, and dead letters name no card."""

from __future__ import annotations

import json

import pytest
from support.worlds import MONDAY, label, transaction

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import DeadLetterReason
from fraud_service.domain.events import encode
from fraud_service.kafka.messages import Received
from fraud_service.processors.tokenizer import TokenizerProcessor
from fraud_service.runtime.metrics.stream import Metrics, TokenizerMetrics
from fraud_service.security.tokens import Tokenizer

pytestmark = pytest.mark.attack

SETTINGS = Settings()
TOKENIZER = Tokenizer({"y2025": b"a" * 32, "y2026": b"b" * 32}, "y2026")
CARD = "4242424242424242"


@pytest.fixture
def process():
    step = TokenizerProcessor(SETTINGS, TOKENIZER, TokenizerMetrics(Metrics()))

    def process(value: bytes | None, key: bytes | None, topic: str = SETTINGS.topics.raw_transactions):
        (outputs,) = step([Received(topic, 0, 0, key, value, MONDAY)], None)
        return outputs

    return process


def token(card: str, key: str = "y2026") -> bytes:
    return TOKENIZER.token(card.encode(), key)


@pytest.mark.parametrize("card", [CARD, "customer-0815", "17", "\u00e9"])
def test_a_payment_is_published_with_a_token_in_value_and_key(process, card):
    (output,) = process(encode(transaction(card_id=card)), card.encode())
    assert (output.role, output.key) == ("transactions", token(card))
    assert json.loads(output.value)["card_id"].encode() == output.key


def test_a_payment_without_a_key_stays_without_one(process):
    (output,) = process(encode(transaction(card_id="c-1")), None)
    assert output.key is None


def test_a_label_is_published_once_per_key_and_once_if_it_has_a_token(process):
    topic = SETTINGS.topics.raw_labels
    outputs = process(encode(label(card_id="c-1")), b"c-1", topic)
    assert [output.key for output in outputs] == [token("c-1", key) for key in ("y2026", "y2025")]
    (output,) = process(outputs[1].value, outputs[1].key, topic)
    assert (output.role, output.value, output.key) == ("labels", outputs[1].value, outputs[1].key)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (f"no JSON, and {CARD}".encode(), DeadLetterReason.NOT_JSON),
        (b'{"card": "c-1"}', DeadLetterReason.MISSING_FIELD),
        (f'{{"card_id": "c-1", "cvv": "123", "pan": "{CARD}"}}'.encode(), DeadLetterReason.SENSITIVE_DATA),
        (f'{{"card_id": "c-1", "pan": {CARD}}}'.encode(), DeadLetterReason.CARD_NUMBER),
    ],
)
def test_what_cannot_be_tokenized_is_a_masked_dead_letter_whose_key_is_a_token(process, value, reason):
    (output,) = process(value, b"customer-0815")
    assert output.role == "dead_letters"
    assert dict(output.headers)["fraud-reason"] == reason.encode()
    assert output.key == token("customer-0815")
    assert CARD.encode() not in output.value
    assert b'"123"' not in output.value
