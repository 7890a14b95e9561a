"""Card data in any bytes: card numbers, and what authenticates a card.

A card number (PAN) is 13 to 19 digits that fit the lengths and prefixes of an issuer and pass the Luhn check, in one
piece or in groups apart by blanks and dashes. Sensitive authentication data (SAD) is the content of a magnetic stripe,
or a value of three or more digits behind a name such as `cvv` or `pin`. PCI DSS forbids to store the second at all, and
the first unless it is made unreadable.

One Luhn number in ten is one by chance, so what is known to be no card number is passed over: UUIDs and hashes, digits
behind a decimal point, telephone numbers behind `+`, and a JSON number of thirteen digits, which is a time.
"""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from fraud_service.domain.events import Reason
from fraud_service.errors import InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class CardData(StrEnum):
    """What was found."""

    CARD_NUMBER = Reason.CARD_NUMBER
    SENSITIVE_DATA = Reason.SENSITIVE_DATA


SHORTEST: Final = 13  # digits
LONGEST: Final = 19
MOST_AT_ONCE: Final = 1 << 20  # bytes

# Nearly every message ends here: none of these words, no stripe, and no run of digits that passes for a number.
_MARKS: Final = (b"^", b"=", b"cv", b"csc", b"pin", b"track", b"security", b"verification")
_STRIPES: Final = (b'stripe":', b'stripe_data":', b'stripe0data":', b'stripedata":')  # an entry mode has that name too
_ALIKE: Final = bytes.maketrans(b"123456789 -ABCDEFGHIJKLMNOPQRSTUVWXYZ", b"00000000000abcdefghijklmnopqrstuvwxyz")
_SHORTEST_RUN: Final = b"0" * SHORTEST  # of digits, blanks and dashes; to find it takes a third of a regular expression
_RUN: Final = re.compile(rb"0+")
_CANDIDATE: Final = re.compile(rb"(?<![0-9])(?<![0-9]\.)(?:[4-6][0-9 -]|3[0-9 -]|2[2-7 -]|8[12 -]|9[7 -])[0-9 -]{11,}")

_APART: Final = b"\n" * 16  # neither a number nor the name of a value reaches across

_ESCAPE: Final = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")
_TOKEN: Final = re.compile(
    rb"""
    (?P<uuid> [0-9a-f]{8} (?: -[0-9a-f]{4} ){3} -[0-9a-f]{12} (?![0-9a-z]) )
    | %? b [0-9]{12,19} \^ (?P<stripe1> [^"'\s]* )
    | ; [0-9]{12,19} = (?P<stripe2> [0-9]{4} [^"'\s]* )
    | (?<![0-9a-z]) (?P<stripe3> [0-9]{13,19} ) (?= [=d] [0-9]{7} ) [^"'\s]*
    | (?P<hash> (?<![0-9a-z]) (?= [0-9]*[a-f] ) [0-9a-f]{20,} (?![0-9a-z]) )
    | (?P<run> [0-9]+ (?: [ -]{1,3} [0-9]+ )* )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_NAMED: Final = re.compile(
    rb"""
    (?<![a-z]) (?: card [ _-]? )?
    (?: (?: cv[vcnd]2? | csc | security [ _-]? code | (?: card [ _-]? )? verification [ _-]? (?: value | code ) )
        (?: [ _-]? (?: code | value | number ) )?
      | pin (?: [ _-]? (?: value | number | data ) )?
      | (?: encrypted [ _-]? )? pin [ _-]? (?: block )?
      | track [ _-]? [123]? (?: [ _-]? (?: equivalent )? [ _-]? data )?
      | mag (?: netic )? [ _-]? stripe (?: [ _-]? data )? )
    [^0-9a-z]{0,4} [:=>] [^0-9a-z]{0,5}
    (?P<value> (?: [0-9]{3,} (?![0-9a-z.]) | (?= [a-f]*[0-9] ) [0-9a-f]{16,} ) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_GROUP: Final = re.compile(rb"[0-9]+")
_ISSUED: Final = re.compile(
    rb"""
      4 (?: [0-9]{12} | [0-9]{15} | [0-9]{18} )                          # Visa
    | 5[1-5] [0-9]{14}                                                   # Mastercard
    | 2 (?: 22[1-9] | 2[3-9][0-9] | [3-6][0-9]{2} | 7[01][0-9] | 720 ) [0-9]{12}
    | 3[47] [0-9]{13}                                                    # American Express
    | 3 (?: 0[0-5] | 6[0-9] | [89][0-9] ) [0-9]{11,16}                   # Diners Club
    | 35 (?: 2[89] | [3-8][0-9] ) [0-9]{12,15}                           # JCB
    | (?: 5[0678] | 6[0-9] ) [0-9]{11,17}                                # Maestro, Discover, UnionPay, RuPay
    | 8[12] [0-9]{14,17}                                                 # UnionPay, RuPay
    | 220[0-4] [0-9]{12,15}                                              # Mir
    | 9792 [0-9]{12}                                                     # Troy
    """,
    re.VERBOSE,
)
_DOUBLED: Final = bytes.maketrans(b"0123456789", bytes(sum(divmod(2 * digit, 10)) for digit in range(10)))
_PLAIN_DIGITS: Final = bytes.maketrans(b"0123456789", bytes(range(10)))


def find(data: bytes) -> CardData | None:
    """Say whether there is card data in bytes of any format; authentication data goes before a number.

    JSON's escapes and UTF-16 hide nothing. What is compressed, encrypted or in base64 is not seen.
    """
    if _is_plain(data):
        return None
    found = {kind for _, _, kind in _findings(_readable(data))}
    return CardData.SENSITIVE_DATA if CardData.SENSITIVE_DATA in found else next(iter(found), None)


def is_clean(parts: Iterable[bytes | None]) -> bool:
    """Say at one quick look that none of many messages has card data: half the price of a look at each.

    False says nothing: there is some, or what resembles it, or too much to be put together.
    """
    together = [part for part in parts if part]
    return sum(map(len, together)) <= MOST_AT_ONCE and _is_plain(_APART.join(together))


def refuse(*parts: bytes | None, numbers: bool = True) -> None:
    """Refuse a message that has card data in its value or key; without `numbers`, only authentication data.

    Raises
    ------
    InvalidEvent
        Says what was found, and neither where nor a digit of it.
    """
    found = find(_APART.join(filter(None, parts)))
    if found is CardData.SENSITIVE_DATA:
        raise InvalidEvent(
            Reason.SENSITIVE_DATA, "the message has what authenticates a card (security code, PIN or track data)"
        )
    if numbers and found is CardData.CARD_NUMBER:
        raise InvalidEvent(Reason.CARD_NUMBER, "the message has a card number: send a token of it")


def masked(data: bytes) -> bytes:
    """Return the bytes with all card data replaced by its kind in brackets; the same bytes where there is none."""
    return data if find(data) is None else mask(data.decode(errors="backslashreplace")).encode()


def _is_plain(data: bytes) -> bool:
    if b"\0" in data or (b"\\u00" in data and _ESCAPE.search(data) is not None):
        return False
    alike = data.translate(_ALIKE)
    holds = alike.__contains__
    if any(map(holds, _MARKS)) or (holds(b"stripe") and any(map(holds, _STRIPES))):
        return False
    begin = alike.find(_SHORTEST_RUN)
    while begin >= 0:
        end = _RUN.match(alike, begin).end()  # type: ignore[union-attr] # it begins there
        if _has_number(data, begin, end):
            return False
        begin = alike.find(_SHORTEST_RUN, end)
    return True


def _has_number(data: bytes, begin: int, end: int) -> bool:
    run = _CANDIDATE.search(data, begin, end)
    return run is not None and next(_numbers(data, *run.span()), None) is not None


def mask(text: str) -> str:
    """Return the text with all card data in it replaced by its kind in brackets; nothing of a number is kept."""
    data = _readable(text.encode(errors="backslashreplace"))
    pieces, done = [], 0
    for begin, end, kind in sorted(_findings(data)):
        if end > done:
            pieces += [data[done : max(begin, done)], f"[{kind.replace('_', ' ')}]".encode()]
            done = end
    return b"".join([*pieces, data[done:]]).decode(errors="replace") if pieces else text


def replaced(data: bytes, instead: Callable[[bytes], bytes]) -> bytes:
    """Return the bytes with each card number replaced; where there is one, escapes and UTF-16 become plain.

    Parameters
    ----------
    instead
        Given the digits of a card number, without blanks and dashes, returns what is to stand there.
    """
    if find(data) is None:
        return data
    data = _readable(data)
    pieces, done = [], 0
    numbers = [(begin, end) for begin, end, kind in _findings(data) if kind is CardData.CARD_NUMBER]
    for begin, end in sorted(numbers, key=lambda span: (span[0], -span[1])):
        if begin >= done:
            pieces += [data[done:begin], instead(b"".join(_GROUP.findall(data[begin:end])))]
            done = end
    return b"".join([*pieces, data[done:]])


def is_card_number(digits: bytes) -> bool:
    """Say whether so many ASCII digits are what an issuer may have given: its prefix and length, and Luhn's sum."""
    if _ISSUED.fullmatch(digits) is None:
        return False
    odd, even = digits[::-1][0::2], digits[::-1][1::2]
    return (sum(odd.translate(_PLAIN_DIGITS)) + sum(even.translate(_DOUBLED))) % 10 == 0


def _readable(data: bytes) -> bytes:
    if b"\0" in data:
        data = data.replace(b"\0", b"")  # UTF-16
    if b"\\u00" in data:
        data = _ESCAPE.sub(lambda escape: bytes.fromhex(escape[1].decode()), data)
    return data


def _findings(data: bytes) -> Iterator[tuple[int, int, CardData]]:
    for token in _TOKEN.finditer(data):
        match token.lastgroup:
            case "stripe1" | "stripe2":
                yield token.start(), token.end(), CardData.SENSITIVE_DATA
            case "stripe3":
                if is_card_number(token["stripe3"]):
                    yield token.start(), token.end(), CardData.SENSITIVE_DATA
            case "run":
                yield from _numbers(data, token.start(), token.end())
    for named in _NAMED.finditer(data):
        yield *named.span("value"), CardData.SENSITIVE_DATA


def _numbers(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, CardData]]:
    """Find card numbers among groups of digits: of any groups that follow each other, each taken whole.

    Takes time in proportion to the bytes, whatever they are: a message of single digits must not hold the stream up.
    """
    if end - begin < SHORTEST:
        return
    groups = [group.span() for group in _GROUP.finditer(data, begin, end)]
    if data[begin - 1 : begin] == b"+" or (data[begin - 1 : begin] == b"." and data[begin - 2 : begin - 1].isdigit()):
        del groups[0]
    digits = b"".join(data[left:right] for left, right in groups)
    if len(digits) < SHORTEST:
        return
    bounds = [*accumulate((right - left for left, right in groups), initial=0)]
    ends = dict(zip(bounds[1:], (right for _, right in groups), strict=True))
    sums = _luhn_sums(digits)
    for first, (start, _) in zip(bounds, groups, strict=False):
        for last in range(first + SHORTEST, first + LONGEST + 1):
            if last in ends and (sums[last % 2][last] - sums[last % 2][first]) % 10 == 0:
                is_issued = _ISSUED.fullmatch(digits, first, last) is not None
                if is_issued and not _is_time(data, start, ends[last]):
                    yield start, ends[last], CardData.CARD_NUMBER


def _luhn_sums(digits: bytes) -> tuple[list[int], list[int]]:
    """Sum up all digits before each place, every other one doubled: for numbers that end at even and at odd places."""
    plain, doubled = digits.translate(_PLAIN_DIGITS), digits.translate(_DOUBLED)
    even, odd = bytearray(plain), bytearray(doubled)
    even[0::2], odd[0::2] = doubled[0::2], plain[0::2]
    return [*accumulate(even, initial=0)], [*accumulate(odd, initial=0)]


def _is_time(data: bytes, begin: int, end: int) -> bool:
    """Whether digits are a JSON number as long as milliseconds since the epoch; card numbers that long are text."""
    return end - begin == SHORTEST and data[max(begin - 8, 0) : begin].rstrip()[-1:] == b":"
