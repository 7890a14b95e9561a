"""Send a history to the input topics: transactions in the order of event time, each label when it becomes known."""

from __future__ import annotations

import time
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from fraud_service.config.duration import to_ms
from fraud_service.domain.events import encode
from fraud_service.kafka.sender import FLUSH_TIMEOUT_S, OutgoingRecord, Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import Label, LabelledTransaction


class HistoryProducer(Sender):
    """Sends events to the input topics. A context manager that waits at its end until the broker has everything."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._topics = settings.topics
        self._skew_ms = to_ms(settings.max_clock_skew)
        self.transactions = 0
        self.labels = 0
        self.later_labels = 0  # not sent, because they become known in the future
        self.sent: dict[tuple[str, int], tuple[int, int]] = {}  # first and last offset by topic and partition

    @property
    def offsets(self) -> int:
        """The number of offsets from the first to the last record of each partition."""
        return sum(last + 1 - first for first, last in self.sent.values())

    def __enter__(self) -> HistoryProducer:  # noqa: PYI034 - never subclassed
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()
        else:
            self._producer.flush(FLUSH_TIMEOUT_S)

    def produce(
        self,
        history: Iterable[LabelledTransaction],
        label_delay_ms: int,
        rate: float | None = None,
        progress: Callable[[], None] = lambda: None,
        before: Callable[[int, Callable[[], None]], None] = lambda *_: None,
    ) -> None:
        """Send every transaction, `rate` a second or as fast as possible, and every label when event time reaches it.

        `label_delay_ms` is for rows without a label time. `before` is called before each transaction with
        its event time and with `flush`; it may wait.
        """
        waiting: list[tuple[int, str, int, Label]] = []
        started = time.monotonic()
        for event in history:
            while waiting and waiting[0][0] <= event.transaction.timestamp:
                self.label(heappop(waiting)[3])
            before(event.transaction.timestamp, self.flush)
            if rate is not None:
                self._pace(started + self.transactions / rate)
            key, value = event.transaction.card_id.encode(), encode(event.transaction)
            self.send(OutgoingRecord(self._topics.transactions, key, value, []))
            self.transactions += 1
            label = event.label(label_delay_ms)
            if label is not None:
                # The running number keeps the heap from comparing two labels, which have no order.
                heappush(waiting, (label.labelled_at, label.transaction_id, self.transactions, label))
            progress()
        while waiting and waiting[0][0] <= time.time() * 1000 + self._skew_ms:
            self.label(heappop(waiting)[3])
        self.later_labels += len(waiting)  # the learner would reject them

    def label(self, label: Label) -> None:
        """Send one label."""
        self.send(OutgoingRecord(self._topics.labels, label.card_id.encode(), encode(label), []))
        self.labels += 1

    def _on_delivery(self, error: Any, message: Any) -> None:
        super()._on_delivery(error, message)
        if error is None:
            place, offset = (message.topic(), message.partition()), message.offset()
            first, last = self.sent.get(place, (offset, offset))
            self.sent[place] = min(first, offset), max(last, offset)

    def _pace(self, due: float) -> None:
        """Wait until an event is due, even if earlier events were late: the load is open-loop."""
        delay = due - time.monotonic()
        if delay > 0:
            self._producer.poll(0)
            time.sleep(delay)
