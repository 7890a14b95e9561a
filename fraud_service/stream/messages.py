"""What comes in and what goes out, as bytes."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from quixstreams.models import Serializer

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


class OutputValue(Serializer):  # type: ignore[misc]
    """Write the bytes an `Output` carries."""

    def __call__(self, value: Output, ctx: Any) -> bytes | None:  # noqa: ARG002 - Quix's signature
        """Return the value of the output."""
        return value.value
