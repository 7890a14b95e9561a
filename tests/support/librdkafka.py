"""Send records through librdkafka that its Python client cannot send."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Self

import confluent_kafka

TOPIC, VALUE, KEY, MESSAGE_FLAGS, HEADERS, END = 1, 4, 5, 7, 10, 0  # rd_kafka_vtype_t
COPY = 2  # RD_KAFKA_MSG_F_COPY
TIMEOUT_MS = 30_000

pointer, size, text = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p


def _library() -> ctypes.CDLL:
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, name).restype = pointer
    return library


class Sender:
    """Send records with a header of any name, UTF-8 or not. Leaving the context waits for all deliveries."""

    def __init__(self, bootstrap: str) -> None:
        self._library = _library()
        conf, error = pointer(self._library.rd_kafka_conf_new()), ctypes.create_string_buffer(512)
        known = self._library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), error, size(512))
        assert known == 0, error.value
        self._producer = pointer(self._library.rd_kafka_new(0, conf, error, size(512)))
        assert self._producer, error.value

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._library.rd_kafka_flush(self._producer, TIMEOUT_MS) == 0
        self._library.rd_kafka_destroy(self._producer)

    def send(self, topic: str, key: bytes, value: bytes, header: bytes) -> None:
        headers = pointer(self._library.rd_kafka_headers_new(size(1)))
        added = self._library.rd_kafka_header_add(headers, header, ctypes.c_ssize_t(-1), b"v", ctypes.c_ssize_t(1))
        assert added == 0
        parts = [TOPIC, text(topic.encode()), KEY, text(key), size(len(key)), VALUE, text(value), size(len(value))]
        assert self._library.rd_kafka_producev(self._producer, *parts, MESSAGE_FLAGS, COPY, HEADERS, headers, END) == 0
