"""Find sensitive authentication data (SAD): magnetic stripes, and values after names such as `cvv` or `pin`.

The search finds names in JSON, XML, forms and plain text, in any case and with any dashes. The value may be next to the
name or one level deeper. Words that only contain a name, such as `spin` or `tracking`, do not count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# A text without any of these among its letters and digits has no name. Each one is fast to search.
_MARKS: Final = [
    re.compile(mark)
    for mark in rb"""
    c(?:v|sc|av|id(?:0|value0)|rypt) v(?:erif|eilig|alidationc|enlik) f(?:ziffer|nummer) k(?:pn|erhe) b(?:ezpiec|eveil)
    dcode icc[drs] pin pvv track emv urit arqc geheim sicher segur sicure
    """.split()
]
_STRIPE_NAME: Final = re.compile(rb"stripe[ _-]?(?:data)?[^0-9a-z]{0,4}[:=>]", re.IGNORECASE)  # not an entry mode

_STRIPE: Final = re.compile(
    rb"""
    [bB] [0-9][0-9 ]{11,23} \^ [^"'\s]*      # track 1
    | ; [0-9]{12,19} = [0-9]{4} [^"'\s]*     # track 2
    """,
    re.VERBOSE,
)
_STRIPE_DATE: Final = re.compile(rb"""[=dD][0-9]{7}|\^[^"^]{2,40}\^[0-9]{4}""")
_REST_OF_STRIPE: Final = re.compile(rb"\s?(?:" + _STRIPE_DATE.pattern + rb""")[^"'\s]{0,100}""")

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
_END_OF_VALUE: Final = rb"(?! [0-9a-z] | \.[0-9] )"
# Names with no other meaning: less may be between name and value, as in prose, or the value may be the next field.
_UNAMBIGUOUS: Final = (
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
        + _END_OF_VALUE
        + rb"""
      | (?= [a-f]*+[0-9] ) [0-9a-f]{16,}+
      | [0-9] (?: [ ,"'-]{1,5} [0-9] ){2,11} """
        + _END_OF_VALUE
        + rb""" )
    """
    ).replace(b"CERTAIN", _UNAMBIGUOUS),
    re.VERBOSE,
)
_AMBIGUOUS: Final = (
    re.compile(  # names with other meanings (customer, voucher, Indian postal code), whose values are longer
        rb"""
    (?P<name> cid | card [ _-]? code | pin [ _-]? code (?= [^0-9]{1,40} [0-9]{4} (?! [0-9] ) ) )
    (?: [^0-9a-z]{0,4} [:=>] [^0-9a-z]{0,6} (?: value [^0-9a-z]{1,6} )? | ", [ ]? "value" [ ]? : [ ]? "? )
    (?P<value> [0-9]{3,4} (?: \.0{1,9} )? (?! [0-9a-z] | \.[0-9] ) )
    """,
        re.VERBOSE,
    )
)

# More groups of digits after a value: the rest of a card number in an unusual spelling.
_MORE_GROUPS: Final = re.compile(rb"(?:[^0-9A-Za-z:{}]{1,6}+[0-9]++)*")
_PREFIX: Final = re.compile(rb"(?:card|karten|(?<![a-z])[id])\Z")  # as in card_pin, iCVV (chip) and dCVV (dynamic)


def may_be_in(text: bytes, simplified: bytes) -> bool:
    """Return quickly whether there may be authentication data.

    `simplified` has only the letters and digits of the text: letters in lower case, each digit as a zero.
    """
    return (
        any(mark.search(simplified) for mark in _MARKS)
        or b"^" in text
        or (b";" in text and b"=" in text)
        or (b"stripe" in simplified and _STRIPE_NAME.search(text) is not None)
    )


def find_authentication_data(text: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of authentication data in an ASCII text."""
    for stripe in _STRIPE.finditer(text):
        yield stripe.span()
    small = text.lower()
    has_ambiguous = b"cid" in small or b"code" in small  # faster than a search with the pattern
    for names in (_NAMED, _AMBIGUOUS) if has_ambiguous else (_NAMED,):
        named = names.search(small)
        while named is not None:
            is_name = _begins_a_word(text, named.start())
            if is_name:
                yield named.start("value"), _MORE_GROUPS.match(text, named.end("value")).end()  # type: ignore[union-attr]
            # After a word such as `spin`, the rest of the match may have a name.
            named = names.search(small, named.end() if is_name else named.start() + 1)


def may_have_stripe(text: bytes) -> bool:
    """Return whether the text has the data that follows the card number on a stripe."""
    return _STRIPE_DATE.search(text) is not None


def end_of_stripe(text: bytes, end: int) -> int | None:
    """Return the end of the stripe whose card number ends at `end`; None if it is not on a stripe."""
    rest = _REST_OF_STRIPE.match(text, end)
    return None if rest is None else rest.end()


def _begins_a_word(text: bytes, place: int) -> bool:
    before = text[max(place - 6, 0) : place]
    is_capital = text[place : place + 1].isupper() and before[-1:].islower()
    return not before[-1:].isalpha() or is_capital or _PREFIX.search(before.lower()) is not None
