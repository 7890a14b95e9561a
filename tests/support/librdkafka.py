"""librdkafka itself, for what its Python client does not let anybody send."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

TOPIC, VALUE, KEY, MESSAGE_FLAGS, HEADERS, END = 1, 4, 5, 7, 10, 0  # rd_kafka_vtype_t
COPY = 2  # RD_KAFKA_MSG_F_COPY
TIMEOUT_MS = 30_000


def _library() -> ctypes.CDLL:
    (path,) = (Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs").glob("librdkafka*.so*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(library, name).restype = ctypes.c_void_p
    return library


def send(bootstrap: str, topic: str, key: bytes, value: bytes, header: bytes) -> None:
    """Send a record with a header of any name, UTF-8 or not."""
    library, pointer, size = _library(), ctypes.c_void_p, ctypes.c_size_t
    conf, error = pointer(library.rd_kafka_conf_new()), ctypes.create_string_buffer(512)
    assert library.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), error, size(512)) == 0
    producer = pointer(library.rd_kafka_new(0, conf, error, size(512)))
    assert producer, error.value
    headers = pointer(library.rd_kafka_headers_new(size(1)))
    assert library.rd_kafka_header_add(headers, header, ctypes.c_ssize_t(-1), b"v", ctypes.c_ssize_t(1)) == 0
    parts = [TOPIC, ctypes.c_char_p(topic.encode()), KEY, ctypes.c_char_p(key), size(len(key))]
    parts += [VALUE, ctypes.c_char_p(value), size(len(value)), MESSAGE_FLAGS, COPY, HEADERS, headers, END]
    assert library.rd_kafka_producev(producer, *parts) == 0
    assert library.rd_kafka_flush(producer, TIMEOUT_MS) == 0
    library.rd_kafka_destroy(producer)
