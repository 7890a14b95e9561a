"""Tokens instead of card ids: they identify a card, but without the key do not reveal its number.

A token is HMAC-SHA-256 (RFC 2104) of the digits of a card number, or of any other id of the card, cut to 128
bits: two of ten billion cards share one with a probability of about 1e-19. It is written in letters, because digits in
a row may look like a card number again, and names its key, so that a rotation can be seen. The key must be secret: card
numbers are few enough to be tried.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import DeadLetterReason, card_of, fields_of
from fraud_service.security.card_data import (
    LARGEST_IN_PARTS,
    CardData,
    refuse,
    replaced,
    whole_number,
)

BYTES: Final = 16
_LETTERS: Final = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_TOKEN: Final = re.compile(rb"tok_(?P<key>[a-z][a-z0-9]{0,11})_[a-p]{32}")


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

    def card_token(self, card: bytes, key: str) -> bytes:
        """Return the token of a card's number or id; a token is returned unchanged."""
        return card if self._is_token(card) else self.token(whole_number(card) or card, key)

    def tokenize(
        self, value: bytes | None, key: bytes | None, secret: str | None = None
    ) -> tuple[bytes | None, bytes | None]:
        """Return value and key of a message with a token for the card, and for every card number wherever it stands.

        It fails closed: `card_id` and key become tokens of a known key, or the message is refused.

        Parameters
        ----------
        secret
            Name of the key that makes the tokens; by default the active one.

        Raises
        ------
        InvalidEvent
            When the message has what authenticates a card, no `card_id` that is text, or a card number where no text
            can stand.
        """
        (made,) = self.tokenize_under([secret or self.active], value, key)
        return made

    def tokenize_under(
        self, names: Iterable[str], value: bytes | None, key: bytes | None
    ) -> list[tuple[bytes | None, bytes | None]]:
        """Do the same once for each of several keys; the message is searched once. Raises as `tokenize` does."""
        fields = fields_of(value)  # first: to search takes longer
        found = refuse(value, key, numbers=False)
        return [self._tokenized(value, fields, key, name, found) for name in names]

    def _tokenized(
        self, value: bytes | None, fields: dict[str, msgspec.Raw], key: bytes | None, name: str, found: CardData | None
    ) -> tuple[bytes | None, bytes | None]:
        new_key = None if key is None else self.card_token(key, name)
        written = self._with_token(value, fields, name)
        is_long = len(written) > LARGEST_IN_PARTS  # it may hold no number but its card's
        new_value = written if is_long else replaced(written, lambda digits: self.token(digits, name))
        if new_value != written and not _is_json(new_value):
            raise InvalidEvent(DeadLetterReason.CARD_NUMBER, "a card number stands where no text can: send it as text")
        if found is not None or not is_long:
            refuse(new_value, new_key)  # whatever is left over
        return new_value, new_key

    def _with_token(self, value: bytes | None, fields: dict[str, msgspec.Raw], name: str) -> bytes:
        """Return the message with the token of its `card_id`, and each field once."""
        card = card_of(fields).encode()
        token = self.card_token(card, name)
        if token == card and b"\\" not in value and value.count(b"card_id") == 1:  # type: ignore[operator, union-attr]
            return value  # type: ignore[return-value] # it has fields, and the only `card_id` is a token
        return msgspec.json.encode(fields | {"card_id": token.decode()})

    def _is_token(self, card: bytes) -> bool:
        """Say whether it has the form of a token of a known key; whether it was made with it cannot be told."""
        token = _TOKEN.fullmatch(card)
        return token is not None and token["key"].decode() in self.keys


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except UNREADABLE:
        return False
    return True
