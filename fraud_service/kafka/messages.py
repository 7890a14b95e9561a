"""Messages as bytes: received and produced ones, their headers, and the limits of their size."""

from __future__ import annotations

from hashlib import sha256
from operator import methodcaller
from typing import Any, Final, NamedTuple

import msgspec

from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.events import MAX_EVENT_BYTES, MAX_KEY_BYTES

Headers = list[tuple[str, bytes]]

BATCH_FIRST: Final = "fraud-batch-first-offset"
CONTENT_LENGTH: Final = "fraud-content-length"
CONTENT_HASH: Final = "fraud-content-sha256"
KEY_LENGTH: Final = "fraud-key-length"
KEY_HASH: Final = "fraud-key-sha256"


class Received(NamedTuple):
    """One received message; `timestamp` is the broker's, in epoch milliseconds.

    `withheld` describes content that was not kept, as headers of the dead letter. For a value or key
    that is too large, these are its length and hash. For a batch that cannot be unpacked, this is its first offset; the
    message then replaces the whole batch and has its last offset.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    withheld: tuple[tuple[str, bytes], ...] = ()


class Output(msgspec.Struct, frozen=True):
    """One record to produce, to the topic with this role. A value of None is a tombstone."""

    role: str
    key: bytes | None
    value: bytes | None
    headers: Headers = []


def bounded(message: Received) -> Received:
    """Replace a value or key that is too large by its length and hash.

    >>> bounded(Received("payments", 0, 7, b"card-1", bytes(2**20), 0)).withheld[0]
    ('fraud-content-length', b'1048576')
    """
    value, key = message.value, message.key
    if value is not None and len(value) > MAX_EVENT_BYTES:
        message = message._replace(value=None, withheld=_described(value, CONTENT_LENGTH, CONTENT_HASH))
    if key is not None and len(key) > MAX_KEY_BYTES:
        message = message._replace(key=None, withheld=message.withheld + _described(key, KEY_LENGTH, KEY_HASH))
    return message


def _described(content: bytes, length: str, digest: str) -> tuple[tuple[str, bytes], ...]:
    return (length, str(len(content)).encode()), (digest, sha256(content).hexdigest().encode())


def require_content(message: Received) -> None:
    """Raise `InvalidEvent` for a message that is unreadable or too large, before anything parses it."""
    if message.withheld and message.withheld[0][0] == BATCH_FIRST:
        raise InvalidEvent(
            DeadLetterReason.UNREADABLE, "the batch that ends here cannot be unpacked: it is damaged or far too large"
        )
    if message.withheld or bounded(message) is not message:
        raise InvalidEvent(
            DeadLetterReason.TOO_LARGE, f"a value can have at most {MAX_EVENT_BYTES} bytes, and a key {MAX_KEY_BYTES}"
        )


_headers: Final = methodcaller("headers")


def read_headers(message: Any) -> Headers:
    """Return the headers of a message that a client returned; none when the client cannot read them.

    Anyone can send a header whose name is not UTF-8. The client then returns a value and also sets an exception. A
    plain call in a specialised loop overlooks it, and it appears later at some other call. `methodcaller` raises it.
    """
    try:
        found: Headers = _headers(message) or []
    except (SystemError, UnicodeDecodeError):
        return []
    return found
