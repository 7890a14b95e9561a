"""Prefixes and lengths of card numbers by issuer, and lengths of bank account numbers (IBAN) by country."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MIN_DIGITS: Final = 13
MAX_DIGITS: Final = 19


class Issuer(NamedTuple):
    """Prefixes of an issuer, all lengths of its numbers, and the common lengths, which count even next to letters."""

    prefixes: tuple[str, ...]
    lengths: tuple[int, ...]
    common: tuple[int, ...]


ISSUERS: Final = (
    Issuer(("4",), (13, 16, 19), (13, 16, 19)),  # Visa
    Issuer(("5[12345]", "222[123456789]", "22[3456789]", "2[3456]", "27[01]", "2720"), (16,), (16,)),  # Mastercard
    Issuer(("3[47]",), (15,), (15,)),  # American Express
    Issuer(("30[012345]", "3[689]"), (14, 15, 16, 17, 18, 19), (14, 16)),  # Diners Club
    Issuer(("352[89]", "35[345678]"), (16, 17, 18, 19), (16,)),  # JCB
    Issuer(("62",), (13, 14, 15, 16, 17, 18, 19), (16, 17, 18, 19)),  # UnionPay
    Issuer(("5[0678]", "6[013456789]"), (13, 14, 15, 16, 17, 18, 19), (16,)),  # Maestro, Discover, RuPay
    Issuer(("8[12]",), (16, 17, 18, 19), (16,)),  # UnionPay, RuPay
    Issuer(("220[01234]",), (16, 17, 18, 19), (16,)),  # Mir
    Issuer(("9792",), (16,), (16,)),  # Troy
)

_COUNTRIES: Final = {
    15: "NO", 16: "BE", 18: "DK FI FO GL NL", 19: "MK SI", 20: "AT BA EE KZ LT LU XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT",
    26: "IS TR", 27: "FR GR IT MC SM", 28: "AL AZ BY CY DO GT HU LB PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU",
    31: "MT SC", 33: "RU",
}  # fmt: skip
# Number of characters of an IBAN, by country.
IBAN_LENGTHS: Final = {
    country.encode(): length for length, countries in _COUNTRIES.items() for country in countries.split()
}


def places(prefix: str) -> list[bytes]:
    """Return the digits that a prefix allows at each place.

    >>> places("3[47]")
    [b'3', b'47']
    """
    return [place.strip("[]").encode() for place in re.findall(r"\[[0-9]+\]|[0-9]", prefix)]
