"""Write a scorer's topics with its real processor and without a broker, for tests that verify or alter the log."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.worlds import LinearModel, online_model

from fraud_service.config.settings import Settings
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.kafka.messages import Received
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.kafka.topic_reader import Record
from fraud_service.processors.scorer import ScorerProcessor
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

PARTITIONS = 3
BROKER_TIME = 1_800_000_000_000
SETTINGS = Settings(instance_id="test", partitions=PARTITIONS, reject_wrong_partition=False)
NAMES = SETTINGS.topics.model_dump()


class Store(dict):
    """The state of one card."""

    def get_bytes(self, key: str) -> bytes | None:
        return self.get(key)

    def set_bytes(self, key: str, value: bytes) -> None:
        self[key] = value


@dataclass
class Log:
    """Entries by role and partition."""

    entries: dict[tuple[str, int], list[Record]] = field(default_factory=lambda: defaultdict(list))

    def append(self, role: str, partition: int, key, value, headers=(), timestamp: int = 0) -> Record:
        place = self.entries[role, partition]
        offset = place[-1].offset + 1 if place else 0
        place.append(Record(NAMES.get(role, role), partition, offset, key, value, timestamp, list(headers)))
        return place[-1]

    def of(self, role: str, partition: int) -> list[Record]:
        return self.entries.get((role, partition), [])

    def all(self, role: str) -> list[Record]:
        return [entry for number in range(PARTITIONS) for entry in self.of(role, number)]


class Written(Log):
    """A log that the scorer's processor writes, message by message."""

    def __init__(self, checkpoint: int = 3) -> None:
        super().__init__()
        model = LinearModel(base=-1.5, amount=6.0, count_1h=5.0)
        knowledge = SnapshotStore(untrained(model.version, online_model()))
        self.step = ScorerProcessor(SETTINGS, Detector(model, Policy()), knowledge, ScorerMetrics(Metrics()))
        self.states: dict[tuple[int, bytes], Store] = defaultdict(Store)
        self._checkpoint = checkpoint
        self._changed: dict[int, dict[bytes, None]] = defaultdict(dict)

    def send(self, value: bytes | None, key: bytes | None, partition: int | None = None) -> Record:
        """Append a message and process it."""
        number = _partition(key) if partition is None else partition
        moment = BROKER_TIME + len(self.entries["transactions", number]) // 2 * 2  # a coarse broker clock
        entry = self.append("transactions", number, key, value, timestamp=moment)

        def state_of(message: Received) -> Store:
            self._changed[number][message.key] = None
            return self.states[number, message.key]

        (outputs,) = self.step([Received(entry.topic, number, entry.offset, key, value, moment)], state_of)
        for output in outputs:
            self.append(output.role, _partition(output.key), output.key, output.value, output.headers, moment)
        if entry.offset % self._checkpoint == 0:
            self.commit(number)
        return entry

    def commit(self, number: int) -> None:
        """Write the changed state, as a checkpoint does."""
        inputs = self.of("transactions", number)
        if not inputs:
            return
        offsets = json.dumps({NAMES["transactions"]: inputs[-1].offset}).encode()
        headers = [("__column_family__", b"default"), ("__processed_tp_offsets__", offsets)]
        for key in self._changed.pop(number, {}):
            for name, value in self.states[number, key].items():
                self.append("changelog", number, key + b'|"' + name.encode() + b'"', value, headers)

    def done(self) -> Written:
        for number in range(PARTITIONS):
            self.commit(number)
        return self


def written(messages: Iterable[tuple[bytes | None, bytes | None]], checkpoint: int = 3) -> Written:
    log = Written(checkpoint)
    for value, key in messages:
        log.send(value, key)
    return log.done()


def _partition(key: bytes | None) -> int:
    return 0 if key is None else murmur2_partition(key, PARTITIONS)


def edited(log: Log, role: str, change: Callable[[list[Record]], list[Record]], partition: int) -> Log:
    """Return the log with the entries of one partition changed. Their offsets stay; see `renumbered`."""
    copy = Log(defaultdict(list, {place: list(entries) for place, entries in log.entries.items()}))
    copy.entries[role, partition] = change(list(log.of(role, partition)))
    return copy


def renumbered(entries: list[Record]) -> list[Record]:
    return [entry._replace(offset=number) for number, entry in enumerate(entries)]
