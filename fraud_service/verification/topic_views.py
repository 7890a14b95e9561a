"""The topics as a replay needs them, read through `stream.archive`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.config import factories
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import InvalidEvent, InvalidRecord, ModelError, RefusedRecord
from fraud_service.domain.events import decode_label
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.snapshot import Snapshot, decode_snapshot
from fraud_service.domain.snapshot_store import SnapshotStore, SnapshotView
from fraud_service.kafka.dead_letters import parse_letter
from fraud_service.kafka.model_topic import NON_MODEL_KEYS
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.processors.snapshot_reader import risk_row
from fraud_service.verification.decision_verifier import KnownSnapshots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import Label
    from fraud_service.domain.policy import Policy
    from fraud_service.domain.records import LabelledRecord
    from fraud_service.kafka.topic_reader import OffsetRange, Record

FOREVER: Final = 1 << 62  # milliseconds: a replay forgets no snapshot
NAME: Final = "fraud-replay"  # of the connections, in the broker's logs; no group is joined


class Broadcasts(msgspec.Struct, frozen=True):
    """Everything that was ever broadcast.

    `pretrained` is the model that pods start with, `promoted` those on the models topic by version. `knowledge` holds
    the snapshots that prove themselves. `passed_over` names the others: rows were altered, or removed by compaction, or
    they name a model that is not here. `refused` says which records could not be read, or are not what was taught.
    """

    pretrained: OnnxForest
    promoted: dict[str, OnnxForest]
    knowledge: SnapshotStore
    passed_over: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def views(self) -> dict[str, SnapshotView]:
        """Every snapshot that proves itself, by version, the oldest first; each also without its online model."""
        both = (one for view in self.knowledge.views for one in (view, view.without_online_model()))
        return {view.snapshot.version: view for view in both}

    @property
    def models(self) -> dict[str, OnnxForest]:
        """Every model by its version."""
        return {self.pretrained.version: self.pretrained, **self.promoted}

    def taught(self) -> KnownSnapshots:
        """Return what a verifier needs of it."""
        return KnownSnapshots(self.views, self.models.keys())

    def detector(self, policy: Policy) -> Detector:
        """Return a detector with every model at hand."""
        detector = Detector(self.pretrained, policy, max_models=len(self.promoted) + 1)
        for model in self.promoted.values():
            detector.register_model(model)
        return detector


def opened(settings: Settings) -> TopicReader:
    """Return a reader of the topics; one reads one partition at a time."""
    return TopicReader(settings, NAME)


def broadcasts(settings: Settings) -> Broadcasts:
    """Read models, risk and snapshots whole.

    Raises
    ------
    ArchiveError
        When a topic cannot be read.
    ModelError
        When the configured model cannot be loaded.
    """
    refused: list[str] = []
    pretrained = factories.pretrained(settings)
    with opened(settings) as archive:
        promoted = {
            model.version: model for model in _models(verified_entries(archive, settings, "models", refused), refused)
        }
        knowledge = empty_store(pretrained, promoted)
        for version, key, row in risk_rows(verified_entries(archive, settings, "risk", refused), refused):
            knowledge.receive_risk(version, key, row)
        for snapshot in snapshots(verified_entries(archive, settings, "snapshots", refused), refused):
            knowledge.receive_snapshot(snapshot)
    knowledge.apply_received(final=True)
    return Broadcasts(pretrained, promoted, knowledge, tuple(knowledge.passed_over), tuple(refused))


def verified_entries(archive: TopicReader, settings: Settings, role: str, refused: list[str]) -> Iterator[Record]:
    """Read a topic of what is broadcast, without what live processes refuse because none of our keys has signed it."""
    keyring = load_keyring(settings)
    for entry in archive.read(getattr(settings.topics, role), 0):
        try:
            keyring.require(role, entry.key, entry.value, entry.headers)
        except RefusedRecord as error:
            refused.append(_refusal(entry, error))
        else:
            yield entry


def empty_store(pretrained: OnnxForest, promoted: dict[str, OnnxForest]) -> SnapshotStore:
    """Return knowledge of no snapshot yet, that takes in those of all these models."""
    knowledge = SnapshotStore(factories.first_snapshot(pretrained), kept=FOREVER)
    for model in promoted.values():
        knowledge.register_model(model.version, model.manifest.leaves)
    return knowledge


def _models(entries: Iterator[Record], refused: list[str]) -> Iterator[OnnxForest]:
    for entry in entries:
        if entry.value is None or entry.key in NON_MODEL_KEYS:
            continue
        try:
            yield OnnxForest.from_message(entry.value)
        except ModelError as error:
            refused.append(_refusal(entry, error))


def risk_rows(entries: Iterator[Record], refused: list[str]) -> Iterator[tuple[str, str, bytes | None]]:
    """Return the version of its snapshot, key and bytes of each risk row."""
    for entry in entries:
        try:
            yield risk_row(entry.key, entry.value, entry.headers)
        except InvalidRecord as error:
            refused.append(_refusal(entry, error))


def snapshots(entries: Iterator[Record], refused: list[str]) -> Iterator[Snapshot]:
    """Return the snapshots whose digest fits."""
    for entry in entries:
        try:
            yield decode_snapshot(entry.value or b"")
        except InvalidRecord as error:
            refused.append(_refusal(entry, error))


def _refusal(entry: Record, error: Exception) -> str:
    key = "no key" if entry.key is None else entry.key.decode(errors="replace")
    return f"{entry.topic}[{entry.partition}]@{entry.offset} ({key}): {error}"


def refused_offsets(archive: TopicReader, settings: Settings, role: str = "transactions") -> dict[int, set[int]]:
    """Return, by partition, the offsets of the messages of an input that became dead letters; skips foreign records."""
    found: dict[int, set[int]] = {}
    for entry in whole(archive, settings.topics.dead_letters):
        try:
            one = parse_letter(entry)
        except InvalidRecord:
            continue
        if one.topic == getattr(settings.topics, role):
            found.setdefault(one.partition, set()).add(one.offset)
    return found


def labels(archive: TopicReader, settings: Settings, partitions: Iterable[int]) -> Iterator[Label]:
    """Return the labels of some partitions; without those that became dead letters, as in a flood."""
    refused = refused_offsets(archive, settings, "labels")
    for partition in partitions:
        for entry in archive.read(settings.topics.labels, partition):
            if entry.offset not in refused.get(partition, ()):
                with suppress(InvalidEvent):
                    yield decode_label(entry.value)


def labelled(archive: TopicReader, settings: Settings) -> Iterator[LabelledRecord]:
    """Return every labelled example, partition by partition; skips records that are no examples."""
    for entry in whole(archive, settings.topics.labelled):
        with suppress(InvalidRecord):
            yield decode_labelled(entry.value or b"")


def whole(archive: TopicReader, topic: str) -> Iterator[Record]:
    """Read all partitions of a topic, one after the other."""
    for partition, span in archive.spans(topic).items():
        yield from archive.read(topic, partition, span.begin, span.end)


def logged(archive: TopicReader, topic: str, partition: int, span: OffsetRange) -> Iterator[tuple[int, bytes | None]]:
    """Return offset and value of each record of a part of a partition."""
    for entry in archive.read(topic, partition, span.begin, span.end):
        yield entry.offset, entry.value
