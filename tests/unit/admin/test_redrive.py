"""A dead letter whose source message would be accepted today is not sent, whatever the settings of the scorers."""

from __future__ import annotations

from datetime import timedelta

import pytest
from fuzz.targets import NAMES, SETTINGS, InMemory
from support.malformed import BROKER_TIME, text

from fraud_service.admin import redrive
from fraud_service.kafka.dead_letters import DeadLetter, parse_letter
from fraud_service.kafka.topic_reader import Record

pytestmark = pytest.mark.attack


def check(monkeypatch, value: bytes, topic: str = NAMES.transactions, **settings):
    """Check a dead letter of the only payment on its topic."""
    paid = Record(topic, 0, 0, b"c-1", value, BROKER_TIME, [])
    place = {"reason": "not_json", "source-topic": topic, "source-partition": "0", "source-offset": "0"}
    headers = [(f"fraud-{name}", content.encode()) for name, content in place.items()]
    written = paid._replace(topic=NAMES.dead_letters, headers=headers)
    monkeypatch.setattr(redrive, "TopicReader", lambda *_: InMemory({topic: [paid]}, 0))
    (found,) = redrive.check_letters(
        SETTINGS.model_copy(update=settings),
        [DeadLetter(written, parse_letter(written), len(value), is_redriven=False)],
    )
    return found


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        (text(), {}),
        (text(timestamp=BROKER_TIME + 1000), {"max_clock_skew": timedelta(minutes=5)}),
        (text(merchant_id="4242424242424242"), {"reject_pan": False}),
    ],
    ids=["in order", "within the tolerance", "with a card number that may stay"],
)
def test_a_dead_letter_of_a_transaction_that_scorers_accept_is_not_sent(monkeypatch, value, settings):
    assert "may have been scored" in check(monkeypatch, value, **settings).hindrance


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        (b"no json", {}),
        (text(timestamp=BROKER_TIME + 400_000), {"max_clock_skew": timedelta(minutes=5)}),
        (text(merchant_id="4242424242424242"), {"reject_pan": True}),
    ],
)
def test_a_dead_letter_of_a_message_that_scorers_reject_is_sent(monkeypatch, value, settings):
    assert check(monkeypatch, value, **settings).hindrance is None


@pytest.mark.parametrize("card", ["4242424242424242", "c-1", "tok_a_" + "a" * 32])
def test_a_dead_letter_of_a_raw_transaction_that_tokenizers_accept_is_not_sent(monkeypatch, card):
    paid = text(card_id=card, note="4242 4242 4242 4242")
    assert "may have been scored" in check(monkeypatch, paid, NAMES.raw_transactions).hindrance


@pytest.mark.parametrize("value", [b"no json", text(card_id=7), text(cvv="123"), text(n=[4242424242424242])])
def test_a_dead_letter_of_a_message_that_tokenizers_reject_is_sent(monkeypatch, value):
    assert check(monkeypatch, value, NAMES.raw_transactions).hindrance is None
