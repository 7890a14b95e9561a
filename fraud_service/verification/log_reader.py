"""Read the topics for a verification: inputs, dead letters, labels, and everything that the learner published."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.config import factories
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import FraudServiceError, InvalidEvent, InvalidRecord, RejectedRecord
from fraud_service.domain.events import decode_label
from fraud_service.domain.records import readable_examples
from fraud_service.domain.snapshot import Snapshot, SnapshotStore, SnapshotView, decode_snapshot
from fraud_service.kafka.dead_letters import DeadLetterParser, LetterHeaders
from fraud_service.kafka.model_topic import NON_MODEL_KEYS
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.registry import ModelRegistry
from fraud_service.processors.snapshot_reader import risk_row
from fraud_service.verification.decisions import DecisionVerifier
from fraud_service.verification.report import FindingKind, Findings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.decision import Policy
    from fraud_service.domain.events import Label
    from fraud_service.domain.records import LabelledRecord
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.verification.decisions import TimeRange

FOREVER_MS: Final = 1 << 62  # a verification forgets no snapshot
NAME: Final = "fraud-replay"  # of the connections, in the broker's logs; they join no group


class Broadcasts(msgspec.Struct, frozen=True):
    """Everything that was ever published to the scorers.

    `models` has the model that processes start with, then every promoted one, by version. `store` has the snapshots
    whose digest fits. `incomplete` names the others: their risk rows were altered or removed by compaction, or they
    name a missing model. `rejected` says which records failed their check, and why.
    """

    models: dict[str, OnnxForest]
    store: SnapshotStore
    incomplete: tuple[str, ...]
    rejected: tuple[str, ...]

    @property
    def views(self) -> dict[str, SnapshotView]:
        """Every complete snapshot by version, the oldest first; each also without its online model."""
        both = (one for view in self.store.views for one in (view, view.without_online_model()))
        return {view.snapshot.version: view for view in both}

    def detector(self, policy: Policy) -> Detector:
        """Return a detector with every model."""
        first, *promoted = self.models.values()
        detector = Detector(first, policy, max_models=len(self.models))
        for model in promoted:
            detector.register_model(model)
        return detector

    def verifier(self, policy: Policy, time_range: TimeRange, *, is_truncated: bool) -> DecisionVerifier:
        """Return a verifier of decisions with every model and snapshot."""
        return DecisionVerifier(
            self.detector(policy), self.views, self.models.keys(), time_range, is_truncated=is_truncated
        )


class DeadLetterIndex:
    """Index of all dead letters, at sixteen to a hundred bytes each."""

    def __init__(self) -> None:
        self._letters: dict[tuple[str, int], dict[int, LetterHeaders]] = {}  # by topic and partition, then by offset

    def of(self, topic: str, partition: int) -> dict[int, LetterHeaders]:
        """Return the dead letters of one partition of an input, by offset."""
        return self._letters.get((topic, partition), {})

    def add(self, entries: Iterable[Record], findings: Findings | None = None, begin: int = 0) -> None:
        """Index one partition of dead letters, and check it.

        Reports a second letter of one input, records of another format, invalid redrive marks and second marks.
        Findings about records before the offset `begin` are left out.
        """
        parser, redriven = DeadLetterParser(), set[int]()
        wanted, left_out = findings or Findings(), Findings()
        for entry in entries:
            checked = wanted if entry.offset >= begin else left_out
            try:
                found = parser.parse(entry)
            except InvalidRecord as error:
                checked.add(FindingKind.UNREADABLE, entry, str(error))
                continue
            if isinstance(found, LetterHeaders):
                known = self._letters.setdefault((found.topic, found.partition), {})
                checked.count("dead_letters")
                if found.offset in known:
                    place = f"{found.topic}[{found.partition}]@{found.offset}"
                    checked.add(FindingKind.DUPLICATED, entry, f"a second dead letter of {place}")
                known[found.offset] = found
            elif found.problem is not None:
                checked.add(FindingKind.UNEXPECTED, entry, found.problem)
            else:
                checked.count("redriven")
                if found.offset in redriven:
                    checked.add(FindingKind.DUPLICATED, entry, f"the dead letter at {found.offset} was redriven before")
                if checked is wanted:
                    redriven.add(found.offset)


def open_reader(settings: Settings, name: str = NAME) -> TopicReader:
    """Return a reader of the topics; it reads one partition at a time."""
    return TopicReader(settings, name)


def read_broadcasts(settings: Settings) -> Broadcasts:
    """Read models, risk and snapshots from the beginning."""
    rejected: list[str] = []
    first = factories.pretrained(settings)
    models, store = {first.version: first}, empty_store([first])
    registry = ModelRegistry(first, lambda error: _reject(rejected, entry, error), snapshots=store)
    with open_reader(settings) as reader:
        for entry in read_signed(reader, settings, "models", rejected):
            if entry.value is not None and entry.key not in NON_MODEL_KEYS:
                registry.activate_last([entry.value])
                models[registry.active.version] = registry.active
        models[first.version] = first  # as in a detector, which keeps the first one
        for version, key, row in read_risk_rows(reader, settings, rejected):
            store.receive_risk(version, key, row)
        for snapshot in read_snapshots(reader, settings, rejected):
            store.receive_snapshot(snapshot)
    store.apply_received(final=True)
    return Broadcasts(models, store, tuple(store.incomplete), tuple(rejected))


def empty_store(models: Iterable[OnnxForest]) -> SnapshotStore:
    """Return an empty store that accepts the snapshots of all these models."""
    first, *promoted = models
    store = SnapshotStore(factories.first_snapshot(first), kept_ms=FOREVER_MS)
    for model in promoted:
        store.register_model(model.version, model.manifest.leaves)
    return store


def read_signed(reader: TopicReader, settings: Settings, role: str, rejected: list[str]) -> Iterator[Record]:
    """Read the records of a topic that one of our keys has signed: scorers and learner reject the others, too.

    Adds the place and fault of every other record to `rejected`.
    """
    keyring = load_keyring(settings)
    for entry in reader.read(getattr(settings.topics, role), 0):
        try:
            keyring.require_signature(role, entry.key, entry.value, entry.headers)
        except RejectedRecord as error:
            _reject(rejected, entry, error)
        else:
            yield entry


def read_risk_rows(
    reader: TopicReader, settings: Settings, rejected: list[str]
) -> Iterator[tuple[str, str, bytes | None]]:
    """Yield the snapshot version, key and bytes of each risk row."""
    for entry in read_signed(reader, settings, "risk", rejected):
        try:
            yield risk_row(entry.key, entry.value, entry.headers)
        except InvalidRecord as error:
            _reject(rejected, entry, error)


def read_snapshots(reader: TopicReader, settings: Settings, rejected: list[str]) -> Iterator[Snapshot]:
    """Yield the snapshots whose digest fits."""
    for entry in read_signed(reader, settings, "snapshots", rejected):
        try:
            yield decode_snapshot(entry.value or b"")
        except InvalidRecord as error:
            _reject(rejected, entry, error)


def _reject(rejected: list[str], entry: Record, error: FraudServiceError) -> None:
    key = "no key" if entry.key is None else entry.key.decode(errors="replace")
    rejected.append(f"{entry.topic}[{entry.partition}]@{entry.offset} ({key}): {error}")


def index_dead_letters(reader: TopicReader, settings: Settings) -> DeadLetterIndex:
    """Index every dead letter; skips records of another format."""
    index = DeadLetterIndex()
    for partition in reader.offset_ranges(settings.topics.dead_letters):
        index.add(reader.read(settings.topics.dead_letters, partition))
    return index


def read_accepted(
    reader: TopicReader,
    settings: Settings,
    role: str,
    partitions: Iterable[int],
    span: tuple[int | None, int | None] = (None, None),
) -> Iterator[Record]:
    """Yield the records of some partitions of an input, without those that became dead letters."""
    letters, topic = index_dead_letters(reader, settings), getattr(settings.topics, role)
    for partition in partitions:
        rejected = letters.of(topic, partition)
        for entry in reader.read(topic, partition, *span):
            if entry.offset not in rejected:
                yield entry


def read_labels(reader: TopicReader, settings: Settings, partitions: Iterable[int]) -> Iterator[Label]:
    """Yield the labels of some partitions, without rejected ones."""
    for entry in read_accepted(reader, settings, "labels", partitions):
        with suppress(InvalidEvent):
            yield decode_label(entry.value)


def read_labelled_examples(reader: TopicReader, settings: Settings) -> Iterator[LabelledRecord]:
    """Yield every labelled example, partition by partition."""
    return readable_examples(entry.value or b"" for entry in read_all_partitions(reader, settings.topics.labelled))


def read_all_partitions(reader: TopicReader, topic: str) -> Iterator[Record]:
    """Read all partitions of a topic, one after the other."""
    for partition, span in reader.offset_ranges(topic).items():
        yield from reader.read(topic, partition, *span)
