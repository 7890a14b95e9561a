"""Files of `replay --resume`: plan, results and checkpoints. Each is written whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.profile import SCHEMA
from fraud_service.verification.decisions import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Stored = TypeVar("Stored")


def read(folder: Path, name: str, kind: type[Stored]) -> Stored | None:
    """Return what was written under a name; None if there is nothing.

    Raises
    ------
    ConfigurationError
        When it cannot be read.
    """
    return _read(folder / f"{name}.json", lambda data: msgspec.json.decode(data, type=kind))


def write(folder: Path, name: str, value: object) -> None:
    """Write a value under a name. Raises `ConfigurationError` when it cannot be written."""
    _write(folder / f"{name}.json", msgspec.json.encode(value))


def load(folder: Path, name: str) -> Checkpoint | None:
    """Return the checkpoint of a partition. Raises as `read` does, also for profiles of another schema."""
    return _read(folder / f"{name}.checkpoint", _decode)


def save(folder: Path, name: str, checkpoint: Checkpoint) -> None:
    """Write the checkpoint of a partition. Raises as `write` does."""
    _write(folder / f"{name}.checkpoint", msgspec.msgpack.encode(checkpoint))


def drop(folder: Path, name: str) -> None:
    """Remove the checkpoint of a finished partition."""
    (folder / f"{name}.checkpoint").unlink(missing_ok=True)


def _decode(data: bytes) -> Checkpoint:
    checkpoint = msgspec.msgpack.decode(data, type=Checkpoint)
    if checkpoint.schema != SCHEMA:
        raise msgspec.ValidationError(f"its profiles have schema {checkpoint.schema}, this version reads {SCHEMA}")
    return checkpoint


def _read(path: Path, decode: Callable[[bytes], Stored]) -> Stored | None:
    try:
        return decode(path.read_bytes()) if path.exists() else None
    except (OSError, *UNREADABLE) as error:
        raise ConfigurationError(f"--resume {path}: cannot be read: {error}; remove it to start over") from None


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"--resume {path.parent}: cannot be written: {error}") from None
