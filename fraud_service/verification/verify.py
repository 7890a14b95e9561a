"""Read the topics and check every invariant on them; nothing is joined, committed or written.

A live service moves on while it is read. So offsets come first, then the ends of outputs, once everything that was
committed by then can be seen, and the ends of inputs last: whatever was processed when the offsets were read has its
output within those ends, and every output has its input.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from fraud_service.config.keyring import load_keyring
from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import ArchiveError
from fraud_service.kafka import consumer_groups, open_transactions
from fraud_service.kafka.topic_reader import OffsetRange, TopicReader
from fraud_service.kafka.topics import topic_specs
from fraud_service.runtime.changelogs import LocalState
from fraud_service.security.signatures import Keyring
from fraud_service.verification import labels_and_snapshots, redo_decisions, state
from fraud_service.verification.dead_letters import Letters
from fraud_service.verification.decisions import Decisions, PartitionScope, Unmatched, resolve_unmatched
from fraud_service.verification.findings import Findings, Kind
from fraud_service.verification.pairing import pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import Record
    from fraud_service.verification.findings import Report

Spans = dict[int, OffsetRange]
Offsets = dict[int, int | None]


class OffsetCut(NamedTuple):
    """Where everything stood: what of each topic is looked at, by role, and what the groups had committed."""

    spans: dict[str, Spans]
    unsettled: dict[int, int]
    inputs: Spans
    processed: Offsets
    learned_labels: Offsets
    learned_scores: Offsets
    moments: dict[int, int]
    alerts_moments: dict[int, int]
    taught_since: dict[str, int]


class VerifyOptions(NamedTuple):
    """How much is looked at.

    `since`: leave out of the topics what the broker took in before this moment (epoch milliseconds); snapshots and risk
    are all read, for they build on each other, but what is not believed of before is only counted. `state`: fold the
    profile of every card anew, whatever `since` is. `volume`: a folder of state, compared with the changelog. `replay`:
    make every decision and every snapshot again, whatever `since` is.
    """

    since: int | None = None
    state: bool = False
    volume: Path | None = None
    replay: bool = False


def verify(
    settings: Settings,
    depth: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    on_size: Callable[[int], None] = lambda _: None,
    on_entry: Callable[[int], None] = lambda _: None,
) -> Report:
    """Check what lies on the topics of a service, running or not.

    Parameters
    ----------
    on_size
        Told how many offsets there are to read, once that is known.
    on_entry
        Told of records that were read, how many more.

    Raises
    ------
    ArchiveError
        When topics cannot be read to the end, or do not have equally many partitions.
    """
    with ExitStack() as stack:
        archives = [stack.enter_context(TopicReader(settings, f"{settings.scorer_group}-verify")) for _ in range(3)]
        verification = _Verification(settings, archives, depth, on_entry)
        on_size(verification.size())
        return verification.run()


class _Verification:
    def __init__(
        self, settings: Settings, archives: list[TopicReader], depth: VerifyOptions, on_entry: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._names = settings.topics.model_dump()
        self._archives = archives
        self._on_entry = on_entry
        self._findings = Findings()
        self._letters = Letters()
        self._depth = depth
        self._names["changelog"] = next(spec.name for spec in topic_specs(settings) if spec.role == "scorer_state")
        self.cut = self._capture_cut(depth.since)

    def size(self) -> int:
        """Return how many offsets are to be read; those that are read twice count twice."""
        read = [*self.cut.spans.values()]
        if self._depth.state:
            read += [self.cut.inputs, self.cut.spans["scores"]]
            if self._depth.volume is not None:
                read.append(self.cut.spans["changelog"])
        if self._depth.replay:
            read.append(self.cut.spans["scores"])
        return sum(span.end - span.begin for spans in read for span in spans.values())

    def run(self) -> Report:
        """Check everything; topics that depend on others come after them."""
        for number in self.cut.spans["dead_letters"]:
            self._letters.take(self._read("dead_letters", number), self._findings)
        self._check_decisions()
        self._check_lessons()
        self._check_offsets()
        if self._depth.state:
            self._check_state()
        if self._depth.volume is not None:
            self._check_volume(self._depth.volume)
        if self._depth.replay:
            redo_decisions.follow_decisions(self._settings, _Steps(self._on_entry), self._findings)
            redo_decisions.follow_snapshots(self._settings, self._findings)
        return self._findings.report()

    def _check_decisions(self) -> None:
        loose, topic = Unmatched.none(), self._names["transactions"]
        for number, span in self.cut.spans["transactions"].items():
            scope = PartitionScope(
                topic,
                number,
                span.begin,
                span.end,
                self.cut.processed[number],
                self.cut.unsettled[number],
                self.cut.moments.get(number, -1),
                self.cut.alerts_moments.get(number, -1),
            )
            decisions = Decisions(scope, self._letters.of(topic, number), loose, self._findings)
            inputs, scores, alerts = (
                self._read(role, number, reader) for reader, role in enumerate(("transactions", "scores", "alerts"))
            )
            decisions.follow(inputs, scores, alerts)
        resolve_unmatched(loose, self._findings)

    def _check_lessons(self) -> None:
        findings, topic = self._findings, self._names["labels"]
        for number in self.cut.spans["labels"]:
            letters = self._letters.of(topic, number)
            labels_and_snapshots.follow_labels(
                self._read("labels", number), letters, self.cut.learned_labels[number], findings
            )
        taught = labels_and_snapshots.Taught()
        for number in self.cut.spans["labelled"]:
            taught.take(self._read("labelled", number), findings)
        if taught.has_doubles():
            met: set[int] = set()
            for number in self.cut.spans["labelled"]:
                taught.name(self._read("labelled", number), met, findings)
        keyring = Keyring() if self._settings.signing_key_dir is None else load_keyring(self._settings)
        snapshots, rows = (
            labels_and_snapshots.verified_entries(
                self._read(role, 0), role, keyring, findings, self.cut.taught_since.get(role, 0)
            )
            for role in ("snapshots", "risk")
        )
        newest = labels_and_snapshots.follow_snapshots(snapshots, findings)
        if newest is not None and not labels_and_snapshots.follow_risk(rows, newest, findings):
            what = (
                f"the rows of risk do not add up to what snapshot {newest.version} names: some are missing or altered"
            )
            findings.wrong_at(Kind.ALTERED, self._names["risk"], 0, self.cut.spans["risk"][0].end, what)

    def _check_state(self) -> None:
        """Fold every profile anew, from the beginning of the log on."""
        for number, span in self.cut.inputs.items():
            refused = self._letters.of(self._names["transactions"], number)
            transactions = self._logged("transactions", number, span.end, reader=1)
            scores = self._logged("scores", number, self.cut.spans["scores"][number].end, reader=2)
            pairs = pair(transactions, scores, refused, is_cut=span.begin > 0)
            state.follow(self._scope(number), self._read("changelog", number), pairs, self._findings)

    def _logged(self, role: str, number: int, end: int, reader: int) -> Iterator[tuple[int, bytes | None]]:
        """Read a partition from its beginning, whatever the cut leaves out."""
        for entry in self._archives[reader].read(self._names[role], number, 0, end):
            self._on_entry(1)
            yield entry.offset, entry.value

    def _check_volume(self, folder: Path) -> None:
        names, group, seen = self._names, self._settings.scorer_group, 0
        for number in self.cut.inputs:
            with LocalState.opened(folder, group, names["transactions"], number) as volume:
                if volume is not None:
                    seen += 1
                    entries = self._read("changelog", number)
                    state.compare_volume(self._scope(number), volume, entries, self._findings)
        if not seen:
            raise ArchiveError(f"there is no state of group {group} in {folder}")

    def _scope(self, number: int) -> state.Scope:
        return state.Scope(
            self._names["transactions"],
            self._names["changelog"],
            number,
            self.cut.processed[number],
            is_cut=self.cut.inputs[number].begin > 0,
        )

    def _check_offsets(self) -> None:
        for role, group, offsets in (
            ("transactions", self._settings.scorer_group, self.cut.processed),
            ("labels", self._settings.learner_group, self.cut.learned_labels),
            ("scores", self._settings.learner_group, self.cut.learned_scores),
        ):
            spans = self._archives[0].spans(self._names[role])
            for number, offset in offsets.items():
                begin, end = spans[number]
                if offset is not None and offset > end:
                    what = f"group {group} stands at {offset}, beyond the end at {end}: the topic was created anew"
                    self._findings.wrong_at(Kind.OFFSET, self._names[role], number, offset, what)
                elif offset is not None and offset < begin:
                    what = f"group {group} stands here, the log begins at {begin}: {begin - offset} messages are lost"
                    self._findings.wrong_at(Kind.EXPIRED, self._names[role], number, offset, what)

    def _read(self, role: str, number: int, reader: int = 0) -> Iterator[Record]:
        """Read a partition within the cut. Several are read at the same time by readers of their own."""
        for entry in self._archives[reader].read(self._names[role], number, *self.cut.spans[role][number]):
            self._on_entry(1)
            yield entry

    def _capture_cut(self, since: int | None) -> OffsetCut:
        settings, archive, names = self._settings, self._archives[0], self._names
        # The state first, and the last of what it was made of last.
        changelog = open_transactions.stable_ranges(settings, archive, names["changelog"]) if self._is_deep() else {}
        unsettled = {number: span.end for number, span in archive.spans(names["alerts"]).items()}
        processed = consumer_groups.committed_offsets(settings, settings.scorer_group, archive, names["transactions"])
        learned_labels = consumer_groups.committed_offsets(settings, settings.learner_group, archive, names["labels"])
        learned_scores = consumer_groups.committed_offsets(settings, settings.learner_group, archive, names["scores"])
        spans = {
            role: open_transactions.stable_ranges(settings, archive, names[role]) for role in ("dead_letters", "scores")
        }
        spans["alerts"] = open_transactions.stable_ranges(settings, archive, names["alerts"])
        for role in ("snapshots", "risk", "labelled", "labels", "transactions"):
            spans[role] = archive.spans(names[role])
        spans["changelog"] = changelog
        inputs = spans["transactions"]
        _require_as_many({names[role]: spans[role] for role in ("transactions", "scores", "alerts")})
        moments = {} if since is None else dict.fromkeys(spans["transactions"], since)
        for role in ("transactions", "scores"):
            moments = _latest(moments, self._moments(role, spans[role]))
        for role in ("transactions", "scores", "alerts"):
            spans[role] = self._from(role, spans[role], moments)
        for role in ("dead_letters", "labels", "labelled"):
            spans[role] = self._from(role, spans[role], {} if since is None else dict.fromkeys(spans[role], since))
        alerts_moments = self._moments("alerts", archive.spans(names["alerts"]))
        taught = {} if since is None else {role: archive.since(names[role], since)[0] for role in ("snapshots", "risk")}
        return OffsetCut(
            spans, unsettled, inputs, processed, learned_labels, learned_scores, moments, alerts_moments, taught
        )

    def _is_deep(self) -> bool:
        return self._depth.state or self._depth.volume is not None

    def _from(self, role: str, spans: Spans, moments: dict[int, int]) -> Spans:
        """Cut off what is older than a moment of each partition."""
        begins = self._archives[0].since(self._names[role], moments) if moments else {}
        return {
            number: OffsetRange(min(max(span.begin, begins.get(number, 0)), span.end), span.end)
            for number, span in spans.items()
        }

    def _moments(self, role: str, spans: Spans) -> dict[int, int]:
        """Return the time of the first record of each partition that has lost older ones."""
        moments = {}
        for number, span in spans.items():
            if span.begin > 0:
                first = next(self._archives[0].read(self._names[role], number, *span), None)
                moments[number] = LATEST if first is None else first.timestamp
        if moments:
            self._findings.note(
                f"{self._names[role]} has lost older records in {len(moments)} of {len(spans)} partitions: nothing is "
                "proved of what belongs to them"
            )
        return moments


class _Steps:
    """Tells of steps whoever is told how far it is."""

    def __init__(self, on_step: Callable[[int], None]) -> None:
        self._on_step = on_step
        self._done = 0

    def __call__(self, done: int) -> None:
        self._on_step(done - self._done)
        self._done = done


def _latest(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {number: max(one.get(number, -1), other.get(number, -1)) for number in one.keys() | other.keys()}


def _require_as_many(spans: dict[str, Spans]) -> None:
    if len({len(partitions) for partitions in spans.values()}) > 1:
        listed = ", ".join(f"{name} has {len(partitions)}" for name, partitions in spans.items())
        raise ArchiveError(
            f"inputs, scores and alerts meet by partition number, but {listed}: `topics check` says more"
        )
