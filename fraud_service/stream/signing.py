"""The keys that sign and verify: a mounted folder, a file a key. They never become part of the settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fraud_service.domain.signature import Keyring
from fraud_service.errors import ConfigurationError
from fraud_service.settings import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from fraud_service.settings import Settings

SHORTEST: Final = 32  # bytes: as long as what the hash gives
KEY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,253}")  # as Kubernetes has it


def keyring(settings: Settings) -> Keyring:
    """Read the keys. Without a folder of keys, and only if settings allow it, nothing is signed or verified.

    Raises
    ------
    ConfigurationError
        When there are no keys and that is not allowed; a key cannot be read or is too short; the one that is to sign is
        not there; or the deployment has no name. Never shows a key.
    """
    folder = settings.signing_keys
    if folder is None:
        if settings.signing_key is not None:
            raise ConfigurationError(
                f"FRAUD_SIGNING_KEY={settings.signing_key} names a key, but there are none: set FRAUD_SIGNING_KEYS"
            )
        if not settings.allow_unsigned:
            raise ConfigurationError(
                "FRAUD_SIGNING_KEYS is not set: anyone who may write models, snapshots or risk could change scores. "
                "Make a key with `mkdir keys && openssl rand -hex 32 > keys/2026-01`, set FRAUD_SIGNING_KEYS=keys, and "
                "name this deployment in FRAUD_DEPLOYMENT; or set FRAUD_ALLOW_UNSIGNED=true to work without keys"
            )
        return Keyring()
    if settings.deployment is None:
        raise ConfigurationError(
            f"FRAUD_DEPLOYMENT is not set, and FRAUD_SIGNING_KEYS={folder} is: name this deployment, as in "
            "production/fraud, with the same name in all its processes, and in no other deployment"
        )
    keys = keys_in(folder, "FRAUD_SIGNING_KEYS")
    return Keyring(keys, active_of(keys, settings.signing_key, "FRAUD_SIGNING_KEY", folder), settings.deployment)


def require_keys(settings: Settings) -> Keyring:
    """Read the keys as `keyring` does, and raise `ConfigurationError` also when there are none."""
    if settings.signing_keys is None:
        raise ConfigurationError("there is no key to sign with: set FRAUD_SIGNING_KEYS")
    return keyring(settings)


def keys_in(folder: Path, setting: str) -> dict[str, bytes]:
    """Read the keys of a folder by their names. Raises as `keyring` does, naming the setting."""
    try:
        keys = mounted(folder)
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
        if len(secret) < SHORTEST:
            raise ConfigurationError(
                f"{setting}={folder}: the key {name} has {len(secret)} bytes, it needs {SHORTEST}: "
                f"make one with `openssl rand -hex 32 > {name}`"
            )
    return keys


def active_of(keys: dict[str, bytes], wanted: str | None, setting: str, folder: Path) -> str:
    """Return the name of the key that is used for what is new: the wanted one, or the last by name."""
    active = wanted or max(keys)
    if active not in keys:
        raise ConfigurationError(
            f"{setting}={active} is not in {setting}S={folder}: there is {', '.join(sorted(keys))}"
        )
    return active
