"""The rows of the label join, and the examples that result from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fraud_service.domain.codec import decode
from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import LabelSource, facts
from fraud_service.domain.features import Features

if TYPE_CHECKING:
    from fraud_service.domain.events import Payment

ROW: Final = "a row of the learner's label join"


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
    """The fields of a score record that training needs."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: int
    amount: float
    pretrained_logit: float | None
    online_logit: float | None
    score: float
    outcome: Outcome
    values: tuple[float, ...]  # of the features; without their names a third of the size
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
        """Whether both are the same payment of the same card. An empty currency matches every currency."""
        return facts(self) == facts(other) or (
            not self.currency and facts(self) == facts(msgspec.structs.replace(other, currency=""))
        )


class LabelEvent(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A label of one transaction. The last one counts; of labels at the same instant, fraud sorts last."""

    known_at: int
    is_fraud: bool
    source: LabelSource


class PendingTransaction(msgspec.Struct, array_like=True):
    """A scored transaction with its labels.

    ``packed``            encoded `ScoredTransaction`; decoded only for training
    ``waiting``           labels that are not applied yet
    ``trained_label``     what was trained: None for nothing, otherwise whether it was fraud
    ``trained_known_at``  when that became known, epoch milliseconds
    ``labelled_at``       of the newest applied label; an older label has no effect
    ``labelled_by``       source of that label
    ``others``            the other payments under the same id, in order of arrival
    """

    packed: msgspec.Raw
    waiting: list[LabelEvent] = []
    trained_label: bool | None = None
    trained_known_at: int = 0
    labelled_at: int = -1
    labelled_by: LabelSource | None = None
    others: list[PendingTransaction] = []

    @property
    def scored(self) -> ScoredTransaction:
        """The scored transaction, decoded."""
        return decode(_scored_decoder, self.packed, ROW)

    @property
    def timestamp(self) -> int:
        """The event time of the transaction."""
        return decode(_prefix_decoder, self.packed, ROW).timestamp

    @property
    def labels(self) -> list[LabelEvent]:
        """The labels that still count: the newest applied one, and those not applied yet."""
        if self.trained_label is None or self.labelled_by is None:
            return self.waiting
        return [LabelEvent(self.labelled_at, self.trained_label, self.labelled_by), *self.waiting]


class _ScoredPrefix(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The first fields of a `ScoredTransaction`, decoded without the rest."""

    transaction_id: str
    card_id: str
    merchant_id: str
    timestamp: int


class Example(msgspec.Struct, frozen=True, gc=False):
    """A labelled transaction to train.

    `source` is None if no label arrived before maturity. `corrects`: the opposite was trained at `corrected_at`.
    """

    scored: ScoredTransaction
    is_fraud: bool
    source: LabelSource | None
    known_at: int
    corrects: bool = False
    corrected_at: int = 0


class DueItem(msgspec.Struct, array_like=True, frozen=True, order=True, gc=False):
    """A transaction that is due at a boundary, by its `transaction_key`."""

    known_at: int
    identity: str


_encoder = msgspec.msgpack.Encoder()
_scored_decoder = msgspec.msgpack.Decoder(ScoredTransaction)
_prefix_decoder = msgspec.msgpack.Decoder(_ScoredPrefix)
_entry_decoder = msgspec.msgpack.Decoder(PendingTransaction)
_labels_decoder = msgspec.msgpack.Decoder(list[LabelEvent])
_due_decoder = msgspec.msgpack.Decoder(DueItem)


def encode_row(value: Any) -> bytes:
    """Encode a row as msgpack."""
    return _encoder.encode(value)


def decode_entry(data: bytes) -> PendingTransaction:
    """Decode a row. Raises `InvalidRecord` if the bytes are not one."""
    return decode(_entry_decoder, data, ROW)


def decode_labels(data: bytes) -> list[LabelEvent]:
    """Decode a row. Raises `InvalidRecord` if the bytes are not one."""
    return decode(_labels_decoder, data, ROW)


def decode_due(data: bytes) -> DueItem:
    """Decode a row. Raises `InvalidRecord` if the bytes are not one."""
    return decode(_due_decoder, data, ROW)
