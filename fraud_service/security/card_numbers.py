"""Find card numbers (PAN) among the digits of a text: issuer prefix, a length of that issuer, and Luhn's check.

A number may be one run of digits, or groups with anything but letters between them. Next to letters, where hashes have
digits, only the common lengths of an issuer count. `digit_context` removes digits that are something else.

The time is linear in the number of bytes for every content, because no window is checked by itself. The digits are the
bytes of one large integer. Adding two such integers adds all bytes at once. No sum reaches 256, so no byte carries into
the next.
"""

from __future__ import annotations

import re
from array import array
from itertools import compress, count
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.security.digit_context import DIGITS, MARK_ANYWHERE, MARK_END, mark_context
from fraud_service.security.issuers import ISSUERS, MAX_DIGITS, MIN_DIGITS, places

if TYPE_CHECKING:
    from collections.abc import Iterator

# A code is one byte. Its low half is the value of a digit, SEPARATOR, or BREAK, which no number spans. Its high half is
# the flags of the digit.
SEPARATOR, BREAK = 0x0E, 0x0F
RUN_START: Final = 0x10  # a number may begin here
RUN_END: Final = 0x20  # a number may end here
NEXT_TO_LETTER: Final = 0x40
LUHN: Final = 0x80  # the digits that begin here pass Luhn's check
HIT: Final = 0xFF  # a card number begins here
LETTERS: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
STRUCTURE: Final = b',:;"[]{}()<>='  # separates values; rarely the digits of a number
MAX_STRUCTURE: Final = 6  # bytes between two groups


def _table(values: dict[bytes, int], otherwise: int = 0) -> bytes:
    """Return a table for `bytes.translate`."""
    table = bytearray([otherwise]) * 256
    for characters, value in values.items():
        for character in characters:
            table[character] = value
    return bytes(table)


ANYWHERE_DIGITS, END_DIGITS = DIGITS.translate(MARK_ANYWHERE), DIGITS.translate(MARK_END)
DIGIT_FLAG: Final = _table({DIGITS + ANYWHERE_DIGITS + END_DIGITS: 1})
ANYWHERE_FLAG: Final = _table({ANYWHERE_DIGITS: 1})
END_FLAG: Final = _table({END_DIGITS: 1})
LETTER_FLAG: Final = _table({LETTERS + b"+": 1})
STRUCTURE_FLAG: Final = _table({STRUCTURE: 1})
SEPARATOR_FLAG: Final = _table({DIGITS + ANYWHERE_DIGITS + END_DIGITS + LETTERS: 0}, otherwise=1)
CODE: Final = _table(
    {LETTERS + STRUCTURE: BREAK} | {bytes([0x30 + n, 0x80 + n, 0x90 + n]): n for n in range(10)}, otherwise=SEPARATOR
)
DIGIT_VALUE: Final = bytes(code & 15 if code & 15 in range(10) else 0 for code in range(256))
DOUBLED_VALUE: Final = bytes(sum(divmod(2 * value, 10)) for value in DIGIT_VALUE)
LUHN_FLAG: Final = bytes(0 if total % 10 else LUHN for total in range(256))
START_FLAG: Final = bytes(LUHN if code & RUN_START else 0 for code in range(256))
RUN_END_FLAG: Final = bytes(LUHN if code & RUN_END else 0 for code in range(256))
HIT_FLAG: Final = _table({bytes([HIT]): 1})
CODE_TO_DIGIT: Final = bytes(0x30 + value for value in DIGIT_VALUE)


def _as_integer(text: bytes, table: bytes) -> int:
    """Translate bytes and return them as one integer, whose arithmetic works on all bytes at once."""
    return int.from_bytes(text.translate(table), "little")


def _joining_structure(between: int, digits: int, starts: int, ends: int) -> int:
    """Return where structure may separate parts of a number: between single digits, or groups of common sizes."""
    pairs = digits & (digits << 8)
    singles = starts & ends
    twos, threes = ends & (starts << 8), ends & pairs & (starts << 16)
    fours = ends & pairs & (digits << 16) & (starts << 24)
    fives = ends & pairs & (pairs << 16) & (starts << 32)
    sixes = ends & pairs & (pairs << 16) & (digits << 32) & (starts << 40)
    after_four = singles | (twos >> 8) | (threes >> 16) | (fours >> 24) | (sixes >> 40)
    passable = 0
    for before, after in ((singles, singles), (fours, after_four), (sixes, (fours >> 24) | (fives >> 32))):
        left, right = (before << 8) & between, (after >> 8) & between
        for _ in range(MAX_STRUCTURE - 1):
            left |= (left << 8) & between
            right |= (right >> 8) & between
        passable |= left & right
    return passable


def _encode(text: bytes) -> bytes:
    """Return the code of each byte of a text from `mark_context`."""
    digits, anywhere = _as_integer(text, DIGIT_FLAG), _as_integer(text, ANYWHERE_FLAG)
    starts, ends = digits & ~(digits << 8), digits & ~(digits >> 8)
    structure, passable = _as_integer(text, STRUCTURE_FLAG), 0
    if structure:
        passable = structure & _joining_structure(_as_integer(text, SEPARATOR_FLAG), digits, starts, ends)
    touching = _as_integer(text, LETTER_FLAG)
    touches = digits & (touching << 8 | touching >> 8) | anywhere
    ends |= digits & (_as_integer(text, END_FLAG) >> 8)
    codes = _as_integer(text, CODE) - passable * (BREAK - SEPARATOR)
    codes += (starts | anywhere) * RUN_START + (ends | anywhere) * RUN_END + touches * NEXT_TO_LETTER
    return codes.to_bytes(len(text), "little")


def _luhn_sums(codes: bytes) -> Iterator[tuple[int, int]]:
    """Yield for each length the Luhn sums of the windows that begin at each place, as bytes of an integer."""
    plain, doubled = _as_integer(codes, DIGIT_VALUE), _as_integer(codes, DOUBLED_VALUE)
    two = doubled + (plain >> 8)
    four = two + (two >> 16)
    eight = four + (four >> 32)
    fourteen = eight + (four >> 64) + (two >> 96)
    sixteen = eight + (eight >> 64)
    yield 16, sixteen
    yield 15, plain + (fourteen >> 8)
    yield 14, fourteen
    yield 13, plain + ((eight + (four >> 64)) >> 8)
    eighteen = sixteen + (two >> 128)
    yield 19, plain + (eighteen >> 8)
    yield 18, eighteen
    yield 17, plain + (sixteen >> 8)


def _code_class(digits: bytes = DIGITS, needs: int = 0, lacks: int = 0) -> bytes:
    """Return the regular expression of the codes of these digits with and without these flags."""
    codes = (code for code in range(HIT) if code & 15 in range(10) and 0x30 + (code & 15) in digits)
    found = bytes(code for code in codes if code & needs == needs and not code & lacks)
    return b"[" + b"".join(b"\\x%02x" % code for code in found) + b"]"


def _alternatives(length: int, prefixes: list[list[bytes]], lacks: int) -> list[bytes]:
    """Return the regular expressions of the windows of a length, after the first code, for each first digit."""
    end = _code_class(needs=RUN_END, lacks=lacks)
    return [
        b"(?<=%s)(?:%s)"
        % (
            _code_class(first, lacks=lacks),
            b"|".join(
                b"".join(map(_code_class, more)) + b"%s{%d}" % (_code_class(), length - len(more) - 2) + end
                for begins, *more in prefixes
                if first in begins
            ),
        )
        for first in sorted({begins for begins, *_ in prefixes})
    ]


def _number_pattern(length: int) -> re.Pattern[bytes]:
    """Return the regular expression of the first codes of card numbers of a length."""
    issued = [places(prefix) for issuer in ISSUERS if length in issuer.lengths for prefix in issuer.prefixes]
    common = [places(prefix) for issuer in ISSUERS if length in issuer.common for prefix in issuer.prefixes]
    firsts = b"".join(sorted({begins for begins, *_ in issued}))
    ways = _alternatives(length, issued, NEXT_TO_LETTER) + _alternatives(length, common, 0)
    return re.compile(_code_class(firsts, RUN_START | LUHN) + b"(?=" + b"|".join(ways) + b")", re.DOTALL)


PATTERNS: Final = {length: _number_pattern(length) for length in range(MIN_DIGITS, MAX_DIGITS + 1)}


def _with_luhn_windows(codes: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the codes once for each length, with `LUHN` where a run of that length passes and may be a number."""
    plain = int.from_bytes(codes, "little")
    starts, ends = _as_integer(codes, START_FLAG), _as_integer(codes, RUN_END_FLAG)
    for length, sums in _luhn_sums(codes):
        windows = _as_integer(sums.to_bytes(len(codes), "little"), LUHN_FLAG) & starts & (ends >> 8 * (length - 1))
        yield length, (plain | windows).to_bytes(len(codes), "little")


NOT_DIGITS: Final = bytes(set(range(256)) - set(DIGITS))

IS_CODED: Final = _table({bytes([SEPARATOR]): 0}, otherwise=1)
COVERED: Final = re.compile(rb"\x01+")
NEXT_START: Final = re.compile(rb"[^\x00]")


class CardNumber(NamedTuple):
    """Place and digits of a card number in a text."""

    begin: int
    end: int
    digits: bytes


def has_card_number(text: bytes) -> bool:
    """Return whether an ASCII text has a card number.

    >>> has_card_number(b"paid with 4242 4242 4242 4242"), has_card_number(b"order 4242 4242 4242 4243")
    (True, False)
    """
    if _has_too_few_digits(text):
        return False
    codes = _encode(mark_context(text)).translate(None, bytes([SEPARATOR]))
    return any(PATTERNS[length].search(marked) for length, marked in _with_luhn_windows(codes))


def find_card_numbers(text: bytes) -> list[CardNumber]:
    """Return the card numbers of an ASCII text, in order; together they cover all digits of all card numbers.

    Of two overlapping numbers, the result has the first, or the longer one if both begin together. Its place includes
    the rest of the other.
    """
    if _has_too_few_digits(text):
        return []
    coded = _encode(mark_context(text))
    codes = coded.translate(None, bytes([SEPARATOR]))
    hits = {}
    for length, marked in _with_luhn_windows(codes):
        hits[length] = _as_integer(PATTERNS[length].sub(bytes([HIT]), marked), HIT_FLAG)
    if not any(hits.values()):
        return []
    longest, cover = 0, 0
    for length, starts in sorted(hits.items()):
        longest += starts * length - (longest & starts * 0xFF)
        cover |= _extend(starts, length)
    positions = array("I", compress(count(), coded.translate(IS_CODED)))
    parts = _split_overlaps(longest.to_bytes(len(codes), "little"), cover.to_bytes(len(codes), "little"))
    return [
        CardNumber(positions[begin], positions[end - 1] + 1, codes[begin : begin + length].translate(CODE_TO_DIGIT))
        for begin, end, length in parts
    ]


def _has_too_few_digits(text: bytes) -> bool:
    return len(text) < MIN_DIGITS or len(text.translate(None, NOT_DIGITS)) < MIN_DIGITS


def _split_overlaps(longest: bytes, cover: bytes) -> Iterator[tuple[int, int, int]]:
    """Split the covered codes into numbers; yield begin, end and number of digits of each."""
    for covered in COVERED.finditer(cover):
        place = covered.start()
        while place < covered.end():
            length = longest[place]
            following = NEXT_START.search(longest, place + length, covered.end())
            end = covered.end() if following is None else following.start()
            yield place, end, length
            place = end


def _extend(flags: int, width: int) -> int:
    """Set the `width` bytes that begin at each byte that is set."""
    done = 1
    while done < width:
        step = min(done, width - done)
        flags |= flags << (8 * step)
        done += step
    return flags
