"""Tokens: no card number is left, equal cards have equal tokens, and the rest of a message is unchanged."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.card_numbers import is_card_number
from support.worlds import MONDAY, transaction

from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.events import decode_transaction, encode
from fraud_service.security.card_data import find_card_data
from fraud_service.security.tokens import Tokenizer

pytestmark = pytest.mark.attack

FAST = settings(max_examples=300, deadline=None, derandomize=True)
KEYS = {"y2025": b"a" * 32, "y2026": b"b" * 32}
TOKENIZER = Tokenizer(KEYS, "y2026")


IS_TOKEN = re.compile(b"tok_y202[56]_[a-p]{32}")


def with_check_digit(digits: str) -> str:
    return next(digits + last for last in "0123456789" if is_card_number((digits + last).encode()))


NUMBERS = st.from_regex(r"\A4[0-9]{14}\Z").map(with_check_digit)
SPELLED = {
    "plain": lambda number: number,
    "groups": lambda number: " ".join(number[place : place + 4] for place in range(0, 16, 4)),
    "dashes": lambda number: "-".join(number[place : place + 4] for place in range(0, 16, 4)),
    "escaped": lambda number: number,
}


def message(number: str, **more: object) -> bytes:
    paid = json.loads(encode(transaction("t-1", MONDAY, card_id=number)))
    return json.dumps(paid | more).encode()


@FAST
@given(NUMBERS, st.sampled_from(sorted(SPELLED)))
def test_no_number_survives_and_a_card_has_one_token_however_it_is_written(number, spelling):
    value = message(SPELLED[spelling](number))
    if spelling == "escaped":
        value = value.replace(number.encode(), "".join(f"\\u00{ord(digit):x}" for digit in number).encode())
    found, key = TOKENIZER.tokenize(value, SPELLED[spelling](number).encode())
    token = TOKENIZER.token(number.encode(), "y2026")
    assert find_card_data(found) is find_card_data(key) is None
    assert key == token
    assert decode_transaction(found) == transaction("t-1", MONDAY, card_id=token.decode())


@FAST
@given(NUMBERS, st.lists(NUMBERS, max_size=3), st.text("abc {}:,é", max_size=20))
def test_numbers_in_free_text_become_tokens_and_the_rest_stays(number, others, text):
    note = text + "".join(f" {other}, {text}" for other in others)
    found, _ = TOKENIZER.tokenize(message(number, note=note), None)
    expected = note
    for other in others:
        expected = expected.replace(other, TOKENIZER.token(other.encode(), "y2026").decode())
    assert json.loads(found)["note"] == expected


IDS = st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() and find_card_data(text.encode()) is None)


@FAST
@given(IDS | st.just("4242424242424241") | st.just("tok_y2026_short") | st.just(f"tok_other_{'a' * 32}"))
def test_any_card_id_that_is_not_a_token_of_a_known_key_becomes_one(card):
    value, key = TOKENIZER.tokenize(message(card), card.encode())
    assert IS_TOKEN.fullmatch(key)
    assert json.loads(value)["card_id"] == key.decode()
    assert json.loads(value) == json.loads(message(card)) | {"card_id": key.decode()}
    assert TOKENIZER.tokenize(value, key) == (value, key)


@FAST
@given(st.binary(max_size=80), st.none() | st.binary(max_size=20))
def test_no_message_key_passes_without_a_token(value, key):
    try:
        _, new_key = TOKENIZER.tokenize(value, key)
    except InvalidEvent:
        return
    assert new_key is None if key is None else IS_TOKEN.fullmatch(new_key)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, DeadLetterReason.EMPTY),
        (b"", DeadLetterReason.EMPTY),
        (b"customer 1234567", DeadLetterReason.NOT_JSON),
        (b'["card_id"]', DeadLetterReason.NOT_AN_OBJECT),
        (b'{"card": "c-1"}', DeadLetterReason.MISSING_FIELD),
        (b'{"card_id": 17}', DeadLetterReason.INVALID_FIELD),
        (b'{"card_id": null}', DeadLetterReason.INVALID_FIELD),
        (b'{"card_id": {"number": "x"}}', DeadLetterReason.INVALID_FIELD),
        (b'{"card_id": ""}', DeadLetterReason.INVALID_FIELD),
        ('{"card_id": "c-1"}'.encode("utf-16"), DeadLetterReason.NOT_UTF8),
    ],
)
def test_a_message_without_a_card_that_is_text_does_not_pass(value, reason):
    with pytest.raises(InvalidEvent) as rejected:
        TOKENIZER.tokenize(value, b"c-1")
    assert rejected.value.reason in {reason, DeadLetterReason.NOT_JSON}


def test_a_duplicate_card_id_field_does_not_pass():
    token = TOKENIZER.token(b"c-1", "y2026").decode()
    for twice in (f'{{"card_id":"secret","card_id":"{token}"}}', f'{{"card\\u005fid":"secret","card_id":"{token}"}}'):
        value, _ = TOKENIZER.tokenize(twice.encode(), None)
        assert json.loads(value) == {"card_id": token}
        assert b"secret" not in value


@pytest.mark.parametrize(
    "card",
    [
        "4242424242424242",
        "4242 4242 4242 4242",
        "4242.4242.4242.4242",
        "0004242424242424242",
        "+4242424242424242",
        "".join(chr(0xFF10 + int(digit)) for digit in "4242424242424242"),
    ],
)
def test_a_card_number_has_the_same_token_however_it_is_written(card):
    token = TOKENIZER.token(b"4242424242424242", "y2026")
    value, key = TOKENIZER.tokenize(message(card), card.encode())
    assert key == token == json.loads(value)["card_id"].encode()


def test_the_token_of_a_card_number_has_not_changed():
    assert TOKENIZER.token(b"4242424242424242", "y2026") == b"tok_y2026_mdgnfnhllnnooopbajjgdmccdklklcmm"


@FAST
@given(NUMBERS, NUMBERS)
def test_tokens_tell_cards_apart_and_name_their_key_and_are_no_numbers(one, other):
    tokens = {TOKENIZER.token(number.encode(), key) for number in (one, other) for key in KEYS}
    assert len(tokens) == 2 * len({one, other})
    assert {token.split(b"_")[1].decode() for token in tokens} == set(KEYS)
    assert not any(find_card_data(token) for token in tokens)
    assert all(one.encode() not in token for token in tokens)


def test_a_message_with_authentication_data_is_rejected():
    with pytest.raises(InvalidEvent) as rejected:
        TOKENIZER.tokenize(message("4242424242424242", cvv="123"), None)
    assert rejected.value.reason == DeadLetterReason.SENSITIVE_DATA


def test_a_card_number_that_is_not_text_is_rejected():
    with pytest.raises(InvalidEvent, match="send it as text"):
        TOKENIZER.tokenize(b'{"card_id": 4242424242424242}', None)


def test_the_repr_shows_no_key():
    assert repr(TOKENIZER) == "Tokenizer(y2025, y2026; active: y2026)"
