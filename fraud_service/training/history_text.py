"""Open files of text: decompressed, and in UTF-8 whatever their encoding is."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from fraud_service.domain.errors import ConfigurationError
from fraud_service.training.history_arrow import pa

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSIONS: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2"}  # by the first bytes
ZIP: Final = b"PK\x03\x04"
MARKS: Final = {  # of the byte order, which spreadsheets write
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
WIDE: Final[dict[tuple[bool, ...], str]] = {  # by which of the first bytes are NUL
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
}
UTF_8: Final = ("utf-8", "utf8", "utf-8-sig")
UNREADABLE: Final = "\ufffd"
NOT_TEXT: Final = "not UTF-8 text: name the encoding of the file, as in --encoding latin-1, cp1252 or utf-16"


def open_bytes(path: Path, encoding: str) -> pa.NativeFile:
    """Open a file as UTF-8 bytes. A byte order mark of UTF-8 is not removed."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
        if head == ZIP:
            raise ConfigurationError(f"{path}: a ZIP archive or a workbook: unpack it, or export it as CSV")
        compression = next((name for magic, name in COMPRESSIONS.items() if head.startswith(magic)), None)
        with pa.input_stream(path, compression=compression) as stream:
            begin = stream.read(4)
        stream = pa.input_stream(path, compression=compression)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
    encoding = _encoding(path, begin, encoding)
    return stream if encoding.lower() in UTF_8 else pa.transcoding_input_stream(stream, encoding, "utf8")


def _encoding(path: Path, begin: bytes, named: str) -> str:
    """Return the encoding that the mark of a file shows, else the named one, if characters may have its width."""
    marked = next((encoding for mark, encoding in MARKS.items() if begin.startswith(mark)), None)
    wide = WIDE.get(tuple(byte == 0 for byte in begin))
    if marked is None and wide is not None and len("a".encode(named)) == 1:
        raise ConfigurationError(f"{path}: not text in {named}, but as it seems in {wide}: add --encoding {wide}")
    return marked or named


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a file as text, without byte order mark and with its line breaks. What is not UTF-8 becomes `UNREADABLE`."""
    return io.TextIOWrapper(open_bytes(path, encoding), encoding="utf-8-sig", errors="replace", newline="")


def undecodable(path: Path, encoding: str) -> ConfigurationError:
    """Return the error of a file that is not text in its encoding."""
    if encoding.lower() in UTF_8:
        return ConfigurationError(f"{path}: {NOT_TEXT}")
    return ConfigurationError(f"{path}: not text in {encoding}: is --encoding right?")
