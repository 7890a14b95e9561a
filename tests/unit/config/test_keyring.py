"""Without keys nothing starts unless that was chosen; with keys, every process says which deployment it is."""

from __future__ import annotations

import pytest

from fraud_service.config.keyring import load_keyring, require_keyring
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ConfigurationError

pytestmark = pytest.mark.attack


@pytest.fixture(autouse=True)
def nothing_is_allowed(monkeypatch):
    monkeypatch.delenv("FRAUD_ALLOW_UNSIGNED")


@pytest.fixture
def keys(tmp_path):
    (tmp_path / "2026-01").write_text("k" * 64)
    return tmp_path


def complaint(**settings):
    with pytest.raises(ConfigurationError) as caught:
        load_keyring(Settings(**settings))
    return str(caught.value)


def test_without_keys_the_error_names_both_settings():
    said = complaint()
    for word in ("FRAUD_SIGNING_KEY_DIR", "openssl rand -hex 32", "FRAUD_DEPLOYMENT", "FRAUD_ALLOW_UNSIGNED=true"):
        assert word in said


def test_unsigned_operation_can_be_allowed():
    assert not load_keyring(Settings(allow_unsigned=True)).requires_signatures


def test_keys_without_a_deployment_stop_the_start(keys):
    said = complaint(signing_key_dir=keys, allow_unsigned=True)
    assert said.startswith(f"FRAUD_SIGNING_KEY_DIR={keys} needs FRAUD_DEPLOYMENT: name this deployment")
    assert "k" * 64 not in said


def test_keys_are_used_even_if_unsigned_operation_is_allowed(keys):
    ring = load_keyring(Settings(signing_key_dir=keys, deployment="production/fraud", allow_unsigned=True))
    assert ring.requires_signatures
    assert (ring.active, ring.deployment) == ("2026-01", "production/fraud")


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "é", "x" * 201, "a\x1b[0m"])
def test_a_deployment_name_has_only_printable_characters(name):
    with pytest.raises(ValueError, match="deployment"):
        Settings(deployment=name)


def test_signing_needs_keys_even_where_unsigned_operation_is_allowed():
    with pytest.raises(ConfigurationError, match="no key to sign with"):
        require_keyring(Settings(allow_unsigned=True))


@pytest.mark.parametrize("name", ["a b", "ke\x1b[31my", "k\udcffy", "a\nb"])
def test_a_key_name_is_printable_and_fits_a_header(tmp_path, name):
    (tmp_path / name).write_text("k" * 64)
    said = complaint(signing_key_dir=tmp_path, deployment="production")
    assert said.startswith(f"FRAUD_SIGNING_KEY_DIR={tmp_path}: the key name ")
    assert "\x1b" not in said


def test_a_certificate_is_rejected_as_a_key(tmp_path):
    (tmp_path / "tls.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB" + "A" * 64)
    assert "not a secret key" in complaint(signing_key_dir=tmp_path, deployment="production")
