"""The input events, transactions and labels, and their validation.

Events are decoded from JSON into frozen structs. An invalid event raises `InvalidEvent` with a reason from a closed
set; the dead letter states it, and a metric counts it. Unknown fields are ignored, so producers can add fields first.
"""

from __future__ import annotations

import re
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Final, Protocol, TypeVar

import msgspec

from fraud_service.domain.codec import LATEST, UNREADABLE
from fraud_service.domain.complaints import AMOUNT_PATTERN, CURRENCY_PATTERN, ENUM_COMPLAINT, in_words
from fraud_service.domain.countries import one_spelling
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.text import has_hidden, is_plain, pattern
from fraud_service.domain.time import FIRST_EVENT, UNITS, instant, likely_unit, stated_offset_min

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_AMOUNT: Final = 10**13  # more than any real payment; below it, a float keeps cents exact
ABSENT: Final = frozenset({"", "NaN", "nan"})  # texts that stand for no value; pandas writes the last two
# A number as spreadsheets write it when its digits do not fit, such as 4.00E+15: many ids become one.
LOST_DIGITS: Final = re.compile(r"[+-]?[0-9]+([.,][0-9]+[eE][+-]?|[eE][+-])[0-9]+")

VISIBLE: Final = {"pattern": pattern()}  # only for the published schema; `_decode_event` checks it faster
Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=128, extra_json_schema=VISIBLE)]
Currency = Annotated[str, msgspec.Meta(pattern=CURRENCY_PATTERN, description="ISO 4217 alphabetic code")]
COUNTRY: Final = "ISO 3166 code of the merchant's country; DE, de, DEU and 276 are one country"
Text = Annotated[str, msgspec.Meta(max_length=256, extra_json_schema=VISIBLE)]


MAX_OFFSET_MIN: Final = 24 * 60 - 1  # what RFC 3339 can write
UtcOffset = Annotated[
    int,
    msgspec.Meta(
        ge=-MAX_OFFSET_MIN,
        le=MAX_OFFSET_MIN,
        description="minutes by which the local time of the payment is ahead of UTC. By default, the offset of "
        "`timestamp`, unless that is UTC",
    ),
]


TEST_CURRENCY: Final = "XTS"  # ISO 4217's code for tests: scored, but without effect on learning and event time


class LabelSource(StrEnum):
    """Who reported a label."""

    CHARGEBACK = "chargeback"
    ANALYST = "analyst"
    CUSTOMER = "customer"
    SETTLEMENT = "settlement"


class Transaction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One card payment.

    `timestamp` is the event time in epoch milliseconds (UTC). `amount` is in units of `currency`. `latitude` and
    `longitude` are degrees (WGS 84). Each optional field affects only the features that are named after it.
    """

    transaction_id: Identifier
    timestamp: int
    card_id: Identifier
    merchant_id: Identifier
    amount: float
    currency: Currency
    merchant_category_code: Annotated[Text, msgspec.Meta(description="ISO 18245")] | None = None
    country: Annotated[Text, msgspec.Meta(description=COUNTRY)] | None = None
    entry_mode: Annotated[Text, msgspec.Meta(description="how the card was read, or DE 22 of ISO 8583")] | None = None
    device_id: Text | None = None
    ip: Text | None = None
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90, description="degrees, WGS 84")] | None = None
    longitude: Annotated[float, msgspec.Meta(ge=-180, le=180, description="degrees, WGS 84")] | None = None
    utc_offset_min: UtcOffset | None = None


class Payment(Protocol):
    """The fields that a transaction and every record about it share."""

    @property
    def transaction_id(self) -> str: ...  # noqa: D102 - as in `Transaction`
    @property
    def timestamp(self) -> int: ...  # noqa: D102 - as above
    @property
    def card_id(self) -> str: ...  # noqa: D102 - as above
    @property
    def merchant_id(self) -> str: ...  # noqa: D102 - as above
    @property
    def amount(self) -> float: ...  # noqa: D102 - as above
    @property
    def currency(self) -> str: ...  # noqa: D102 - as above


Facts = tuple[str, str, int, float, str, str]
# The identity of a payment: two messages with the same facts are duplicates.
facts: Final[Callable[[Payment], Facts]] = attrgetter(
    "card_id", "transaction_id", "timestamp", "amount", "currency", "merchant_id"
)


class Label(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The later knowledge whether a transaction was fraud. `labelled_at` is epoch milliseconds.

    A label names only the id. If a card used one id for several payments, the label applies to each that was made by
    then.
    """

    transaction_id: Identifier
    card_id: Identifier
    is_fraud: bool
    labelled_at: int
    source: LabelSource


class LabelledTransaction(msgspec.Struct, frozen=True, gc=False):
    """One row of a history. `labelled_at` is when its label became known, epoch milliseconds.

    `is_fraud` and `labelled_at` are None if the history does not have them.
    """

    transaction: Transaction
    is_fraud: bool | None
    labelled_at: int | None

    def label(self, delay_ms: int) -> Label | None:
        """Return the label; None if the history has none. Without a label time it is `delay` milliseconds later."""
        if self.is_fraud is None:
            return None
        return Label(
            transaction_id=self.transaction.transaction_id,
            card_id=self.transaction.card_id,
            is_fraud=self.is_fraud,
            labelled_at=self.transaction.timestamp + delay_ms if self.labelled_at is None else self.labelled_at,
            source=LabelSource.CHARGEBACK if self.is_fraud else LabelSource.SETTLEMENT,
        )


PLAUSIBLE: Final = {"minimum": FIRST_EVENT, "maximum": LATEST}  # `instant` checks it and names the unit
WrittenInstant = (
    Annotated[str, msgspec.Meta(description="RFC 3339 with an offset", extra_json_schema={"format": "date-time"})]
    | Annotated[int, msgspec.Meta(description="epoch milliseconds", extra_json_schema=PLAUSIBLE)]
)
WrittenAmount = (
    Annotated[str, msgspec.Meta(pattern=AMOUNT_PATTERN, description="at least 0, cents are kept exactly")]
    | Annotated[int, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
    | Annotated[float, msgspec.Meta(ge=0, le=MAX_AMOUNT)]
)


class TransactionMessage(Transaction, frozen=True, kw_only=True):
    """A transaction as producers send it; its JSON Schema is the published contract."""

    timestamp: WrittenInstant  # type: ignore[assignment] # a message allows more types than the event
    amount: WrittenAmount  # type: ignore[assignment] # the same


class LabelMessage(Label, frozen=True, kw_only=True):
    """A label as producers send it."""

    labelled_at: WrittenInstant  # type: ignore[assignment] # as above


MAX_EVENT_BYTES: Final = 65_536
MAX_KEY_BYTES: Final = 512  # the longest card_id: 128 characters of four bytes

T = TypeVar("T")
M = TypeVar("M", TransactionMessage, LabelMessage)

IDENTIFIERS: Final = ("transaction_id", "card_id", "merchant_id")
TEXT_FIELDS: Final = (*IDENTIFIERS, "merchant_category_code", "country", "entry_mode", "device_id", "ip")
_transaction_decoder = msgspec.json.Decoder(TransactionMessage)
_label_decoder = msgspec.json.Decoder(LabelMessage)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_card_decoder = msgspec.json.Decoder(Identifier)


def decode_transaction(value: bytes | None) -> Transaction:
    """Decode and validate a transaction message. Raises `InvalidEvent`, whose detail never contains a value."""
    message = _decode_event(_transaction_decoder, value)
    latitude, longitude = place(message.latitude, message.longitude)
    return Transaction(
        transaction_id=message.transaction_id,
        timestamp=instant(message.timestamp, "timestamp"),
        card_id=message.card_id,
        merchant_id=message.merchant_id,
        amount=_amount(message.amount),
        currency=message.currency,
        merchant_category_code=_given(message.merchant_category_code),
        country=one_spelling(_given(message.country)),
        entry_mode=_given(message.entry_mode),
        device_id=_given(message.device_id),
        ip=_given(message.ip),
        latitude=latitude,
        longitude=longitude,
        utc_offset_min=stated_offset_min(message.timestamp)
        if message.utc_offset_min is None
        else message.utc_offset_min,
    )


def decode_label(value: bytes | None) -> Label:
    """Decode and validate a label message. Raises `InvalidEvent`."""
    message = _decode_event(_label_decoder, value)
    return Label(
        transaction_id=message.transaction_id,
        card_id=message.card_id,
        is_fraud=message.is_fraud,
        labelled_at=instant(message.labelled_at, "labelled_at"),
        source=message.source,
    )


def fields_of(value: bytes | None) -> dict[str, msgspec.Raw]:
    """Split an event into its fields, with values as raw JSON. Raises `InvalidEvent`."""
    return _decode(_fields_decoder, value)


def card_id_of(fields: dict[str, msgspec.Raw]) -> str:
    """Decode `card_id` from the fields of an event. Raises `InvalidEvent`."""
    if "card_id" not in fields:
        raise InvalidEvent(DeadLetterReason.MISSING_FIELD, "the message has no `card_id`")
    try:
        return _card_decoder.decode(fields["card_id"])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise InvalidEvent(
            DeadLetterReason.INVALID_FIELD, "`card_id` is not text of 1 to 128 characters: send it as text"
        ) from None


def encode(event: Transaction | Label) -> bytes:
    """Encode an event as JSON; the decoders return an equal event."""
    return msgspec.json.encode(event)


def place(latitude: float | None, longitude: float | None) -> tuple[float | None, float | None]:
    """Return a place; (None, None) if it is incomplete, or the point 0, 0, which stands for an unknown place.

    >>> place(0.0, 0.0), place(52.5, None), place(0.0, 13.4)
    ((None, None), (None, None), (0.0, 13.4))
    """
    if latitude is None or longitude is None or not (latitude or longitude):
        return None, None
    return latitude + 0.0, longitude + 0.0  # minus zero becomes zero


def _given(text: str | None) -> str | None:
    return None if text in ABSENT else text


def _amount(value: str | float) -> float:
    amount = float(value)
    if amount > MAX_AMOUNT:  # the schema limits numbers; this limits text
        raise InvalidEvent(DeadLetterReason.INVALID_AMOUNT, f"`amount` must be at most {MAX_AMOUNT:.0e}")
    return amount + 0.0  # minus zero becomes zero


def _decode_event(decoder: msgspec.json.Decoder[M], value: bytes | None) -> M:
    message = _decode(decoder, value)
    for field in TEXT_FIELDS:
        text = getattr(message, field, None)
        if text is not None and (LOST_DIGITS.fullmatch(text) or (text in ABSENT and field in IDENTIFIERS)):
            problem = "stands for no value" if text in ABSENT else "is a number with an exponent, so digits are lost"
            raise InvalidEvent(DeadLetterReason.INVALID_FIELD, f"`{field}` {problem}")
    if is_plain(value or b""):
        return message
    for field in message.__struct_fields__:
        text = getattr(message, field)
        if isinstance(text, str) and has_hidden(text):
            raise InvalidEvent(
                DeadLetterReason.INVALID_FIELD, f"`{field}` has a control, bidirectional or invisible character"
            )
    return message


def _decode(decoder: msgspec.json.Decoder[T], value: bytes | None) -> T:
    if not value:
        raise InvalidEvent(DeadLetterReason.EMPTY, "the message has no value")
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidEvent(
            DeadLetterReason.TOO_LARGE, f"the message has {len(value)} bytes; at most {MAX_EVENT_BYTES} are read"
        )
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        raise _invalid(str(error), value) from None
    except (msgspec.DecodeError, RecursionError):
        raise InvalidEvent(DeadLetterReason.NOT_JSON, "the message is not valid JSON") from None
    except UnicodeDecodeError:
        raise InvalidEvent(DeadLetterReason.NOT_UTF8, "the message is not valid UTF-8") from None


def _invalid(complaint: str, value: bytes) -> InvalidEvent:
    """Convert a message of msgspec, which names fields and types, to a reason and a detail.

    Of values, msgspec quotes only an unknown enum member; the detail leaves it out.
    """
    if complaint.startswith(ENUM_COMPLAINT):
        return InvalidEvent(DeadLetterReason.INVALID_FIELD, f"`source` is not one of {', '.join(LabelSource)}")
    for mark, reason in _COMPLAINTS.items():
        if mark in complaint:
            is_fraction = reason is DeadLetterReason.INVALID_TIMESTAMP and "got `float`" in complaint
            return InvalidEvent(reason, _fraction(value, mark.strip("`$.")) if is_fraction else in_words(complaint))
    return InvalidEvent(DeadLetterReason.NOT_AN_OBJECT, in_words(complaint))


def _fraction(value: bytes, field: str) -> str:
    """Return the detail of a time with a fraction, as clocks that count seconds write it."""
    try:
        unit = likely_unit(float(_fields_decoder.decode(value)[field]))
    except UNREADABLE:  # what follows the field is not JSON
        unit = None
    seems = "" if unit is None else f" and looks like {UNITS[unit].name}"
    return f"`{field}` has a fraction{seems}: write whole epoch milliseconds"


_COMPLAINTS: Final = {
    "missing required field": DeadLetterReason.MISSING_FIELD,
    "`$.amount`": DeadLetterReason.INVALID_AMOUNT,
    "`$.timestamp`": DeadLetterReason.INVALID_TIMESTAMP,
    "`$.labelled_at`": DeadLetterReason.INVALID_TIMESTAMP,
    "`$.": DeadLetterReason.INVALID_FIELD,
}
