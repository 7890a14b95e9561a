"""Replace card numbers and card ids by tokens, which identify a card but do not reveal its number without the key.

A token is HMAC-SHA-256 (RFC 2104) of the digits of a card number, or of another id of the card, truncated to 128 bits.
With ten billion cards, the probability of a collision is about 1e-19. A token has letters only, because digits might
look like a card number. It has the name of its key, so operators can see a rotation. The key must be secret, because an
attacker could try all card numbers.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.events import card_id_of, fields_of
from fraud_service.security.card_data import (
    MAX_PARTLY_MASKED,
    parse_card_number,
    reject_card_data,
    replace_card_numbers,
)

TOKEN_BYTES: Final = 16
_LETTERS: Final = bytes.maketrans(b"0123456789abcdef", b"abcdefghijklmnop")
_TOKEN: Final = re.compile(rb"tok_(?P<key>[a-z][a-z0-9]{0,11})_[a-p]{32}")


class Tokenizer(msgspec.Struct, frozen=True):
    """The keys by name (letters and digits, a letter first). New tokens use the `active` key."""

    keys: Mapping[str, bytes]
    active: str

    def __repr__(self) -> str:
        return f"Tokenizer({', '.join(sorted(self.keys))}; active: {self.active})"

    def token(self, digits: bytes, key: str) -> bytes:
        """Return the token of a card number (ASCII digits) with the named key."""
        digest = hmac.digest(self.keys[key], digits, "sha256")[:TOKEN_BYTES]
        return b"tok_" + key.encode() + b"_" + digest.hex().encode().translate(_LETTERS)

    def card_token(self, card: bytes, key: str) -> bytes:
        """Return the token of a card number or id; a token stays unchanged."""
        return card if self._is_token(card) else self.token(parse_card_number(card) or card, key)

    def tokenize(self, value: bytes | None, key: bytes | None) -> tuple[bytes | None, bytes | None]:
        """Return value and key of a message with tokens for `card_id`, the key and every card number.

        Fails closed: `card_id` and key become tokens of a known key, or it raises `InvalidEvent`. The message is
        rejected if it has authentication data, no `card_id` that is text, or a card number that is not text.
        """
        (made,) = self.tokenize_under([self.active], value, key)
        return made

    def tokenize_under(
        self, names: Iterable[str], value: bytes | None, key: bytes | None
    ) -> list[tuple[bytes | None, bytes | None]]:
        """Tokenize with each of several keys after one search of the message. Raises as `tokenize` does."""
        fields = fields_of(value)  # before the search, which takes longer
        has_number = reject_card_data(value, key, numbers=False)
        return [self._tokenized(value, fields, key, name, has_number=has_number) for name in names]

    def _tokenized(
        self, value: bytes | None, fields: dict[str, msgspec.Raw], key: bytes | None, name: str, *, has_number: bool
    ) -> tuple[bytes | None, bytes | None]:
        new_key = None if key is None else self.card_token(key, name)
        written = self._with_token(value, fields, name)
        is_long = len(written) > MAX_PARTLY_MASKED  # only `card_id` may be a card number
        new_value = written if is_long else replace_card_numbers(written, lambda digits: self.token(digits, name))
        if new_value != written and not _is_json(new_value):
            raise InvalidEvent(DeadLetterReason.CARD_NUMBER, "a card number is not in a text: send it as text")
        if has_number or not is_long:
            reject_card_data(new_value, new_key)  # anything that the replacement missed
        return new_value, new_key

    def _with_token(self, value: bytes | None, fields: dict[str, msgspec.Raw], name: str) -> bytes:
        """Return the message with the token as `card_id`, and with each field once."""
        card = card_id_of(fields).encode()
        token = self.card_token(card, name)
        if token == card and b"\\" not in value and value.count(b"card_id") == 1:  # type: ignore[operator, union-attr]
            return value  # type: ignore[return-value] # it has fields, and the only `card_id` is a token
        return msgspec.json.encode(fields | {"card_id": token.decode()})

    def _is_token(self, card: bytes) -> bool:
        """Return whether this has the form of a token of a known key, which does not prove that the key made it."""
        token = _TOKEN.fullmatch(card)
        return token is not None and token["key"].decode() in self.keys


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data)
    except UNREADABLE:
        return False
    return True
