"""List, show and compare the snapshots on their topic, and rebuild them from the labelled examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fraud_service.config import factories
from fraud_service.domain.errors import ConfigurationError, TopicReadError
from fraud_service.domain.features import NAMES
from fraud_service.domain.in_memory import MemoryStore
from fraud_service.domain.online_training import LearnerState, NegativeSampler, OnlineTrainer
from fraud_service.domain.records import LabelledRecord, decode_labelled, encode_record
from fraud_service.domain.time import rfc3339
from fraud_service.runtime.changelogs import temporary_rows
from fraud_service.verification import log_reader, snapshot_rebuild
from fraud_service.verification.log_reader import Broadcasts
from fraud_service.verification.snapshot_rebuild import LearnedLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rocksdict import Rdict

    from fraud_service.config.settings import Settings
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.verification.snapshot_rebuild import RebuiltBoundary

Figures = dict[str, Any]

MAX_WEIGHTS: Final = 10
MINUTE: Final = "%Y%m%dT%H%M"  # the first part of a snapshot version
MINUTE_LENGTH: Final = 13


class RebuildProof(msgspec.Struct, frozen=True):
    """Result of rebuilding: the number of equal snapshots, the differences of the others, and snapshots left out.

    `rejected` names records that are altered or not signed.
    """

    rebuilt: int
    differing: dict[str, list[str]]
    not_rebuilt: list[str]
    rejected: list[str]


def published(settings: Settings, rejected: list[str]) -> list[Snapshot]:
    """Return each snapshot on the topic whose digest fits, the oldest first."""
    with log_reader.open_reader(settings) as reader:
        found = {one.version: one for one in log_reader.read_snapshots(reader, settings, rejected)}
    return sorted(found.values(), key=lambda one: one.as_of)


def list_snapshots(settings: Settings) -> list[Figures]:
    """Return every snapshot, and whether its risk rows are complete or can be rebuilt."""
    complete = load_broadcasts(settings).views
    return [{**snapshot_figures(one), "is_proved": one.version in complete} for one in published(settings, [])]


def show(settings: Settings, version: str) -> Figures:
    """Return one snapshot with its strongest weights. Raises `ConfigurationError` when there is no such snapshot."""
    snapshot = _chosen(published(settings, []), version)
    weights = dict(zip(NAMES, snapshot.online.weights, strict=True))
    strongest = sorted(weights.items(), key=lambda item: (-abs(item[1]), item[0]))[:MAX_WEIGHTS]
    return {
        **snapshot_figures(snapshot),
        "intercept": snapshot.online.intercept,
        "pretrained_weight": snapshot.online.pretrained_weight,
        "leaves_with_weight": sum(weight != 0 for weight in snapshot.online.leaf_weights),
        "strongest_weights": dict(strongest),
    }


def compare(settings: Settings, before: str, after: str) -> Figures:
    """Return what changed between two snapshots. Raises as `show` does."""
    known = published(settings, [])
    old, new = _chosen(known, before), _chosen(known, after)
    weights = {name: [a, b] for name, a, b in zip(NAMES, old.online.weights, new.online.weights, strict=True) if a != b}
    leaves = zip(old.online.leaf_weights, new.online.leaf_weights, strict=False)
    first, second = snapshot_figures(old), snapshot_figures(new)
    with log_reader.open_reader(settings) as reader:
        rows = log_reader.read_risk_rows(reader, settings, [])
        changed = sorted({key for version, key, _ in rows if old.version < version <= new.version})
    return {
        **{name: [first[name], second[name]] for name in first if first[name] != second[name]},
        "weights": weights,
        "leaf_weights_changed": sum(a != b for a, b in leaves),
        "risk_rows": changed,
    }


def _chosen(known: list[Snapshot], version: str) -> Snapshot:
    found = [one for one in known if one.version == version]
    if not found:
        raise ConfigurationError(f"there is no snapshot {version}: `fraud-service snapshots list` names them")
    return found[0]


def rebuild(
    settings: Settings, until: str | None = None, progress: Callable[[int], None] = lambda _: None
) -> RebuildProof:
    """Rebuild every snapshot from the labelled examples, up to one of them or the newest.

    Raises `TopicReadError` when the first labelled examples expired.
    """
    rejected: list[str] = []
    known = published(settings, rejected)
    # Later examples are left out: a running learner has published more by the time its examples are read.
    last = max((one.as_of for one in known), default=None) if until is None else _chosen(known, until).as_of
    wanted = [one for one in known if last is None or one.as_of <= last]
    differing: dict[str, list[str]] = {}
    count = matched = 0
    for one in _rebuilt(settings, log_reader.read_broadcasts(settings).models, wanted, last):
        count += 1
        progress(count)
        matched += one.published is not None
        if one.differences:
            snapshot = one.published or one.result.snapshot
            differing[str(one.result.as_of) if snapshot is None else snapshot.version] = list(one.differences)
    return RebuildProof(count - len(differing), differing, [one.version for one in wanted[matched:]], rejected)


def _rebuilt(
    settings: Settings, models: dict[str, OnnxForest], wanted: list[Snapshot], last: int | None
) -> Iterator[RebuiltBoundary]:
    """Train the examples again, up to and including the boundary `last` (epoch milliseconds)."""
    topic, schedule = settings.topics.labelled, factories.learning_schedule(settings)
    with log_reader.open_reader(settings) as reader, temporary_rows() as stored:
        if any(span.begin for span in reader.offset_ranges(topic).values()):
            raise TopicReadError(
                f"topic {topic} has lost its first records to retention: snapshots cannot be rebuilt without them"
            )
        rows: dict[str, dict[str, bytes | None]] = defaultdict(dict)
        for version, key, row in log_reader.read_risk_rows(reader, settings, []):
            rows[version][key] = row
        first = _first_boundary(reader, settings)
        examples = _Examples(stored)
        for record in log_reader.read_labelled_examples(reader, settings):
            if last is None or record.boundary_ms <= last:
                examples.add(record.boundary_ms // schedule.interval_ms, record)
        sampler = NegativeSampler(settings.negative_sample_rate)
        yield from snapshot_rebuild.rebuild(
            OnlineTrainer(MemoryStore(), schedule, sampler, next(iter(models.values()))),
            LearnerState.starting_at(first),
            models,
            lambda version: factories.learner_factory(models[version]),
            LearnedLog(examples, {one.as_of // schedule.interval_ms: one for one in wanted}, rows),
        )


class _Examples(Mapping[int, list[LabelledRecord]]):
    """Labelled examples by the number of their boundary, on disk: in memory, two million took 8 GB."""

    def __init__(self, stored: Rdict) -> None:
        self._stored = stored
        self._counts: Counter[int] = Counter()

    def add(self, boundary: int, record: LabelledRecord) -> None:
        self._stored[b"%d/%d" % (boundary, self._counts[boundary])] = encode_record(record)
        self._counts[boundary] += 1

    def __getitem__(self, boundary: int) -> list[LabelledRecord]:
        if boundary not in self._counts:
            raise KeyError(boundary)
        found = (self._stored.get(b"%d/%d" % (boundary, number)) for number in range(self._counts[boundary]))
        return [decode_labelled(data or b"") for data in found]

    def __iter__(self) -> Iterator[int]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


def load_broadcasts(settings: Settings) -> Broadcasts:
    """Return everything that was published; incomplete snapshots are rebuilt from the examples.

    Compaction removes superseded risk rows after a week, so older snapshots can only be rebuilt. If retention removed
    examples, they stay incomplete.
    """
    found = log_reader.read_broadcasts(settings)
    if not found.incomplete:
        return found
    store, altered = log_reader.empty_store(found.models.values()), []
    try:
        for one in _rebuilt(settings, found.models, published(settings, []), None):
            snapshot = one.published or one.result.snapshot
            if snapshot is None:
                continue
            altered += [f"snapshot {snapshot.version}: {difference}" for difference in one.differences]
            for key, row in one.result.risk.items():
                store.receive_risk(snapshot.version, key, row)
            store.receive_snapshot(snapshot)
    except TopicReadError:
        return found
    store.apply_received(final=True)
    return Broadcasts(found.models, store, tuple(store.incomplete), (*found.rejected, *altered))


def _first_boundary(reader: TopicReader, settings: Settings) -> int:
    """Return the number of the boundary before the first snapshot: each boundary after it has a snapshot."""
    interval, moments = factories.learning_schedule(settings).interval_ms, []
    for entry in log_reader.read_signed(reader, settings, "snapshots", []):
        with suppress(ValueError):  # a key that is no version
            text = (entry.key or b"")[:MINUTE_LENGTH].decode()
            moments.append(int(datetime.strptime(text, MINUTE).replace(tzinfo=UTC).timestamp() * 1000))
    first = min(moments, default=interval)
    return -(-first // interval) - 1  # versions are truncated to the minute


def snapshot_figures(snapshot: Snapshot) -> Figures:
    """Return the fields of a snapshot without its weights."""
    return {
        "version": snapshot.version,
        "as_of": rfc3339(snapshot.as_of),
        "effective_from": rfc3339(snapshot.effective_from),
        "model": snapshot.model,
        "online_weight": snapshot.online_weight,
        "examples": snapshot.examples,
        "label_horizon": rfc3339(snapshot.label_horizon),
        "risk_rows_changed": snapshot.risk_rows,
        "risk_digest": snapshot.risk_digest,
        "digest": snapshot.digest,
    }
