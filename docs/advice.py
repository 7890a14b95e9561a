"""What each reason of a dead letter means to its producer: the one part of the reference that no code says."""

from __future__ import annotations

from typing import Final, NamedTuple

from fraud_service.domain.events import MAX_AMOUNT, MAX_EVENT_BYTES, MAX_KEY_BYTES, DeadLetterReason


class Advice(NamedTuple):
    """What a reason of a dead letter means, and what its producer should do."""

    where: str
    meaning: str
    remedy: str


BOTH: Final = "transactions, labels"
ADVICE: Final = {
    DeadLetterReason.EMPTY: Advice(BOTH, "The message has no value.", "Send no tombstones: events are not taken back."),
    DeadLetterReason.NOT_UTF8: Advice(BOTH, "A text of the message is not valid UTF-8.", "Write JSON in UTF-8."),
    DeadLetterReason.NOT_JSON: Advice(
        BOTH,
        "The value is not one JSON document.",
        "Serialise plain JSON: no byte order mark, no schema registry's prefix, no lone surrogates.",
    ),
    DeadLetterReason.NOT_AN_OBJECT: Advice(
        BOTH, "The value is JSON, but no object.", "Send one event a message, as an object; no arrays of events."
    ),
    DeadLetterReason.TOO_LARGE: Advice(
        "transactions, labels, scores, raw topics",
        f"The value has more than {MAX_EVENT_BYTES} bytes, or the key more than {MAX_KEY_BYTES}.",
        "Leave out fields that the schema does not name. The key is the `card_id`, at most 128 characters.",
    ),
    DeadLetterReason.UNREADABLE: Advice(
        "transactions, labels, scores, raw topics",
        "The Kafka batch that ends at this offset cannot be unpacked: it is damaged, or has more than 100 MB.",
        "Find out who sends such a batch: no client produces one by mistake.",
    ),
    DeadLetterReason.MISSING_FIELD: Advice(
        BOTH, "A required field is not there; the detail names it.", "Fill every required field of the schema."
    ),
    DeadLetterReason.INVALID_FIELD: Advice(
        BOTH,
        "A field has the wrong type, lies outside its bounds, or has a control, bidirectional or invisible character; "
        "the detail names it.",
        "Check the message against its schema. Leave an optional field out rather than send a placeholder. Identifiers "
        "may have letters of every script, but no invisible characters.",
    ),
    DeadLetterReason.INVALID_TIMESTAMP: Advice(
        BOTH,
        "The event time cannot be read, has no offset, or lies outside the years 1970 to 9999.",
        "Write RFC 3339 with `Z` or an offset, or epoch milliseconds as an integer: neither seconds nor a fraction.",
    ),
    DeadLetterReason.INVALID_AMOUNT: Advice(
        "transactions",
        f"The amount is negative, beyond {MAX_AMOUNT:.0e}, or no plain decimal number.",
        'Write a decimal string such as `"25.00"`, without sign, exponent or separators. '
        "A refund is no transaction here.",
    ),
    DeadLetterReason.FUTURE_TIMESTAMP: Advice(
        BOTH,
        "The event time lies after the timestamp of its Kafka message by more than `FRAUD_MAX_CLOCK_SKEW`.",
        "Set the clock that the event time comes from; check for microseconds sent as milliseconds. Who sets the "
        "timestamps of messages must not set them before the event time.",
    ),
    DeadLetterReason.MISSING_KEY: Advice(BOTH, "The message has no key.", "Set the key to the `card_id`."),
    DeadLetterReason.KEY_MISMATCH: Advice(
        BOTH,
        "The key is not the `card_id` of the value.",
        "Set the key to exactly the `card_id`, as UTF-8 without quotes or a serialiser's prefix.",
    ),
    DeadLetterReason.WRONG_PARTITION: Advice(
        "labels",
        "The label does not lie in the partition of its card, so it cannot meet its transaction.",
        "Set `partitioner=murmur2` on clients based on librdkafka (Java clients do so by default), and send to as many "
        "partitions as the topic of transactions has.",
    ),
    DeadLetterReason.INVALID_RECORD: Advice(
        "scores",
        "The learner cannot read a record on the scores topic: no scorer of its version wrote it.",
        "Let nothing but scorers write to this topic, and run scorers and learner of one version.",
    ),
    DeadLetterReason.CARD_NUMBER: Advice(
        BOTH,
        "Value or key have what looks like a card number: an issuer's prefix and length, and Luhn's sum.",
        "Send a token of the card instead. If ids are numbers of 13 digits or more, some look like card numbers: add "
        "letters, as in a UUID, or set `FRAUD_REJECT_PAN=false`.",
    ),
    DeadLetterReason.SENSITIVE_DATA: Advice(
        BOTH,
        "The message has a security code, a PIN or track data, which nobody may keep.",
        "Leave them out before anything is sent; tell your security officer that they were on a topic.",
    ),
    DeadLetterReason.LABEL_FLOOD: Advice(
        "labels",
        "Its source or card has had all labels of the hour: `FRAUD_LABEL_RATE_LIMIT_PER_SOURCE`, "
        "`FRAUD_LABEL_RATE_LIMIT_PER_CARD`.",
        "Find out who sent so many. If all of it was meant, raise the limit and send it again: `fraud-service "
        "dead-letters redrive --reason label_flood`.",
    ),
    DeadLetterReason.LABEL_TOO_OLD: Advice(
        "labels",
        "`labelled_at` lies more than `FRAUD_LABEL_RETENTION` before the newest boundary of event time. Transactions "
        "that old are forgotten, so the label would find none.",
        "Check the clock of the labeller, and that it writes milliseconds, not seconds. If the labels are right, "
        "raise `FRAUD_LABEL_RETENTION`, and with it the volume of the learner.",
    ),
}
