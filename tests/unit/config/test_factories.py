"""With keys, a folder of a model counts only with a signature of ours over its manifest."""

from __future__ import annotations

import shutil

import pytest
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.config import factories
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ModelError
from fraud_service.models import artifact
from fraud_service.security.signatures import Keyring

pytestmark = pytest.mark.attack

RING = Keyring({"2026": b"k" * 32}, "2026", "production")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(artifact.shipped_folder(), tmp_path / "model")


def complaint(folder, ring=RING):
    with pytest.raises(ModelError) as caught:
        artifact.read(folder, ring)
    return str(caught.value)


def test_a_signed_artifact_is_read(folder):
    artifact.sign(folder, RING)
    assert artifact.read(folder, RING) == artifact.read(folder)


def test_an_unsigned_artifact_is_rejected_with_the_fix(folder):
    said = complaint(folder)
    assert f"{folder} is not signed" in said
    assert f"fraud-service models sign {folder}" in said


@pytest.mark.parametrize(
    "ring",
    [
        Keyring({"2026": b"x" * 32}, "2026", "production"),
        Keyring({"2027": b"k" * 32}, "2027", "production"),
        Keyring({"2026": b"k" * 32}, "2026", "staging"),
    ],
    ids=["another_key", "an_unknown_key", "another_deployment"],
)
def test_a_signature_of_another_key_is_rejected(folder, ring):
    artifact.sign(folder, ring)
    assert "is not valid" in complaint(folder)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"fraud-key": 1}', b'{"fraud-key": "\xff"}', b"{}"])
def test_a_file_that_is_not_a_signature_is_rejected(folder, content):
    (folder / artifact.SIGNATURE).write_bytes(content)
    assert str(folder / artifact.SIGNATURE) in complaint(folder)


def test_a_manifest_that_changed_after_signing_is_rejected(folder):
    artifact.sign(folder, RING)
    manifest = folder / artifact.MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    assert "is not valid (forged)" in complaint(folder)


def test_a_damaged_artifact_is_not_signed(folder):
    (folder / artifact.TREES).write_bytes(b"")
    with pytest.raises(ModelError):
        artifact.sign(folder, RING)
    assert not (folder / artifact.SIGNATURE).exists()


def test_a_signature_for_a_topic_is_not_valid_for_a_folder(folder):
    manifest = (folder / artifact.MANIFEST).read_bytes()
    headers = RING.sign_headers("models", artifact.MANIFEST.encode(), manifest, [])
    (folder / artifact.SIGNATURE).write_text(str({name: value.decode() for name, value in headers}).replace("'", '"'))
    assert "is not valid (forged)" in complaint(folder)


def test_processes_with_the_same_keys_start_with_a_model_signed_by_the_command(folder, tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/2026").write_text("k" * 64)
    settings = Settings(signing_key_dir=tmp_path / "keys", deployment="production", model_dir=folder)
    with pytest.raises(ModelError, match="is not signed"):
        factories.pretrained(settings)
    variables = {"FRAUD_SIGNING_KEY_DIR": str(tmp_path / "keys"), "FRAUD_DEPLOYMENT": "production"}
    done = CliRunner().invoke(app, ["models", "sign", str(folder)], env=variables, catch_exceptions=False)
    assert done.output == f"signed with 2026: {folder}\n"
    assert factories.pretrained(settings).version == artifact.read(folder).manifest.version


def test_the_shipped_model_needs_no_signature(tmp_path):
    (tmp_path / "2026").write_text("k" * 64)
    settings = Settings(signing_key_dir=tmp_path, deployment="production")
    assert factories.pretrained(settings).version == artifact.read(artifact.shipped_folder()).manifest.version
