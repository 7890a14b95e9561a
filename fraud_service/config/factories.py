"""Objects that depend on settings alone: the first model, the thresholds, the learning schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.config.duration import to_ms
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.decision import Policy
from fraud_service.domain.snapshot import Snapshot, untrained
from fraud_service.domain.time import LearningSchedule
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.online_training import OnlineLearner


def first_artifact(settings: Settings) -> artifact.Artifact:
    """Read the artifact that processes start with. Raises as `artifact.read` does.

    With keys, an artifact in FRAUD_MODEL_DIR must be signed. The shipped artifact needs no signature.
    """
    if settings.model_dir is None:
        return artifact.read(artifact.shipped_folder())
    return artifact.read(settings.model_dir, load_keyring(settings))


def pretrained(settings: Settings) -> OnnxForest:
    """Load the pretrained model that processes start with."""
    return OnnxForest(first_artifact(settings))


def policy(settings: Settings) -> Policy:
    """Return the decision policy with its thresholds."""
    return Policy(settings.review_threshold, settings.decline_threshold)


def learning_schedule(settings: Settings) -> LearningSchedule:
    """Return the learning schedule, in milliseconds of event time."""
    return LearningSchedule(
        interval_ms=to_ms(settings.snapshot_interval),
        activation_delay_ms=to_ms(settings.snapshot_activation_delay),
        label_maturity_ms=to_ms(settings.label_maturity),
        label_retention_ms=to_ms(settings.label_retention),
    )


def first_snapshot(model: OnnxForest) -> Snapshot:
    """Return the snapshot that scorers use before the first one of the learner."""
    return untrained(model.version, model.untrained_online_model())


def learner_factory(model: OnnxForest) -> Callable[[bytes | None], OnlineLearner]:
    """Return a function that creates the online learner from its last state."""
    # Only the learner imports river, so that scorers start without it and stay small.
    from fraud_service.models.river_learner import RiverLearner  # noqa: PLC0415

    initial = model.untrained_online_model()
    return lambda state: RiverLearner(initial, model.version, state)
