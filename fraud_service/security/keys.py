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


def read_keys(folder: Path, purpose: str, wanted: str | None) -> tuple[dict[str, bytes], str]:
    """Read the keys of a folder; return them by name, and the name of the active one: `wanted`, or the last by name.

    `purpose` is the part of the settings' names, as SIGNING in FRAUD_SIGNING_KEY_DIR. Errors name the setting.
    """
    setting = f"FRAUD_{purpose}_KEY_DIR={folder}"
    try:
        keys = read_secret_files(folder)
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: {error.strerror}: mount a folder with one readable file for each key"
        ) from None
    if not keys:
        raise ConfigurationError(f"{setting} has no keys: add a file with the name of the key")
    for name, secret in keys.items():
        complaint = _complaint(name, secret)
        if complaint is not None:
            raise ConfigurationError(f"{setting}: {complaint}")
    active = wanted or max(keys)
    if active not in keys:
        names = ", ".join(sorted(keys))
        raise ConfigurationError(f"FRAUD_ACTIVE_{purpose}_KEY={active} is not in {setting}: choose one of {names}")
    return keys, active


def _complaint(name: str, secret: bytes) -> str | None:
    fix = f"create a key with `openssl rand -hex 32 > {name}`"
    if not KEY_NAME.fullmatch(name):
        return f"the key name {name!r} is invalid: use letters, digits, . _ or -, because records have it in a header"
    if secret.startswith(b"-----BEGIN"):
        return f"{name} is PEM, as a public certificate is, and not a secret key: {fix}"
    if len(secret) < MIN_KEY_BYTES:
        return f"the key {name} has {len(secret)} bytes and needs at least {MIN_KEY_BYTES}: {fix}"
    return None
