"""The training set: the features that the live code computes over past transactions, with their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import facts
from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.in_memory import FrozenLearner, InMemoryService
from fraud_service.domain.local_time import UTC_ZONE
from fraud_service.domain.online_model import ModelInput, ModelInputRows, OnlineModel
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.snapshot import untrained
from fraud_service.domain.time import LearningSchedule
from fraud_service.training.label_coverage import LabelCoverage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fraud_service.domain.events import Facts, LabelledTransaction, Transaction
    from fraud_service.domain.scoring import PretrainedModel

MIN_FRAUDS: Final = 20  # the fit needs as many legitimate transactions, too


class TrainingWindow(msgspec.Struct, frozen=True):
    """Event times [start, end) of the training set, and the label delay, in epoch milliseconds and milliseconds.

    Transactions before `start` only warm profiles and risk. A label known after `end` + `label_delay_ms` is not used.
    """

    start: int
    end: int
    label_delay_ms: int


class Payments(msgspec.Struct, frozen=True):
    """Facts of payments that no model uses, but figures about alerts; arrays of shape (rows,)."""

    cards: NDArray[np.int64]  # a number for each card
    amounts: NDArray[np.float64]
    currencies: NDArray[np.str_]

    @classmethod
    def of(cls, transactions: Sequence[Transaction]) -> Payments:
        """Take them from transactions."""
        numbers: dict[str, int] = {}
        return cls(
            np.array([numbers.setdefault(one.card_id, len(numbers)) for one in transactions], dtype=np.int64),
            np.array([one.amount for one in transactions], dtype=np.float64),
            np.array([one.currency for one in transactions], dtype=np.str_),
        )


class Examples(msgspec.Struct, frozen=True):
    """A training set in event order.

    Shapes: `features` (rows, features), `labels` (True for fraud) and `timestamps` (epoch milliseconds) (rows,).
    `payments` is None if they are not known.
    """

    features: NDArray[np.float64]
    labels: NDArray[np.bool_]
    timestamps: NDArray[np.int64]
    payments: Payments | None = None

    def where(self, chosen: NDArray[np.bool_]) -> Examples:
        """Select the rows for which the mask, of shape (rows,), is true."""
        known = self.payments
        payments = known and Payments(known.cards[chosen], known.amounts[chosen], known.currencies[chosen])
        return Examples(self.features[chosen], self.labels[chosen], self.timestamps[chosen], payments)


class LastLabels:
    """The last label of each payment, in order of arrival, as (label time, is fraud); None without a label.

    A file may repeat a payment with another label. The later label counts, and of labels at the same time, fraud: as in
    the label join.
    """

    def __init__(self, label_delay_ms: int) -> None:
        self._delay_ms = label_delay_ms
        self._labels: list[tuple[int, bool] | None] = []
        self._instant = -1
        self._positions: dict[Facts, int] = {}  # of the payments of this instant: repetitions have the same

    def __iter__(self) -> Iterator[tuple[int, bool] | None]:
        return iter(self._labels)

    def add(self, event: LabelledTransaction, *, is_duplicate: bool) -> None:
        """Add a payment, or the label of its repetition."""
        transaction, label = event.transaction, event.label(self._delay_ms)
        known = None if label is None else (label.labelled_at, label.is_fraud)
        if transaction.timestamp != self._instant:
            self._instant, self._positions = transaction.timestamp, {}
        if not is_duplicate:
            self._positions[facts(transaction)] = len(self._labels)
            self._labels.append(known)
            return
        position = self._positions.get(facts(transaction))
        if position is not None and known is not None:
            self._labels[position] = max(self._labels[position] or known, known)


class _NoModel:
    """A pretrained model without content: the features of a training set do not depend on a score."""

    version = "none"
    prior = 0.0
    features_on_path = ()

    def encode(self, rows: Sequence[Features]) -> ModelInputRows:
        return ModelInputRows([ModelInput(0.0, [0.0] * len(NAMES), [])] * len(rows))

    def contributions(self, row: Features) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(row.vector())


def collect(
    history: Iterable[LabelledTransaction],
    window: TrainingWindow,
    progress: Callable[[], None] = lambda: None,
    time_zone: str = UTC_ZONE,
) -> Examples:
    """Compute features and labels of the window's transactions; a transaction without a label counts as legitimate.

    Raises `ConfigurationError` if the window has too few frauds to learn from.
    """
    learner = FrozenLearner(OnlineModel.untrained())
    service = InMemoryService(
        # No score reaches 2: reasons would cost time.
        Detector(_NoModel(), Policy(review=2.0, decline=2.0), time_zone=time_zone),
        untrained("none", learner.export()),
        lambda _: learner,
        LearningSchedule(label_maturity_ms=window.label_delay_ms),
        NegativeSampler(0.0),
        window.label_delay_ms,
    )
    rows, chosen, last = [], [], LastLabels(window.label_delay_ms)
    coverage = LabelCoverage(window.label_delay_ms)
    events = []
    for event in history:
        coverage.add(event)
        if event.transaction.timestamp < window.end:
            events.append(event)
    for event, assessment in zip(events, service.run(events), strict=True):
        progress()
        if event.transaction.timestamp >= window.start:
            last.add(event, is_duplicate=assessment.features is None)
            if assessment.features is not None:
                rows.append(assessment.features.vector())
                chosen.append(event.transaction)
    known_by = window.end + window.label_delay_ms
    frauds = [label is not None and label[1] for label in last]
    labels = [label is not None and label[1] and label[0] <= known_by for label in last]
    if sum(labels) < MIN_FRAUDS:
        raise ConfigurationError(
            f"the training window has {sum(labels)} known frauds in {len(rows)} transactions and needs at least "
            f"{MIN_FRAUDS}: {coverage.shortage(sum(frauds) - sum(labels), len(rows))}"
        )
    return Examples(np.array(rows), np.array(labels), np.array([one.timestamp for one in chosen]), Payments.of(chosen))


def logits(model: PretrainedModel, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the logits of a model for rows of features."""
    return np.array(model.encode([Features(*row) for row in rows.tolist()]).logits)
