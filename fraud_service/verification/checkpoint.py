"""What a folder keeps of a replay, so that one that was ended can go on: files that are there whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.profile import SCHEMA
from fraud_service.verification.decision_verifier import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Kept = TypeVar("Kept")


def read(folder: Path, name: str, kind: type[Kept]) -> Kept | None:
    """Return what is kept under a name; None when there is nothing.

    Raises
    ------
    ConfigurationError
        When it cannot be read.
    """
    return _read(folder / f"{name}.json", lambda data: msgspec.json.decode(data, type=kind))


def write(folder: Path, name: str, what: object) -> None:
    """Keep something under a name. Raises `ConfigurationError` when it cannot be written."""
    _write(folder / f"{name}.json", msgspec.json.encode(what))


def load(folder: Path, name: str) -> Checkpoint | None:
    """Return how far a verification had come; raises as `read` does, also where its profiles are of another version."""
    return _read(folder / f"{name}.standing", _standing)


def save(folder: Path, name: str, standing: Checkpoint) -> None:
    """Keep how far a verification has come. Raises as `write` does."""
    _write(folder / f"{name}.standing", msgspec.msgpack.encode(standing))


def drop(folder: Path, name: str) -> None:
    """Forget how far a verification had come: it is at its end."""
    (folder / f"{name}.standing").unlink(missing_ok=True)


def _standing(data: bytes) -> Checkpoint:
    standing = msgspec.msgpack.decode(data, type=Checkpoint)
    if standing.schema != SCHEMA:
        raise msgspec.ValidationError(f"its profiles have schema {standing.schema}, this version reads {SCHEMA}")
    return standing


def _read(path: Path, decode: Callable[[bytes], Kept]) -> Kept | None:
    try:
        return decode(path.read_bytes()) if path.exists() else None
    except (OSError, *UNREADABLE) as error:
        raise ConfigurationError(f"--resume {path}: cannot be read: {error}; remove it to begin anew") from None


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)
    except OSError as error:
        raise ConfigurationError(f"--resume {path.parent}: cannot be written: {error}") from None
