"""Snapshots on their topic: listed, shown, compared, and rebuilt from the labelled examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fraud_service.config import factories
from fraud_service.domain.errors import ArchiveError, ConfigurationError, InvalidRecord
from fraud_service.domain.features import NAMES
from fraud_service.domain.in_memory import MemoryStore
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.records import LabelledRecord, decode_labelled
from fraud_service.runtime.changelogs import on_disk
from fraud_service.verification import topic_views
from fraud_service.verification.display import Figures, snapshot_figures
from fraud_service.verification.snapshot_rebuild import Rebuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rocksdict import Rdict

    from fraud_service.config.settings import Settings
    from fraud_service.domain.snapshot import Snapshot
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.verification.snapshot_rebuild import Rebuilt
    from fraud_service.verification.topic_views import Broadcasts

MAX_WEIGHTS: Final = 10
MINUTE: Final = "%Y%m%dT%H%M"  # how the version of a snapshot begins
LENGTH_OF_MINUTE: Final = 13


class RebuildProof(msgspec.Struct, frozen=True):
    """What rebuilding found: how many snapshots came out bit for bit, and of the others why not, in order."""

    rebuilt: int
    differing: dict[str, list[str]]
    not_rebuilt: list[str]
    refused: list[str]


def published(settings: Settings, refused: list[str]) -> list[Snapshot]:
    """Return the snapshots on the topic whose digest fits, the oldest first, each once."""
    with topic_views.opened(settings) as archive:
        found = {
            one.version: one
            for one in topic_views.snapshots(
                topic_views.verified_entries(archive, settings, "snapshots", refused), refused
            )
        }
    return sorted(found.values(), key=lambda one: one.as_of)


def listed(settings: Settings) -> list[Figures]:
    """Return every snapshot, and whether its risk table is there, or can be rebuilt, to prove it."""
    proved = load_broadcasts(settings).views
    return [{**snapshot_figures(one), "is_proved": one.version in proved} for one in published(settings, [])]


def shown(settings: Settings, version: str) -> Figures:
    """Return one snapshot with its strongest weights. Raises `ConfigurationError` when there is none."""
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


def differing(settings: Settings, before: str, after: str) -> Figures:
    """Return what changed between two snapshots. Raises `ConfigurationError` when one is not there."""
    known = published(settings, [])
    old, new = _chosen(known, before), _chosen(known, after)
    weights = {name: [a, b] for name, a, b in zip(NAMES, old.online.weights, new.online.weights, strict=True) if a != b}
    first, second = snapshot_figures(old), snapshot_figures(new)
    with topic_views.opened(settings) as archive:
        between = sorted(
            {
                key
                for version, key, _ in topic_views.risk_rows(
                    topic_views.verified_entries(archive, settings, "risk", []), []
                )
                if old.version < version <= new.version
            }
        )
    return {
        **{name: [first[name], second[name]] for name in first if first[name] != second[name]},
        "weights": weights,
        "leaf_weights_changed": sum(
            a != b for a, b in zip(old.online.leaf_weights, new.online.leaf_weights, strict=False)
        ),
        "risk_rows": between,
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

    Raises
    ------
    ArchiveError
        When the first labelled examples are no longer there, or a topic cannot be read.
    ConfigurationError
        When there is no such snapshot.
    """
    refused: list[str] = []
    wanted = published(settings, refused)
    # What is taught meanwhile is left out: a live learner has published more by the time its examples are read.
    last = _chosen(wanted, until).as_of if until is not None else max((one.as_of for one in wanted), default=None)
    differing: dict[str, list[str]] = {}
    count = left = 0
    models = topic_views.broadcasts(settings).models
    for one in lessons(settings, models, [one for one in wanted if last is None or one.as_of <= last], last):
        count += 1
        progress(count)
        left += one.published is not None
        if one.differences:
            known = one.published or one.lesson.snapshot
            differing[str(one.lesson.as_of) if known is None else known.version] = list(one.differences)
    chosen = [one.version for one in wanted if last is None or one.as_of <= last]
    return RebuildProof(count - len(differing), differing, chosen[left:], refused)


def lessons(
    settings: Settings, models: dict[str, OnnxForest], wanted: list[Snapshot], last: int | None
) -> Iterator[Rebuilt]:
    """Teach again what was taught, up to and including the boundary `last` (epoch milliseconds)."""
    with topic_views.opened(settings) as archive:
        if any(span.begin for span in archive.spans(settings.topics.labelled).values()):
            raise ArchiveError(
                f"topic {settings.topics.labelled} has lost its first records to retention: what was taught cannot be "
                "taught again from its beginning"
            )
        rows: dict[str, dict[str, Any]] = defaultdict(dict)
        for version, key, row in topic_views.risk_rows(topic_views.verified_entries(archive, settings, "risk", []), []):
            rows[version][key] = row
        first = _first(archive, settings)
        calendar = factories.calendar(settings)
        rebuilder = Rebuilder(
            MemoryStore(),
            calendar,
            NegativeSampler(settings.negative_sample_rate),
            models,
            lambda version: factories.restore(models[version]),
        )
        with on_disk() as kept:
            examples = _Examples(kept, calendar.interval)
            for entry in topic_views.whole(archive, settings.topics.labelled):
                with suppress(InvalidRecord):  # a foreign record: nobody taught it
                    examples.keep(entry.value or b"", last)
            yield from rebuilder.rebuild(first, examples, wanted, rows)


class _Examples(Mapping[int, list[LabelledRecord]]):
    """Labelled examples by the number of their boundary, on disk: decoded in memory, two million took 8 GB."""

    def __init__(self, kept: Rdict, interval: int) -> None:
        self._kept = kept
        self._interval = interval
        self._counts: Counter[int] = Counter()

    def keep(self, data: bytes, last: int | None) -> None:
        """Keep a record as it is, unless its boundary lies behind the last one; raises `InvalidRecord` for none."""
        snapshot = decode_labelled(data).boundary_ms
        if last is None or snapshot <= last:
            boundary = snapshot // self._interval
            self._kept[self._place(boundary, self._counts[boundary])] = data
            self._counts[boundary] += 1

    def __getitem__(self, boundary: int) -> list[LabelledRecord]:
        count = self._counts.get(boundary, 0)
        if not count:
            raise KeyError(boundary)
        found = (self._kept.get(self._place(boundary, number)) for number in range(count))
        return [decode_labelled(data or b"") for data in found]

    def __iter__(self) -> Iterator[int]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    @staticmethod
    def _place(boundary: int, number: int) -> bytes:
        return b"%d/%d" % (boundary, number)


def load_broadcasts(settings: Settings) -> Broadcasts:
    """Return what was ever broadcast; snapshots that no longer prove themselves are rebuilt from the examples.

    Compaction removes superseded risk rows after a week: snapshots older than that can only be proved so. Where
    retention has cut the examples, they stay passed over. Raises as `topic_views.broadcasts` does.
    """
    told = topic_views.broadcasts(settings)
    if not told.passed_over:
        return told
    knowledge, altered = topic_views.empty_store(told.pretrained, told.promoted), []
    try:
        for one in lessons(settings, told.models, published(settings, []), None):
            snapshot = one.published or one.lesson.snapshot
            if snapshot is None:
                continue
            altered += [f"snapshot {snapshot.version}: {difference}" for difference in one.differences]
            for key, row in one.lesson.risk.items():
                knowledge.receive_risk(snapshot.version, key, row)
            knowledge.receive_snapshot(snapshot)
    except ArchiveError:
        return told
    knowledge.apply_received(final=True)
    return msgspec.structs.replace(
        told, knowledge=knowledge, passed_over=tuple(knowledge.passed_over), refused=(*told.refused, *altered)
    )


def _first(archive: TopicReader, settings: Settings) -> int:
    """Return an event time in the interval in which the learner's calendar began.

    It began with the score that was read first, in whatever partition, and each boundary from then on left a snapshot.
    """
    interval, moments = factories.calendar(settings).interval, []
    for entry in topic_views.verified_entries(archive, settings, "snapshots", []):
        with suppress(ValueError):  # a key that is no version
            text = (entry.key or b"")[:LENGTH_OF_MINUTE].decode()
            moments.append(int(datetime.strptime(text, MINUTE).replace(tzinfo=UTC).timestamp() * 1000))
    first = min(moments, default=interval)
    return (-(-first // interval) - 1) * interval  # versions are cut to the minute
