"""Read bytes in every spelling: digits of any script, escapes of JSON, HTML and URLs, UTF-16.

A view is one ASCII reading of a text. Each place of a view maps to a place of the text. So the service can replace a
part of the text and keep the rest.
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

_FILLER: Final = "\0"  # fills the place of an escape after its character
_ESCAPE_MARKS: Final = ("\\", "%", "&", _FILLER)
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
_HTML_ENTITIES: Final = {"lt": "<", "gt": ">", "quot": '"', "apos": "'", "amp": "&", "colon": ":", "equals": "="}
# Names of a security code or a PIN in other scripts. A view replaces them by an ASCII name.
_NAMES: Final = (
    "код безопасности", "код проверки", "секретный код", "пин-код", "пин код", "пинкод", "код карты",
    "安全码", "安全碼", "安全代码", "校验码", "セキュリティコード", "セキュリティーコード", "暗証番号",
    "보안코드", "보안 코드",
    "رمز الأمان", "رمز الحماية", "κωδικός ασφαλείας", "קוד אבטחה", "सुरक्षा कोड", "รหัสความปลอดภัย",
)  # fmt: skip


def _one_of(names: Sequence[str]) -> re.Pattern[str]:
    """Return a pattern for names in any case. It begins with the first letters, which is fast."""
    firsts = sorted({first for name in names for first in name[0] + name[0].upper()})
    rests = (f"(?<=[{name[0]}{name[0].upper()}])(?i:{name[1:]})" for name in names)
    return re.compile(f"[{''.join(firsts)}](?:{'|'.join(rests)})")


_NAME: Final = _one_of(_NAMES)
_NAME_ALONE: Final = _one_of([re.sub("[ -]", "", name) for name in _NAMES])
_NAME_IN_ASCII: Final = "cvv"
_LAST_WITH_DIGITS: Final = 0x20000
_LAST_CHARACTER: Final = 0x10FFFF
_ASCII: Final = bytes(range(128))
_WITH_QUESTION_MARKS: Final = _ASCII + b"?" * 128
_CONTINUATION_BYTES: Final = bytes(range(0x80, 0xC0))  # of UTF-8


@cache
def _digits() -> dict[str, str]:
    """Map every other digit character to its ASCII digit: decimal, superscript and circled digits."""
    found = ((chr(code), unicodedata.digit(chr(code), None)) for code in range(128, _LAST_WITH_DIGITS))
    return {character: str(digit) for character, digit in found if digit is not None}


@cache
def _digit_characters() -> frozenset[str]:
    return frozenset(_digits())


def unambiguous_ascii(data: bytes) -> bytes | None:
    """Return the bytes as ASCII if there is only one way to read them; else None.

    Other characters become question marks.
    """
    if any(mark.encode() in data for mark in _ESCAPE_MARKS):
        return None
    if data.isascii():
        return data
    try:
        data.decode()
        non_ascii = data.translate(None, _ASCII).decode()
    except UnicodeDecodeError:
        return None
    if not _digit_characters().isdisjoint(non_ascii) or _NAME_ALONE.search(non_ascii):
        return None
    return data.translate(_WITH_QUESTION_MARKS, _CONTINUATION_BYTES)


def texts(data: bytes) -> Iterator[str]:
    """Yield the possible texts: UTF-8 with surrogate escapes, which restores the same bytes, and UTF-16."""
    yield data.decode(errors="surrogateescape")
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield data.decode("utf-16-le", errors="replace")
        yield data.decode("utf-16-be", errors="replace")


def views(text: str) -> Iterator[tuple[bytes, Places]]:
    """Yield the views of a text, with and without escapes, each with a function that returns the place of each byte.

    Characters that are neither ASCII nor digits become question marks.
    """
    view = _in_ascii(text)
    yield view, partial(range, len(text))
    if any(mark in text for mark in _ESCAPE_MARKS):
        in_ascii = view.decode()  # an escape is ASCII, its character may be any
        plain = _ESCAPE.sub(_unescaped, in_ascii)
        if plain != in_ascii or _FILLER in text:
            yield _in_ascii(plain.replace(_FILLER, "")), partial(_kept, plain)


def _kept(padded: str) -> Sequence[int]:
    return array("I", compress(count(), padded.encode("ascii", errors="replace")))


def _in_ascii(text: str) -> bytes:
    if not text.isascii():
        for character in _digit_characters().intersection(text):  # few characters: faster than to translate the text
            text = text.replace(character, _digits()[character])
        text = _NAME.sub(lambda name: _NAME_IN_ASCII.rjust(len(name[0])), text)
    return text.encode("ascii", errors="replace")


def _unescaped(escape: re.Match[str]) -> str:
    """Return the character of an escape, filled to the length of the escape."""
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
        plain = _HTML_ENTITIES.get((escape["name"] or "").lower(), " ")
    return plain + _FILLER * (len(escape[0]) - len(plain))


def is_only_utf8(data: bytes) -> bool:
    """Return whether bytes are UTF-8 and cannot be UTF-16."""
    try:
        return b"\0" not in data and (data.isascii() or bool(data.decode()))
    except UnicodeDecodeError:
        return False
