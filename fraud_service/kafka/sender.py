"""Send records, and wait until the broker has acknowledged them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException

from fraud_service.domain.errors import FatalStreamError
from fraud_service.kafka import clients
from fraud_service.kafka.partitioner import PARTITION_BY_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Headers

FLUSH_TIMEOUT_S: Final = 60.0
FULL_QUEUE_POLL_S: Final = 0.1
TOO_LARGE: Final = (
    "Compressed, it is larger than max.message.bytes of its topic, or message.max.bytes in FRAUD_KAFKA_CONFIG. For a "
    "model, raise max.message.bytes of the models topic and FRAUD_MAX_MODEL_BYTES, or train a smaller model"
)


class OutgoingRecord(NamedTuple):
    """One record to send; a value of None is a tombstone."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    partition: int = PARTITION_BY_KEY


class Sender:
    """Send records in order through an idempotent producer; `options` are those of `clients.producer`."""

    def __init__(self, settings: Settings, options: dict[str, Any] | None = None) -> None:
        self._producer = clients.producer(settings, options)
        self._rejections: list[KafkaError] = []

    def send(self, record: OutgoingRecord) -> None:
        """Queue one record. Waits while the queue of the client is full."""
        topic, key, value, headers, partition = record
        while True:
            try:
                self._producer.produce(topic, value, key, partition, headers=headers, on_delivery=self._on_delivery)
            except BufferError:
                self._producer.poll(FULL_QUEUE_POLL_S)
            except KafkaException as error:  # the client refuses it: it is larger than message.max.bytes
                self._rejections.append(error.args[0])
                return
            else:
                self._producer.poll(0)
                return

    def flush(self) -> None:
        """Wait until the broker has everything that was sent. Raises `FatalStreamError` when it rejects a record."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left or self._rejections:
            first = self._rejections[0] if self._rejections else None
            reason = f"no answer within {FLUSH_TIMEOUT_S:.0f} s" if first is None else first.str()
            too_large = first is not None and first.code() == KafkaError.MSG_SIZE_TOO_LARGE
            remedy = TOO_LARGE if too_large else "Check the brokers"
            raise FatalStreamError(
                f"the broker did not accept {left + len(self._rejections)} records: {reason}. {remedy}"
            )

    def _on_delivery(self, error: Any, _: Any) -> None:
        if error is not None:
            self._rejections.append(error)


def produce_all(settings: Settings, records: Iterable[OutgoingRecord], options: dict[str, Any] | None = None) -> None:
    """Send records in order and wait until the broker has all of them. Raises as `Sender.flush` does."""
    sender = Sender(settings, options)
    for record in records:
        sender.send(record)
    sender.flush()
