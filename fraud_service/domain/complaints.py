"""Say in words what msgspec found wrong with a record."""

from __future__ import annotations

import re
from typing import Final

ENUM_COMPLAINT: Final = "Invalid enum value"
CURRENCY_PATTERN: Final = r"^[A-Z]{3}(?!\n)$"
AMOUNT_PATTERN: Final = r"^[0-9]+(\.[0-9]+)?(?!\n)$"
VERSION_PATTERN: Final = r"\A[!-~]{1,64}\Z"
PATTERNS: Final = {  # in words
    CURRENCY_PATTERN: "three capital letters, such as EUR",
    AMOUNT_PATTERN: "digits with a decimal point, such as 12.50",
    VERSION_PATTERN: "1 to 64 ASCII letters, digits and signs, without spaces",
}
TYPES: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "object": "an object",
    "array": "an array",
    "bytes": "bytes",
}
BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}

_PATH: Final = re.compile(r"(?P<what>.*?)(?: - at (?:the key of )?`\$\.?(?P<path>[^`]*)`)?", re.DOTALL)
_TYPE: Final = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<given>[^`]+)`")
_LENGTH: Final = re.compile(r"Expected `(?P<kind>\w+)` of length (?P<bound>[<>]=?) (?P<number>\d+)")
_RANGE: Final = re.compile(r"Expected `\w+` (?P<bound>[<>]=?) (?P<number>\S+)")
_REGEX: Final = re.compile(r"Expected `str` matching regex '(?P<pattern>.*)'", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>[^`]+)`")


def in_words(complaint: str) -> str:
    r"""Return a complaint of msgspec as a phrase without types, paths and patterns of Python.

    >>> in_words("Expected `int | str`, got `null` - at `$.timestamp`")
    '`timestamp` must be a whole number or text, not null'
    >>> in_words("Expected `str` matching regex '^[A-Z]{3}(?!\\n)$' - at `$.currency`")
    '`currency` must be three capital letters, such as EUR'
    >>> in_words("Object missing required field `amount`")
    '`amount` is missing'
    >>> in_words("Expected `float` <= 90.0 - at `$.latitude`")
    '`latitude` must be at most 90'
    >>> in_words("Expected `object`, got `array`")
    'the record must be an object, not an array'
    """
    split = _PATH.fullmatch(complaint)
    what, path = (complaint, None) if split is None else split.group("what", "path")
    if found := _MISSING.fullmatch(what):
        return f"`{f'{path}.' if path else ''}{found['name']}` is missing"
    predicate = _predicate(what)
    if predicate is None:
        return f"`{path}`: {what}" if path else what
    return f"{f'`{path}`' if path else 'the record'} {predicate}"


def _predicate(what: str) -> str | None:
    if what.startswith(ENUM_COMPLAINT):  # the only complaint that quotes a value, at any length
        return "has an unknown value"
    if found := _TYPE.fullmatch(what):
        wanted = " or ".join(TYPES.get(name, name) for name in found["wanted"].split(" | "))
        return f"must be {wanted}, not {TYPES.get(found['given'], found['given'])}"
    if found := _LENGTH.fullmatch(what):
        unit = "character" if found["kind"] == "str" else "element"
        return f"must have {BOUNDS[found['bound']]} {found['number']} {unit}{'s' * (found['number'] != '1')}"
    if found := _RANGE.fullmatch(what):
        return f"must be {BOUNDS[found['bound']]} {found['number'].removesuffix('.0')}"
    if found := _REGEX.fullmatch(what):
        pattern = found["pattern"].replace("\\\\", "\\")
        return f"must be {PATTERNS.get(pattern, 'written in another form')}"
    return None
