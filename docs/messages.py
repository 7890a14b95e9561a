"""What no message class can say of the contracts: titles, examples, keys, and who reads and writes what."""

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
    """One JSON message: the role of its topic, the name and the title of its schema, and its class."""

    role: str
    slug: str
    title: str
    type: type[msgspec.Struct]
    examples: tuple[Json, ...] = ()

    @property
    def is_input(self) -> bool:
        """Whether others write it, so that it may hold more than we know."""
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

# What annotations leave unsaid of a field; a description given there wins. The second table is for one class each.
FIELDS: Final = {
    "transaction_id": "Names the transaction.",
    "timestamp": "Event time, epoch milliseconds (UTC).",
    "card_id": "Names the card, as a token rather than its number. It is also the key of the message.",
    "merchant_id": "Names the merchant.",
    "amount": "Amount in units of the currency.",
    "device_id": "Names the device that was paid with. The feature `is_new_device` compares it.",
    "ip": "Network address that was paid from. No feature uses it.",
    "is_fraud": "Whether the transaction was fraud.",
    "score": "Blended probability of fraud.",
    "pretrained": "Probability of fraud by the pretrained model alone; null when it failed.",
    "online": "Probability of fraud by the online model alone; null when it failed.",
    "pretrained_logit": "Logit of the pretrained model; null when it failed.",
    "online_logit": "Logit of the online model; null when it failed.",
    "online_weight": "Share of the online model in the blend.",
    "model": "Version of the pretrained model.",
    "snapshot": "Version of the snapshot in force.",
    "is_stale": "Whether a newer snapshot should have been in force but had not arrived.",
    "is_duplicate": "Whether the transaction had been decided before.",
    "is_id_reused": "Whether an earlier payment of the card has this transaction id. Absent when false.",
    "currency": "ISO 4217 alphabetic code.",
    "reasons": "The strongest first.",
}
SPECIAL: Final = {
    "TransactionMessage": {
        "transaction_id": (
            f"Names the payment. If one of the card's last {RECENT_KEPT} payments has the same id, event time, amount, "
            "currency and merchant, this is a repetition. If only the id is the same, it is scored and reviewed. Each "
            "payment needs its own id, authorisation and capture too."
        ),
        "amount": "Amount in units of `currency`.",
    },
    "LabelMessage": {
        "transaction_id": "Names the payment. If its card used the id again, the label applies to all made by then.",
    },
    "LabelledRecord": {
        "card_id": "Names the card.",
        "merchant_id": "Names the merchant. It is also the key of the message.",
        "snapshot": "Boundary whose snapshot was the first to know, epoch milliseconds.",
    },
    "Snapshot": {"version": "Names the snapshot. It is also the key of the message."},
}

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

# Who reads and writes what, as `wire` lays it in scorer and learner; snapshots and risk reach scorers by broadcast.
OPERATIONS: Final = (
    ("scorer", "receive", "transactions", "Score each transaction."),
    ("scorer", "receive", "snapshots", "Follow what labels have taught; every scorer reads all of it."),
    ("scorer", "receive", "models", "Make promoted models ready for the snapshots that name them."),
    ("scorer", "receive", "risk", "Follow the risk rows of the snapshots; every scorer reads all of them."),
    ("scorer", "send", "scores", "Write down every decision."),
    ("scorer", "send", "alerts", "Raise one alert for each flagged transaction."),
    ("scorer", "send", "dead_letters", "Set aside transactions that cannot be read."),
    ("learner", "receive", "scores", "Keep what was scored until something becomes known of it."),
    ("learner", "receive", "labels", "Join each label with its transaction."),
    ("learner", "receive", "models", "Teach beside the model promoted last."),
    ("learner", "send", "labelled", "Publish each labelled example that was taught."),
    ("learner", "send", "risk", "Publish the rows that changed, before the snapshot they belong to."),
    ("learner", "send", "snapshots", "Publish what labels had taught by a boundary of event time."),
    ("learner", "send", "dead_letters", "Set aside labels and scores that cannot be read."),
    ("refit", "receive", "labelled", "Fit a challenger and judge it beside the champion."),
    ("refit", "send", "models", "Say what was found, and promote a challenger that is better by the margin."),
)
