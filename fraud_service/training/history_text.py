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
UTF_16: Final = (b"\xff\xfe", b"\xfe\xff")  # byte order marks, which spreadsheets write
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
            if stream.read(2) in UTF_16:
                encoding = "utf-16"
        stream = pa.input_stream(path, compression=compression)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error}") from None
    return stream if encoding.lower() in UTF_8 else pa.transcoding_input_stream(stream, encoding, "utf8")


def open_text(path: Path, encoding: str) -> io.TextIOWrapper:
    """Open a file as text, without byte order mark and with its line breaks. What is not UTF-8 becomes `UNREADABLE`."""
    return io.TextIOWrapper(open_bytes(path, encoding), encoding="utf-8-sig", errors="replace", newline="")


def undecodable(path: Path, encoding: str) -> ConfigurationError:
    """Return the error of a file that is not text in its encoding."""
    if encoding.lower() in UTF_8:
        return ConfigurationError(f"{path}: {NOT_TEXT}")
    return ConfigurationError(f"{path}: not text in {encoding}: is --encoding right?")
