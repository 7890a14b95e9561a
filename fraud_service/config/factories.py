"""What is built from settings alone: the first model, thresholds, the calendar of learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.config.duration import to_ms
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.policy import Policy
from fraud_service.domain.snapshot import Snapshot, untrained
from fraud_service.domain.time import LearningSchedule
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.online_training import OnlineLearner


def first_artifact(settings: Settings) -> artifact.Artifact:
    """Read the artifact that processes start with.

    With keys, an artifact in FRAUD_MODEL_DIR must be signed. The shipped artifact need not be.

    Raises
    ------
    ModelError
        As `artifact.read` does.
    """
    if settings.model_dir is None:
        return artifact.read(artifact.shipped())
    return artifact.read(settings.model_dir, load_keyring(settings))


def pretrained(settings: Settings) -> OnnxForest:
    """Load the pretrained model that processes start with."""
    return OnnxForest(first_artifact(settings))


def policy(settings: Settings) -> Policy:
    """Return the thresholds."""
    return Policy(settings.review_threshold, settings.decline_threshold)


def calendar(settings: Settings) -> LearningSchedule:
    """Return the event-time rules of learning."""
    return LearningSchedule(
        interval=to_ms(settings.snapshot_interval),
        activation_delay=to_ms(settings.snapshot_activation_delay),
        maturity=to_ms(settings.label_maturity),
        retention=to_ms(settings.label_retention),
    )


def first_snapshot(model: OnnxForest) -> Snapshot:
    """Return what is in force before any label was learned."""
    return untrained(model.version, model.untrained_online_model())


def restore(model: OnnxForest) -> Callable[[bytes | None], OnlineLearner]:
    """Return what makes the online learner from its last state."""
    # Only the learner has river: a scorer must start, and stay small, without it.
    from fraud_service.models.river_learner import RiverLearner  # noqa: PLC0415

    initial = model.untrained_online_model()
    return lambda state: RiverLearner(initial, model.version, state)
