"""Find, reject and mask card data in any bytes: card numbers (PAN) and sensitive authentication data (SAD).

PCI DSS forbids storing SAD, and storing a readable PAN. The search does not find data that is compressed, encrypted, in
base64 or in words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.security import authentication_data
from fraud_service.security.card_numbers import find_card_numbers, has_card_number
from fraud_service.security.deobfuscation import is_only_utf8, texts, unambiguous_ascii, views
from fraud_service.security.digit_context import without_decimals
from fraud_service.security.issuers import MIN_DIGITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Finding(NamedTuple):
    """Place and kind of card data in a text, and the digits if it is a card number."""

    begin: int
    end: int
    kind: DeadLetterReason
    digits: bytes = b""


MAX_JOINED_BYTES: Final = 1 << 18  # messages of a larger batch are searched one by one
MAX_MASKING_PASSES: Final = 2
MAX_PARTLY_MASKED: Final = 8192  # characters; a longer text with card data is masked as a whole
WHOLLY_MASKED: Final = "[card data]"
_JOINT: Final = b"\nzz\n"  # the letters prevent a match that spans two parts

# A first check of only the letters and digits finds nothing in nearly every message.
_SIMPLIFIED: Final = bytes.maketrans(b"123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"000000000abcdefghijklmnopqrstuvwxyz")
_NOT_ALPHANUMERIC: Final = bytes(code for code in range(256) if not (chr(code).isascii() and chr(code).isalnum()))
_MIN_RUN: Final = b"0" * MIN_DIGITS
_RUN: Final = re.compile(rb"(?P<candidate>[0-9]*?(?:[4-6]|3[04-9]|2[2-7]|8[12]|97)[0-9]{11})|[0-9]+")


def find_card_data(data: bytes) -> DeadLetterReason | None:
    """Return the kind of card data in bytes of any format; authentication data takes precedence over a card number.

    Reads escapes, digits of every script, and UTF-16.

    >>> find_card_data(b'{"note": "4242 4242 4242 4242"}'), find_card_data(b'{"cvv": "123"}')
    (<DeadLetterReason.CARD_NUMBER: 'card_number'>, <DeadLetterReason.SENSITIVE_DATA: 'sensitive_data'>)
    """
    plain = unambiguous_ascii(data)
    if plain is not None:
        return _kind_in(plain)
    kinds = {_kind_in(view) for text in texts(data) for view, _ in views(text)}
    if DeadLetterReason.SENSITIVE_DATA in kinds:
        return DeadLetterReason.SENSITIVE_DATA
    return DeadLetterReason.CARD_NUMBER if DeadLetterReason.CARD_NUMBER in kinds else None


def has_no_card_data(parts: Iterable[bytes | None]) -> bool:
    """Return whether one search of all messages finds no card data; takes half the time of a search of each.

    False means that each message must be searched: there is card data, or too many bytes, or an ambiguous encoding.
    """
    together = [part for part in parts if part]
    if sum(map(len, together)) > MAX_JOINED_BYTES:
        return False
    joined = _JOINT.join(together)
    return is_only_utf8(joined) and find_card_data(joined) is None


def reject_card_data(*parts: bytes | None, numbers: bool = True) -> bool:
    """Raise `InvalidEvent` if a message has card data in its value or key; with `numbers` False, only for SAD.

    Returns whether it has a card number, which is allowed with `numbers` False. The error never contains card data.
    """
    together = [part for part in parts if part]
    joined = _JOINT.join(together)
    found = {find_card_data(joined)} if is_only_utf8(joined) else {find_card_data(part) for part in together}
    if DeadLetterReason.SENSITIVE_DATA in found:
        raise InvalidEvent(
            DeadLetterReason.SENSITIVE_DATA,
            "the message has sensitive authentication data (security code, PIN or track data): do not send it",
        )
    if numbers and DeadLetterReason.CARD_NUMBER in found:
        raise InvalidEvent(DeadLetterReason.CARD_NUMBER, "the message has a card number: send a token instead")
    return DeadLetterReason.CARD_NUMBER in found


def mask_bytes(data: bytes, *, has_card_data: bool = False) -> bytes:
    """Return the bytes with card data replaced by its kind in brackets; the same bytes if there is none.

    Bytes with card data in another encoding are returned as UTF-8. `has_card_data`: an earlier search found card data,
    which saves the search of long bytes.

    >>> mask_bytes(b"paid with 4242 4242 4242 4242")
    b'paid with [card number]'
    """
    if len(data) > MAX_PARTLY_MASKED:
        return WHOLLY_MASKED.encode() if has_card_data or find_card_data(data) is not None else data
    for text in texts(data):
        new = mask_text(text)
        if new != text:
            result = new.encode(errors="surrogateescape")
            return result if find_card_data(result) is None else WHOLLY_MASKED.encode()
    return data


def mask_text(text: str) -> str:
    """Return the text with card data replaced by its kind in brackets; keeps no digit of a card number."""
    for _ in range(MAX_MASKING_PASSES if len(text) <= MAX_PARTLY_MASKED else 1):
        findings = list(_findings(text))
        if not findings:
            return text
        text = _with_replacements(text, findings, lambda finding: f"[{finding.kind.replace('_', ' ')}]")
    return WHOLLY_MASKED  # each pass has formed new card data


def replace_card_numbers(data: bytes, replacement: Callable[[bytes], bytes]) -> bytes:
    """Return the bytes with each card number replaced; `replacement` maps its digits to the new bytes."""
    text = next(texts(data))
    findings = [finding for finding in _findings(text) if finding.digits]
    new = _with_replacements(text, findings, lambda finding: replacement(finding.digits).decode())
    return new.encode(errors="surrogateescape")


def parse_card_number(data: bytes) -> bytes | None:
    """Return the digits if the bytes are a single card number in any spelling; else None.

    >>> parse_card_number(b"4242-4242-4242-4242")
    b'4242424242424242'
    """
    for text in texts(data):
        for view, _ in views(text):
            found = find_card_numbers(view)
            if len(found) == 1:
                (number,) = found
                rest = view[: number.begin] + view[number.end :]
                if not rest.translate(None, _NOT_ALPHANUMERIC).strip(b"0"):
                    return number.digits
    return None


def _kind_in(view: bytes) -> DeadLetterReason | None:
    simplified = view.translate(_SIMPLIFIED, _NOT_ALPHANUMERIC)
    may_have_sad = authentication_data.may_be_in(view, simplified)
    if may_have_sad and next(authentication_data.find_authentication_data(view), None):
        return DeadLetterReason.SENSITIVE_DATA
    if not _may_have_number(view, simplified):
        return None
    if not authentication_data.may_have_stripe(view):
        return DeadLetterReason.CARD_NUMBER if has_card_number(view) else None
    found = find_card_numbers(view)
    is_stripe = any(authentication_data.end_of_stripe(view, number.end) is not None for number in found)
    return DeadLetterReason.SENSITIVE_DATA if is_stripe else DeadLetterReason.CARD_NUMBER if found else None


def _may_have_number(view: bytes, simplified: bytes) -> bool:
    """Return quickly whether there may be a number: enough digits with anything but letters between them."""
    if not _has_candidate(view, simplified):
        return False
    rest = without_decimals(view)
    return rest == view or _has_candidate(rest, rest.translate(_SIMPLIFIED, _NOT_ALPHANUMERIC))


def _has_candidate(view: bytes, simplified: bytes) -> bool:
    place = simplified.find(_MIN_RUN)
    if place < 0:
        return False
    kept = view.translate(None, _NOT_ALPHANUMERIC)
    while place >= 0:
        run = _RUN.match(kept, place)
        if run is None or run["candidate"] is not None:
            return True
        place = simplified.find(_MIN_RUN, run.end())
    return False


def _findings(text: str) -> Iterator[Finding]:
    for view, get_places in views(text):
        findings = list(_findings_in(view))
        places = [*get_places(), len(text)] if findings else []
        for begin, end, kind, digits in findings:
            yield Finding(places[begin], places[end], kind, digits)


def _findings_in(view: bytes) -> Iterator[Finding]:
    simplified = view.translate(_SIMPLIFIED, _NOT_ALPHANUMERIC)
    if authentication_data.may_be_in(view, simplified):
        for begin, end in authentication_data.find_authentication_data(view):
            yield Finding(begin, end, DeadLetterReason.SENSITIVE_DATA)
    if _may_have_number(view, simplified):
        for begin, end, digits in find_card_numbers(view):
            end_of_stripe = authentication_data.end_of_stripe(view, end)
            if end_of_stripe is None:
                yield Finding(begin, end, DeadLetterReason.CARD_NUMBER, digits)
            else:
                yield Finding(begin, end_of_stripe, DeadLetterReason.SENSITIVE_DATA)


def _with_replacements(text: str, findings: Iterable[Finding], replacement: Callable[[Finding], str]) -> str:
    """Replace the findings; of two that overlap, the first, or the longer one at the same place."""
    pieces, done = [], 0
    for finding in sorted(findings, key=lambda finding: (finding.begin, -finding.end)):
        if finding.end > done:
            pieces += [text[done : max(finding.begin, done)], replacement(finding)]
            done = finding.end
    return "".join([*pieces, text[done:]])
