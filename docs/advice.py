"""Meaning and remedy of each dead-letter reason. This part of the reference is in no other code."""

from __future__ import annotations

from typing import Final, NamedTuple

from fraud_service.domain.errors import DeadLetterReason
from fraud_service.domain.events import MAX_AMOUNT, MAX_EVENT_BYTES, MAX_KEY_BYTES


class Advice(NamedTuple):
    """Meaning of a dead-letter reason, and what its producer should do."""

    where: str
    meaning: str
    remedy: str


BOTH: Final = "transactions, labels"
ADVICE: Final = {
    DeadLetterReason.EMPTY: Advice(
        BOTH, "The message has no value.", "Send no tombstones. You cannot delete an event."
    ),
    DeadLetterReason.NOT_UTF8: Advice(BOTH, "Text in the message is not valid UTF-8.", "Write JSON in UTF-8."),
    DeadLetterReason.NOT_JSON: Advice(
        BOTH,
        "The value is not one JSON document.",
        "Serialise plain JSON, without byte order mark, schema registry prefix or lone surrogates.",
    ),
    DeadLetterReason.NOT_AN_OBJECT: Advice(
        BOTH, "The value is JSON, but not an object.", "Send one event per message, as an object, not an array."
    ),
    DeadLetterReason.TOO_LARGE: Advice(
        "transactions, labels, scores, raw topics",
        f"The value has more than {MAX_EVENT_BYTES} bytes, or the key more than {MAX_KEY_BYTES}.",
        "Leave out fields that the schema does not name. The key is the `card_id`, at most 128 characters.",
    ),
    DeadLetterReason.UNREADABLE: Advice(
        "transactions, labels, scores, raw topics",
        "The Kafka batch that ends at this offset cannot be decompressed: it is damaged, or larger than 100 MB.",
        "Find its producer. A normal client does not make such a batch.",
    ),
    DeadLetterReason.MISSING_FIELD: Advice(
        BOTH, "A required field is missing. The detail names it.", "Fill every required field of the schema."
    ),
    DeadLetterReason.INVALID_FIELD: Advice(
        BOTH,
        "A field has the wrong type, is out of bounds, or contains a control, bidirectional or invisible character. "
        "The detail names it.",
        "Check the message against its schema. Omit an optional field instead of sending a placeholder. Identifiers "
        "may have letters of every script, but no invisible characters.",
    ),
    DeadLetterReason.INVALID_TIMESTAMP: Advice(
        BOTH,
        "The event time is malformed, has no offset, has another unit, or is outside the years 2000 to 9999.",
        "Write RFC 3339 with `Z` or an offset, or epoch milliseconds as an integer: no seconds, fraction or text of "
        "digits. The detail names the unit that the number seems to have.",
    ),
    DeadLetterReason.INVALID_AMOUNT: Advice(
        "transactions",
        f"The amount is negative, above {MAX_AMOUNT:.0e}, or not a plain decimal number.",
        'Write a decimal string such as `"25.00"`, without sign, exponent or separators. Do not send refunds.',
    ),
    DeadLetterReason.FUTURE_TIMESTAMP: Advice(
        BOTH,
        "The event time is ahead of the timestamp of its Kafka message by more than `FRAUD_MAX_CLOCK_SKEW`.",
        "Correct the clock of the event time. Check for microseconds sent as milliseconds. If your producer sets "
        "message timestamps, it must not set them before the event time.",
    ),
    DeadLetterReason.MISSING_KEY: Advice(BOTH, "The message has no key.", "Set the key to the `card_id`."),
    DeadLetterReason.KEY_MISMATCH: Advice(
        BOTH,
        "The key is not the `card_id` of the value.",
        "Set the key to exactly the `card_id`, as UTF-8 without quotes and without a serialiser prefix.",
    ),
    DeadLetterReason.WRONG_PARTITION: Advice(
        BOTH,
        "The message is not in the partition of its card, where the card's state and scores are.",
        "The detail says which kind of client puts the key there. [A table](integrate.md#partitioners) has the "
        "option of each. Then send the messages again: `fraud-service dead-letters redrive --reason wrong_partition`.",
    ),
    DeadLetterReason.INVALID_RECORD: Advice(
        "scores",
        "The learner cannot read a record on the topic of scores. No scorer of its version wrote it.",
        "Allow only scorers to write to this topic, and run one version of scorers and learner.",
    ),
    DeadLetterReason.CARD_NUMBER: Advice(
        BOTH,
        "Value or key contain a text like a card number: prefix and length of an issuer, valid Luhn sum.",
        "Send a token of the card instead. Ids with 13 digits or more can look like card numbers: add letters, as in a "
        "UUID, or set `FRAUD_REJECT_PAN=false`.",
    ),
    DeadLetterReason.SENSITIVE_DATA: Advice(
        BOTH,
        "The message contains a security code, a PIN or track data. Card rules (PCI DSS) forbid storing them.",
        "Remove them before sending. Tell your security officer that they were on a topic.",
    ),
    DeadLetterReason.LABEL_FLOOD: Advice(
        "labels",
        "Its source or its card reached the limit of labels per hour: `FRAUD_LABEL_RATE_LIMIT_PER_SOURCE`, "
        "`FRAUD_LABEL_RATE_LIMIT_PER_CARD`.",
        "Find out which producer sent so many. If the labels are right, raise the limit and send them again: "
        "`fraud-service dead-letters redrive --reason label_flood`.",
    ),
    DeadLetterReason.LABEL_TOO_OLD: Advice(
        "labels",
        "`labelled_at` is more than `FRAUD_LABEL_RETENTION` before the newest snapshot boundary. The learner has "
        "already deleted transactions of that time.",
        "Check that the clock of the source is right, and that it writes milliseconds, not seconds. If the labels are "
        "right, raise `FRAUD_LABEL_RETENTION` and enlarge the volume of the learner.",
    ),
}
