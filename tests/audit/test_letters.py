"""What proves a dead letter: its bytes, or their length and digest."""

from __future__ import annotations

from hashlib import sha256

import pytest

from fraud_service.audit.letters import is_of
from fraud_service.stream.archive import Entry

SOURCE = Entry("payments", 0, 5, b"card-1", b'{"amount": 1}', 0, [])
DIGEST = sha256(SOURCE.value).hexdigest().encode()
LENGTH = str(len(SOURCE.value)).encode()


def letter(key: bytes | None, value: bytes | None, **headers: bytes) -> Entry:
    named = [("fraud-" + name.replace("_", "-"), text) for name, text in headers.items()]
    return Entry("letters", 0, 0, key, value, 0, named)


@pytest.mark.parametrize(
    "entry",
    [
        letter(b"card-1", SOURCE.value),
        letter(b"card-1", None, content_length=LENGTH, content_sha256=DIGEST),
        letter(None, SOURCE.value, key_length=b"6", key_sha256=sha256(b"card-1").hexdigest().encode()),
        letter(b"card-1", b'{"amount": [card number]}', masked=b"card data"),
    ],
)
def test_a_letter_that_keeps_what_its_source_says_is_of_it(entry):
    assert is_of(entry, SOURCE)


@pytest.mark.parametrize(
    "entry",
    [
        letter(b"card-2", SOURCE.value),
        letter(None, SOURCE.value),
        letter(b"card-1", b'{"amount": 2}'),
        letter(b"card-1", None),
        letter(b"card-1", b""),
        letter(b"card-1", None, content_length=b"1", content_sha256=DIGEST),
        letter(b"card-1", None, content_length=LENGTH, content_sha256=b"0" * 64),
        letter(b"card-1", None, content_length=LENGTH),
        letter(None, SOURCE.value, key_length=b"6", key_sha256=DIGEST),
    ],
)
def test_a_letter_that_keeps_anything_else_is_not(entry):
    assert not is_of(entry, SOURCE)
