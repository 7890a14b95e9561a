"""The rows of the ledger's store, and the examples that the learner makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fraud_service.domain.codec import decode
from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import LabelSource, facts
from fraud_service.domain.features import Features

if TYPE_CHECKING:
    from fraud_service.domain.events import Payment

ROW: Final = "a row of the learner's ledger"


class Scores(Protocol):
    """The fields of a decision that every record about it has."""

    @property
    def pretrained_logit(self) -> float | None: ...  # noqa: D102 - as in `Decision`
    @property
    def online_logit(self) -> float | None: ...  # noqa: D102 - as above
    @property
    def score(self) -> float: ...  # noqa: D102 - as above
    @property
    def outcome(self) -> Outcome: ...  # noqa: D102 - as above
    @property
    def model(self) -> str: ...  # noqa: D102 - as above


class ScoredTransaction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the learner needs of a score record."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: int
    amount: float
    pretrained_logit: float | None
    online_logit: float | None
    score: float
    outcome: Outcome
    values: tuple[float, ...]  # of the features, without their names: a third of the size
    model: str
    currency: str = ""  # empty in rows of an older version

    @property
    def features(self) -> Features:
        """The features that were scored."""
        return Features(*self.values)

    @classmethod
    def of(cls, payment: Payment, scores: Scores, features: Features) -> ScoredTransaction:
        """Build it from an assessment; a score record is payment and scores in one."""
        return cls(
            payment.transaction_id,
            payment.card_id,
            payment.merchant_id,
            payment.timestamp,
            payment.amount,
            scores.pretrained_logit,
            scores.online_logit,
            scores.score,
            scores.outcome,
            features.vector(),
            scores.model,
            payment.currency,
        )

    def is_same(self, other: ScoredTransaction) -> bool:
        """Whether this is the same payment of the same card; an empty currency matches every other."""
        return facts(self) == facts(other) or (
            not self.currency and facts(self) == facts(msgspec.structs.replace(other, currency=""))
        )


class LabelEvent(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A label of one transaction. At the same instant fraud sorts last, and the last one counts."""

    known_at: int
    is_fraud: bool
    source: LabelSource


class PendingTransaction(msgspec.Struct, array_like=True):
    """A scored transaction, the labels not applied yet, and what was taught of it: None, legitimate or fraud.

    `packed` is an encoded `ScoredTransaction`: it is decoded only when the payment is taught. `labelled_at` and
    `labelled_by` are
    of the newest label applied: an older one changes nothing any more. `others` are the other payments under the same
    id, in order of arrival; their own `others` are empty.
    """

    packed: msgspec.Raw
    waiting: list[LabelEvent] = []
    taught: bool | None = None
    taught_at: int = 0
    labelled_at: int = -1
    labelled_by: LabelSource | None = None
    others: list[PendingTransaction] = []

    @property
    def scored(self) -> ScoredTransaction:
        """The scored transaction, unpacked."""
        return decode(_scored_decoder, self.packed, ROW)

    @property
    def timestamp(self) -> int:
        """The event time of the transaction."""
        return decode(_beginning_decoder, self.packed, ROW).timestamp

    @property
    def said(self) -> list[LabelEvent]:
        """The labels of this transaction that still count: the newest applied, and those that wait."""
        if self.taught is None or self.labelled_by is None:
            return self.waiting
        return [LabelEvent(self.labelled_at, self.taught, self.labelled_by), *self.waiting]


class _Beginning(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first fields of a `ScoredTransaction`, read without the others."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: int


class Example(msgspec.Struct, frozen=True, gc=False):
    """A labelled example: what was scored, and what became known when and by whom (None: by maturity).

    `corrects` says that the opposite was taught before, at `corrected_at`.
    """

    scored: ScoredTransaction
    is_fraud: bool
    source: LabelSource | None
    known_at: int
    corrects: bool = False
    corrected_at: int = 0


class DueItem(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """Something becomes known of a transaction."""

    known_at: int
    identity: str


_encoder = msgspec.msgpack.Encoder()
_scored_decoder = msgspec.msgpack.Decoder(ScoredTransaction)
_beginning_decoder = msgspec.msgpack.Decoder(_Beginning)
_entry_decoder = msgspec.msgpack.Decoder(PendingTransaction)
_labels_decoder = msgspec.msgpack.Decoder(list[LabelEvent])
_due_decoder = msgspec.msgpack.Decoder(DueItem)


def encode_row(value: Any) -> bytes:
    """Write a row."""
    return _encoder.encode(value)


def decode_entry(data: bytes) -> PendingTransaction:
    """Read a row back. Raises `InvalidRecord` when it is none."""
    return decode(_entry_decoder, data, ROW)


def decode_labels(data: bytes) -> list[LabelEvent]:
    """Read a row back. Raises `InvalidRecord` when it is none."""
    return decode(_labels_decoder, data, ROW)


def decode_due(data: bytes) -> DueItem:
    """Read a row back. Raises `InvalidRecord` when it is none."""
    return decode(_due_decoder, data, ROW)
