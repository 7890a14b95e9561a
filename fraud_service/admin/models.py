"""Manage models while the service runs: list, promote, roll back, and switch the online model off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from fraud_service.config import factories
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.errors import ConfigurationError, ModelError
from fraud_service.domain.records import SwitchRecord, encode_record
from fraud_service.kafka import model_topic
from fraud_service.models import artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.config.settings import Settings

log = structlog.get_logger(__name__)


class ModelStatus(msgspec.Struct, frozen=True):
    """A pretrained model that is or was active.

    `promoted_at` is the time of its last promotion in epoch milliseconds, and `signed_with` the id of the key. Both are
    None for the artifact that processes start with.
    """

    version: str
    promoted_at: int | None
    signed_with: str | None
    is_active: bool


def model_statuses(settings: Settings) -> list[ModelStatus]:
    """Return the model that processes start with, then the promoted models in the order of their last promotion."""
    first = factories.first_artifact(settings).manifest.version
    found = {first: ModelStatus(first, None, None, is_active=False)}
    active = first
    for promoted, model in _promoted(settings):
        version = model.manifest.version
        found.pop(version, None)
        found[version] = ModelStatus(version, promoted.at, promoted.signed_with, is_active=False)
        active = version
    return [msgspec.structs.replace(one, is_active=one.version == active) for one in found.values()]


def roll_back(settings: Settings, version: str) -> None:
    """Promote a model again: one that was promoted before, or the one that processes start with."""
    first = factories.first_artifact(settings)
    known, wanted = {first.manifest.version}, first
    for _, model in _promoted(settings):
        known.add(model.manifest.version)
        if model.manifest.version == version:
            wanted = model
    if version not in known:
        raise ConfigurationError(f"there is no model {version}: choose one of {', '.join(sorted(known))}")
    promote(settings, wanted)


def promote(settings: Settings, model: artifact.Artifact) -> None:
    """Publish a model for the learner and all scorers."""
    model_topic.publish(settings, model.manifest.version, artifact.pack(model))


def switch_online_model(settings: Settings, *, online: bool) -> None:
    """Switch the online model on or off in all scorers."""
    record = SwitchRecord(online, int(time.time() * 1000))
    model_topic.publish(settings, model_topic.SWITCH_KEY, encode_record(record))


def _promoted(settings: Settings) -> Iterator[tuple[model_topic.PromotedModel, artifact.Artifact]]:
    for record in model_topic.promoted(settings, model_topic.ReplayGuard(load_keyring(settings))):
        if record.key in model_topic.NON_MODEL_KEYS:
            continue
        try:
            yield record, artifact.unpack(record.value)
        except ModelError as error:
            log.warning("promoted_model_rejected", reason=str(error))
