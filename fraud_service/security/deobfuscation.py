"""Reads a text in every spelling: digits of any script, escapes of JSON, HTML and URLs, UTF-16.

A view of a text is one way to read it, in ASCII. Each place of a view maps back to a place of the text, so that a part
can be replaced and the rest stays unchanged.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from functools import cache, partial
from itertools import compress, count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Places = Callable[[], Sequence[int]]

_FILLER: Final = "\0"  # stands for nothing
_MARKS: Final = ("\\", "%", "&", _FILLER)  # of escapes
_ESCAPE: Final = re.compile(
    r"""
    [\\%&] (?:
      (?<= \\ ) \\{0,3}+ (?: u (?P<high> d[89ab][0-9a-f]{2} ) \\{1,4}u (?P<low> d[c-f][0-9a-f]{2} )
                      | u (?P<unit> [0-9a-f]{4} ) | [nrtbf] )
    | (?<= % ) (?P<octets> [0-9a-f]{2} (?: % [0-9a-f]{2} )* )
    | (?<= & ) (?: \# (?: x (?P<hexadecimal> [0-9a-f]{1,6} ) | (?P<decimal> [0-9]{1,7} ) )
                | (?P<name> [a-z]{2,8} ) ) ; )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_SIGNS: Final = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&", "colon": ":", "equals": "="}
# A security code or a PIN by its name in other scripts; a view calls it by a name in ASCII.
_NAMES: Final = (
    *("код безопасности", "код проверки", "секретный код", "пин-код", "пин код", "пинкод", "код карты"),
    *(
        "安全码",
        "安全碼",
        "安全代码",
        "校验码",
        "セキュリティコード",
        "セキュリティーコード",
        "暗証番号",
        "보안코드",
        "보안 코드",
    ),
    *("رمز الأمان", "رمز الحماية", "κωδικός ασφαλείας", "קוד אבטחה", "सुरक्षा कोड", "รหัสความปลอดภัย"),
)


def _one_of(names: Sequence[str]) -> re.Pattern[str]:
    """Find names in any case: first one of their first letters, which is fast."""
    firsts = sorted({first for name in names for first in name[0] + name[0].upper()})
    rests = (f"(?<=[{name[0]}{name[0].upper()}])(?i:{name[1:]})" for name in names)
    return re.compile(f"[{''.join(firsts)}](?:{'|'.join(rests)})")


_NAME: Final = _one_of(_NAMES)
_NAME_ALONE: Final = _one_of([re.sub("[ -]", "", name) for name in _NAMES])
_NAME_IN_ASCII: Final = "cvv"
_LAST_WITH_DIGITS: Final = 0x20000
_LAST_CHARACTER: Final = 0x10FFFF
_ASCII: Final = bytes(range(128))
_QUESTIONABLE: Final = _ASCII + b"?" * 128
_CONTINUED: Final = bytes(range(0x80, 0xC0))  # of a character, behind its first byte


@cache
def _digits() -> dict[str, str]:
    """Return the ASCII digit of every other character that is one: decimal, superscript or in a circle."""
    found = ((chr(code), unicodedata.digit(chr(code), None)) for code in range(128, _LAST_WITH_DIGITS))
    return {character: str(digit) for character, digit in found if digit is not None}


@cache
def _digit_characters() -> frozenset[str]:
    return frozenset(_digits())


def unambiguous_ascii(data: bytes) -> bytes | None:
    """Return bytes in ASCII if there is only one way to read them; else None.

    What is neither ASCII nor a digit becomes a question mark.
    """
    if any(mark.encode() in data for mark in _MARKS):
        return None
    if data.isascii():
        return data
    try:
        data.decode()
        foreign = data.translate(None, _ASCII).decode()
    except UnicodeDecodeError:
        return None
    if not _digit_characters().isdisjoint(foreign) or _NAME_ALONE.search(foreign):
        return None
    return data.translate(_QUESTIONABLE, _CONTINUED)


def texts(data: bytes) -> Iterator[str]:
    """Yield the texts that bytes may be: UTF-8, from which the very bytes can be made again, and UTF-16."""
    yield data.decode(errors="surrogateescape")
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield data.decode("utf-16-le", errors="replace")
        yield data.decode("utf-16-be", errors="replace")


def views(text: str) -> Iterator[tuple[bytes, Places]]:
    """Yield a text in ASCII, with and without its escapes, and a function that returns the place of each byte.

    What is neither ASCII nor a digit becomes a question mark.
    """
    standing = _in_ascii(text)
    yield standing, partial(range, len(text))
    if any(mark in text for mark in _MARKS):
        in_ascii = standing.decode()  # escapes are ASCII; what they stand for need not be
        plain = _ESCAPE.sub(_unescaped, in_ascii)
        if plain != in_ascii or _FILLER in text:
            yield _in_ascii(plain.replace(_FILLER, "")), partial(_kept, plain)


def _kept(padded: str) -> Sequence[int]:
    return array("I", compress(count(), padded.encode("ascii", errors="replace")))


def _in_ascii(text: str) -> bytes:
    if not text.isascii():
        for character in _digit_characters().intersection(text):  # a few: to translate would ask for each place
            text = text.replace(character, _digits()[character])
        text = _NAME.sub(lambda name: _NAME_IN_ASCII.rjust(len(name[0])), text)
    return text.encode("ascii", errors="replace")


def _unescaped(escape: re.Match[str]) -> str:
    """Return what an escape stands for, as long as the escape."""
    if escape["unit"]:
        plain = chr(int(escape["unit"], 16))
    elif escape["high"]:
        plain = chr(0x10000 + ((int(escape["high"], 16) & 0x3FF) << 10) + (int(escape["low"], 16) & 0x3FF))
    elif escape["octets"]:
        plain = bytes.fromhex(escape["octets"].replace("%", "")).decode(errors="replace")
    elif escape["hexadecimal"] or escape["decimal"]:
        code = int(escape["hexadecimal"], 16) if escape["hexadecimal"] else int(escape["decimal"])
        plain = chr(min(code, _LAST_CHARACTER))
    else:
        plain = _SIGNS.get((escape["name"] or "").lower(), " ")
    return plain + _FILLER * (len(escape[0]) - len(plain))


def is_only_utf8(data: bytes) -> bool:
    """Say whether bytes are UTF-8 and cannot be UTF-16."""
    try:
        return b"\0" not in data and (data.isascii() or bool(data.decode()))
    except UnicodeDecodeError:
        return False
