"""What an operator does with models while the service runs: list them, roll back to one, switch the online one off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from fraud_service.domain.records import SwitchRecord, encode_record
from fraud_service.errors import ConfigurationError, ModelError
from fraud_service.models import artefact
from fraud_service.stream import promotions, signing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fraud_service.settings import Settings


log = structlog.get_logger(__name__)


class Candidate(msgspec.Struct, frozen=True):
    """A pretrained model that could reign, or does.

    `promoted_at` is when it was promoted last, epoch milliseconds, and `signed_with` the key; None for the artefact
    that processes start with.
    """

    version: str
    promoted_at: int | None
    signed_with: str | None
    reigns: bool


def first_artefact(settings: Settings) -> artefact.Artefact:
    """Read the artefact that processes start with. With keys, that of FRAUD_MODEL must be signed, the shipped one not.

    Raises
    ------
    ModelError
        As `artefact.read` does.
    """
    if settings.model is None:
        return artefact.read(artefact.shipped())
    return artefact.read(settings.model, signing.keyring(settings))


def candidates(settings: Settings) -> list[Candidate]:
    """Return the model that processes start with, then those that were promoted, in the order of their last promotion.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    ModelError
        When there is no artefact to start with.
    """
    first = first_artefact(settings).manifest.version
    found = {first: Candidate(first, None, None, reigns=False)}
    reigning = first
    for promoted, model in _promoted(settings):
        version = model.manifest.version
        found.pop(version, None)
        found[version] = Candidate(version, promoted.at, promoted.signed_with, reigns=False)
        reigning = version
    return [msgspec.structs.replace(one, reigns=one.version == reigning) for one in found.values()]


def rollback(settings: Settings, version: str) -> None:
    """Let a model reign again that was promoted before, or that processes start with.

    Raises
    ------
    ConfigurationError
        When there is none of this version.
    FatalStreamError
        When the broker does not take it.
    """
    first = first_artefact(settings)
    known, wanted = {first.manifest.version}, first
    for _, model in _promoted(settings):
        known.add(model.manifest.version)
        if model.manifest.version == version:
            wanted = model
    if version not in known:
        raise ConfigurationError(f"there is no model {version}: choose one of {', '.join(sorted(known))}")
    promote(settings, wanted)


def promote(settings: Settings, model: artefact.Artefact) -> None:
    """Send a model to the learner and to all scorers. Raises as `fraud_service.stream.promotions.publish` does."""
    promotions.publish(settings, model.manifest.version, artefact.pack(model))


def sign(settings: Settings, folder: Path) -> str:
    """Sign a folder with a model, so that processes with our keys start with it; returns the name of the key.

    Raises
    ------
    ConfigurationError
        When there is no key.
    ModelError
        When there is no sound model in the folder, or the signature cannot be written there.
    """
    keyring = signing.require_keys(settings)
    artefact.sign(folder, keyring)
    return keyring.active


def switch(settings: Settings, *, online: bool) -> None:
    """Let the online model take part in scores or not, in all scorers at once. Raises as `promote` does."""
    record = SwitchRecord(online, int(time.time() * 1000))
    promotions.publish(settings, promotions.SWITCH_KEY, encode_record(record))


def _promoted(settings: Settings) -> Iterator[tuple[promotions.Promoted, artefact.Artefact]]:
    for record in promotions.promoted(settings, promotions.Gate(signing.keyring(settings))):
        if record.key in promotions.NON_MODEL_KEYS:
            continue
        try:
            yield record, artefact.unpack(record.value)
        except ModelError as error:
            log.warning("promoted_model_refused", reason=str(error))
