"""The context of digits: which ones cannot belong to a card number, and where a number may end in a longer run.

One random number in ten passes Luhn's check. So the search skips digits that are something else: times, decimals,
coordinates, telephone numbers, UUIDs, IBANs and hashes. `mark_context` replaces them by letters.

A run of digits may have more than a card number: zeros before it, an expiry date or code after it, or EMV tags.
`mark_context` translates the digits at which a number may end inside of a run.
"""

from __future__ import annotations

import re
from typing import Final

from fraud_service.security.issuers import IBAN_LENGTHS, MAX_DIGITS

MIN_UUID_LETTERS: Final = 8  # with its four hyphens
DIGITS: Final = b"0123456789"

# Digits that are not part of a card number.
TIME: Final = re.compile(
    rb"""
    (?: 19 | 2[01] ) (?<! [0-9]{3} ) [0-9]{2} (?P<apart> [-/.] )
    (?: 0[1-9] | 1[0-2] ) (?P=apart) (?: 0[1-9] | [12][0-9] | 3[01] )
    (?: [T_ ] (?: [01][0-9] | 2[0-3] ) : [0-5][0-9] (?: : [0-6][0-9] (?: [.,][0-9]{1,9} )? )?
        (?: [ ]?Z | [ ]?[+-] [01][0-9] :? [0-5][0-9] )? )?
    (?! [0-9] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
JSON_EPOCH_MS: Final = re.compile(rb"""["']\s?:\s?[0-9]{13}(?=\s?[,}\]])""")
DECIMAL_FRACTION: Final = re.compile(  # of a decimal with many digits, or of the first of two coordinates
    rb"""
    \. (?: (?<= [^0-9.][0-9]\. ) | (?<= [^0-9.][0-9]{2}\. ) | (?<= [^0-9.][0-9]{3}\. ) )
    (?: [0-9]{10,}+ (?! \. | e\+?0{0,9}1[2-8] ) | [0-9]{4,9} (?= [ ,/;+-]{1,3} [0-9]{1,3} \. [0-9]{4} ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
TELEPHONE: Final = re.compile(  # with a plus: 13 or 14 digits, or groups after a country code
    rb"""
    \+ (?: [1-9] (?: [ ./-]{0,3} [0-9] ){12,13} (?! [ ./-]{0,3} [0-9] )
         | [1-9][0-9]{0,2} (?: [ ./-]{1,3} [0-9]{2,12} ){1,4} (?! [ ./-]{0,3} [0-9] ) (?<! [0-9]{13} ) )
    """,
    re.VERBOSE,
)
TELEPHONE_WITH_00: Final = re.compile(  # with 00 instead of the plus: 13 digits
    rb"00(?<![0-9]00)(?<![0-9][ ./-]00)[ ./-]?[1-9](?:[ ./-]{0,3}[0-9]){12}(?![ ./-]{0,3}[0-9])"
)
UUID: Final = re.compile(  # of versions 1 to 8
    rb"[0-9a-f](?<![0-9a-z][0-9a-f])[0-9a-f]{7}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![0-9a-z])",
    re.IGNORECASE,
)
IBAN: Final = re.compile(rb"[A-Z](?<![0-9A-Za-z][A-Z])[A-Z][0-9]{2}(?:[ ]?[0-9A-Z]){11,29}")
HEX_HASH: Final = re.compile(rb"[0-9a-f](?<![0-9a-z][0-9a-f])[0-9a-f]{27,}+(?![0-9a-z])", re.IGNORECASE)
HEX_RUN, HEX_TO_ZERO = b"0" * 28, bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
UNCOMMON_LENGTH: Final = re.compile(rb"[0-9](?<![0-9][0-9])(?:[0-9]{12,13}|[0-9]{16,}+)(?![0-9])")
EMV_TAG: Final = re.compile(  # in hexadecimal: tag 5A with length and number, or tag 57 (track 2) with its length
    rb"5A0(?P<bytes>[7-9A])(?P<number>[0-9]{12,}+)|57(?:0[89A-F]|1[0-3])(?=[0-9]{12,19}[D=])", re.IGNORECASE
)

# Runs of digits that contain more than a card number.
LONG_RUN: Final = re.compile(rb"[0-9]{17,}+|0(?<![0-9]0)[0-9]{13,}+")
ZEROS_OF_LONG_RUN, DIGIT_TO_ZERO = b"0" * 14, bytes.maketrans(b"123456789", b"0" * 9)
EXPIRY_DATE: Final = rb"(?:(?:0[1-9]|1[0-2])(?:20)?[2-4][0-9]|(?:20)?[2-4][0-9](?:0[1-9]|1[0-2]))"
TRAILING_DATA: Final = re.compile(  # expiry date or security code at the end of a run
    rb"(?<=[0-9]{13})(?=" + EXPIRY_DATE + rb"(?:[0-9]{3,4})?\Z)|(?<=[0-9]{15})(?=[0-9]{3}\Z)"
)
LAST_GROUP_WITH_EXPIRY: Final = re.compile(  # one to five digits of a number, and an expiry date
    rb"[0-9](?<![0-9][0-9])[0-9]{4,8}+(?![0-9])"
    rb"(?:(?<=0[1-9][2-4][0-9])|(?<=1[0-2][2-4][0-9])|(?<=[2-4][0-9]0[1-9])|(?<=[2-4][0-9]1[0-2]))"
)
MARK_ANYWHERE: Final = bytes.maketrans(DIGITS, bytes(range(0x80, 0x8A)))  # digits where a number may begin or end
MARK_END: Final = bytes.maketrans(DIGITS, bytes(range(0x90, 0x9A)))  # digits after a possible end of a number


def _blank(match: re.Match[bytes]) -> bytes:
    return b"x" * len(match[0])


def _split_uuid(match: re.Match[bytes]) -> bytes:
    """Separate the groups of a UUID that has letters, so that no number spans two groups."""
    return match[0] if len(match[0].translate(None, DIGITS)) < MIN_UUID_LETTERS else match[0].replace(b"-", b"x")


def _blank_iban(match: re.Match[bytes]) -> bytes:
    """Blank an IBAN: the length of its country and valid check digits (ISO 7064)."""
    text = match[0]
    bare = text.replace(b" ", b"")[: IBAN_LENGTHS.get(text[:2], 0)]
    if len(bare) < IBAN_LENGTHS.get(text[:2], MAX_DIGITS * 2):
        return text
    end, left = 0, len(bare)
    while left:
        left -= text[end] != ord(" ")
        end += 1
    is_longer = match.string[match.start() + end : match.start() + end + 1].isalnum()
    checked = int("".join(str(int(character, 36)) for character in (bare[4:] + bare[:4]).decode()))
    return text if is_longer or checked % 97 != 1 else b"x" * end + text[end:]


def _blank_hash(match: re.Match[bytes]) -> bytes:
    """Blank runs of uncommon length in a hash: too many of them pass as card numbers by chance."""
    return match[0] if match[0].isdigit() else UNCOMMON_LENGTH.sub(_blank, match[0])


def _mark_emv_number(match: re.Match[bytes]) -> bytes:
    if match["bytes"] is None:
        return _blank(match)
    return b"xxxx" + _with_end_mark(match["number"], 2 * int(match["bytes"], 16))


def _mark_expiry(match: re.Match[bytes]) -> bytes:
    return _with_end_mark(match[0], len(match[0]) - 4)


def _mark_long_run(match: re.Match[bytes]) -> bytes:
    """Mark where a number may begin and end in a long run."""
    text, run = match.string, match[0]
    number = run.lstrip(b"0")
    is_in_word = text[match.start() - 1 : match.start()].isalpha() and text[match.end() : match.end() + 1].isalpha()
    if len(number) > MAX_DIGITS and not is_in_word:
        marked = number.translate(MARK_ANYWHERE)
    else:
        marked = number
        for tail in TRAILING_DATA.finditer(number, max(len(number) - 10, 0)):
            marked = _with_end_mark(marked, tail.start())
    return b" " * (len(run) - len(number)) + marked


def _with_end_mark(run: bytes, end: int) -> bytes:
    """Mark that a number may end at a place of the run."""
    return run[:end] + run[end : end + 1].translate(MARK_END) + run[end + 1 :]


def mark_context(text: bytes) -> bytes:
    """Blank digits that are not of a card number, and mark possible ends in longer runs. Keeps the length."""
    text = without_decimals(text)
    for pattern, mark in ((TIME, b"0"), (JSON_EPOCH_MS, b":"), (TELEPHONE, b"+"), (TELEPHONE_WITH_00, b"00")):
        if mark in text:
            text = pattern.sub(_blank, text)
    text = EMV_TAG.sub(_mark_emv_number, IBAN.sub(_blank_iban, text))
    if b"-" in text:
        text = UUID.sub(_split_uuid, text)
    if HEX_RUN in text.translate(HEX_TO_ZERO):
        text = HEX_HASH.sub(_blank_hash, text)
    text = LAST_GROUP_WITH_EXPIRY.sub(_mark_expiry, text)
    return LONG_RUN.sub(_mark_long_run, text) if ZEROS_OF_LONG_RUN in text.translate(DIGIT_TO_ZERO) else text


def without_decimals(text: bytes) -> bytes:
    """Blank the fractions of long decimals. Keeps the length."""
    return DECIMAL_FRACTION.sub(_blank, text)
