"""Secret keys in a mounted folder: a file per key. Keys never become part of the settings."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING, Final

from fraud_service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

MIN_KEY_BYTES: Final = 32  # bytes: as long as what the hash gives
KEY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")  # as Kubernetes has it


def read_secret_files(folder: Path) -> dict[str, bytes]:
    """Read secrets by name, as Kubernetes mounts them: what begins with a dot are its own links. Raises `OSError`."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in files:
        if not path.is_file():  # a pipe would be waited for, a device read without end
            raise FileNotFoundError(errno.ENOENT, f"{path.name} is no file")
    return {path.name: path.read_bytes().rstrip(b"\r\n") for path in files}


def read_keys(folder: Path, setting: str) -> dict[str, bytes]:
    """Read the keys of a folder by their names. Raises as `keyring` does, naming the setting."""
    try:
        keys = read_secret_files(folder)
    except OSError as error:
        raise ConfigurationError(
            f"{setting}={folder}: {error.strerror}: mount a folder of readable files, one a key"
        ) from None
    if not keys:
        raise ConfigurationError(f"{setting}={folder} holds no key: put a file there, its name the key's")
    for name, secret in keys.items():
        if not KEY_NAME.fullmatch(name):
            raise ConfigurationError(
                f"{setting}={folder}: a key is named {name!r}: its name goes into headers, take letters, "
                "digits, . _ or -"
            )
        if secret.startswith(b"-----BEGIN"):
            raise ConfigurationError(
                f"{setting}={folder}: {name} is no key of ours but PEM, as a certificate is, which everybody may know: "
                f"make one with `openssl rand -hex 32 > {name}`"
            )
        if len(secret) < MIN_KEY_BYTES:
            raise ConfigurationError(
                f"{setting}={folder}: the key {name} has {len(secret)} bytes, it needs {MIN_KEY_BYTES}: "
                f"make one with `openssl rand -hex 32 > {name}`"
            )
    return keys


def active_key(keys: dict[str, bytes], wanted: str | None, setting: str, folder: Path) -> str:
    """Return the name of the key that is used for what is new: the wanted one, or the last by name."""
    active = wanted or max(keys)
    if active not in keys:
        raise ConfigurationError(
            f"{setting}={active} is not in {setting}S={folder}: there is {', '.join(sorted(keys))}"
        )
    return active
