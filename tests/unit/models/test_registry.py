"""Promoted models are read one by one: one that cannot be loaded is rejected, and few stay in memory."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from fraud_service.domain.detector import MAX_MODELS
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.registry import ModelRegistry

pytestmark = pytest.mark.attack


@pytest.fixture(scope="module")
def shipped():
    return artifact.read(artifact.shipped_folder())


def named(shipped, version: str) -> bytes:
    return artifact.pack(msgspec.structs.replace(shipped, manifest=_manifest(shipped, version=version)))


def described(shipped, version: str) -> bytes:
    """Return a message with no more than a manifest."""
    return msgspec.msgpack.encode({artifact.MANIFEST: msgspec.json.encode(_manifest(shipped, version=version))})


def _manifest(shipped, **changes):
    return msgspec.structs.replace(shipped.manifest, **changes)


class Recorder:
    """A detector and a store that keep only the versions that they get."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.accepted: list[str] = []
        self.detector = SimpleNamespace(register_model=lambda model: self.loaded.append(model.version))
        self.snapshots = SimpleNamespace(register_model=lambda version, _leaves: self.accepted.append(version))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def rejected():
    return []


@pytest.fixture
def registry(shipped, recorder, rejected):
    first = OnnxForest(shipped)
    return ModelRegistry(first, rejected.append, detector=recorder.detector, snapshots=recorder.snapshots)


def test_the_first_model_is_active_until_another_one_is_promoted(shipped, registry):
    assert registry.active.version == shipped.manifest.version
    registry.activate_last([])
    assert registry.active.version == shipped.manifest.version


def test_a_model_that_cannot_be_loaded_is_rejected_and_the_next_one_is_loaded(shipped, registry, recorder, rejected):
    huge = artifact.pack(msgspec.structs.replace(shipped, manifest=_manifest(shipped, leaves=int(1e11))))
    registry.activate_newest([b"", huge, named(shipped, "forest-1"), b"\xff" * 100])
    assert recorder.loaded == recorder.accepted == ["forest-1"]
    assert registry.active.version == "forest-1"
    assert len(rejected) == 3
    assert any("says 100000000000 leaves" in str(error) for error in rejected)


def test_the_last_model_is_the_last_that_can_be_loaded(shipped, registry, recorder, rejected):
    registry.activate_last(iter([named(shipped, "forest-1"), named(shipped, "forest-2"), b"junk"]))
    assert registry.active.version == "forest-2"
    assert recorder.loaded == ["forest-2"]
    assert len(rejected) == 1
    registry.activate_last(iter([]))
    assert registry.active.version == "forest-2"


def test_each_activation_is_reported(shipped):
    activated = []
    registry = ModelRegistry(OnnxForest(shipped), on_activated=activated.append)
    registry.activate_newest([named(shipped, "forest-1"), named(shipped, "forest-2")])
    assert [model.version for model in activated] == ["forest-1", "forest-2"]


def test_of_any_number_of_versions_the_newest_are_loaded_and_snapshots_of_the_others_accepted(
    shipped, registry, recorder, rejected
):
    versions = [f"forest-{number}" for number in range(3 * MAX_MODELS)]
    registry.activate_newest(described(shipped, version) for version in [*versions, versions[0]])
    assert recorder.accepted == versions[: -MAX_MODELS + 1]
    assert len(rejected) == MAX_MODELS  # those with a manifest and no trees: the newest, and the first one again
