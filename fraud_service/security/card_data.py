"""Card data in any bytes: card numbers (PAN), and what authenticates a card (SAD).

PCI DSS forbids to store SAD at all, and a PAN unless it is unreadable. The search does not see data that is compressed,
encrypted, in base64 or in words.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import DeadLetterReason
from fraud_service.security import authentication_data
from fraud_service.security.card_numbers import (
    MAX_DIGITS,
    MIN_DIGITS,
    has_number,
    numbers,
    without_decimals,
)
from fraud_service.security.deobfuscation import is_only_utf8, texts, unambiguous_ascii, views
from fraud_service.security.issuers import is_card_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = [
    "MAX_DIGITS",
    "MIN_DIGITS",
    "MOST_AT_ONCE",
    "CardData",
    "find",
    "is_card_number",
    "is_clean",
    "mask",
    "masked",
    "refuse",
    "replaced",
    "whole_number",
]  # fmt: skip


class CardData(StrEnum):
    """What was found."""

    CARD_NUMBER = DeadLetterReason.CARD_NUMBER
    SENSITIVE_DATA = DeadLetterReason.SENSITIVE_DATA


class Finding(NamedTuple):
    """Card data in a text: its place and kind, and the digits of a number."""

    begin: int
    end: int
    kind: CardData
    digits: bytes = b""


MOST_AT_ONCE: Final = (
    1 << 18
)  # bytes: ordinary batches are far smaller; messages of a larger one are searched one by one
MOST_PASSES: Final = 2
LARGEST_IN_PARTS: Final = 8192  # characters; a longer text with card data is masked as a whole, which takes one search
WHOLLY_MASKED: Final = "[card data]"
_APART: Final = b"\nzz\n"  # letters, so that no number or name of a value reaches from one part into the next

# For nearly every message, a first check of its letters and digits alone finds nothing.
_ALIKE: Final = bytes.maketrans(b"123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"000000000abcdefghijklmnopqrstuvwxyz")
_NO_LETTER_OR_DIGIT: Final = bytes(code for code in range(256) if not (chr(code).isascii() and chr(code).isalnum()))
_SHORTEST_RUN: Final = b"0" * MIN_DIGITS
_RUN: Final = re.compile(rb"(?P<candidate>[0-9]*?(?:[4-6]|3[04-9]|2[2-7]|8[12]|97)[0-9]{11})|[0-9]+")


def find(data: bytes) -> CardData | None:
    """Say whether there is card data in bytes of any format; authentication data goes before a number.

    It reads escapes, digits of every script, and UTF-16.
    """
    plain = unambiguous_ascii(data)
    if plain is not None:
        return _kind_in(plain)
    kinds = {_kind_in(view) for text in texts(data) for view, _ in views(text)}
    return next((kind for kind in (CardData.SENSITIVE_DATA, CardData.CARD_NUMBER) if kind in kinds), None)


def is_clean(parts: Iterable[bytes | None]) -> bool:
    """Say in one search that none of many messages has card data: half the cost of a search of each.

    False means only that each message must be searched: there is card data, too many bytes, or an ambiguous encoding.
    """
    together = [part for part in parts if part]
    if sum(map(len, together)) > MOST_AT_ONCE:
        return False
    joined = _APART.join(together)
    return is_only_utf8(joined) and find(joined) is None


def refuse(*parts: bytes | None, numbers: bool = True) -> CardData | None:
    """Refuse a message that has card data in its value or key; without `numbers`, only authentication data.

    Returns
    -------
    CardData or None
        The kind that was found and is allowed, if any.

    Raises
    ------
    InvalidEvent
        Says what was found, and neither where nor a digit of it.
    """
    together = [part for part in parts if part]
    joined = _APART.join(together)
    found = {find(joined)} if is_only_utf8(joined) else {find(part) for part in together}
    if CardData.SENSITIVE_DATA in found:
        raise InvalidEvent(
            DeadLetterReason.SENSITIVE_DATA,
            "the message has what authenticates a card (security code, PIN or track data)",
        )
    if numbers and CardData.CARD_NUMBER in found:
        raise InvalidEvent(DeadLetterReason.CARD_NUMBER, "the message has a card number: send a token of it")
    return CardData.CARD_NUMBER if CardData.CARD_NUMBER in found else None


def masked(data: bytes, *, has_card_data: bool = False) -> bytes:
    """Return the bytes with all card data replaced by its kind in brackets; the same bytes where there is none.

    Bytes that are no plain UTF-8 come back as UTF-8, where there is card data in them.

    Parameters
    ----------
    has_card_data
        Whether a search has found some: long bytes are not searched again.
    """
    if len(data) > LARGEST_IN_PARTS:
        return WHOLLY_MASKED.encode() if has_card_data or find(data) is not None else data
    for text in texts(data):
        new = mask(text)
        if new != text:
            result = new.encode(errors="surrogateescape")
            return result if find(result) is None else WHOLLY_MASKED.encode()
    return data


def mask(text: str) -> str:
    """Return the text with all card data in it replaced by its kind in brackets; nothing of a number is kept."""
    for _ in range(MOST_PASSES if len(text) <= LARGEST_IN_PARTS else 1):
        findings = list(_findings(text))
        if not findings:
            return text
        text = _with_replacements(text, findings, lambda finding: f"[{finding.kind.replace('_', ' ')}]")
    return WHOLLY_MASKED  # masking has formed new numbers again and again


def replaced(data: bytes, instead: Callable[[bytes], bytes]) -> bytes:
    """Return the bytes with each card number replaced, and all else as it is.

    Parameters
    ----------
    instead
        Takes the digits of a card number and returns its replacement.
    """
    text = next(texts(data))
    findings = [finding for finding in _findings(text) if finding.digits]
    new = _with_replacements(text, findings, lambda finding: instead(finding.digits).decode())
    return new.encode(errors="surrogateescape")


def whole_number(data: bytes) -> bytes | None:
    """Return the digits of a card number that fills all of the bytes, in any spelling; else None."""
    for text in texts(data):
        for view, _ in views(text):
            found = numbers(view)
            if len(found) == 1:
                (number,) = found
                rest = view[: number.begin] + view[number.end :]
                if not rest.translate(None, _NO_LETTER_OR_DIGIT).strip(b"0"):
                    return number.digits
    return None


def _kind_in(view: bytes) -> CardData | None:
    alike = view.translate(_ALIKE, _NO_LETTER_OR_DIGIT)
    if authentication_data.may_be_in(view, alike) and any(True for _ in authentication_data.authentication_data(view)):
        return CardData.SENSITIVE_DATA
    if not _may_have_number(view, alike):
        return None
    if not authentication_data.may_have_stripe(view):
        return CardData.CARD_NUMBER if has_number(view) else None
    found = numbers(view)
    is_stripe = any(authentication_data.end_of_stripe(view, number.end) is not None for number in found)
    return CardData.SENSITIVE_DATA if is_stripe else CardData.CARD_NUMBER if found else None


def _may_have_number(view: bytes, alike: bytes) -> bool:
    """Say quickly whether there may be a number: enough digits, with anything but letters between them."""
    if not _has_candidate(view, alike):
        return False
    rest = without_decimals(view)
    return rest == view or _has_candidate(rest, rest.translate(_ALIKE, _NO_LETTER_OR_DIGIT))


def _has_candidate(view: bytes, alike: bytes) -> bool:
    place = alike.find(_SHORTEST_RUN)
    if place < 0:
        return False
    kept = view.translate(None, _NO_LETTER_OR_DIGIT)
    while place >= 0:
        run = _RUN.match(kept, place)
        if run is None or run["candidate"] is not None:
            return True
        place = alike.find(_SHORTEST_RUN, run.end())
    return False


def _findings(text: str) -> Iterator[Finding]:
    for view, tell_places in views(text):
        findings = list(_findings_in(view))
        places = [*tell_places(), len(text)] if findings else []
        for begin, end, kind, digits in findings:
            yield Finding(places[begin], places[end], kind, digits)


def _findings_in(view: bytes) -> Iterator[Finding]:
    alike = view.translate(_ALIKE, _NO_LETTER_OR_DIGIT)
    if authentication_data.may_be_in(view, alike):
        for begin, end in authentication_data.authentication_data(view):
            yield Finding(begin, end, CardData.SENSITIVE_DATA)
    if _may_have_number(view, alike):
        for begin, end, digits in numbers(view):
            end_of_stripe = authentication_data.end_of_stripe(view, end)
            if end_of_stripe is None:
                yield Finding(begin, end, CardData.CARD_NUMBER, digits)
            else:
                yield Finding(begin, end_of_stripe, CardData.SENSITIVE_DATA)


def _with_replacements(text: str, findings: Iterable[Finding], instead: Callable[[Finding], str]) -> str:
    """Replace what was found; of two that overlap, the first, the longer one of the same place."""
    pieces, done = [], 0
    for finding in sorted(findings, key=lambda finding: (finding.begin, -finding.end)):
        if finding.end > done:
            pieces += [text[done : max(finding.begin, done)], instead(finding)]
            done = finding.end
    return "".join([*pieces, text[done:]])
