"""Card data is found wherever it hides in a message, and nothing else is taken for it."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraud_service.domain.card_data import (
    LONGEST,
    MOST_AT_ONCE,
    SHORTEST,
    CardData,
    find,
    is_card_number,
    is_clean,
    mask,
    masked,
    refuse,
)
from fraud_service.errors import InvalidEvent

# Published test numbers of payment providers; none of them is anybody's card.
NUMBERS = [
    "4242424242424242",
    "4222222222222",
    "5555555555554444",
    "2223003122003222",
    "378282246310005",
    "6011111111111117",
    "3056930009020004",
    "36227206271667",
    "3566002020360505",
    "6200000000000005",
]
PREFIXES = st.sampled_from(["4", "51", "55", "2221", "2720", "34", "37", "6011", "65", "3528", "36", "62"])
HARMLESS = {
    "transaction_id": "t-20260115-000042",
    "timestamp": "2026-01-15T12:30:00.000Z",
    "card_id": "card-7f3a",
    "merchant_id": "shop-118",
    "amount": "25.00",
    "currency": "EUR",
    "device_id": "5e0c8c1e-6f2a-4a1f-9a54-0c6e2f9f8d11",
    "ip": "192.168.100.200",
    "phone": "+49 151 42424242424",
    "latitude": 52.520006599999996,
}


@st.composite
def numbers(draw) -> str:
    """Draw a number as an issuer would give it."""
    prefix = draw(PREFIXES)
    length = 15 if prefix in {"34", "37"} else 14 if prefix == "36" else 16
    body = prefix + draw(st.text("0123456789", min_size=length - 1 - len(prefix), max_size=length - 1 - len(prefix)))
    return next(body + digit for digit in "0123456789" if luhn(body + digit))


def luhn(digits: str) -> bool:
    """Check the sum as ISO/IEC 7812 says it, digit by digit."""
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return sum(d // 10 + d % 10 for d in doubled) % 10 == 0


def in_groups(number: str, apart: str) -> str:
    return apart.join(re.findall(".{1,4}", number))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_card_number_of_each_issuer_is_one(number):
    assert is_card_number(number.encode())
    assert find(json.dumps({"card_id": number}).encode()) is CardData.CARD_NUMBER


@given(
    numbers(), st.sampled_from(["", " ", "-", "  ", " - "]), st.sampled_from(["{}", "paid with {}!", "ref.{}/2", "№{}"])
)
def test_a_number_is_found_in_any_text_and_nothing_of_it_is_left(number, apart, text):
    message = json.dumps({**HARMLESS, "note": text.format(in_groups(number, apart))}, ensure_ascii=False).encode()
    assert find(message) is CardData.CARD_NUMBER
    left = masked(message)
    assert find(left) is None
    assert in_groups(number, apart).encode() not in left
    assert b"[card number]" in left


@given(numbers())
def test_escapes_and_wide_characters_hide_nothing(number):
    escaped = "".join(f"\\u00{ord(digit):02x}" for digit in number)
    for message in (f'{{"note": "{escaped}"}}'.encode(), f'{{"note": "{number}"}}'.encode("utf-16-le")):
        assert find(message) is CardData.CARD_NUMBER
        assert number.encode() not in masked(message)


@given(numbers(), st.integers(0, 15), st.integers(1, 9))
def test_one_wrong_digit_is_no_card_number(number, place, by):
    place %= len(number)
    wrong = number[:place] + str((int(number[place]) + by) % 10) + number[place + 1 :]
    assert not is_card_number(wrong.encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"cvv": "123"},
        {"CVC2": 123},
        {"security_code": "1234"},
        {"card_verification_value": "737"},
        {"pin": "4711"},
        {"pin_block": "0412AC89ABCDEF67"},
        {"track2": ";4242424242424242=25121011000012300000?"},
        {"note": "%B4242424242424242^DOE/JANE^2512101100001230000?"},
        {"note": "4242424242424242D25121011000012300000F"},
        {"magstripe_data": "0012345678"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_authenticates_a_card_is_found_before_its_number(fields):
    message = json.dumps({**HARMLESS, **fields}).encode()
    assert find(message) is CardData.SENSITIVE_DATA
    assert find(masked(message)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"timestamp": 1_768_480_200_000},
        {"timestamp": 4_102_445_100_001},
        {"note": "shipping to 20 Pinewood Track, opinion 1234"},
        {"hash": "9b74c9897bac770ffc029102a200c5de4242424242424242"},
        {"order": "1234567812345678"},
        {"order": "00004242424242424242"},
        {"longitude": 0.4242424242424242},
        {"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"},
    ],
)
def test_what_only_looks_a_little_like_it_passes(fields):
    message = json.dumps({**HARMLESS, **fields}).encode()
    assert find(message) is None
    assert masked(message) == message


def test_a_refusal_says_what_it_is_and_not_a_digit_of_it():
    with pytest.raises(InvalidEvent, match="card number") as refusal:
        refuse(b'{"card_id": "4242424242424242"}', b"4242424242424242")
    assert not re.search("[0-9]", str(refusal.value))
    refuse(b'{"card_id": "4242424242424242"}', numbers=False)
    with pytest.raises(InvalidEvent, match="authenticates"):
        refuse(b'{"cvv": "123"}', None, numbers=False)


@given(st.binary(max_size=200), st.text(max_size=200))
def test_any_bytes_and_any_text_can_be_searched_and_masked(data, text):
    assert find(masked(data)) is None
    mask(text)


PARTS = st.sampled_from(
    ["4242 4242", " 4242 4242", "4242424242424242", "cvv", ":", "123", "pin=", "a", "\\u0034", "ä", "{}"]
)


@given(st.lists(st.none() | st.lists(PARTS, max_size=4).map(lambda pieces: "".join(pieces).encode()), max_size=6))
def test_what_is_clean_at_one_look_is_clean_part_by_part(parts):
    found = any(find(part) for part in parts if part)
    assert not (found and is_clean(parts))
    if found:
        with pytest.raises(InvalidEvent):
            refuse(*parts)
    else:
        refuse(*parts)  # and nothing is found that only lies side by side


def test_ordinary_messages_are_clean_at_one_look_and_very_long_ones_are_looked_at_one_by_one():
    message = b'{"transaction_id": "t-1", "timestamp": 1704067252467, "note": "caf\\u00e9"}'
    assert is_clean([message, b"c-1", None] * 100)
    assert not is_clean([message, b"4242424242424242"])
    assert not is_clean([b"x" * MOST_AT_ONCE, b"x"])


@given(numbers(), st.sampled_from(["+49 151 ", "12.5 ", "2026-01-15 ", "1 ", "7", "x"]))
def test_what_stands_before_a_number_hides_it_only_when_it_is_part_of_it(number, before):
    found = find(json.dumps({"note": before + number}).encode())
    assert found is (None if before == "7" and not is_card_number(f"7{number}".encode()) else CardData.CARD_NUMBER)


@given(st.lists(st.sampled_from(["4", "42", "4242", "5", "37", "0", "1 ", " ", "-", "."]), max_size=40).map("".join))
def test_groups_are_searched_as_one_by_one_would_find_them(text):
    assert (find(text.encode()) is not None) == any(
        SHORTEST <= len(taken) <= LONGEST and is_card_number(taken)
        for run in re.finditer("(?<![0-9]\\.)[0-9]+(?:[ -]{1,3}[0-9]+)*", text)
        for taken in windows(run[0])
    )


def windows(run: str):
    groups = re.findall("[0-9]+", run)
    for first in range(len(groups)):
        for last in range(first, len(groups)):
            yield "".join(groups[first : last + 1]).encode()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", ["4 ", "4242 4242 4242 4241 ", "4", "6 - ", "pin", "%B4", "a4", "cvv cvv "])
def test_a_large_message_of_any_make_is_searched_to_its_end(piece):
    find((piece * 1_000_000)[:1_000_000].encode())  # a second or so; minutes where time grows with the square
