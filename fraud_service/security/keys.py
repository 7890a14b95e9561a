"""Read secret keys from a mounted folder with one file for each key. Keys are not part of the settings."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Final

from fraud_service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MIN_KEY_BYTES: Final = 32  # as long as a SHA-256 digest
KEY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")  # the keys of a Kubernetes Secret


def read_secret_files(folder: Path) -> dict[str, bytes]:
    """Read the secrets that Kubernetes mounts, by name; skips its links, which begin with a dot. Raises `OSError`."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in files:
        if not path.is_file():  # reading a pipe or a device may not end
            raise FileNotFoundError(errno.ENOENT, f"{path.name} is not a file")
    return {path.name: path.read_bytes().rstrip(b"\r\n") for path in files}


def read_keys(folder: Path, setting: str) -> dict[str, bytes]:
    """Read the keys of a folder by name. Raises `ConfigurationError` with the name of the setting."""
    try:
        keys = read_secret_files(folder)
    except OSError as error:
        raise ConfigurationError(
            f"{setting}={folder}: {error.strerror}: mount a folder with one readable file for each key"
        ) from None
    if not keys:
        raise ConfigurationError(f"{setting}={folder} has no keys: add a file with the name of the key")
    for name, secret in keys.items():
        if not KEY_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{setting}={folder}: the key name {name!r} is invalid: use letters, digits, . _ or -, "
                "because records have it in a header"
            )
        if secret.startswith(b"-----BEGIN"):
            raise ConfigurationError(
                f"{setting}={folder}: {name} is PEM, as a public certificate is, and not a secret key: "
                f"create a key with `openssl rand -hex 32 > {name}`"
            )
        if len(secret) < MIN_KEY_BYTES:
            raise ConfigurationError(
                f"{setting}={folder}: the key {name} has {len(secret)} bytes and needs at least {MIN_KEY_BYTES}: "
                f"create a key with `openssl rand -hex 32 > {name}`"
            )
    return keys


def active_key(keys: dict[str, bytes], wanted: str | None, setting: str, folder: Path) -> str:
    """Return the name of the key for new signatures or tokens: the wanted one, or the last by name."""
    active = wanted or max(keys)
    if active not in keys:
        raise ConfigurationError(
            f"{setting}={active} is not in {setting}S={folder}: choose one of {', '.join(sorted(keys))}"
        )
    return active
