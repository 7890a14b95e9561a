"""Verify the topics of a service, running or not. It joins no group, and writes and commits nothing.

Inputs, scores and alerts are read once. Each pair of an input and its score goes to every check that was asked for:
completeness, the state of cards, and the decision recomputed.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.config.keyring import load_keyring
from fraud_service.domain.errors import TopicReadError
from fraud_service.runtime.changelogs import LocalState, temporary_rows
from fraud_service.security.signatures import Keyring
from fraud_service.verification import labels_and_snapshots, log_reader, replay, snapshots
from fraud_service.verification.completeness import CompletenessCheck, PartitionScope, Unmatched
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.log_reader import DeadLetterIndex
from fraud_service.verification.matching import pair, read_score
from fraud_service.verification.offset_cut import capture_cut, topic_names
from fraud_service.verification.report import COMPLETENESS, Findings, Kind
from fraud_service.verification.state import StateCheck, StateScope, compare_volume
from fraud_service.verification.worker_pool import run_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import OffsetRange, Record, TopicReader
    from fraud_service.verification.decisions import DecisionVerifier
    from fraud_service.verification.offset_cut import OffsetCut
    from fraud_service.verification.report import Finding, Report

ROLES: Final = ("transactions", "scores", "alerts", "changelog")  # read side by side


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

    Parameters
    ----------
    on_size
        Called once with the number of offsets to read.
    progress
        Called with the number of further records that were read.

    Raises
    ------
    TopicReadError
        When a topic cannot be read to its end, or inputs, scores and alerts have different numbers of partitions.
    """
    with log_reader.opened(settings, f"{settings.scorer_group}-verify") as reader:
        verification = _Verification(settings, reader, options, progress)
        on_size(verification.size())
        return verification.run()


class _Verification:
    def __init__(
        self, settings: Settings, reader: TopicReader, options: VerifyOptions, progress: Callable[[int], None]
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._options = options
        self._progress = progress
        self._names = topic_names(settings)
        self._findings = Findings()
        self._letters = DeadLetterIndex()
        with_state = options.state or options.volume is not None
        self.cut = capture_cut(settings, reader, options.since, self._findings, with_state=with_state)
        self._ranges = _ranges_to_read(options, self.cut)

    def size(self) -> int:
        """Return the number of offsets to read; the changelog counts for each of its two checks."""
        ranges = [self._ranges[role] for role in self._ranges if role != "changelog"]
        ranges += [self.cut.present["changelog"]] * (self._options.state + (self._options.volume is not None))
        return sum(span.end - span.begin for spans in ranges for span in spans.values())

    def run(self) -> Report:
        """Run every check. Dead letters come first, because the other checks look them up."""
        for number, span in self.cut.checked["dead_letters"].items():
            self._letters.add(self._read("dead_letters", number), self._findings, span.begin)
        self._check_partitions()
        self._check_labels()
        self._check_snapshots()
        self._check_offsets()
        if self._options.volume is not None:
            self._check_volume(self._options.volume)
        if self._options.replay:
            rebuild_snapshots(self._settings, self._findings)
        return self._findings.report()

    def _check_partitions(self) -> None:
        """Check inputs, scores and alerts, and with `replay` in one process for each core."""
        numbers = sorted(self.cut.present["transactions"])
        shares = replay.shares(numbers) if self._options.replay else [numbers]
        common = self._settings, self._options, self.cut, self._letters
        unmatched = Unmatched()
        for findings, of_share in run_in_processes(
            _check_partitions, [(*common, share) for share in shares], self._progress
        ):
            self._findings.merge(findings)
            unmatched.merge(of_share)
        unmatched.resolve(self._findings)
        counts = self._findings.report().counts
        if counts.get("cards_forgotten"):
            self._findings.note(
                f"{counts['cards_forgotten']} cards became unknown to the scorer: they were erased, or their state was "
                "lost or altered"
            )
        if counts.get("decisions_unproved"):
            self._findings.note(
                f"{counts['decisions_unproved']} decisions repeat earlier ones that expired: they were not verified"
            )

    def _check_labels(self) -> None:
        findings, topic = self._findings, self._names["labels"]
        for number in self.cut.checked["labels"]:
            letters = self._letters.of(topic, number)
            committed = self.cut.learned_labels[number]
            labels_and_snapshots.check_labels(self._read("labels", number), letters, committed, findings)
        duplicates = labels_and_snapshots.ExampleDuplicates()
        for number in self.cut.checked["labelled"]:
            duplicates.add(self._read("labelled", number), findings)
        if duplicates.has_duplicates():
            for number in self.cut.checked["labelled"]:
                duplicates.locate(self._read("labelled", number), findings)

    def _check_snapshots(self) -> None:
        findings, begins = self._findings, self.cut.signed_since
        keyring = Keyring() if self._settings.signing_key_dir is None else load_keyring(self._settings)
        published, rows = (
            labels_and_snapshots.reported_unless_signed(
                self._read(role, 0), role, keyring, findings, begins.get(role, 0)
            )
            for role in ("snapshots", "risk")
        )
        newest = labels_and_snapshots.check_snapshots(published, findings)
        if newest is not None and not labels_and_snapshots.matches_risk_digest(rows, newest, findings):
            detail = (
                f"the risk rows do not add up to the digest in snapshot {newest.version}: some are missing or altered"
            )
            end = self.cut.present["risk"][0].end
            findings.add_at(Kind.ALTERED, self._names["risk"], 0, end, detail)

    def _check_volume(self, folder: Path) -> None:
        names, group, found = self._names, self._settings.scorer_group, 0
        for number in self.cut.present["transactions"]:
            with LocalState.opened(folder, group, names["transactions"], number) as volume:
                if volume is not None:
                    found += 1
                    scope = _state_scope(self._settings, self.cut, number)
                    compare_volume(scope, volume, self._read("changelog", number), self._findings)
        if not found:
            raise TopicReadError(f"there is no state of group {group} in {folder}")

    def _check_offsets(self) -> None:
        for role, group, offsets in (
            ("transactions", self._settings.scorer_group, self.cut.processed),
            ("labels", self._settings.learner_group, self.cut.learned_labels),
            ("scores", self._settings.learner_group, self.cut.learned_scores),
        ):
            spans = self._reader.spans(self._names[role])
            for number, offset in offsets.items():
                begin, end = spans[number]
                if offset is not None and offset > end:
                    detail = f"group {group} has committed {offset}, beyond the end {end}: the topic was recreated"
                    self._findings.add_at(Kind.OFFSET, self._names[role], number, offset, detail)
                elif offset is not None and offset < begin:
                    detail = (
                        f"group {group} has committed {offset}, before the begin {begin}: {begin - offset} are lost"
                    )
                    self._findings.add_at(Kind.EXPIRED, self._names[role], number, offset, detail)

    def _read(self, role: str, number: int) -> Iterator[Record]:
        for entry in self._reader.read(self._names[role], number, *self._ranges[role][number]):
            self._progress(1)
            yield entry


def _ranges_to_read(options: VerifyOptions, cut: OffsetCut) -> dict[str, dict[int, OffsetRange]]:
    """Return the offsets to read: state and decisions need inputs, scores and dead letters from the beginning."""
    if not (options.state or options.replay):
        return cut.checked
    return cut.checked | {role: cut.present[role] for role in ("transactions", "scores", "dead_letters")}


def _state_scope(settings: Settings, cut: OffsetCut, number: int) -> StateScope:
    """Return the scope of the state check of a partition."""
    names = topic_names(settings)
    is_cut = cut.present["transactions"][number].begin > 0
    return StateScope(names["transactions"], names["changelog"], number, cut.processed[number], is_cut=is_cut)


def _check_partitions(
    settings: Settings,
    options: VerifyOptions,
    cut: OffsetCut,
    letters: DeadLetterIndex,
    numbers: Sequence[int],
    count: Callable[[], None],
) -> tuple[Findings, Unmatched]:
    """Check some partitions; `count` is called for each record that is read."""
    with ExitStack() as stack:
        readers = {
            role: stack.enter_context(log_reader.opened(settings, f"{settings.scorer_group}-verify")) for role in ROLES
        }
        check = _PartitionCheck(settings, options, cut, letters, readers, count)
        for number in numbers:
            check.run(number)
    return check.findings, check.unmatched


class _PartitionCheck:
    def __init__(
        self,
        settings: Settings,
        options: VerifyOptions,
        cut: OffsetCut,
        letters: DeadLetterIndex,
        readers: Mapping[str, TopicReader],
        count: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._names = topic_names(settings)
        self._options = options
        self._cut = cut
        self._ranges = _ranges_to_read(options, cut)
        self._letters = letters
        self._readers = readers
        self._count = count
        self._broadcasts = snapshots.load_broadcasts(settings) if options.replay else None
        self.findings, self.unmatched = Findings(), Unmatched()
        if self._broadcasts is not None and self._broadcasts.rejected:
            self.findings.note(
                f"{len(self._broadcasts.rejected)} records of snapshots, risk and models are altered or not signed: "
                "`replay` names them"
            )

    def run(self, number: int) -> None:
        """Check one partition."""
        letters = self._letters.of(self._names["transactions"], number)
        alerts = self._read("alerts", number)
        completeness = CompletenessCheck(self._scope(number), letters, alerts, self.unmatched, self.findings)
        verifier, is_cut = self._verifier(number), self._ranges["transactions"][number].begin > 0
        with ExitStack() as stack:
            state = self._state_check(number, stack)
            inputs = completeness.inputs(self._read("transactions", number))
            for one in pair(inputs, self._read("scores", number), is_cut=is_cut, read=read_score):
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

    def _scope(self, number: int) -> PartitionScope:
        cut = self._cut
        return PartitionScope(
            self._names["transactions"],
            number,
            cut.checked["transactions"][number],
            cut.checked["scores"][number],
            cut.processed[number],
            cut.open_alerts[number],
            cut.moments.get(number, -1),
            cut.alerts_moments.get(number, -1),
        )

    def _verifier(self, number: int) -> DecisionVerifier | None:
        if self._broadcasts is None:
            return None
        is_cut = self._cut.present["transactions"][number].begin > 0
        return replay.decision_verifier(self._settings, self._broadcasts, TimeRange(), is_cut=is_cut)

    def _state_check(self, number: int, stack: ExitStack) -> StateCheck | None:
        if not self._options.state:
            return None
        rows, folded = stack.enter_context(temporary_rows()), stack.enter_context(temporary_rows())
        scope = _state_scope(self._settings, self._cut, number)
        return StateCheck(scope, self._read("changelog", number), rows, folded, self.findings)

    def _add_differences(self, number: int, found: Iterable[Finding]) -> None:
        """Add findings about decisions, without those that the completeness check reports for the same records."""
        for one in found:
            role = "scores" if one.topic == self._names["scores"] else "transactions"
            is_checked = one.offset >= self._cut.checked[role][number].begin
            if not (one.kind in COMPLETENESS and is_checked):
                self.findings.add_at(one.kind, one.topic, one.partition, one.offset, one.detail)

    def _read(self, role: str, number: int) -> Iterator[Record]:
        for entry in self._readers[role].read(self._names[role], number, *self._ranges[role][number]):
            self._count()
            yield entry


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
        findings.add_at(Kind.SNAPSHOT, settings.topics.snapshots, 0, -1, f"snapshot {version} {fault}")
