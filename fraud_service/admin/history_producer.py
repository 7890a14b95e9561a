"""Feed history into the input topics: transactions in event order, each label when it becomes known."""

from __future__ import annotations

import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from fraud_service.domain.errors import FatalStreamError
from fraud_service.domain.events import encode
from fraud_service.kafka import clients

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import Label, LabelledTransaction
    from fraud_service.kafka.messages import Headers

FLUSH_TIMEOUT_S: Final = 60.0  # seconds


class HistoryProducer:
    """Send events to the input topics. A context: leaving it waits until the broker has everything.

    Raises
    ------
    FatalStreamError
        When the broker refuses an event or does not take all of them in time.
    """

    def __init__(self, settings: Settings) -> None:
        self._topics = settings.topics
        self._producer = clients.producer(settings)
        self._refusals: list[str] = []
        self.transactions = 0
        self.labels = 0

    def __enter__(self) -> HistoryProducer:  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.flush(FLUSH_TIMEOUT_S)

    def flush(self) -> None:
        """Wait until the broker has everything that was sent."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self._refusals:
            reason = self._refusals[0] if self._refusals else f"no answer within {FLUSH_TIMEOUT_S:.0f} s"
            raise FatalStreamError(f"{left + len(self._refusals)} events were not taken by the broker: {reason}")

    def produce(
        self,
        history: Iterable[LabelledTransaction],
        label_delay: int,
        rate: float | None = None,
        progress: Callable[[], None] = lambda: None,
        before: Callable[[int, Callable[[], None]], None] = lambda *_: None,
    ) -> None:
        """Send a history: every transaction, and every label once event time has come to it.

        Parameters
        ----------
        label_delay
            Milliseconds from a transaction to its label where the history does not say.
        rate
            Transactions a second; None sends as fast as the broker takes them.
        before
            Called before each transaction with its event time, and with what sends all that is held back; may wait.
        """
        waiting: list[tuple[int, str, int, Label]] = []
        began = time.monotonic()
        for event in history:
            while waiting and waiting[0][0] <= event.transaction.timestamp:
                self.label(heappop(waiting)[3])
            before(event.transaction.timestamp, self.flush)
            if rate is not None:
                self._pace(began + self.transactions / rate)
            self.send(self._topics.transactions, event.transaction.card_id.encode(), encode(event.transaction))
            self.transactions += 1
            label = event.label(label_delay)
            if label is not None:
                # The number: two labels are never compared, whatever they have in common.
                heappush(waiting, (label.labelled_at, label.transaction_id, self.transactions, label))
            progress()
        while waiting:
            self.label(heappop(waiting)[3])

    def label(self, label: Label) -> None:
        """Send one label."""
        self.send(self._topics.labels, label.card_id.encode(), encode(label))
        self.labels += 1

    def _pace(self, due: float) -> None:
        """Wait for the moment an event is due, whatever the ones before it took: the load is open-loop."""
        delay = due - time.monotonic()
        if delay > 0:
            self._producer.poll(0)
            time.sleep(delay)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int = clients.PARTITION_BY_KEY,
        headers: Headers | None = None,
    ) -> None:
        """Send one record, whatever it is."""
        while True:
            try:
                self._producer.produce(topic, value, key, partition, headers=headers, on_delivery=self._on_delivery)
            except BufferError:
                self._producer.poll(0.1)  # the queue is full: let the broker take some
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: Any, _: Any) -> None:
        if error is not None:
            self._refusals.append(error.str())
