"""A stand-in for `confluent_kafka.Message`, which Python code cannot create."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import TIMESTAMP_CREATE_TIME

if TYPE_CHECKING:
    from confluent_kafka import KafkaError
    from simulation.log import Place, Record


class Message:
    """A message from a consumer's poll or in a delivery report."""

    def __init__(self, place: Place, offset: int, record: Record, error: KafkaError | None = None) -> None:
        self._place = place
        self._offset = offset
        self._record = record
        self._error = error

    def error(self) -> KafkaError | None:
        return self._error

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._record.key

    def value(self) -> bytes | None:
        return self._record.value

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._record.headers or None

    def timestamp(self) -> tuple[int, int]:
        return TIMESTAMP_CREATE_TIME, self._record.timestamp

    def leader_epoch(self) -> int:
        return 0

    def latency(self) -> None:
        return None

    def __len__(self) -> int:
        return len(self._record.value or b"")
