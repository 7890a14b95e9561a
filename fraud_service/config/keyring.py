"""The keyring that signs and verifies records, from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.domain.errors import ConfigurationError
from fraud_service.security.keys import read_keys
from fraud_service.security.signatures import Keyring

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings


def load_keyring(settings: Settings) -> Keyring:
    """Read the keys. Without keys, and only with `allow_unsigned`, return a keyring that neither signs nor verifies.

    Raises `ConfigurationError`, whose message never contains a key.
    """
    folder = settings.signing_key_dir
    if folder is None:
        if settings.active_signing_key is not None:
            raise ConfigurationError(
                f"FRAUD_ACTIVE_SIGNING_KEY={settings.active_signing_key} names a key, but there is no folder of keys: "
                "set FRAUD_SIGNING_KEY_DIR"
            )
        if not settings.allow_unsigned:
            raise ConfigurationError(
                "FRAUD_SIGNING_KEY_DIR is not set: anyone who may write models, snapshots or risk could change scores. "
                "Make a key with `mkdir keys && openssl rand -hex 32 > keys/2026-01`, set FRAUD_SIGNING_KEY_DIR=keys, "
                "and name this deployment in FRAUD_DEPLOYMENT; or set FRAUD_ALLOW_UNSIGNED=true to work without keys"
            )
        return Keyring()
    if settings.deployment is None:
        raise ConfigurationError(
            f"FRAUD_SIGNING_KEY_DIR={folder} needs FRAUD_DEPLOYMENT: name this deployment, as in production/fraud. "
            "Use the same name in all its processes, and in no other deployment"
        )
    keys, active = read_keys(folder, "SIGNING", settings.active_signing_key)
    return Keyring(keys, active, settings.deployment)


def require_keyring(settings: Settings) -> Keyring:
    """Read the keys as `load_keyring` does. Raise `ConfigurationError` also without keys."""
    if settings.signing_key_dir is None:
        raise ConfigurationError("there is no key to sign with: set FRAUD_SIGNING_KEY_DIR")
    return load_keyring(settings)
