"""What is built from settings alone: the first model, thresholds, the calendar of learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.config.keyring import load_keyring
from fraud_service.domain.policy import Policy
from fraud_service.domain.snapshot import Snapshot, untaught
from fraud_service.domain.time import DAY, MINUTE, Calendar
from fraud_service.models import artifact
from fraud_service.models.pretrained import Pretrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.online_training import OnlineLearner


def first_artifact(settings: Settings) -> artifact.Artifact:
    """Read the artifact that processes start with. With keys, that of FRAUD_MODEL must be signed, the shipped one not.

    Raises
    ------
    ModelError
        As `artifact.read` does.
    """
    if settings.model is None:
        return artifact.read(artifact.shipped())
    return artifact.read(settings.model, load_keyring(settings))


def pretrained(settings: Settings) -> Pretrained:
    """Load the pretrained model that processes start with."""
    return Pretrained(first_artifact(settings))


def policy(settings: Settings) -> Policy:
    """Return the thresholds."""
    return Policy(settings.review_threshold, settings.decline_threshold)


def calendar(settings: Settings) -> Calendar:
    """Return the event-time rules of learning."""
    return Calendar(
        interval=int(settings.snapshot_interval * MINUTE),
        lead=int(settings.snapshot_lead * MINUTE),
        maturity=int(settings.maturity * DAY),
        retention=int(settings.label_retention * DAY),
    )


def first_snapshot(model: Pretrained) -> Snapshot:
    """Return what is in force before any label was learned."""
    return untaught(model.version, model.untaught_online_model())


def restore(model: Pretrained) -> Callable[[bytes | None], OnlineLearner]:
    """Return what makes the online learner from its last state."""
    # Only the learner has river: a scorer must start, and stay small, without it.
    from fraud_service.models.river_learner import RiverLearner  # noqa: PLC0415

    initial = model.untaught_online_model()
    return lambda state: RiverLearner(initial, model.version, state)
