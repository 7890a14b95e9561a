"""Read and write the changelogs of the state while the service is stopped."""

from __future__ import annotations

import json
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from quixstreams.state.rocksdb.metadata import CHANGELOG_OFFSET_KEY
from quixstreams.utils.json import dumps
from rocksdict import AccessType, Options, Rdict

from fraud_service.domain.errors import TopicReadError
from fraud_service.kafka import consumer_groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Headers
    from fraud_service.kafka.topic_reader import TopicReader

Row = tuple[int, bytes, bytes]  # partition, key and value of a record

PROCESSED: Final = "__processed_tp_offsets__"  # Quix's header: the newest offset of each input that led to the record


def key_suffix(name: str) -> bytes:
    """Return the suffix that Quix appends to a message key to name a value of its state."""
    return b"|" + bytes(dumps(name))


@contextmanager
def temporary_rows() -> Iterator[Rdict]:
    """Provide a temporary map of bytes on disk, for data that does not fit into memory."""
    with tempfile.TemporaryDirectory() as folder:
        database = Rdict(str(Path(folder) / "rows"), Options(raw_mode=True))
        try:
            yield database
        finally:
            database.close()


def last_rows(settings: Settings, reader: TopicReader, changelog: str) -> Iterator[Row]:
    """Yield the last value of each key of a changelog. A temporary database on disk holds the values.

    Raises `TopicReadError` when it cannot be read, or an open transaction does not end within two minutes.
    """
    for number, span in consumer_groups.stable_ranges(settings, reader, changelog).items():
        with temporary_rows() as known:
            for entry in reader.read(changelog, number, span.begin, span.end):
                key = entry.key or b""
                if entry.value is None:
                    known.delete(key)
                else:
                    known[key] = entry.value
            for name, value in known.items():
                yield number, cast("bytes", name), value  # in raw mode


class LocalState(NamedTuple):
    """The state of one partition on a volume, and the newest changelog offset that it includes."""

    rows: Rdict
    changelog_offset: int

    @classmethod
    @contextmanager
    def opened(cls, state_dir: Path, group: str, topic: str, partition: int) -> Iterator[LocalState | None]:
        """Open the state of a partition on a volume; None where there is none. Its process may be running.

        Raises `TopicReadError` when the state cannot be read.
        """
        path = state_dir / group / "default" / topic / str(partition)
        if not (path / "CURRENT").exists():
            yield None
            return
        try:
            families = {name: Options(raw_mode=True) for name in Rdict.list_cf(str(path))}
            store = Rdict(str(path), Options(raw_mode=True), families, AccessType.read_only())
            stored = store.get_column_family("__metadata__").get(CHANGELOG_OFFSET_KEY)
        except Exception as error:
            raise TopicReadError(f"the state in {path} cannot be read: {error}") from error
        try:
            yield cls(store, -1 if stored is None else int.from_bytes(stored, "big"))
        finally:
            store.close()


def row_headers(inputs: Iterable[str], processed: int) -> Headers:
    """Return the headers that Quix reads. Recovery applies a record when the group has committed beyond `processed`.

    `processed` is the newest offset of each input that led to the record.
    """
    offsets = json.dumps(dict.fromkeys(inputs, processed)).encode()
    return [("__column_family__", b"default"), (PROCESSED, offsets)]
