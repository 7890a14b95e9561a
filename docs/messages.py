"""Parts of the contracts that are in no message class: titles, examples, keys, and who reads and writes what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fraud_service.domain.events import LabelMessage, TransactionMessage
from fraud_service.domain.profile import RECENT_KEPT
from fraud_service.domain.records import AlertRecord, LabelledRecord, ScoreRecord
from fraud_service.domain.snapshot import Snapshot

if TYPE_CHECKING:
    import msgspec

Json = dict[str, Any]


class Message(NamedTuple):
    """One JSON message: role of its topic, name and title of its schema, and class."""

    role: str
    slug: str
    title: str
    type: type[msgspec.Struct]
    examples: tuple[Json, ...] = ()

    @property
    def is_input(self) -> bool:
        """Whether producers outside the service write it, so that it may have unknown fields."""
        return self.role in {"transactions", "labels"}


MESSAGES: Final = (
    Message(
        "transactions",
        "transaction",
        "Transaction",
        TransactionMessage,
        (
            {
                "transaction_id": "t-20260115-000042",
                "timestamp": "2026-01-15T12:30:00.000Z",
                "card_id": "card-7f3a",
                "merchant_id": "merchant-118",
                "amount": "25.00",
                "currency": "EUR",
                "merchant_category_code": "5411",
                "country": "DE",
                "entry_mode": "contactless",
            },
        ),
    ),
    Message(
        "labels",
        "label",
        "Label",
        LabelMessage,
        (
            {
                "transaction_id": "t-20260115-000042",
                "card_id": "card-7f3a",
                "is_fraud": True,
                "labelled_at": "2026-01-19T08:00:00.000Z",
                "source": "chargeback",
            },
        ),
    ),
    Message("scores", "score", "Score", ScoreRecord),
    Message("alerts", "alert", "Alert", AlertRecord),
    Message("labelled", "labelled", "Labelled example", LabelledRecord),
    Message("snapshots", "snapshot", "Snapshot", Snapshot),
)

# Descriptions of fields without one in their annotation. SPECIAL is per class, and overrides FIELDS.
FIELDS: Final = {
    "transaction_id": "Id of the transaction.",
    "timestamp": "Event time, epoch milliseconds (UTC).",
    "card_id": "Id of the card: a token, not its number. It is also the key of the message.",
    "merchant_id": "Id of the merchant.",
    "amount": "Amount in units of the currency.",
    "device_id": "Id of the device that the card holder paid with. The feature `is_new_device` uses it.",
    "ip": "IP address of the payment. No feature uses it.",
    "is_fraud": "Whether the transaction was fraud.",
    "score": "Blended probability of fraud.",
    "pretrained": "Probability of fraud from the pretrained model alone. Null when the model failed.",
    "online": "Probability of fraud from the online model alone. Null when the model failed.",
    "pretrained_logit": "Logit of the pretrained model. Null when the model failed.",
    "online_logit": "Logit of the online model. Null when the model failed.",
    "online_weight": "Weight of the online model in the blended score.",
    "model": "Version of the pretrained model.",
    "snapshot": "Version of the active snapshot.",
    "is_stale": "Whether a newer snapshot should have been active but had not arrived.",
    "is_duplicate": "Whether this is a duplicate of a transaction that was already scored.",
    "is_id_reused": "Whether an earlier payment of the card has the same transaction id. Absent when false.",
    "currency": "ISO 4217 alphabetic code.",
    "reasons": "Reasons of the score, strongest first. Their codes are in the feature contract.",
}
SPECIAL: Final = {
    "TransactionMessage": {
        "transaction_id": (
            f"Id of the payment. If one of the last {RECENT_KEPT} payments of the card has the same id, event time, "
            "amount, currency and merchant, this is a duplicate. If only the id is the same, the scorer scores the "
            "payment and sends it to review. Give each payment its own id, also authorisation and capture of one "
            "purchase."
        ),
        "amount": "Amount in units of `currency`. 0 is a verification of the account.",
    },
    "ScoreRecord": {
        "utc_offset_min": "Minutes by which the local time in the features is ahead of UTC. Absent when 0.",
    },
    "LabelMessage": {
        "transaction_id": (
            "Id of the payment. The label applies to all payments of the card that were made under this id by then."
        ),
    },
    "LabelledRecord": {
        "card_id": "Id of the card.",
        "merchant_id": "Id of the merchant. It is also the key of the message.",
        "snapshot": "Boundary of the first snapshot that includes this example, epoch milliseconds.",
    },
    "Snapshot": {"version": "Id of the snapshot. It is also the key of the message."},
}

# Test vectors for producers: the partition of each key is in AsyncAPI and on the page for integration.
VECTOR_KEYS: Final = ("card-000001", "card-000002", "card-7f3a", "tok_a_00112233445566778899aabbccddeeff", "карта-1")

KEYS: Final[dict[str, Json]] = {
    "transactions": {"type": "string", "description": "`card_id`, UTF-8; partitioned with murmur2"},
    "labels": {"type": "string", "description": "`card_id`, UTF-8; partitioned with murmur2"},
    "scores": {"type": "string", "description": "`card_id`, UTF-8; partitioned with murmur2"},
    "alerts": {"type": "string", "description": "`card_id`, UTF-8; partitioned with murmur2"},
    "labelled": {"type": "string", "description": "`merchant_id`, UTF-8"},
    "snapshots": {"type": "string", "description": "`version` of the snapshot"},
    "models": {"type": "string", "description": "`version` of the model, or `re-fit`"},
    "risk": {
        "type": "string",
        "pattern": "^(merchant|card):",
        "description": "`merchant:<merchant_id>` or `card:<card_id>`, UTF-8",
    },
    "dead_letters": {"description": "The key of the original message: any bytes, or none."},
}

# Who reads and writes what. Every scorer reads all snapshots, models and risk rows.
OPERATIONS: Final = (
    ("scorer", "receive", "transactions", "Score each transaction."),
    ("scorer", "receive", "snapshots", "Use the newest active snapshot. Every scorer reads all of them."),
    ("scorer", "receive", "models", "Load promoted models, for the snapshots that name them."),
    ("scorer", "receive", "risk", "Use the risk rows of the active snapshot. Every scorer reads all of them."),
    ("scorer", "send", "scores", "Publish every decision."),
    ("scorer", "send", "alerts", "Publish one alert for each flagged transaction."),
    ("scorer", "send", "dead_letters", "Write rejected transactions as dead letters."),
    ("learner", "receive", "scores", "Keep scored transactions until their label arrives or they mature."),
    ("learner", "receive", "labels", "Join each label with its transaction."),
    ("learner", "receive", "models", "Train the online model together with the active pretrained model."),
    ("learner", "send", "labelled", "Publish each labelled example."),
    ("learner", "send", "risk", "Publish changed risk rows, before their snapshot."),
    (
        "learner",
        "send",
        "snapshots",
        "Publish the online model, its weight and the risk digest at each snapshot boundary.",
    ),
    ("learner", "send", "dead_letters", "Write rejected labels and scores as dead letters."),
    ("refit", "receive", "labelled", "Train a challenger and compare it with the champion."),
    ("refit", "send", "models", "Publish the result, and promote a challenger that is better by the margin."),
)
