"""Histories of small simulated worlds, and in-memory services to run them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from support.worlds import DAY

from fraud_service.demo.simulator import World, write
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.in_memory import InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.snapshot import untrained
from fraud_service.domain.time import LearningSchedule
from fraud_service.models.river_learner import RiverLearner
from fraud_service.training.history import History

if TYPE_CHECKING:
    from fraud_service.domain.events import LabelledTransaction
    from fraud_service.domain.online_model import OnlineModel
    from fraud_service.domain.scoring import PretrainedModel


@cache
def simulated(**figures: int) -> tuple[LabelledTransaction, ...]:
    """Return the history of a world, shared between tests as a tuple."""
    with tempfile.TemporaryDirectory() as folder:
        return tuple(History.open(simulated_file(Path(folder), **figures)))


def simulated_file(folder: Path, **figures: int) -> Path:
    """Write the history of a world into a folder."""
    path = folder / "world.parquet"
    write(World(**figures), path)
    return path


def rehearsal(model: PretrainedModel, online: OnlineModel, policy: Policy | None = None) -> InMemoryService:
    """Return a new in-memory service. It flags no transaction with the default policy."""
    return InMemoryService(
        Detector(model, policy or Policy(review=2.0, decline=2.0)),
        untrained(model.version, online),
        lambda state: RiverLearner(online, model.version, state),
        LearningSchedule(),
        NegativeSampler(),
        7 * DAY,
    )
