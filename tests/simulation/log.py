"""One partition: records and transaction markers in order, and the last stable offset."""

from __future__ import annotations

from typing import NamedTuple

Place = tuple[str, int]  # topic and partition


class Record(NamedTuple):
    """A produced record; `timestamp` is in epoch milliseconds."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int


class Marker(NamedTuple):
    """The end of a producer's transaction. It has an offset, but consumers never see it."""

    producer: int
    is_commit: bool


class PartitionLog:
    """Append, end transactions, read."""

    def __init__(self) -> None:
        self.entries: list[Record | Marker] = []
        self._owner: dict[int, int] = {}  # offsets of records in open transactions, with the producer
        self._first: dict[int, int] = {}  # first offset of each producer's open transaction
        self._aborted: set[int] = set()

    @property
    def end(self) -> int:
        """The high watermark. With one broker, everything is replicated."""
        return len(self.entries)

    @property
    def stable_end(self) -> int:
        """The last stable offset: where the first open transaction begins."""
        return min(self._first.values(), default=self.end)

    def append(self, record: Record, producer: int | None = None) -> int:
        """Append a record, in the open transaction of `producer` if given; returns its offset."""
        offset = self.end
        self.entries.append(record)
        if producer is not None:
            self._owner[offset] = producer
            self._first.setdefault(producer, offset)
        return offset

    def close(self, producer: int, *, is_commit: bool) -> None:
        """Write the marker that ends a producer's transaction."""
        mine = [offset for offset, owner in self._owner.items() if owner == producer]
        for offset in mine:
            del self._owner[offset]
        if not is_commit:
            self._aborted.update(mine)
        self._first.pop(producer, None)
        self.entries.append(Marker(producer, is_commit))

    def read(self, position: int, *, is_committed: bool = True) -> tuple[int, Record | None]:
        """Return the offset and the first record at or after a position, or the next position and None."""
        end = self.stable_end if is_committed else self.end
        while position < end:
            entry = self.entries[position]
            if isinstance(entry, Record) and not (is_committed and position in self._aborted):
                return position, entry
            position += 1
        return position, None

    def committed(self) -> list[tuple[int, Record]]:
        """Return the records that a `read_committed` consumer sees, with offsets."""
        found, position = [], 0
        while True:
            position, record = self.read(position)
            if record is None:
                return found
            found.append((position, record))
            position += 1
