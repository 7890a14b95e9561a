"""Short ways through Quix for what every transaction does: to read its card's state, and to produce.

Quix checks more than a transaction of ours can need, and asks for delivery reports after every message; both cost more
than RocksDB and the client do. What is written, committed and recovered, and all errors, stay Quix's. The names this
rests on are not promised; the canary test guards them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from quixstreams.state.metadata import SEPARATOR, Marker
from quixstreams.utils.json import dumps

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message
    from quixstreams.internal_producer import InternalProducer
    from quixstreams.state.base import PartitionTransaction


@cache
def _suffix(name: str) -> bytes:
    return bytes(SEPARATOR + dumps(name))


class KeyState:
    """The state of one message key, as `quixstreams.State` has it."""

    __slots__ = ("_key", "_transaction")

    def __init__(self, transaction: PartitionTransaction, key: bytes) -> None:
        self._transaction = transaction
        self._key = key

    def get_bytes(self, name: str) -> bytes | None:
        """Return a value: one that this checkpoint has written, or the one from before it."""
        place = self._key + _suffix(name)
        found = self._transaction._update_cache.get(place, self._key)  # noqa: SLF001
        if found is Marker.UNDEFINED:
            found = self._transaction._partition.get_or_create_column_family("default").get(place)  # noqa: SLF001
        return found if isinstance(found, bytes) else None

    def set_bytes(self, name: str, value: bytes) -> None:
        """Write a value, with this checkpoint."""
        self._transaction.set_bytes(name, value, self._key)


def produce_directly(producer: InternalProducer) -> None:
    """Hand messages to the client, and ask for delivery reports once a turn instead of once a message.

    Of outputs only what failed is reported to Quix, of changelogs also where they lie. When the client's queue is full,
    Quix waits as ever.
    """
    carefully = producer.produce

    def failed(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            producer._on_delivery(error, message)  # noqa: SLF001

    def produce(topic: str, *, partition: int | None = None, **message: Any) -> None:
        producer._raise_for_error()  # noqa: SLF001
        given = {name: value for name, value in message.items() if value is not None}
        if partition is None:
            given["on_delivery"] = failed
        else:
            given["on_delivery"] = producer._on_delivery  # noqa: SLF001
            given["partition"] = partition
        try:
            producer._producer._producer.produce(topic, **given)  # noqa: SLF001
        except BufferError:
            carefully(topic, partition=partition, **message)

    producer.produce = produce
