"""Card numbers (PAN) among the digits of a text: 13 to 19 digits with an issuer's prefix and length, and Luhn's sum.

A number may be one piece or groups with anything but letters between them. The same piece may have zeros before the
number, and an expiry date or a security code after it. In a piece of more than 19 digits the number may be anywhere.

One number in ten has Luhn's sum by chance. So the search skips what is known to be no card number: times, decimals,
coordinates and telephone numbers. Next to letters, where hashes have digits, only the common lengths count.

The work grows with the number of bytes only, whatever they contain. It sums up all windows of a length at once: the
digits are the bytes of one large integer, and adding two integers adds all their bytes. No sum reaches 256, so no byte
carries into the next.
"""

from __future__ import annotations

import re
from array import array
from itertools import compress, count
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.security.issuers import IBAN_LENGTHS, ISSUERS, places

if TYPE_CHECKING:
    from collections.abc import Iterator

MIN_DIGITS: Final = 13  # digits
MAX_DIGITS: Final = 19
LETTERS_OF_A_UUID: Final = 8  # with its four hyphens


_DIGITS: Final = b"0123456789"

# What the search skips; no step changes the length of the text.
_TIME: Final = re.compile(
    rb"""
    (?: 19 | 2[01] ) (?<! [0-9]{3} ) [0-9]{2} (?P<apart> [-/.] )
    (?: 0[1-9] | 1[0-2] ) (?P=apart) (?: 0[1-9] | [12][0-9] | 3[01] )
    (?: [T_ ] (?: [01][0-9] | 2[0-3] ) : [0-5][0-9] (?: : [0-6][0-9] (?: [.,][0-9]{1,9} )? )?
        (?: [ ]?Z | [ ]?[+-] [01][0-9] :? [0-5][0-9] )? )?
    (?! [0-9] )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_JSON_TIME: Final = re.compile(rb"""["']\s?:\s?[0-9]{13}(?=\s?[,}\]])""")  # milliseconds since the epoch
_FRACTION: Final = re.compile(  # of a long decimal, or of a coordinate before another one
    rb"""
    \. (?: (?<= [^0-9.][0-9]\. ) | (?<= [^0-9.][0-9]{2}\. ) | (?<= [^0-9.][0-9]{3}\. ) )
    (?: [0-9]{10,}+ (?! \. | e\+?0{0,9}1[2-8] ) | [0-9]{4,9} (?= [ ,/;+-]{1,3} [0-9]{1,3} \. [0-9]{4} ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TELEPHONE: Final = re.compile(  # of 13 or 14 digits, or in groups behind the code of a country
    rb"""
    \+ (?: [1-9] (?: [ ./-]{0,3} [0-9] ){12,13} (?! [ ./-]{0,3} [0-9] )
         | [1-9][0-9]{0,2} (?: [ ./-]{1,3} [0-9]{2,12} ){1,4} (?! [ ./-]{0,3} [0-9] ) (?<! [0-9]{13} ) )
    """,
    re.VERBOSE,
)
_ABROAD: Final = re.compile(  # a telephone number of 13 digits again, with zeros instead of the sign
    rb"00(?<![0-9]00)(?<![0-9][ ./-]00)[ ./-]?[1-9](?:[ ./-]{0,3}[0-9]){12}(?![ ./-]{0,3}[0-9])"
)
_UUID: Final = re.compile(  # of a known version
    rb"[0-9a-f](?<![0-9a-z][0-9a-f])[0-9a-f]{7}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?![0-9a-z])",
    re.IGNORECASE,
)
_IBAN: Final = re.compile(rb"[A-Z](?<![0-9A-Za-z][A-Z])[A-Z][0-9]{2}(?:[ ]?[0-9A-Z]){11,29}")
_HASH: Final = re.compile(rb"[0-9a-f](?<![0-9a-z][0-9a-f])[0-9a-f]{27,}+(?![0-9a-z])", re.IGNORECASE)
_HASH_RUN, _ALL_HEXADECIMAL = b"0" * 28, bytes.maketrans(b"123456789abcdefABCDEF", b"0" * 21)
_UNUSUAL: Final = re.compile(rb"[0-9](?<![0-9][0-9])(?:[0-9]{12,13}|[0-9]{16,}+)(?![0-9])")
_TAG: Final = re.compile(  # of EMV, in hexadecimal: bytes of the number, and the number; what goes before track 2
    rb"5A0(?P<bytes>[7-9A])(?P<number>[0-9]{12,}+)|57(?:0[89A-F]|1[0-3])(?=[0-9]{12,19}[D=])", re.IGNORECASE
)
# What a long piece may have in it besides a number.
_LONG: Final = re.compile(rb"[0-9]{17,}+|0(?<![0-9]0)[0-9]{13,}+")
_LONG_RUN, _ALL_DIGITS = b"0" * 14, bytes.maketrans(b"123456789", b"0" * 9)
_EXPIRY: Final = rb"(?:(?:0[1-9]|1[0-2])(?:20)?[2-4][0-9]|(?:20)?[2-4][0-9](?:0[1-9]|1[0-2]))"
_TAIL: Final = re.compile(  # every place where a number may end
    rb"(?<=[0-9]{13})(?=" + _EXPIRY + rb"(?:[0-9]{3,4})?\Z)|(?<=[0-9]{15})(?=[0-9]{3}\Z)"
)
_LAST: Final = re.compile(  # the last group of one to five digits, and an expiry date
    rb"[0-9](?<![0-9][0-9])[0-9]{4,8}+(?![0-9])"
    rb"(?:(?<=0[1-9][2-4][0-9])|(?<=1[0-2][2-4][0-9])|(?<=[2-4][0-9]0[1-9])|(?<=[2-4][0-9]1[0-2]))"
)
_ANYWHERE: Final = bytes.maketrans(_DIGITS, bytes(range(0x80, 0x8A)))  # digits at which a number may begin and end
_BEHIND: Final = bytes.maketrans(_DIGITS, bytes(range(0x90, 0x9A)))  # a digit before which a number may end


def _blank(match: re.Match[bytes]) -> bytes:
    return b"x" * len(match[0])


def _uuid(match: re.Match[bytes]) -> bytes:
    """Let no number reach across the groups of a UUID with letters."""
    return match[0] if len(match[0].translate(None, _DIGITS)) < LETTERS_OF_A_UUID else match[0].replace(b"-", b"x")


def _iban(match: re.Match[bytes]) -> bytes:
    """Make letters of the number of a bank account: of its country's length, and with the check digits of ISO 7064."""
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


def _hash(match: re.Match[bytes]) -> bytes:
    """Leave the usual lengths among the letters of a hash; of the others there are too many by chance."""
    return match[0] if match[0].isdigit() else _UNUSUAL.sub(_blank, match[0])


def _tag(match: re.Match[bytes]) -> bytes:
    if match["bytes"] is None:
        return _blank(match)
    return b"xxxx" + _marked(match["number"], 2 * int(match["bytes"], 16))


def _last(match: re.Match[bytes]) -> bytes:
    return _marked(match[0], len(match[0]) - 4)


def _long(match: re.Match[bytes]) -> bytes:
    """Mark where a number may begin and end in a long piece."""
    text, piece = match.string, match[0]
    bare = piece.lstrip(b"0")
    is_in_word = text[match.start() - 1 : match.start()].isalpha() and text[match.end() : match.end() + 1].isalpha()
    if len(bare) > MAX_DIGITS and not is_in_word:
        marked = bare.translate(_ANYWHERE)
    else:
        marked = bare
        for tail in _TAIL.finditer(bare, max(len(bare) - 10, 0)):
            marked = _marked(marked, tail.start())
    return b" " * (len(piece) - len(bare)) + marked


def _marked(piece: bytes, end: int) -> bytes:
    """Mark that a number may end within a piece."""
    return piece[:end] + piece[end : end + 1].translate(_BEHIND) + piece[end + 1 :]


def _prepared(text: bytes) -> bytes:
    """Replace what is no card number by letters, and mark the pieces that may have more digits than a number."""
    text = without_decimals(text)
    for passed_over, mark in ((_TIME, b"0"), (_JSON_TIME, b":"), (_TELEPHONE, b"+"), (_ABROAD, b"00")):
        if mark in text:
            text = passed_over.sub(_blank, text)
    text = _TAG.sub(_tag, _IBAN.sub(_iban, text))
    if b"-" in text:
        text = _UUID.sub(_uuid, text)
    if _HASH_RUN in text.translate(_ALL_HEXADECIMAL):
        text = _HASH.sub(_hash, text)
    text = _LAST.sub(_last, text)
    return _LONG.sub(_long, text) if _LONG_RUN in text.translate(_ALL_DIGITS) else text


# A byte for each digit, and for each break that no number reaches across: the digit, and what is known of its place.
_START, _END, _TOUCHES, _SUM = 0x10, 0x20, 0x40, 0x80  # of a piece; a letter; the window from here has Luhn's sum
_BREAK, _BETWEEN, _HIT = 0x0F, 0x0E, 0xFF
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_STRUCTURE: Final = b',:;"[]{}()<>='  # separates values, and seldom the digits of one
MOST_BETWEEN: Final = 6  # bytes of structure


def _table(values: dict[bytes, int], otherwise: int = 0) -> bytes:
    table = bytearray([otherwise]) * 256
    for characters, value in values.items():
        for character in characters:
            table[character] = value
    return bytes(table)


_ANYWHERE_DIGITS, _BEHIND_DIGITS = _DIGITS.translate(_ANYWHERE), _DIGITS.translate(_BEHIND)
_IS_DIGIT: Final = _table({_DIGITS + _ANYWHERE_DIGITS + _BEHIND_DIGITS: 1})
_IS_ANYWHERE: Final = _table({_ANYWHERE_DIGITS: 1})
_IS_BEHIND: Final = _table({_BEHIND_DIGITS: 1})
_IS_TOUCHING: Final = _table({_LETTERS + b"+": 1})
_IS_STRUCTURE: Final = _table({_STRUCTURE: 1})
_IS_BETWEEN: Final = _table({_DIGITS + _ANYWHERE_DIGITS + _BEHIND_DIGITS + _LETTERS: 0}, otherwise=1)
_CODES: Final = _table(
    {_LETTERS + _STRUCTURE: _BREAK} | {bytes([0x30 + n, 0x80 + n, 0x90 + n]): n for n in range(10)}, otherwise=_BETWEEN
)
_VALUE_OF_CODE: Final = bytes(code & 15 if code & 15 in range(10) else 0 for code in range(256))
_DOUBLED_CODE: Final = bytes(sum(divmod(2 * value, 10)) for value in _VALUE_OF_CODE)
_IS_SUM: Final = bytes(0 if total % 10 else _SUM for total in range(256))
_IS_START: Final = bytes(_SUM if code & _START else 0 for code in range(256))
_IS_END: Final = bytes(_SUM if code & _END else 0 for code in range(256))
_IS_HIT: Final = _table({bytes([_HIT]): 1})
_AS_DIGITS: Final = bytes(0x30 + value for value in _VALUE_OF_CODE)


def _lanes(text: bytes, table: bytes) -> int:
    return int.from_bytes(text.translate(table), "little")


def _passable(between: int, digits: int, starts: int, ends: int) -> int:
    """Return where structure may stand inside of a number: between single digits, and groups of the usual sizes."""
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
        for _ in range(MOST_BETWEEN - 1):
            left |= (left << 8) & between
            right |= (right >> 8) & between
        passable |= left & right
    return passable


def _coded(text: bytes) -> bytes:
    """Return a code for each place of a prepared text."""
    digits, anywhere = _lanes(text, _IS_DIGIT), _lanes(text, _IS_ANYWHERE)
    starts, ends = digits & ~(digits << 8), digits & ~(digits >> 8)
    structure, passable = _lanes(text, _IS_STRUCTURE), 0
    if structure:
        passable = structure & _passable(_lanes(text, _IS_BETWEEN), digits, starts, ends)
    touching = _lanes(text, _IS_TOUCHING)
    touches = digits & (touching << 8 | touching >> 8) | anywhere
    ends |= digits & (_lanes(text, _IS_BEHIND) >> 8)
    codes = _lanes(text, _CODES) - passable * (_BREAK - _BETWEEN)
    codes += (starts | anywhere) * _START + (ends | anywhere) * _END + touches * _TOUCHES
    return codes.to_bytes(len(text), "little")


def _sums(codes: bytes) -> Iterator[tuple[int, int]]:
    """Add up, for each length of a number, the digits of the windows from each place on, as Luhn weighs them."""
    plain, doubled = _lanes(codes, _VALUE_OF_CODE), _lanes(codes, _DOUBLED_CODE)
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


def _class(digits: bytes = _DIGITS, needs: int = 0, lacks: int = 0) -> bytes:
    """Write the codes of some digits in some places as a part of a regular expression."""
    codes = (code for code in range(_HIT) if code & 15 in range(10) and 0x30 + (code & 15) in digits)
    found = bytes(code for code in codes if code & needs == needs and not code & lacks)
    return b"[" + b"".join(b"\\x%02x" % code for code in found) + b"]"


def _ways(length: int, prefixes: list[list[bytes]], lacks: int) -> list[bytes]:
    """Write the windows of a length behind their first code, by their first digit."""
    end = _class(needs=_END, lacks=lacks)
    return [
        b"(?<=%s)(?:%s)"
        % (
            _class(first, lacks=lacks),
            b"|".join(
                b"".join(map(_class, more)) + b"%s{%d}" % (_class(), length - len(more) - 2) + end
                for begins, *more in prefixes
                if first in begins
            ),
        )
        for first in sorted({begins for begins, *_ in prefixes})
    ]


def _pattern(length: int) -> re.Pattern[bytes]:
    """Find the first codes of the windows of a length that are card numbers."""
    issued = [places(prefix) for issuer in ISSUERS if length in issuer.lengths for prefix in issuer.prefixes]
    common = [places(prefix) for issuer in ISSUERS if length in issuer.common for prefix in issuer.prefixes]
    firsts = b"".join(sorted({begins for begins, *_ in issued}))
    ways = _ways(length, issued, _TOUCHES) + _ways(length, common, 0)
    return re.compile(_class(firsts, _START | _SUM) + b"(?=" + b"|".join(ways) + b")", re.DOTALL)


_PATTERNS: Final = {length: _pattern(length) for length in range(MIN_DIGITS, MAX_DIGITS + 1)}


def _summed(codes: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the codes once for each length, and mark the windows of Luhn's sum that lie between a start and an end."""
    plain, starts, ends = int.from_bytes(codes, "little"), _lanes(codes, _IS_START), _lanes(codes, _IS_END)
    for length, sums in _sums(codes):
        windows = _lanes(sums.to_bytes(len(codes), "little"), _IS_SUM) & starts & (ends >> 8 * (length - 1))
        yield length, (plain | windows).to_bytes(len(codes), "little")


_NO_DIGIT: Final = bytes(set(range(256)) - set(_DIGITS))

_PLACES: Final = _table({bytes([_BETWEEN]): 0}, otherwise=1)
_COVERED: Final = re.compile(rb"\x01+")
_FIRST: Final = re.compile(rb"[^\x00]")


class Number(NamedTuple):
    """A card number in a text: its place and its digits."""

    begin: int
    end: int
    digits: bytes


def has_number(text: bytes) -> bool:
    """Say whether a text of ASCII characters has a card number."""
    if _is_short(text):
        return False
    codes = _coded(_prepared(text)).translate(None, bytes([_BETWEEN]))
    return any(_PATTERNS[length].search(summed) for length, summed in _summed(codes))


def numbers(text: bytes) -> list[Number]:
    """Return the card numbers of a text of ASCII characters, in order; together they cover every digit of any.

    Of two that overlap, the one that begins first is returned, or the longer of two that begin together. The rest of
    the other belongs to it.
    """
    if _is_short(text):
        return []
    coded = _coded(_prepared(text))
    codes = coded.translate(None, bytes([_BETWEEN]))
    hits = {}
    for length, summed in _summed(codes):
        hits[length] = _lanes(_PATTERNS[length].sub(bytes([_HIT]), summed), _IS_HIT)
    if not any(hits.values()):
        return []
    longest, cover = 0, 0
    for length, starts in sorted(hits.items()):
        longest += starts * length - (longest & starts * 0xFF)
        cover |= _spread(starts, length)
    positions = array("I", compress(count(), coded.translate(_PLACES)))
    parts = _parts(longest.to_bytes(len(codes), "little"), cover.to_bytes(len(codes), "little"))
    return [
        Number(positions[begin], positions[end - 1] + 1, codes[begin : begin + length].translate(_AS_DIGITS))
        for begin, end, length in parts
    ]


def without_decimals(text: bytes) -> bytes:
    """Return the text with letters instead of the fractions of long decimals."""
    return _FRACTION.sub(_blank, text)


def _is_short(text: bytes) -> bool:
    return len(text) < MIN_DIGITS or len(text.translate(None, _NO_DIGIT)) < MIN_DIGITS


def _parts(longest: bytes, cover: bytes) -> Iterator[tuple[int, int, int]]:
    """Cut what windows cover into numbers: where each begins and ends, and how many digits it has."""
    for covered in _COVERED.finditer(cover):
        place = covered.start()
        while place < covered.end():
            length = longest[place]
            following = _FIRST.search(longest, place + length, covered.end())
            end = covered.end() if following is None else following.start()
            yield place, end, length
            place = end


def _spread(lanes: int, width: int) -> int:
    """Set so many lanes from each one that is set, itself among them."""
    done = 1
    while done < width:
        step = min(done, width - done)
        lanes |= lanes << (8 * step)
        done += step
    return lanes
