"""Promoted models are read one by one: what cannot be loaded is passed over, and few are kept in memory."""

from __future__ import annotations

import msgspec
import pytest

from fraud_service.domain.detector import MAX_MODELS
from fraud_service.models import artifact
from fraud_service.models.received import last, loaded, recent

pytestmark = pytest.mark.attack


@pytest.fixture(scope="module")
def shipped():
    return artifact.read(artifact.shipped())


def named(shipped, version: str) -> bytes:
    return artifact.pack(msgspec.structs.replace(shipped, manifest=_manifest(shipped, version=version)))


def described(shipped, version: str) -> bytes:
    """Return a message with no more than a manifest."""
    return msgspec.msgpack.encode({artifact.MANIFEST: msgspec.json.encode(_manifest(shipped, version=version))})


def _manifest(shipped, **changes):
    return msgspec.structs.replace(shipped.manifest, **changes)


def test_what_cannot_be_loaded_is_refused_and_the_next_one_is_loaded(shipped):
    refused = []
    huge = artifact.pack(msgspec.structs.replace(shipped, manifest=_manifest(shipped, leaves=int(1e11))))
    found = [*loaded([b"", huge, named(shipped, "forest-1"), b"\xff" * 100], refused.append)]
    assert [model.version for model in found] == ["forest-1"]
    assert len(refused) == 3
    assert "says 100000000000 leaves" in str(refused[1])


def test_the_last_model_is_the_last_that_can_be_loaded(shipped):
    refused = []
    found = last(iter([named(shipped, "forest-1"), named(shipped, "forest-2"), b"junk"]), refused.append)
    assert found.version == "forest-2"
    assert len(refused) == 1
    assert last(iter([]), refused.append) is None


def test_of_any_number_of_versions_the_newest_are_kept_and_the_others_named(shipped):
    superseded = []
    versions = [f"forest-{number}" for number in range(3 * MAX_MODELS)]
    messages = (described(shipped, version) for version in [*versions, versions[0]])
    kept = recent(messages, lambda manifest: superseded.append(manifest.version), pytest.fail)
    assert [artifact.read_manifest(data).version for data in kept] == [*versions[-MAX_MODELS + 1 :], versions[0]]
    assert superseded == versions[: -MAX_MODELS + 1]
