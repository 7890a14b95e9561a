"""Verify the topics of a service, running or not. It joins no group, and writes and commits nothing.

Inputs, scores and alerts are read once. Each pair of an input and its score goes to every requested check:
completeness, the state of cards, and the decision recomputed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.config import factories
from fraud_service.config.duration import to_ms
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.errors import TopicReadError
from fraud_service.runtime.changelogs import LocalState, temporary_rows
from fraud_service.security.signatures import Keyring
from fraud_service.verification import labels_and_snapshots, log_reader, replay, snapshots
from fraud_service.verification.captured_offsets import capture_offsets, topic_names
from fraud_service.verification.completeness import CompletenessCheck, PartitionScope, UnmatchedRecords
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.log_reader import DeadLetterIndex
from fraud_service.verification.matching import pair, read_score
from fraud_service.verification.report import COMPLETENESS, FindingKind, Findings
from fraud_service.verification.state import StateCheck, StateScope, compare_volume
from fraud_service.verification.worker_pool import run_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import Label
    from fraud_service.kafka.topic_reader import OffsetRange, Record, TopicReader
    from fraud_service.verification.captured_offsets import CapturedOffsets
    from fraud_service.verification.decisions import DecisionVerifier
    from fraud_service.verification.labels_and_snapshots import PublishedBoundaries, ScoredIds
    from fraud_service.verification.report import Finding, Report

ROLES: Final = ("transactions", "scores", "alerts", "changelog")  # read side by side
FOLDED: Final = ("transactions", "scores", "dead_letters")  # the inputs of the state and decision checks
COUNTED_NOTES: Final = {
    "cards_forgotten": "cards became unknown to the scorer: they were erased, or their state was lost or altered",
    "decisions_unproved": "decisions repeat earlier ones that expired: they were not verified",
}


class VerifyOptions(NamedTuple):
    """What to verify.

    | option | effect |
    | --- | --- |
    | `since` | leave out records that the broker received before (epoch ms); state and decisions ignore it |
    | `state` | fold the profile of every card and compare it with the changelog |
    | `volume` | compare this folder of state with the changelog |
    | `replay` | recompute every decision and every snapshot |
    """

    since: int | None = None
    state: bool = False
    volume: Path | None = None
    replay: bool = False


def verify(
    settings: Settings,
    options: VerifyOptions = VerifyOptions(),  # noqa: B008 - frozen
    on_size: Callable[[int], None] = lambda _: None,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Verify the topics.

    `on_size` is called once with the number of offsets to read, `progress` with the number of further records.
    """
    with log_reader.open_reader(settings, f"{settings.scorer_group}-verify") as reader:
        verification = _Verification(settings, reader, options, progress)
        on_size(verification.size())
        return verification.run()


class _Scope(NamedTuple):
    """What all processes of a verification share."""

    settings: Settings
    options: VerifyOptions
    captured: CapturedOffsets
    letters: DeadLetterIndex
    names: dict[str, str]  # of the topics, by role
    boundaries: PublishedBoundaries

    def span(self, role: str, number: int) -> OffsetRange:
        """Return the offsets to read: state and decisions need inputs, scores and dead letters from the beginning."""
        is_whole = role in FOLDED and (self.options.state or self.options.replay)
        return (self.captured.present if is_whole else self.captured.checked)[role][number]

    def is_truncated(self, number: int) -> bool:
        """Whether retention removed the first transactions of a partition."""
        return self.captured.present["transactions"][number].begin > 0

    def state(self, number: int) -> StateScope:
        """Return the scope of the state check of a partition."""
        topics = self.names["transactions"], self.names["changelog"]
        return StateScope(*topics, number, self.captured.processed[number], is_truncated=self.is_truncated(number))

    def read(self, reader: TopicReader, role: str, number: int, count: Callable[[], None]) -> Iterator[Record]:
        """Read the records of a partition to check; calls `count` for each."""
        for entry in reader.read(self.names[role], number, *self.span(role, number)):
            count()
            yield entry


class _Verification:
    def __init__(
        self, settings: Settings, reader: TopicReader, options: VerifyOptions, progress: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._options = options
        self._progress = progress
        self._findings = Findings()
        with_state = options.state or options.volume is not None
        self._captured = capture_offsets(settings, reader, options.since, self._findings, with_state=with_state)
        boundaries = labels_and_snapshots.PublishedBoundaries(to_ms(settings.label_retention))
        self._scope = _Scope(settings, options, self._captured, DeadLetterIndex(), topic_names(settings), boundaries)

    def size(self) -> int:
        """Return the number of offsets to read; the changelog counts for each of its two checks."""
        passes = dict.fromkeys(self._captured.checked, 1)
        passes["changelog"] = self._options.state + (self._options.volume is not None)
        spans = [(self._scope.span(role, number), role) for role in passes for number in self._captured.checked[role]]
        return sum((span.end - span.begin) * passes[role] for span, role in spans)

    def run(self) -> Report:
        """Run every check. Dead letters come first, because the other checks look them up."""
        for number, span in self._captured.checked["dead_letters"].items():
            self._scope.letters.add(self._read("dead_letters", number), self._findings, span.begin)
        self._check_snapshots()
        scored = self._check_partitions()
        self._check_labels(scored)
        self._check_offsets()
        if self._options.volume is not None:
            self._check_volume(self._options.volume)
        if self._options.replay:
            rebuild_snapshots(self._settings, self._findings)
        return self._findings.report()

    def _check_partitions(self) -> ScoredIds:
        """Check inputs, scores and alerts, and with `replay` in one process for each core."""
        numbers = sorted(self._captured.present["transactions"])
        shares = replay.split_partitions(numbers) if self._options.replay else [numbers]
        unmatched = UnmatchedRecords()
        work = [(self._scope, share) for share in shares]
        for findings, of_share in run_in_processes(_check_partitions, work, self._progress):
            self._findings.merge(findings)
            unmatched.merge(of_share)
        unmatched.resolve(self._findings)
        counts = self._findings.report().counts
        for name, note in COUNTED_NOTES.items():
            if counts.get(name):
                self._findings.note(f"{counts[name]} {note}")
        return unmatched.scored

    def _check_labels(self, scored: ScoredIds) -> None:
        findings, topic = self._findings, self._scope.names["labels"]
        is_whole = not self._captured.incomplete_until_ms and not findings.report().counts.get("pending")
        if not is_whole:
            findings.note("labels were not compared with payments, because older or uncommitted records are missing")
        has_score, has_passed = scored.finder(), self._scope.boundaries.has_passed

        def is_unmatched(label: Label) -> bool:
            return is_whole and has_passed(label.labelled_at) and not has_score(label)

        for number in self._captured.checked["labels"]:
            letters, committed = self._scope.letters.of(topic, number), self._captured.learned_labels[number]
            labels = self._read("labels", number)
            labels_and_snapshots.check_labels(labels, letters, committed, findings, is_unmatched)
        duplicates = labels_and_snapshots.ExampleDuplicates(findings)
        for number in self._captured.checked["labelled"]:
            duplicates.add(self._read("labelled", number))
        duplicates.report(self._scope.names["labelled"])

    def _check_snapshots(self) -> None:
        findings, begins = self._findings, self._captured.signed_since
        keyring = Keyring() if self._settings.signing_key_dir is None else load_keyring(self._settings)
        published, rows = (
            labels_and_snapshots.skip_unsigned(self._read(role, 0), role, keyring, findings, begins.get(role, 0))
            for role in ("snapshots", "risk")
        )
        newest = labels_and_snapshots.check_snapshots(published, findings, self._scope.boundaries)
        if newest is not None and not labels_and_snapshots.matches_risk_digest(rows, newest, findings):
            detail = (
                f"the risk rows do not add up to the digest in snapshot {newest.version}: some are missing or altered"
            )
            end = self._captured.present["risk"][0].end
            findings.add_at(FindingKind.ALTERED, self._scope.names["risk"], 0, end, detail)

    def _check_volume(self, folder: Path) -> None:
        topic, group, found = self._scope.names["transactions"], self._settings.scorer_group, 0
        for number in self._captured.present["transactions"]:
            with LocalState.opened(folder, group, topic, number) as volume:
                if volume is not None:
                    found += 1
                    compare_volume(self._scope.state(number), volume, self._read("changelog", number), self._findings)
        if not found:
            raise TopicReadError(f"there is no state of group {group} in {folder}")

    def _check_offsets(self) -> None:
        for role, group, offsets in (
            ("transactions", self._settings.scorer_group, self._captured.processed),
            ("labels", self._settings.learner_group, self._captured.learned_labels),
            ("scores", self._settings.learner_group, self._captured.learned_scores),
        ):
            topic = self._scope.names[role]
            for number, (begin, end) in self._reader.offset_ranges(topic).items():
                offset = offsets.get(number)
                if offset is not None and offset > end:
                    detail = f"group {group} has committed {offset}, beyond the end {end}: the topic was recreated"
                    self._findings.add_at(FindingKind.OFFSET, topic, number, offset, detail)
                elif offset is not None and offset < begin:
                    detail = (
                        f"group {group} has committed {offset}, before the begin {begin}: {begin - offset} are lost"
                    )
                    self._findings.add_at(FindingKind.EXPIRED, topic, number, offset, detail)

    def _read(self, role: str, number: int) -> Iterator[Record]:
        return self._scope.read(self._reader, role, number, lambda: self._progress(1))


def _check_partitions(
    scope: _Scope, numbers: Sequence[int], count: Callable[[], None]
) -> tuple[Findings, UnmatchedRecords]:
    """Check some partitions; `count` is called for each record that is read."""
    with ExitStack() as stack:
        readers = {
            role: stack.enter_context(log_reader.open_reader(scope.settings, f"{scope.settings.scorer_group}-verify"))
            for role in ROLES
        }
        check = _PartitionCheck(scope, readers, count)
        for number in numbers:
            check.run(number)
    return check.findings, check.unmatched


class _PartitionCheck:
    def __init__(self, scope: _Scope, readers: Mapping[str, TopicReader], count: Callable[[], None]) -> None:
        self._scope = scope
        self._readers = readers
        self._count = count
        self._broadcasts = snapshots.load_broadcasts(scope.settings) if scope.options.replay else None
        self.findings, self.unmatched = Findings(), UnmatchedRecords()
        if self._broadcasts is not None and self._broadcasts.rejected:
            self.findings.note(
                f"{len(self._broadcasts.rejected)} records of snapshots, risk and models are altered or not signed: "
                "`replay` names them"
            )

    def run(self, number: int) -> None:
        """Check one partition."""
        scope = self._scope
        letters, alerts = scope.letters.of(scope.names["transactions"], number), self._read("alerts", number)
        completeness = CompletenessCheck(self._completeness(number), letters, alerts, self.unmatched, self.findings)
        verifier, is_truncated = self._verifier(number), scope.span("transactions", number).begin > 0
        with ExitStack() as stack:
            state = self._state_check(number, stack)
            inputs = completeness.inputs(self._read("transactions", number))
            for one in pair(inputs, self._read("scores", number), is_truncated=is_truncated, read=read_score):
                completeness.take(one)
                if state is not None:
                    state.take(one)
                if verifier is not None:
                    self._add_differences(number, verifier.take(one))
            completeness.finish()
            if state is not None:
                state.finish()
        if verifier is not None:
            self._add_differences(number, verifier.flush())
            counts = verifier.counts
            self.findings.count("decisions_recomputed", counts["identical"] + counts["from_features"])
            self.findings.count("decisions_unproved", counts["unproved"])
            self.findings.count("cards_forgotten", counts["cards_forgotten"])

    def _completeness(self, number: int) -> PartitionScope:
        captured = self._scope.captured
        return PartitionScope(
            self._scope.names["transactions"],
            number,
            captured.checked["transactions"][number],
            captured.checked["scores"][number],
            captured.processed[number],
            captured.open_alerts[number],
            captured.incomplete_until_ms.get(number, -1),
            captured.alerts_incomplete_until_ms.get(number, -1),
            self._scope.boundaries,
        )

    def _verifier(self, number: int) -> DecisionVerifier | None:
        if self._broadcasts is None:
            return None
        policy = factories.policy(self._scope.settings)
        return self._broadcasts.verifier(policy, TimeRange(), is_truncated=self._scope.is_truncated(number))

    def _state_check(self, number: int, stack: ExitStack) -> StateCheck | None:
        if not self._scope.options.state:
            return None
        rows, folded = stack.enter_context(temporary_rows()), stack.enter_context(temporary_rows())
        return StateCheck(self._scope.state(number), self._read("changelog", number), rows, folded, self.findings)

    def _add_differences(self, number: int, found: Iterable[Finding]) -> None:
        """Add findings about decisions, without those that the completeness check reports for the same records."""
        for one in found:
            role = "scores" if one.topic == self._scope.names["scores"] else "transactions"
            is_checked = one.offset >= self._scope.captured.checked[role][number].begin
            if not (one.kind in COMPLETENESS and is_checked):
                self.findings.add_at(one.kind, one.topic, one.partition, one.offset, one.detail)

    def _read(self, role: str, number: int) -> Iterator[Record]:
        return self._scope.read(self._readers[role], role, number, self._count)


def rebuild_snapshots(settings: Settings, findings: Findings) -> None:
    """Rebuild every snapshot from the labelled examples, and report those that differ."""
    try:
        proof = snapshots.rebuild(settings)
    except TopicReadError as error:
        findings.note(str(error))
        return
    findings.count("snapshots_rebuilt", proof.rebuilt)
    faults = {
        version: f"differs from the rebuilt one: {'; '.join(found)}" for version, found in proof.differing.items()
    }
    missing = "cannot be rebuilt: it, or one before it, names a model that is not available"
    for version, fault in (faults | dict.fromkeys(proof.not_rebuilt, missing)).items():
        findings.add_at(FindingKind.SNAPSHOT, settings.topics.snapshots, 0, -1, f"snapshot {version} {fault}")
