"""Builders of events and records with sensible defaults, simple models, and stores in dictionaries."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import msgspec

from fraud_service.domain.decision import Outcome
from fraud_service.domain.events import Label, LabelSource, Transaction
from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.online_model import ModelInput, ModelInputRows, OnlineModel
from fraud_service.domain.records import ScoreRecord
from fraud_service.domain.risk import row_digest
from fraud_service.domain.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fraud_service.domain.label_join import LabelJoin
    from fraud_service.domain.label_join_rows import Example
    from fraud_service.domain.online_training import BoundaryResult, LearnerState, OnlineTrainer

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MONDAY = 1_699_833_600_000  # 2023-11-13T00:00:00Z
QUIET_FEATURES = Features(*([0.0] * len(NAMES)))


def transaction(transaction_id: str = "t1", timestamp: int = MONDAY, **facts: Any) -> Transaction:
    """Create a payment of 25.00 EUR by card-1 at merchant-1; `facts` overrides fields."""
    defaults: dict[str, Any] = {"card_id": "card-1", "merchant_id": "merchant-1", "amount": 25.0, "currency": "EUR"}
    return Transaction(transaction_id=transaction_id, timestamp=timestamp, **(defaults | facts))


def label(transaction_id: str = "t1", labelled_at: int = MONDAY + DAY, *, is_fraud: bool = True, **facts: Any) -> Label:
    """Create a label from an analyst."""
    defaults: dict[str, Any] = {"card_id": "card-1", "source": LabelSource.ANALYST}
    return Label(transaction_id=transaction_id, labelled_at=labelled_at, is_fraud=is_fraud, **(defaults | facts))


def features(**values: float) -> Features:
    """Create a row of zeros except for these values."""
    return msgspec.structs.replace(QUIET_FEATURES, **values)


def score(transaction_id: str = "t1", timestamp: int = MONDAY, **facts: Any) -> ScoreRecord:
    """Create the score record of an approved payment."""
    defaults: dict[str, Any] = {
        "card_id": "card-1",
        "merchant_id": "merchant-1",
        "amount": 25.0,
        "currency": "EUR",
        "outcome": Outcome.APPROVE,
        "score": 0.1,
        "pretrained": 0.1,
        "online": 0.1,
        "pretrained_logit": -2.0,
        "online_logit": -2.0,
        "online_weight": 0.5,
        "model": "model-1",
        "snapshot": "untrained",
        "is_stale": False,
        "is_duplicate": False,
        "reasons": [],
        "features": QUIET_FEATURES,
    }
    return ScoreRecord(transaction_id=transaction_id, timestamp=timestamp, **(defaults | facts))


def online_model(**changes: Any) -> OnlineModel:
    """Create the initial online model with these changes."""
    return msgspec.structs.replace(OnlineModel.untrained(leaves=2), **changes)


def snapshot(as_of: int, rows: dict[str, bytes | None], table: dict[str, bytes], **facts: Any) -> Snapshot:
    """Create a sealed snapshot. `table` holds the rows of earlier snapshots; the function adds the rows of this one."""
    for key, row in rows.items():
        if row is None:
            table.pop(key, None)
        else:
            table[key] = row
    defaults: dict[str, Any] = {
        "effective_from": as_of + HOUR // 4,
        "interval_ms": HOUR,
        "model": "model-1",
        "online": online_model(),
        "online_weight": 0.5,
        "examples": 1,
        "label_horizon": as_of,
        "risk_rows": len(rows),
        "risk_digest": table_digest(table),
    }
    return Snapshot(version="", as_of=as_of, **(defaults | facts)).with_digest()


def table_digest(table: dict[str, bytes]) -> str:
    """Sum up the digests of all rows."""
    return f"{sum(row_digest(key, row) for key, row in table.items()) % 2**256:064x}"


def encoded(row: Features, logit: float) -> ModelInput:
    """Encode a row for the online model: squashed features, and a leaf for large amounts and one for others."""
    squashed = [min(max(math.asinh(value), -5.0), 5.0) for value in row.vector()]
    return ModelInput(logit, squashed, [int(row.amount > 100)])


class LinearModel:
    """A pretrained model whose logit is a weighted sum of features plus a base. It has two leaves: dear and cheap."""

    version = "model-1"
    features_on_path = (frozenset({NAMES.index("amount"), NAMES.index("is_new_country")}),) * 2

    def __init__(self, base: float = -3.0, prior: float = -4.0, **weights: float) -> None:
        self.base, self.prior, self.weights = base, prior, weights
        self.batches: list[int] = []

    def encode(self, rows: Sequence[Features]) -> ModelInputRows:
        """Score and encode a batch."""
        return ModelInputRows(encoded(row, logit) for row, logit in zip(rows, self.logits(rows), strict=True))

    def logits(self, rows: Sequence[Features]) -> list[float]:
        """Score a batch and remember its size."""
        self.batches.append(len(rows))
        return [math.fsum([self.base, *self.contributions(row)[1]]) for row in rows]

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        """Split the logit."""
        return self.base, [self.weights.get(name, 0.0) * math.tanh(getattr(row, name) / 100) for name in NAMES]


class BrokenModel(LinearModel):
    """A pretrained model that raises."""

    def logits(self, rows: Sequence[Features]) -> list[float]:
        """Raise."""
        raise RuntimeError(f"cannot score {len(rows)} rows")


class UndecidedModel(LinearModel):
    """A pretrained model that returns NaN."""

    def logits(self, rows: Sequence[Features]) -> list[float]:
        """Return NaN for each row."""
        return [math.nan] * len(rows)


class DictStore(dict[str, bytes]):
    """A store for label join and learner."""

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self.pop(key, None)


class CountingLearner:
    """An online model that records its examples in order."""

    def __init__(self, state: bytes | None = None) -> None:
        self.examples: list[tuple[float, float, bool, float]] = [] if state is None else json.loads(state)

    def learn(self, encoded: ModelInput, *, is_fraud: bool, weight: float) -> None:
        """Record the example."""
        self.examples.append((round(math.sinh(encoded.inputs[0]), 9), encoded.logit, is_fraud, weight))

    def state(self) -> bytes:
        """Serialise the recorded examples."""
        return json.dumps(self.examples).encode()

    def export(self) -> OnlineModel:
        """Return a model with the number of examples and frauds."""
        return online_model(
            intercept=float(len(self.examples)), pretrained_weight=float(sum(example[2] for example in self.examples))
        )


def close_boundaries(
    joins: Iterable[LabelJoin], trainer: OnlineTrainer, progress: LearnerState, until: int, learner: CountingLearner
) -> list[BoundaryResult]:
    """Close the boundaries after `progress.closed` up to and including `until`, as the learner does."""
    joins, results = list(joins), []
    for boundary in range(progress.closed + 1, until + 1):
        dues = sorted((due, number) for number, join in enumerate(joins) for due in join.pop_due(boundary))
        examples: list[Example] = [one for due, number in dues for one in joins[number].resolve(due, boundary)]
        result = trainer.close(boundary, progress, examples, learner)
        progress = result.progress
        results.append(result)
    return results
