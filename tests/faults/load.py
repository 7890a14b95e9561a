"""Continuous load: a thread sends the payments of one simulated world after the other. Trials add bad messages."""

from __future__ import annotations

import random
import tempfile
import time
from itertools import count
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

import msgspec
from support.hostile import BOMBS, UNREADABLE, WORST, send_bombs, worst
from support.malformed import MALFORMED

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.demo.simulator import DAY, World, write
from fraud_service.kafka import clients, sender
from fraud_service.training.history import History

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import LabelledTransaction

DAYS = 30
LEAD = 20 * 365 * DAY


class Load:
    """Send transactions at a rate, and each label when event time reaches it. Leaving the context stops the feed."""

    def __init__(self, settings: Settings, seed: int, rate: float) -> None:
        self._settings = settings
        self._seed = seed
        self._rate = rate
        self._stopping = Event()
        self._history = _worlds(seed)
        self._next = next(self._history)  # simulate the first world before the feed starts
        self._thread = Thread(target=self._run, name="load", daemon=True)
        self._poison = clients.producer(settings)
        self._malformed = random.Random(seed)
        self._poisoned = 0
        self._fed = 0
        self._failure: BaseException | None = None

    @property
    def sent(self) -> int:
        """The number of messages sent to the topic of transactions."""
        return self._fed + self._poisoned

    @property
    def now(self) -> int:
        """The current event time (epoch milliseconds)."""
        return self._next.transaction.timestamp

    def expect(self, number: int) -> None:
        """Count messages from other senders, or foreign records on the output topics."""
        self._poisoned += number

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the feed, and wait until the broker has all its messages."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(120)
        assert not self._thread.is_alive(), "the load did not end"
        if self._failure is not None:
            raise self._failure

    def poison(self, number: int) -> None:
        """Send malformed messages of every kind in random order."""
        for value, key, _ in self._malformed.choices(MALFORMED, k=number):
            self._poison.produce(self._settings.topics.transactions, value=value, key=key)
        assert self._poison.flush(60) == 0
        self._poisoned += number

    def bomb(self) -> None:
        """Send compressed bombs that are too large to read or decompress, and large messages of the worst contents."""
        topic = self._settings.topics.transactions
        send_bombs(self._settings, topic, b"hostile", [*BOMBS, UNREADABLE])
        large = [sender.OutgoingRecord(topic, b"hostile", worst(name), []) for name in WORST for _ in range(20)]
        sender.produce_all(self._settings, large)
        self._poisoned += len(BOMBS) + 1 + len(large)

    def burst(self, number: int) -> None:
        """Send `number` additional transactions at once."""
        with HistoryProducer(self._settings) as feed:
            feed.produce((event for event, _ in zip(_worlds(self._seed + 500), range(number), strict=False)), 0)
        self._fed += number

    def _run(self) -> None:
        try:
            with HistoryProducer(self._settings) as feed:
                feed.produce(self._events(), 0, self._rate)
        except BaseException as error:  # noqa: BLE001 - `stop` raises it
            self._failure = error

    def _events(self) -> Iterator[LabelledTransaction]:
        while not self._stopping.is_set():
            yield self._next
            self._fed += 1
            self._next = next(self._history)


def _worlds(seed: int) -> Iterator[LabelledTransaction]:
    """Yield the events of one world after the other, each with its own ids, in continuous event time."""
    start = World().start - LEAD  # hours of load at hundreds of payments a second would otherwise reach the future
    for number in count():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "world.parquet"
            world = World(seed + number, cards=800, merchants=300, days=DAYS, start=start + number * DAYS * DAY)
            write(world, path)
            history = list(History.open(path))
        for event in history:
            payment = event.transaction
            renamed = msgspec.structs.replace(payment, transaction_id=f"w{seed + number}-{payment.transaction_id}")
            yield msgspec.structs.replace(event, transaction=renamed)


def elapsed(since: float) -> float:
    """Return the rounded seconds since a time of the monotonic clock."""
    return round(time.monotonic() - since, 1)
