"""Connect scorer and learner through two topology drivers: the whole service without a broker."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from support.driver import Driver, Message
from support.malformed import BROKER_TIME

from fraud_service.config import factories
from fraud_service.config.settings import Settings
from fraud_service.domain.detector import Detector
from fraud_service.domain.events import encode
from fraud_service.domain.snapshot import SnapshotStore, decode_snapshot
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.registry import ModelRegistry
from fraud_service.processors import learner, scorer
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
from fraud_service.runtime.stream import Hooks, Processing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fraud_service.domain.events import Label, Transaction
    from fraud_service.models.artifact import Artifact
    from fraud_service.runtime.stream import StreamAccess


class WholeLog:
    """A view of logs in which a read always reaches the end."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions

    def unread(self) -> dict[tuple[str, int], int]:
        return {}


class Loop:
    """The service in one process; the test makes each step."""

    def __init__(self, folder: Path, partitions: int = 4, **settings: object) -> None:
        self.settings = Settings(
            state_dir=folder, instance_id="test", allow_unsigned=True, partitions=partitions, **settings
        )
        self.model = factories.pretrained(self.settings)
        self.knowledge = SnapshotStore(factories.first_snapshot(self.model))
        self.partitions = partitions
        self.beats: list[int] = []  # heartbeats of both
        self.scorer = self._scorer()
        self.learner = self._learner()
        self._seen: dict[str, int] = {}
        self.sent: list[Message] = []
        self.models: list[Artifact] = []

    def _scorer(self) -> Driver:
        self.scorer_registry = Metrics()
        self.scorer_metrics = ScorerMetrics(self.scorer_registry)
        self.detector = Detector(self.model, factories.policy(self.settings))
        self.scorer_models = ModelRegistry(self.model, detector=self.detector, snapshots=self.knowledge)
        processor = scorer.ScorerProcessor(
            self.settings, self.detector, self.knowledge, self.scorer_metrics, heartbeat=lambda: self.beats.append(1)
        )
        hooks = Hooks(
            on_assign=lambda _: self.scorer_metrics.cards.clear(), on_key_counts=self.scorer_metrics.show_cards
        )
        spec = scorer.stream_spec(self.settings)
        return Driver(self.settings, spec, lambda _: Processing(processor, hooks), self.scorer_metrics, self.partitions)

    def _learner(self) -> Driver:
        self.learner_registry = Metrics()
        self.learner_metrics = LearnerMetrics(self.learner_registry)
        self.learner_models = ModelRegistry(self.model)

        def make_processing(stream: StreamAccess) -> Processing:
            models = learner.LearnerModels(self.learner_models, factories.learner_factory)
            self.step = learner.LearnerProcessor(
                self.settings,
                models,
                stream,
                WholeLog(self.partitions),
                self.learner_metrics,
                lambda: self.beats.append(1),
            )
            return Processing(self.step, Hooks(self.step.tick, self.step.on_assign))

        spec = learner.stream_spec(self.settings)
        return Driver(self.settings, spec, make_processing, self.learner_metrics, self.partitions)

    def transaction(self, transaction: Transaction) -> None:
        self.raw(encode(transaction), transaction.card_id.encode())

    def raw(self, value: bytes | None, key: bytes | None, timestamp: int = BROKER_TIME) -> None:
        self._note(self.settings.topics.transactions, key, value, timestamp)
        self.scorer.send(self.settings.topics.transactions, key, value, timestamp)

    def promote(self, artifact: Artifact) -> None:
        """Promote a model: the scorer has it at once, and it learns alongside from the next boundary on."""
        model = OnnxForest(artifact)
        self.models.append(artifact)
        self.scorer_models.activate(model)
        self.learner_models.activate(model)

    def _note(self, topic: str, key: bytes | None, value: bytes | None, timestamp: int) -> None:
        partition = murmur2_partition(key or b"", self.partitions)
        offset = sum(one.topic == topic and one.partition == partition for one in self.sent)
        self.sent.append(Message(topic, partition, offset, key, value, [], timestamp))

    def label(self, label: Label, partition: int | None = None) -> None:
        self._note(self.settings.topics.labels, label.card_id.encode(), encode(label), BROKER_TIME)
        self.learner.send(self.settings.topics.labels, label.card_id.encode(), encode(label), BROKER_TIME, partition)

    def tick(self) -> None:
        """Commit the scorer, send its scores to the learner, and send the learner's records to the scorer."""
        self.scorer.commit()
        for record in self._fresh(self.scorer, self.settings.topics.scores):
            self.learner.send(self.settings.topics.scores, record.key, record.value, record.timestamp)
        self.learner.commit()
        for record in self._fresh(self.learner, self.settings.topics.risk):
            self.knowledge.receive_risk(record.header[VERSION_HEADER], record.key.decode(), record.value)
        for record in self._fresh(self.learner, self.settings.topics.snapshots):
            self.knowledge.receive_snapshot(decode_snapshot(record.value))
        self.knowledge.apply_received()

    def restart_learner(self) -> None:
        """Kill the learner and start it again on its committed state."""
        self.learner.close()
        produced, offsets = self.learner.produced, self.learner._offsets
        self.learner = self._learner()
        self.learner.produced, self.learner._offsets = produced, offsets

    def restart_scorer(self) -> None:
        """Kill the scorer and start it again on its committed state."""
        self.scorer.close()
        produced, offsets = self.scorer.produced, self.scorer._offsets
        self.scorer = self._scorer()
        self.scorer.produced, self.scorer._offsets = produced, offsets

    def on(self, role: str) -> list[Message]:
        """Return the committed messages of an output topic."""
        name = getattr(self.settings.topics, role)
        return [*self.scorer.produced[name], *self.learner.produced[name]]

    def close(self) -> None:
        self.scorer.close()
        self.learner.close()

    def _fresh(self, driver: Driver, topic: str) -> list[Message]:
        messages = driver.produced[topic][self._seen.get(topic, 0) :]
        self._seen[topic] = self._seen.get(topic, 0) + len(messages)
        return messages


@contextmanager
def looped(folder: Path, **settings: object) -> Iterator[Loop]:
    loop = Loop(folder, **settings)
    try:
        yield loop
    finally:
        loop.close()
