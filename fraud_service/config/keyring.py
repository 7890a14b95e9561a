"""The keyring that signs and verifies, as the settings ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.keys import active_key, read_keys
from fraud_service.security.signatures import Keyring

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings


def load_keyring(settings: Settings) -> Keyring:
    """Read the keys. Without a folder of keys, and only if settings allow it, nothing is signed or verified.

    Raises
    ------
    ConfigurationError
        When there are no keys and that is not allowed; a key cannot be read or is too short; the one that is to sign is
        not there; or the deployment has no name. Never shows a key.
    """
    folder = settings.signing_key_dir
    if folder is None:
        if settings.active_signing_key is not None:
            raise ConfigurationError(
                f"FRAUD_ACTIVE_SIGNING_KEY={settings.active_signing_key} names a key, but there are none: set "
                f"FRAUD_SIGNING_KEY_DIR"
            )
        if not settings.allow_unsigned:
            raise ConfigurationError(
                "FRAUD_SIGNING_KEY_DIR is not set: anyone who may write models, snapshots or risk could change scores. "
                "Make a key with `mkdir keys && openssl rand -hex 32 > keys/2026-01`, set "
                "FRAUD_SIGNING_KEY_DIR=keys, and "
                "name this deployment in FRAUD_DEPLOYMENT; or set FRAUD_ALLOW_UNSIGNED=true to work without keys"
            )
        return Keyring()
    if settings.deployment is None:
        raise ConfigurationError(
            f"FRAUD_DEPLOYMENT is not set, and FRAUD_SIGNING_KEY_DIR={folder} is: name this deployment, as in "
            "production/fraud, with the same name in all its processes, and in no other deployment"
        )
    keys = read_keys(folder, "FRAUD_SIGNING_KEY_DIR")
    return Keyring(
        keys, active_key(keys, settings.active_signing_key, "FRAUD_ACTIVE_SIGNING_KEY", folder), settings.deployment
    )


def require_keyring(settings: Settings) -> Keyring:
    """Read the keys as `load_keyring` does, and raise `ConfigurationError` also when there are none."""
    if settings.signing_key_dir is None:
        raise ConfigurationError("there is no key to sign with: set FRAUD_SIGNING_KEY_DIR")
    return load_keyring(settings)
