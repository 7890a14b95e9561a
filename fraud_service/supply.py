"""What an operator does with models while the service runs: list them, roll back to one, switch the online one off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from fraud_service.domain.records import SwitchRecord, encode_record
from fraud_service.errors import ConfigurationError, ModelError
from fraud_service.models import artefact
from fraud_service.stream import promotions, signing

if TYPE_CHECKING:
    from fraud_service.settings import Settings


class Candidate(msgspec.Struct, frozen=True):
    """A pretrained model that could reign, or does.

    `promoted_at` is when it was promoted last, epoch milliseconds, and `signed_with` the key; None for the artefact
    that processes start with.
    """

    version: str
    promoted_at: int | None
    signed_with: str | None
    reigns: bool


def candidates(settings: Settings) -> list[Candidate]:
    """Return the model that processes start with, then those that were promoted, in the order of their last promotion.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    ModelError
        When there is no artefact to start with.
    """
    first = artefact.read(settings.model or artefact.shipped()).manifest.version
    found = {first: Candidate(first, None, None, reigns=False)}
    reigning = first
    for version, promoted, _ in _promoted(settings):
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
    known = {found: model for found, _, model in _promoted(settings)}
    first = artefact.read(settings.model or artefact.shipped())
    known.setdefault(first.manifest.version, first)
    if version not in known:
        raise ConfigurationError(f"there is no model {version}: choose one of {', '.join(known)}")
    promote(settings, known[version])


def promote(settings: Settings, model: artefact.Artefact) -> None:
    """Send a model to the learner and to all scorers. Raises as `fraud_service.stream.promotions.publish` does."""
    promotions.publish(settings, model.manifest.version, artefact.pack(model))


def switch(settings: Settings, *, online: bool) -> None:
    """Let the online model take part in scores or not, in all scorers at once. Raises as `promote` does."""
    record = SwitchRecord(online, int(time.time() * 1000))
    promotions.publish(settings, promotions.SWITCH_KEY, encode_record(record))


def _promoted(settings: Settings) -> list[tuple[str, promotions.Promoted, artefact.Artefact]]:
    found = []
    for record in promotions.promoted(settings, promotions.Gate(signing.keyring(settings))):
        if record.key.decode(errors="replace") in {promotions.REFIT_KEY, promotions.SWITCH_KEY}:
            continue
        try:
            model = artefact.unpack(record.value)
        except ModelError:
            continue
        found.append((model.manifest.version, record, model))
    return found
