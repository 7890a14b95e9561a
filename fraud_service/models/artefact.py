"""The artefact of a pretrained model: a folder with a manifest, the model as ONNX, and its trees for explanations.

Nothing in it is code. The manifest names the SHA-256 of the other files, which is compared before anything is parsed.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.domain.reading import UNREADABLE
from fraud_service.errors import ModelError
from fraud_service.models.trees import Trees

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
MODEL: Final = "model.onnx"
TREES: Final = "trees.msgpack"
CARD: Final = "README.md"


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an artefact says of itself.

    `prior` is the logit of the fraud rate in training; `centre` and `scale` standardise asinh(feature) for the online
    model, in the order of `features`; `leaves` is the number of leaves that it knows.
    """

    format: int
    version: str
    features_version: int
    features: list[str]
    prior: float
    centre: list[float]
    scale: list[float]
    leaves: int
    sha256: dict[str, str]
    training: dict[str, Any]
    metrics: dict[str, float]


class Artefact(msgspec.Struct, frozen=True):
    """A model with everything that scoring needs."""

    manifest: Manifest
    model: bytes
    trees: Trees


def shipped() -> Path:
    """Return the folder of the model that comes with the service."""
    package = Path(__file__).parent.parent
    installed = package / "artefacts" / "pretrained"
    return installed if installed.exists() else package.parent / "models" / "pretrained"


def find(folder: Path) -> Path:
    """Return the folder of the artefact: the one given, or `pretrained` in it, as in the shipped `models/`."""
    inner = folder / "pretrained"
    return inner if (inner / MANIFEST).exists() and not (folder / MANIFEST).exists() else folder


def read(folder: Path) -> Artefact:
    """Read an artefact, verified.

    Raises
    ------
    ModelError
        A file is missing or altered, or the model was made for other features.
    """

    def content(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            if name == MANIFEST:
                raise ModelError(
                    f"no model at {folder}: {error.strerror}; run `fraud-service train` or set FRAUD_MODEL"
                ) from None
            raise ModelError(f"{folder / name} cannot be read: {error.strerror}; train the model again") from None

    return _verified(str(folder), content)


def pack(artefact: Artefact) -> bytes:
    """Write an artefact as one message."""
    files = {
        MANIFEST: msgspec.json.encode(artefact.manifest),
        MODEL: artefact.model,
        TREES: msgspec.msgpack.encode(artefact.trees),
    }
    return msgspec.msgpack.encode(files)


def unpack(data: bytes) -> Artefact:
    """Read an artefact from a message, verified. Raises `ModelError` as `read` does."""
    try:
        files = msgspec.msgpack.decode(data, type=dict[str, bytes])
    except UNREADABLE as error:
        raise ModelError(f"a promoted model cannot be read: {error}") from None
    return _verified("a promoted model", lambda name: files.get(name, b""))


def _verified(where: str, content: Callable[[str], bytes]) -> Artefact:
    """Put an artefact together; nothing is parsed before its digest was compared."""
    try:
        manifest = msgspec.json.decode(content(MANIFEST), type=Manifest)
    except UNREADABLE as error:
        raise ModelError(f"{where}/{MANIFEST} is not a manifest: {error}; train the model again") from None
    _check_features(where, manifest)
    files = {name: content(name) for name in (MODEL, TREES)}
    for name, data in files.items():
        digest = sha256(data).hexdigest()
        if digest != manifest.sha256.get(name):
            raise ModelError(
                f"{where}/{name} has SHA-256 {digest}, its manifest says {manifest.sha256.get(name)}: "
                "the file was altered or belongs to another manifest; restore it or train the model again"
            )
    try:
        return Artefact(manifest, files[MODEL], msgspec.msgpack.decode(files[TREES], type=Trees))
    except UNREADABLE as error:
        raise ModelError(f"{where}/{TREES} holds no trees: {error}; train the model again") from None


def _check_features(where: str, manifest: Manifest) -> None:
    if manifest.format != FORMAT:
        raise ModelError(f"{where} has format {manifest.format}, this version reads {FORMAT}: train the model again")
    if manifest.features_version != FEATURES_VERSION or tuple(manifest.features) != NAMES:
        unknown = sorted(set(manifest.features) - set(NAMES)) or "none"
        missing = sorted(set(NAMES) - set(manifest.features)) or "none"
        raise ModelError(
            f"{where} was trained on features version {manifest.features_version}, this service computes version "
            f"{FEATURES_VERSION} (unknown here: {unknown}; missing there: {missing}): train the model again"
        )
    if not len(manifest.features) == len(manifest.centre) == len(manifest.scale) or min(manifest.scale) <= 0:
        raise ModelError(f"{where}/{MANIFEST} does not standardise every feature: train the model again")
