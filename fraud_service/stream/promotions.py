"""Promoted models: a topic of one partition, written by a re-fit, read whole by the learner and by every scorer.

The learner teaches beside the last one from its next boundary on, and the snapshot of that boundary is the first to
name it. Scorers only make models ready: which one scores a transaction is told by the snapshot in force.
What the newest re-fit found, promotion or not, lies beside the models under a key of its own; the learner shows it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from fraud_service.errors import FatalStreamError
from fraud_service.stream import clients
from fraud_service.stream.topics import LARGEST_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.settings import Settings

log = structlog.get_logger(__name__)

CATCH_UP_TIMEOUT: Final = 60.0  # seconds
FLUSH_TIMEOUT: Final = 60.0  # seconds
REFIT_KEY: Final = "re-fit"  # no version: those begin with the kind of model


class Promotions:
    """Read the topic of promoted models from its beginning.

    `name` tells the reader apart in the broker's logs; `on_refit` is told what each re-fit found, as it was written.
    """

    def __init__(self, settings: Settings, name: str, on_refit: Callable[[bytes], None] = lambda _: None) -> None:
        self._on_refit = on_refit
        self._partition = TopicPartition(settings.topics.models, 0, OFFSET_BEGINNING)
        self._consumer = clients.reader(settings, f"{name}-models")
        self._consumer.assign([self._partition])

    def catch_up(self) -> list[bytes]:
        """Return all models there are, the last one promoted last.

        Raises
        ------
        FatalStreamError
            When the end is not reached in time.
        ClusterUnavailable, PreflightError
            When the cluster does not say where the end is.
        """
        low, high = clients.watermarks(self._consumer, self._partition)
        deadline, found = time.monotonic() + CATCH_UP_TIMEOUT, []
        while high > low and self._position() < high:
            if time.monotonic() > deadline:
                raise FatalStreamError(f"promoted models could not be read within {CATCH_UP_TIMEOUT:.0f} s")
            found += self._read(0.2)
        return found

    def take(self) -> list[bytes]:
        """Return the models that came since the last call; never waits."""
        return self._read(0.0)

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _position(self) -> int:
        (position,) = self._consumer.position([self._partition])
        return max(int(position.offset), 0)

    def _read(self, timeout: float) -> list[bytes]:
        found = []
        for message in self._consumer.consume(10, timeout=timeout):
            if message.error() is not None:
                log.warning("promotions_read_error", error=message.error().name())
            elif message.value() is not None and message.key() == REFIT_KEY.encode():
                self._on_refit(message.value())
            elif message.value() is not None:
                found.append(message.value())
        return found


def publish(settings: Settings, key: str, data: bytes) -> None:
    """Promote a model by its version, or say under `REFIT_KEY` what a re-fit found.

    Raises
    ------
    FatalStreamError
        When the broker does not take it.
    """
    refusals: list[str] = []

    def on_delivery(error: Any, _: Any) -> None:
        if error is not None:
            refusals.append(error.str())

    producer = clients.producer(settings, {"message.max.bytes": 2 * LARGEST_MODEL, "compression.type": "zstd"})
    producer.produce(settings.topics.models, key=key.encode(), value=data, on_delivery=on_delivery)
    left = producer.flush(FLUSH_TIMEOUT)
    if left or refusals:
        reason = refusals[0] if refusals else f"no answer within {FLUSH_TIMEOUT:.0f} s"
        raise FatalStreamError(f"{key} was not taken by the broker: {reason}")
