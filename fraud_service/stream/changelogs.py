"""The changelogs of the state, read and written while the service stands still."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rocksdict import Options, Rdict

from fraud_service.stream import standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.settings import Settings
    from fraud_service.stream.archive import Archive
    from fraud_service.stream.messages import Headers

Row = tuple[int, bytes, bytes]  # partition, key and value of a record


def rows(settings: Settings, archive: Archive, changelog: str) -> Iterator[Row]:
    """Yield every row that a changelog leaves: the last word on each key. What does not fit into memory is on disk.

    Raises
    ------
    ArchiveError
        When it cannot be read, or a transaction that a killed process has left open does not end within two minutes.
    """
    for number, span in standing.settled(settings, archive, changelog).items():
        with tempfile.TemporaryDirectory() as folder:
            known = Rdict(str(Path(folder) / "rows"), Options(raw_mode=True))
            try:
                for entry in archive.read(changelog, number, span.begin, span.end):
                    key = entry.key or b""
                    if entry.value is None:
                        known.delete(key)
                    else:
                        known[key] = entry.value
                for name, value in known.items():
                    yield number, cast("bytes", name), value  # in raw mode
            finally:
                known.close()


def headers(inputs: Iterable[str], processed: int) -> Headers:
    """Return the headers that Quix reads: its state takes a record in when the group has committed more of the inputs.

    Parameters
    ----------
    processed
        The newest offset of each input that the record stems from.
    """
    offsets = json.dumps(dict.fromkeys(inputs, processed)).encode()
    return [("__column_family__", b"default"), ("__processed_tp_offsets__", offsets)]
