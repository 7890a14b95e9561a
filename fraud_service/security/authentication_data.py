"""Sensitive authentication data (SAD): the content of a magnetic stripe, and values after names such as `cvv` or `pin`.

A name is found in JSON, XML, forms and plain text, in any case and with any dashes, with its value next to it or one
level deeper. Words that only contain a name, such as `spin` or `tracking`, do not count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# A text whose letters and digits have none of these has no name. Each begins with a rare letter, or is found fast.
_MARKS: Final = tuple(
    re.compile(mark)
    for mark in (
        *(
            rb"c(?:v|sc|av|id(?:0|value0)|rypt)",
            rb"v(?:erif|eilig|alidationc|enlik)",
            rb"f(?:ziffer|nummer)",
            rb"k(?:pn|erhe)",
            rb"b(?:ezpiec|eveil)",
            rb"dcode",
            rb"icc[drs]",
        ),
        *(rb"pin", rb"pvv", rb"track", rb"emv", rb"urit", rb"arqc", rb"geheim", rb"sicher", rb"segur", rb"sicure"),
    )
)
_STRIPE_NAME: Final = re.compile(rb"stripe[ _-]?(?:data)?[^0-9a-z]{0,4}[:=>]", re.IGNORECASE)  # no entry mode

_STRIPE: Final = re.compile(
    rb"""
    [bB] [0-9][0-9 ]{11,23} \^ [^"'\s]*      # track 1
    | ; [0-9]{12,19} = [0-9]{4} [^"'\s]*     # track 2
    """,
    re.VERBOSE,
)
_DATE_BEHIND: Final = re.compile(rb"""[=dD][0-9]{7}|\^[^"^]{2,40}\^[0-9]{4}""")
_BEHIND_NUMBER: Final = re.compile(rb"\s?(?:" + _DATE_BEHIND.pattern + rb""")[^"'\s]{0,100}""")

_WORD: Final = rb"(?: code | value | val | number | no | nr | num | digits | data | text | content )"
_NAME: Final = (
    rb"""
    (?P<name>
      cv[vcnd][123]? (?: [ _-]? WORD )? | cv2 | cv [ _-]? (?: number | num | code ) | csc | cav2? | kpn
    | arqc | pvv
    | (?: security | verification | card [ _-]? validation ) [ _-]? (?: code | number | value | digits )
    | pin (?: [ _-]? (?: value | number | data | block ) )?
    | track [ _-]? [123]? (?: [ _-]? equivalent )? (?: [ _-]? data )?
    | mag (?: netic )? [ _-]? stripe (?: [ _-]? data )?
    | emv (?: [ _-]? (?: data | tags | tlv ) )? | icc [ _-]? (?: system | related )? [ _-]? data | cryptogram (?: me )?
    | pr (?: ue | u )? \?{0,2} f (?: ziffer | nummer ) | geheim (?: zahl | nummer | code )
    | sicherheits [ _-]? (?: code | nummer | zahl )
    | code [ _-]? (?: de [ _-]? )? s [e?]{1,2} curit [e?]{1,2}
    | c [o?]{1,2} digo [ _-]? (?: de [ _-]? )? segur (?: idad | an [c?]{1,2} a )
    | codice [ _-]? (?: di [ _-]? )? sicurezza | veiligheidscode | beveiligingscode
    | g [u?]{1,2} venlik [ _-]? kodu
    | s [a?]{1,2} kerhetskod | sikkerhe [dt] s [ck] ode | kod [ _-]? bezpiecze [n?]{1,2} stwa
    )
    """
).replace(b"WORD", _WORD)
_ENDS: Final = rb"(?! [0-9a-z] | \.[0-9] )"
# Names that mean nothing else: a value may follow them with less between, as in text, or as the next field.
_CERTAIN: Final = (
    rb"(?: (?<= cv[vcnd2] ) | (?<= cv[vcnd][123] ) | (?<= code ) | (?<= kodu ) | (?<= kod )"
    rb" | (?<= curite ) | (?<= zahl ) | (?<= ziffer ) | (?<= nummer ) | (?<= idad ) | (?<= zza ) | (?<= block ) )"
)
_NAMED: Final = re.compile(
    (
        _NAME
        + rb"""
    (?: [^0-9a-z]{0,4} [:=>] [^0-9a-z]{0,6}
      | [ ] [^<>=]{0,30} = [^<>]{1,60} > [^0-9a-z<]{0,6}
      | (?<= pin ) [ ] (?: is | ist | est | es ) [ :]{1,3}
      | CERTAIN [^0-9a-z]{1,6}
        (?: (?: value | number | num | code | is | ist | est | es | nr | no ) [^0-9a-z]{1,6} )?
      | [^0-9a-z]{0,4} [:=] [^0-9a-z]{0,4} \{ [^{}]{0,60}? """
        + _WORD
        + rb""" [^0-9a-z]{1,6} )
    (?P<value> [0-9]{3,}+ (?: \.0{1,9} )? """
        + _ENDS
        + rb"""
      | (?= [a-f]*+[0-9] ) [0-9a-f]{16,}+
      | [0-9] (?: [ ,"'-]{1,5} [0-9] ){2,11} """
        + _ENDS
        + rb""" )
    """
    ).replace(b"CERTAIN", _CERTAIN),
    re.VERBOSE,
)
_SHORT: Final = (
    re.compile(  # names of other things too, whose values are longer: of customers, vouchers, places in India
        rb"""
    (?P<name> cid | card [ _-]? code | pin [ _-]? code (?= [^0-9]{1,40} [0-9]{4} (?! [0-9] ) ) )
    (?: [^0-9a-z]{0,4} [:=>] [^0-9a-z]{0,6} (?: value [^0-9a-z]{1,6} )? | ", [ ]? "value" [ ]? : [ ]? "? )
    (?P<value> [0-9]{3,4} (?: \.0{1,9} )? (?! [0-9a-z] | \.[0-9] ) )
    """,
        re.VERBOSE,
    )
)

# Further groups of digits behind a value: parts of a card number that is written in an unusual way.
_MORE: Final = re.compile(rb"(?:[^0-9A-Za-z:{}]{1,6}+[0-9]++)*")
_PREFIX: Final = re.compile(rb"(?:card|karten|(?<![a-z])[id])\Z")  # of the chip (iCVV), and one that changes (dCVV)


def may_be_in(text: bytes, alike: bytes) -> bool:
    """Say quickly whether there may be any.

    Parameters
    ----------
    alike
        Only the letters and digits of the text: letters in lower case, each digit as a zero.
    """
    return (
        any(mark.search(alike) for mark in _MARKS)
        or b"^" in text
        or (b";" in text and b"=" in text)
        or (b"stripe" in alike and _STRIPE_NAME.search(text) is not None)
    )


def authentication_data(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield the places of authentication data in a text of ASCII characters."""
    for stripe in _STRIPE.finditer(text):
        yield stripe.span()
    small = text.lower()
    has_short = b"cid" in small or b"code" in small  # to look for these is faster
    for names in (_NAMED, _SHORT) if has_short else (_NAMED,):
        named = names.search(small)
        while named is not None:
            is_name = _begins_a_word(text, named.start())
            if is_name:
                yield named.start("value"), _MORE.match(text, named.end("value")).end()  # type: ignore[union-attr]
            # What follows the end of another word, such as `spin`, may have a name in it.
            named = names.search(small, named.end() if is_name else named.start() + 1)


def may_have_stripe(text: bytes) -> bool:
    """Say whether there is what follows the card number on a stripe."""
    return _DATE_BEHIND.search(text) is not None


def end_of_stripe(text: bytes, end: int) -> int | None:
    """Return the end of the stripe that begins with a card number; None if there is no stripe.

    Parameters
    ----------
    end
        Where the card number ends.
    """
    rest = _BEHIND_NUMBER.match(text, end)
    return None if rest is None else rest.end()


def _begins_a_word(text: bytes, place: int) -> bool:
    before = text[max(place - 6, 0) : place]
    is_capital = text[place : place + 1].isupper() and before[-1:].islower()
    return not before[-1:].isalpha() or is_capital or _PREFIX.search(before.lower()) is not None
