"""What comes in and what goes out, as bytes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

Headers = list[tuple[str, bytes]]


class Received(NamedTuple):
    """One message as the broker gave it; `timestamp` is the broker's, epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Output(msgspec.Struct, frozen=True):
    """One record to produce: the role of its topic, key, value (None is a tombstone), headers."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = []
