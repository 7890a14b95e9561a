"""Durations in settings and options: a number and its unit, as in `500ms`, `45s`, `15m`, `1h` or `7d`."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

PATTERN: Final = r"^([0-9]*\.)?[0-9]+(ms|s|m|h|d)$"
MILLISECOND: Final = timedelta(milliseconds=1)
SECOND: Final = timedelta(seconds=1)
UNITS: Final = {"d": 86_400 * SECOND, "h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": MILLISECOND}


def parse_duration(text: str) -> timedelta:
    """Parse a number with its unit, in whole milliseconds. Raises `ValueError`.

    >>> parse_duration("1.5h")
    datetime.timedelta(seconds=5400)
    """
    match = re.fullmatch(PATTERN, text)
    if match is None:
        raise ValueError("write a number and its unit, ms, s, m, h or d, as in 7d")
    milliseconds = Decimal(text.removesuffix(match[2])) * to_ms(UNITS[match[2]])
    if milliseconds != int(milliseconds):
        raise ValueError("has a fraction of a millisecond: write whole milliseconds, as in 500ms")
    try:
        return timedelta(milliseconds=int(milliseconds))
    except OverflowError:
        raise ValueError(f"is too long: write at most {timedelta.max.days}d") from None


def format_duration(duration: timedelta) -> str:
    """Write a duration in the largest unit that needs no fraction.

    >>> format_duration(timedelta(minutes=90)), format_duration(timedelta(0))
    ('90m', '0s')
    """
    if not duration:
        return "0s"
    for name, unit in UNITS.items():
        if not duration % unit:
            return f"{duration // unit}{name}"
    return f"{duration / MILLISECOND:g}ms"


def to_ms(duration: timedelta) -> int:
    """Return a duration in whole milliseconds, the unit of event time and of Kafka."""
    return duration // MILLISECOND


def _read(value: object) -> timedelta:
    """Accept text with a unit, and a `timedelta` in code. A bare number is an error, because it has no unit."""
    if isinstance(value, timedelta):
        return value
    return parse_duration(value if isinstance(value, str) else "")


Duration = Annotated[
    timedelta,
    BeforeValidator(_read),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": PATTERN}),
]
