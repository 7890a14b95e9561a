"""Tokens instead of card numbers: who holds one can recognise a card, and without the key cannot name it.

A token is HMAC-SHA-256 (RFC 2104) of the digits, cut to 128 bits: that two of ten billion cards share one has a
probability of about 1e-19. It is written in letters, because digits in a row may look like a card number again, and
names its key, so that a rotation can be seen. The key must be secret: card numbers are few enough to be tried.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Final

import msgspec

from fraud_service.domain.card_data import refuse, replaced
from fraud_service.domain.events import Reason
from fraud_service.domain.reading import UNREADABLE
from fraud_service.errors import InvalidEvent

BYTES: Final = 16
_LETTERS: Final = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")


class Tokenizer(msgspec.Struct, frozen=True):
    """The secrets by their names, letters and digits beginning with a letter; the `active` one makes new tokens."""

    keys: Mapping[str, bytes]
    active: str

    def __repr__(self) -> str:
        return f"Tokenizer({', '.join(sorted(self.keys))}; active: {self.active})"

    def token(self, digits: bytes, key: str) -> bytes:
        """Return the token of a card number, given as ASCII digits, under one of the keys."""
        digest = hmac.digest(self.keys[key], digits, "sha256")[:BYTES]
        return b"tok_" + key.encode() + b"_" + digest.hex().encode().translate(_LETTERS)

    def tokenize(
        self, value: bytes | None, key: bytes | None, secret: str | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Return value and key of a message with every card number replaced, wherever it stands.

        Parameters
        ----------
        secret
            Name of the key that makes the tokens; by default the active one.

        Raises
        ------
        InvalidEvent
            When the message has what authenticates a card, or a number where no text can stand.
        """
        refuse(value, key, numbers=False)
        name = secret or self.active
        new_value, new_key = (
            None if part is None else replaced(part, lambda digits: self.token(digits, name)) for part in (value, key)
        )
        if new_value is not None and new_value != value and not _is_json(new_value):
            raise InvalidEvent(Reason.CARD_NUMBER, "a card number stands where no text can: send it as text")
        refuse(new_value, new_key)  # whatever is left over
        return new_value, new_key


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except UNREADABLE:
        return False
    return True
