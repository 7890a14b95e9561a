"""The artifact of a pretrained model: a folder with a manifest, the model as ONNX, and its trees for explanations.

An artifact may come from an attacker, and ONNX can read files and run any operator. So `read` and `unpack` check the
sizes, then the SHA-256 digests in the manifest, then the trees. Last, they compare the ONNX byte for byte with the
graph that `onnx_graph` writes for these trees. They raise `ModelError` if a check fails.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fraud_service.domain.codec import UNREADABLE, ModelVersion
from fraud_service.domain.complaints import in_words
from fraud_service.domain.errors import ModelError, RejectedRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.models.onnx_graph import onnx_bytes
from fraud_service.models.trees import Trees, count_leaves, require_consistent
from fraud_service.security.signatures import Keyring

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
TREES: Final = "trees.msgpack"
MODEL_CARD: Final = "README.md"
SIGNATURE: Final = "manifest.signature"
NO_KEYS: Final = Keyring()  # accepts unsigned artifacts
ROLE: Final = "artifact"  # signed like the role of a topic, so a record of a topic cannot pass for a folder
MAX_BYTES: Final = 16 << 20  # of a file, and of a message: the limit of the models topic
MAX_MANIFEST_BYTES: Final = 64 << 10

Logit = Annotated[float, msgspec.Meta(ge=-50, le=50)]
Centre = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]  # asinh of any double is in this range
Scale = Annotated[float, msgspec.Meta(ge=1e-6, le=1000)]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a model.

    `prior`: logit of the fraud rate in training. `centre` and `scale`: standardise asinh(feature) for the online model,
    in the order of `features`. `leaves`: number of leaves that are inputs of the online model.
    """

    format: int
    version: ModelVersion
    features_version: int
    features: list[str]
    prior: Logit
    centre: list[Centre]
    scale: list[Scale]
    leaves: int
    sha256: dict[str, str]
    training: dict[str, Any]
    metrics: dict[str, float]


class _Files(msgspec.Struct, rename={"manifest": MANIFEST, "model": MODEL, "trees": TREES}):
    """An artifact as one message; unknown fields of the message are not decoded."""

    manifest: bytes = b""
    model: bytes = b""
    trees: bytes = b""


class Artifact(msgspec.Struct, frozen=True):
    """A verified model."""

    manifest: Manifest
    model: bytes
    trees: Trees


def shipped_folder() -> Path:
    """Return the folder of the model that ships with the service."""
    package = Path(__file__).parent.parent
    installed = package / "artifacts" / "pretrained"
    return installed if installed.exists() else package.parent / "models" / "pretrained"


def find_folder(folder: Path) -> Path:
    """Return the folder itself, or `pretrained` in it if the manifest is there, as in the shipped `models/`."""
    inner = folder / "pretrained"
    return inner if (inner / MANIFEST).exists() and not (folder / MANIFEST).exists() else folder


def read(folder: Path, keyring: Keyring = NO_KEYS) -> Artifact:
    """Read and verify an artifact; if the keyring has keys, one of them must have signed it."""
    files = {name: _content(folder, name) for name in (MANIFEST, MODEL, TREES)}
    if keyring.requires_signatures:
        _require_signature(folder, files[MANIFEST], keyring)
    return _verified(str(folder), files)


def sign(folder: Path, keyring: Keyring) -> None:
    """Verify an artifact and sign its manifest, which has the digests of the other files."""
    read(folder)
    headers = keyring.sign_headers(ROLE, MANIFEST.encode(), _content(folder, MANIFEST), [])
    try:
        (folder / SIGNATURE).write_bytes(msgspec.json.encode({name: value.decode() for name, value in headers}))
    except OSError as error:
        raise ModelError(f"{folder / SIGNATURE} cannot be written: {error.strerror}") from None


def _content(folder: Path, name: str) -> bytes:
    try:
        with (folder / name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        if name == MANIFEST:
            raise ModelError(
                f"no model at {folder}: {error.strerror}; run `fraud-service train` or set FRAUD_MODEL_DIR"
            ) from None
        raise ModelError(f"{folder / name} cannot be read: {error.strerror}; train the model again") from None


def _require_signature(folder: Path, manifest: bytes, keyring: Keyring) -> None:
    fix = f"check where the model comes from, then run `fraud-service models sign {folder}`"
    try:
        headers = msgspec.json.decode((folder / SIGNATURE).read_bytes(), type=dict[str, str])
        keyring.require_signature(
            ROLE, MANIFEST.encode(), manifest, [(name, text.encode()) for name, text in headers.items()]
        )
    except OSError as error:
        raise ModelError(f"{folder} is not signed ({SIGNATURE}: {error.strerror}): {fix}") from None
    except UNREADABLE as error:
        raise ModelError(f"{folder / SIGNATURE} is not a signature: {in_words(str(error))}; {fix}") from None
    except RejectedRecord as error:
        raise ModelError(f"{folder / SIGNATURE} is not valid ({error.reason}): {fix}") from None


def pack(artifact: Artifact) -> bytes:
    """Encode an artifact as one message."""
    manifest, trees = msgspec.json.encode(artifact.manifest), msgspec.msgpack.encode(artifact.trees)
    return msgspec.msgpack.encode(_Files(manifest, artifact.model, trees))


def unpack(data: bytes) -> Artifact:
    """Decode and verify an artifact."""
    files = _unpacked(data)
    return _verified("a promoted model", {MANIFEST: files.manifest, MODEL: files.model, TREES: files.trees})


def read_manifest(data: bytes) -> Manifest:
    """Decode only the manifest of a message, without verifying the digests."""
    return _manifest("a promoted model", _unpacked(data).manifest)


def _unpacked(data: bytes) -> _Files:
    if len(data) > MAX_BYTES:
        raise ModelError(f"a promoted model has {len(data)} bytes, the maximum is {MAX_BYTES}")
    try:
        return msgspec.msgpack.decode(data, type=_Files)
    except UNREADABLE as error:
        raise ModelError(f"a promoted model cannot be read: {in_words(str(error))}") from None


def _verified(where: str, files: Mapping[str, bytes]) -> Artifact:
    manifest = _manifest(where, files[MANIFEST])
    for name in (MODEL, TREES):
        _require_size(f"{where}/{name}", files[name], MAX_BYTES)
        digest = sha256(files[name]).hexdigest()
        if digest != manifest.sha256.get(name):
            raise ModelError(
                f"{where}/{name} has SHA-256 {digest}, but its manifest says {manifest.sha256.get(name)}: "
                "the file was altered or belongs to another manifest; restore it or train the model again"
            )
    try:
        trees = msgspec.msgpack.decode(files[TREES], type=Trees)
        require_consistent(trees)
    except (*UNREADABLE, ValueError) as error:
        raise ModelError(
            f"{where}/{TREES} of {manifest.version} has invalid trees: {in_words(str(error))}; train the model again"
        ) from None
    leaves = count_leaves(trees)
    if manifest.leaves != leaves:
        raise ModelError(
            f"{where}/{MANIFEST} says {manifest.leaves} leaves, but its trees have {leaves}: train the model again"
        )
    if files[MODEL] != onnx_bytes(trees):
        raise ModelError(
            f"{where}/{MODEL} of {manifest.version} is not the graph of its trees: train it again with this version"
        )
    return Artifact(manifest, files[MODEL], trees)


def _manifest(where: str, data: bytes) -> Manifest:
    """Decode a manifest and check that the model is for the features of this service."""
    _require_size(f"{where}/{MANIFEST}", data, MAX_MANIFEST_BYTES)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise ModelError(
            f"{where}/{MANIFEST} is not a manifest: {in_words(str(error))}; train the model again"
        ) from None
    if manifest.format != FORMAT:
        raise ModelError(
            f"{where} has format {manifest.format}, but this version reads {FORMAT}: train the model again"
        )
    if manifest.features_version != FEATURES_VERSION or tuple(manifest.features) != NAMES:
        unknown = sorted(set(manifest.features) - set(NAMES)) or "none"
        missing = sorted(set(NAMES) - set(manifest.features)) or "none"
        raise ModelError(
            f"{where} was trained on features version {manifest.features_version}, but this service computes version "
            f"{FEATURES_VERSION} (unknown here: {unknown}; missing there: {missing}): train the model again"
        )
    if not len(manifest.features) == len(manifest.centre) == len(manifest.scale):
        raise ModelError(f"{where}/{MANIFEST} does not standardise every feature: train the model again")
    return manifest


def _require_size(file: str, data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise ModelError(f"{file} has more than {limit} bytes, the maximum: check where the model comes from")
