"""Control, bidirectional and invisible characters: refused in identifiers, and escaped in all output.

A control character moves the cursor of a terminal or fills its clipboard. A bidirectional one changes the order in
which text is read. An invisible one makes two names look alike. Letters, digits and signs of every script are allowed.
"""

from __future__ import annotations

import re
from typing import Final

# Unicode's control (Cc) and format (Cf) characters, separators of lines and paragraphs, surrogates; and what Unicode
# keeps free among them. A list, not `unicodedata`: what is refused must not depend on the version of Python.
HIDDEN: Final = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x600, 0x605), (0x61C, 0x61C), (0x6DD, 0x6DD), (0x70F, 0x70F),
    (0x890, 0x891), (0x8E2, 0x8E2), (0x180E, 0x180E), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F),
    (0xD800, 0xDFFF), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE007F),
)  # fmt: skip
SURROGATES: Final = 0xD800  # where they begin; valid UTF-8 has none
BACKSLASH: Final = 0x5C
DELETE: Final = 0x7F
LAST_OF_FOUR_DIGITS: Final = 0xFFFF
_hidden: Final = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in HIDDEN) + "]")


def has_hidden(text: str) -> bool:
    """Say whether a text has a control, bidirectional or invisible character."""
    return not text.isprintable() and _hidden.search(text) is not None  # the first is fast, and none of them printable


def is_plain(data: bytes) -> bool:
    """Say whether bytes of valid JSON certainly have no hidden character, in a fraction of the time of a search.

    JSON has no control character in a string but DEL, unless it is escaped; all others are not ASCII.
    """
    return data.isascii() and BACKSLASH not in data and DELETE not in data


def pattern() -> str:
    """Return a regular expression, for JSON Schema, of texts without hidden characters.

    Validators differ in how they escape what lies beyond U+FFFF: those characters stand for themselves. No string of
    JSON has a lone surrogate.
    """
    return f"^[^{''.join(_range(first, last) for first, last in HIDDEN if first != SURROGATES)}]*$"


def _range(first: int, last: int) -> str:
    ends = [chr(end) if end > LAST_OF_FOUR_DIGITS else f"\\u{end:04x}" for end in (first, last)]
    return ends[0] if first == last else "-".join(ends)


def visible(text: str) -> str:
    r"""Return one line for a person: what cannot be printed becomes `\x1b`, `\u202e` or `\U000e0041`."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def visible_json(text: str) -> str:
    r"""Return the same JSON with what cannot be printed as `\u202e`; line breaks of its layout stay."""
    return "\n".join(line if line.isprintable() else "".join(map(_json, line)) for line in text.split("\n"))


def _json(character: str) -> str:
    if character.isprintable():
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place : place + 2].hex()}" for place in range(0, len(units), 2))
