"""Send payments on a fixed schedule from a separate process (open loop), and measure how late each one was."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, Final

from harness import PATIENCE, Payment, payments, percentile

from fraud_service.kafka import clients

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fraud_service.config.settings import Settings

HEAD_START: Final = 1.0  # seconds to open the connections before the first payment is due


def feed(settings: Settings, count: int, rate: float, asked: Connection) -> None:
    """Wait for the start, then send payments at a rate. Replies first with the start time, then with the lateness."""
    messages = payments(count)
    asked.recv()
    began = time.time() + HEAD_START
    asked.send(began)
    asked.send(paced(settings, messages, rate, began))


def paced(settings: Settings, messages: list[Payment], rate: float, began: float) -> dict[str, float]:
    """Send each payment when it is due, without waiting for earlier ones.

    Returns
    -------
    dict
        The rate (payments per second), and how many milliseconds late payments reached the client and the broker's log.
    """
    producer = clients.producer(settings, {"linger.ms": 5})
    handed: list[float] = []
    appended: list[float] = []
    refused: list[str] = []

    def note(due: float) -> Any:
        def on_delivery(error: Any, message: Any) -> None:
            if error is not None:
                refused.append(error.str())
            else:
                appended.append(message.timestamp()[1] - due * 1000)

        return on_delivery

    gc.disable()  # a collection would make the feeder late, not the service
    produce, poll, topic = producer.produce, producer.poll, settings.topics.transactions
    for number, (key, value) in enumerate(messages):
        due = began + number / rate
        delay = due - time.time()
        if delay > 0:
            poll(0)
            time.sleep(max(due - time.time(), 0))
        produce(topic, key=key, value=value, on_delivery=note(due))
        handed.append((time.time() - due) * 1000)
        if not number % 64:
            poll(0)
    if producer.flush(PATIENCE) or refused:
        raise SystemExit(f"the broker did not accept all payments: {refused[:1]}")
    return {
        "handed_p99_ms": percentile(handed, 0.99),
        "handed_max_ms": max(handed),
        "appended_p99_ms": percentile(appended, 0.99),
        "appended_max_ms": max(appended),
        "rate": (len(messages) - 1) / (time.time() - began),
    }
