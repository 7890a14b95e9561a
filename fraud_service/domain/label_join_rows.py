"""The rows of the label join, their cards, and the examples that result from them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.domain.codec import msgpack_decoder
from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import LabelSource, facts
from fraud_service.domain.features import Features

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.domain.records import LabelledRecord, ScoreRecord

ROW: Final = "a row of the learner's label join"


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
    def of(cls, record: ScoreRecord | LabelledRecord, features: Features) -> ScoredTransaction:
        """Take the fields from a record of the same transaction."""
        return cls(
            record.transaction_id,
            record.card_id,
            record.merchant_id,
            record.timestamp,
            record.amount,
            record.pretrained_logit,
            record.online_logit,
            record.score,
            record.outcome,
            features.vector(),
            record.model,
            record.currency,
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
    """A scored transaction with its labels. Times are epoch milliseconds."""

    packed: msgspec.Raw  # encoded `ScoredTransaction`; decoded only for training
    waiting: list[LabelEvent] = []  # labels that are not applied yet
    trained_label: bool | None = None  # the last trained label, True for fraud; None before the first
    trained_known_at: int = 0  # when that label became known
    labelled_at: int = -1  # of the newest applied label; an older label has no effect
    labelled_by: LabelSource | None = None  # source of that label
    others: list[PendingTransaction] = []  # the other payments under the same id, in order of arrival

    @property
    def scored(self) -> ScoredTransaction:
        """The scored transaction, decoded."""
        return _decode_scored(self.packed)

    @property
    def timestamp(self) -> int:
        """The event time of the transaction."""
        return _decode_prefix(self.packed).timestamp

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


encode_row: Final = msgspec.msgpack.Encoder().encode
decode_entry: Final = msgpack_decoder(PendingTransaction, ROW)
decode_labels: Final = msgpack_decoder(list[LabelEvent], ROW)
decode_due: Final = msgpack_decoder(DueItem, ROW)
_decode_scored: Final = msgpack_decoder(ScoredTransaction, ROW)
_decode_prefix: Final = msgpack_decoder(_ScoredPrefix, ROW)


def transaction_key(card_id: str, transaction_id: str) -> str:
    """Return the key of all payments of a card under one transaction id.

    >>> transaction_key("card/1", "t-7")
    '6/card/1/t-7'
    >>> card_of_row("l/6/card/1/t-7", b"")
    'card/1'
    """
    return f"{len(card_id)}/{card_id}/{transaction_id}"


def card_of_row(key: str, value: bytes) -> str | None:
    """Return the card of a row; None for a count, which belongs to no card."""
    kind, _, rest = key.partition("/")
    if kind == "d":
        if "/" not in rest:
            return None
        rest = decode_due(value).identity
    length, _, rest = rest.partition("/")
    return rest[: int(length)]


class LabelJoinRepartitioner:
    """Moves the rows of the label join to the partition of their card.

    `move` all rows, then write the `counts`: due rows get new numbers in their new partition.
    """

    def __init__(self, partition_of: Callable[[str], int]) -> None:
        self._partition_of = partition_of
        self._counts: Counter[tuple[int, str]] = Counter()

    def move(self, key: str, value: bytes) -> tuple[int, str, bytes] | None:
        """Return the new partition, key and value of a row; None for a count, which `counts` replaces."""
        card_id = card_of_row(key, value)
        if card_id is None:
            return None
        kind, boundary, *_ = key.split("/", 2)
        partition = self._partition_of(card_id)
        if kind != "d":
            return partition, key, value
        count = self._counts[partition, boundary]
        self._counts[partition, boundary] += 1
        return partition, f"d/{boundary}/{count}", value

    def counts(self) -> Iterator[tuple[int, str, bytes]]:
        """Yield partition, key and value of the rows that count the due rows of a boundary."""
        for (partition, boundary), count in self._counts.items():
            yield partition, f"d/{boundary}", b"%d" % count
