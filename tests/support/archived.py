"""A log that a loop has written, readable without a broker. Tests alter it to check what a verification finds."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Self

from fraud_service.kafka.topic_reader import OffsetRange, Record
from fraud_service.models.artifact import pack
from fraud_service.verification import captured_offsets, log_reader, replay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.loop import Loop

    from fraud_service.config.settings import Settings


class Log:
    """Records by topic and partition, which is also a topic reader."""

    def __init__(self, settings: Settings, partitions: int) -> None:
        self.settings = settings
        self.partitions = partitions
        self.entries: dict[tuple[str, int], list[Record]] = defaultdict(list)

    @classmethod
    def of(cls, loop: Loop) -> Log:
        log = cls(loop.settings, loop.partitions)
        names = loop.settings.topics
        for message in loop.sent:
            log._append(message.topic, message.partition, message.key, message.value, message.timestamp, [])
        for role, name in names:
            for message in loop.on(role):
                partition = 0 if role in {"snapshots", "risk"} else message.partition
                log._append(name, partition, message.key, message.value, message.timestamp, message.headers)
        for artifact in loop.models:
            log._append(names.models, 0, artifact.manifest.version.encode(), pack(artifact), 0, [])
        return log

    def _append(self, topic, partition, key, value, timestamp, headers) -> None:
        log = self.entries[topic, partition]
        log.append(Record(topic, partition, len(log), key, value, timestamp, headers))

    def on(self, role: str) -> list[Record]:
        topic = getattr(self.settings.topics, role)
        return [entry for (name, _), log in sorted(self.entries.items()) for entry in log if name == topic]

    def replace(self, entry: Record, **changed: object) -> None:
        """Alter one record."""
        log = self.entries[entry.topic, entry.partition]
        log[log.index(entry)] = entry._replace(**changed)

    def remove(self, entry: Record) -> None:
        """Remove one record, as if it was lost."""
        self.entries[entry.topic, entry.partition].remove(entry)

    def cut(self, role: str, share: float) -> None:
        """Remove the first records of each partition, as retention does."""
        for (name, _), log in self.entries.items():
            if name == getattr(self.settings.topics, role):
                del log[: int(len(log) * share)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def offset_ranges(self, topic: str) -> dict[int, OffsetRange]:
        whole = 1 if topic in {getattr(self.settings.topics, role) for role in ("snapshots", "risk", "models")} else 0
        logs = {number: self.entries.get((topic, number), []) for number in range(whole or self.partitions)}
        return {
            number: OffsetRange(log[0].offset, log[-1].offset + 1) if log else OffsetRange(0, 0)
            for number, log in logs.items()
        }

    def read(self, topic: str, partition: int, begin: int | None = None, end: int | None = None) -> Iterator[Record]:
        for entry in list(self.entries.get((topic, partition), [])):
            if (begin or 0) <= entry.offset and (end is None or entry.offset < end):
                yield entry

    def offsets_since(self, topic: str, moment: int | dict[int, int]) -> dict[int, int]:
        spans = self.offset_ranges(topic)
        moments = dict.fromkeys(spans, moment) if isinstance(moment, int) else moment
        return {
            number: next((e.offset for e in self.read(topic, number) if e.timestamp >= moments[number]), span.end)
            for number, span in spans.items()
            if number in moments
        }

    def serve(self, monkeypatch) -> Log:
        """Make every topic reader of this process read this log. The groups have committed all of it."""
        monkeypatch.setattr(log_reader, "open_reader", lambda *_: self)
        monkeypatch.setattr(replay, "split_partitions", lambda partitions: [sorted(partitions)])
        monkeypatch.setattr(
            captured_offsets, "stable_ranges", lambda _settings, _reader, topic: self.offset_ranges(topic)
        )
        monkeypatch.setattr(
            captured_offsets,
            "committed_offsets",
            lambda _settings, _group, _reader, topic: {n: span.end for n, span in self.offset_ranges(topic).items()},
        )
        return self

    def write(self, path: Path) -> None:
        lines = [
            json.dumps([role, e.partition, e.offset, e.timestamp, _text(e.key), _text(e.value), _headers(e.headers)])
            for role, _ in self.settings.topics
            for e in self.on(role)
        ]
        path.write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))

    @classmethod
    def load(cls, settings: Settings, partitions: int, path: Path) -> Log:
        log = cls(settings, partitions)
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            role, partition, offset, timestamp, key, value, headers = json.loads(line)
            topic = getattr(settings.topics, role)
            entry = Record(
                topic, partition, offset, _bytes(key), _bytes(value), timestamp, [(n, _bytes(v)) for n, v in headers]
            )
            log.entries[topic, partition].append(entry)
        return log


def _headers(headers: list[tuple[str, bytes]]) -> list[tuple[str, str | None]]:
    return [(name, _text(value)) for name, value in headers]


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("latin-1")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("latin-1")
