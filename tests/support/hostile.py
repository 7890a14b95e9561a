"""Messages that delay a process or fill its memory: worst contents, and compressed bombs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.kafka import sender

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.config.settings import Settings

MB: Final = 1_000_000
BOMB: Final = b"4 "
# Repeated to any size. Each keeps a scanner for card data busy in another way. Add worse contents here.
WORST: Final = {
    "single digits": b"4 ",
    "pairs with dashes": b"42-42 ",
    "near misses": b"4242424242424241 ",
    "no separators": b"4242424242424241",
    "card numbers": b"4242424242424242 ",
    "track data": b"4242424242424242=2512101",
    "escapes and NUL": "④\\u0034%34 &#52; cvv:12 \0".encode(),
    "names without values": b"cvv:12 pin: ",
    "escapes": b"\\u0034 ",
    "UTF-16": b"4\0 \0",
    "hex": b"0a1b2c3d4e5f60718293 ",
    "nothing but zeros": b"0",
    "no text": b"\xff",
}
# Codec and size of a message whose batch is below the broker's limit of a million bytes. Snappy reaches 20:1 at best.
BOMBS: Final = (("lz4", 50 * MB), ("gzip", 8 * MB), ("zstd", 24 * MB), ("snappy", 18 * MB), ("gzip", 50 * MB))


def worst(name: str, size: int = MAX_EVENT_BYTES) -> bytes:
    """Return `size` bytes of one of the contents."""
    unit = WORST[name]
    return (unit * (size // len(unit) + 1))[:size]


# Larger than the client decompresses.
UNREADABLE: Final = ("zstd", 120 * MB)


def send_bombs(settings: Settings, topic: str, key: bytes, bombs: Iterable[tuple[str, int]]) -> None:
    """Send messages of the given codecs and sizes, each alone in its batch."""
    for codec, size in bombs:
        options = {"compression.type": codec, "message.max.bytes": 200 * MB, "queue.buffering.max.kbytes": 1 << 20}
        sender.produce_all(settings, [sender.OutgoingRecord(topic, key, BOMB * (size // len(BOMB)), [])], options)
