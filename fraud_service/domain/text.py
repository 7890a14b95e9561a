"""Text for people: control, bidirectional and invisible characters are rejected in identifiers and escaped in output.

A control character moves the cursor of a terminal or fills its clipboard. A bidirectional one changes the order in
which text is read. An invisible one makes two names look alike. Letters, digits and signs of every script are allowed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# Unicode's control (Cc) and format (Cf) characters, line and paragraph separators, surrogates, and reserved code points
# among them. A list instead of `unicodedata`, because the result must not depend on the version of Python.
HIDDEN: Final = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F),
    (0x890, 0x891), (0x8E2, 0x8E2), (0x180E, 0x180E), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F),
    (0xD800, 0xDFFF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F),
)  # fmt: skip
SURROGATES: Final = 0xD800  # the first one; valid UTF-8 has none
BACKSLASH: Final = 0x5C
DELETE: Final = 0x7F
LAST_OF_FOUR_DIGITS: Final = 0xFFFF
_hidden: Final = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in HIDDEN) + "]")


def has_hidden(text: str) -> bool:
    """Whether a text has a control, bidirectional or invisible character.

    >>> has_hidden("Café 漢字"), has_hidden("card\u202e1")
    (False, True)
    """
    # No hidden character is printable, and `isprintable` is faster.
    return not text.isprintable() and _hidden.search(text) is not None


def is_plain(data: bytes) -> bool:
    """Whether valid JSON certainly has no hidden character. False means: search for one.

    In ASCII, JSON strings contain no control character but DEL, unless it is escaped. All other hidden characters are
    not ASCII.
    """
    return data.isascii() and BACKSLASH not in data and DELETE not in data


def pattern() -> str:
    """Return a regular expression for JSON Schema that matches texts without hidden characters.

    Validators differ in their escapes beyond U+FFFF, so those characters are not escaped. Surrogates are left out,
    because no JSON string has a lone one.
    """
    ranges = ""
    for first, last in HIDDEN:
        if first != SURROGATES:
            begin, end = (chr(code) if code > LAST_OF_FOUR_DIGITS else f"\\u{code:04x}" for code in (first, last))
            ranges += begin if first == last else f"{begin}-{end}"
    return f"^[^{ranges}]*$"


# ISO 4217: the decimals of currencies that do not have two.
NO_DECIMALS: Final = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV",
     "XAF", "XOF", "XPF")
)  # fmt: skip
THREE_DECIMALS: Final = frozenset(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"))


def money(amount: float, currency: str) -> str:
    """Return an amount with the decimals of its currency.

    >>> money(1234.5, "EUR"), money(3000.0, "JPY"), money(1.5, "KWD")
    ('1,234.50 EUR', '3,000 JPY', '1.500 KWD')
    """
    decimals = 0 if currency in NO_DECIMALS else 3 if currency in THREE_DECIMALS else 2
    return f"{amount:,.{decimals}f} {currency}"


def count_of(number: float, noun: str) -> str:
    """Write a number with its noun.

    >>> count_of(1, "row"), count_of(3000, "row"), count_of(49.5, "day")
    ('1 row', '3,000 rows', '49.5 days')
    """
    return f"{number:,} {noun}s".replace(".0 ", " ") if number != 1 else f"1 {noun}"


def visible(text: str) -> str:
    r"""Return one printable line: other characters become escapes such as `\x1b`, `\u202e` or `\U000e0041`.

    >>> print(visible("red \x1b[31m"))
    red \x1b[31m
    """
    return _escape(text, lambda character: character.encode("unicode_escape").decode())


def visible_json(text: str) -> str:
    r"""Return equal JSON that is printable: other characters become escapes such as `\u202e`, line breaks stay."""
    return "\n".join(_escape(line, _json_escape) for line in text.split("\n"))


def _escape(text: str, escape: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else escape(character) for character in text)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
