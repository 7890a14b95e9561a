"""How a payment read the card: a closed set of entry modes, and the spellings that mean them."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class EntryMode(StrEnum):
    """How a payment read the card. `UNSPECIFIED` also stands for an absent entry mode."""

    CHIP = "chip"
    CONTACTLESS = "contactless"
    MAGSTRIPE = "magstripe"
    OPTICAL = "optical"
    KEYED = "keyed"
    ECOMMERCE = "ecommerce"
    UNSPECIFIED = "unspecified"


CARD_NOT_PRESENT: Final = frozenset({EntryMode.KEYED, EntryMode.ECOMMERCE})

# In lower case, without spaces, hyphens, underscores and slashes. Two digits are the PAN entry mode of ISO 8583, data
# element 22.
ALIASES: Final[Mapping[EntryMode, str]] = {
    EntryMode.CHIP: "05 95 emv icc chipcard chipread emvchip contactchip contactemv integratedcircuitcard smartcard "
    "chiptransaction chip&pin chipandpin chippin dip dipped insert inserted",
    EntryMode.CONTACTLESS: "07 08 91 92 nfc rfid tap tapped taptopay tap&pay tapandpay wave paywave paypass "
    "contactlesschip contactlessemv contactlessmagstripe contactlesstransaction",
    EntryMode.MAGSTRIPE: "02 06 80 90 magneticstripe magstrip msr swipe swiped swipetransaction stripe fallback",
    EntryMode.OPTICAL: "03 04 barcode qr qrcode ocr",
    EntryMode.KEYED: "01 79 key keyedin keyentered keyentry manual manualentry manuallyentered manualkeyentry moto "
    "mail mailorder phone phoneorder telephone telephoneorder mailordertelephoneorder",
    EntryMode.ECOMMERCE: "09 10 81 82 ecom ecomm ecommercetransaction online onlinetransaction onlinepayment "
    "internet web website app inapp mobileapp remote cnp cardnotpresent cardonfile cof credentialonfile "
    "storedcredential recurring subscription",
    EntryMode.UNSPECIFIED: "00 99 unknown none notspecified notavailable na pos cp cardpresent instore",
}
_MODES: Final = {alias: mode for mode, aliases in ALIASES.items() for alias in (mode.value, *aliases.split())}
KNOWN: Final = f"{', '.join(list(EntryMode)[:-1])}, or an entry mode of ISO 8583 (data element 22)"
_SEPARATORS: Final = re.compile(r"[\s_/-]+")
_WITH_PIN_CAPABILITY: Final = re.compile("0?([0-9]{2})[0-9]")  # all of data element 22: its last digit is about PINs


@lru_cache(maxsize=1024)  # a stream has few spellings
def entry_mode(text: str | None) -> EntryMode | None:
    """Return the entry mode that a text means, and None if it has no known meaning.

    >>> [str(entry_mode(text)) for text in ("E-Commerce", "MOTO", "81", "051", "5", "")]
    ['ecommerce', 'keyed', 'ecommerce', 'chip', 'chip', 'unspecified']
    >>> entry_mode("carrier pigeon") is None
    True
    """
    if not text:
        return EntryMode.UNSPECIFIED
    spelling = _SEPARATORS.sub("", text.casefold()).removesuffix(".0")  # a table may hold the code as a fraction
    if digits := _WITH_PIN_CAPABILITY.fullmatch(spelling):
        spelling = digits[1]
    elif len(spelling) == 1:
        spelling = f"0{spelling}"
    return _MODES.get(spelling, None if spelling else EntryMode.UNSPECIFIED)
