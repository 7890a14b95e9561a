"""A second, simple check of card numbers, to compare the search of the service with."""

from __future__ import annotations

import re
from typing import Final

from fraud_service.security.issuers import ISSUERS, places

_ISSUED: Final = re.compile(
    "|".join(
        f"{prefix}[0-9]{{{length - len(places(prefix))}}}"
        for issuer in ISSUERS
        for prefix in issuer.prefixes
        for length in issuer.lengths
    ).encode()
)
_DIGITS: Final = b"0123456789"
_VALUES: Final = bytes.maketrans(_DIGITS, bytes(range(10)))
_DOUBLED: Final = bytes.maketrans(_DIGITS, bytes(sum(divmod(2 * digit, 10)) for digit in range(10)))


def is_card_number(digits: bytes) -> bool:
    """Return whether ASCII digits have the prefix and length of an issuer and pass Luhn's check.

    >>> is_card_number(b"4242424242424242"), is_card_number(b"4242424242424241")
    (True, False)
    """
    if _ISSUED.fullmatch(digits) is None:
        return False
    odd, even = digits[::-1][0::2], digits[::-1][1::2]
    return (sum(odd.translate(_VALUES)) + sum(even.translate(_DOUBLED))) % 10 == 0
