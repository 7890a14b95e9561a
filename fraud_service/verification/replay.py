"""Replay the live topics: recompute every decision, with one process for each share of the partitions.

The replay reads the ends of the scores first, then those of the inputs, then the snapshots. So every score has its
transaction and its snapshot. With `--resume`, a folder has the plan, the results of finished partitions and the
checkpoints of the others. A replay that was stopped continues from them.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from fraud_service.config import factories
from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.errors import ConfigurationError
from fraud_service.kafka.dead_letters import content_hash
from fraud_service.kafka.partitioner import explain_misplaced, murmur2_partition
from fraud_service.kafka.topic_reader import OffsetRange
from fraud_service.verification import log_reader, snapshots
from fraud_service.verification.decisions import Checkpoint, TimeRange
from fraud_service.verification.matching import pair
from fraud_service.verification.report import MAX_LISTED, Finding, FindingKind
from fraud_service.verification.worker_pool import run_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.verification.log_reader import Broadcasts
    from fraud_service.verification.matching import Pair

Stored = TypeVar("Stored")
MAX_RUN: Final = 2_000_000  # decisions of a partition between two checkpoints
NO_DIFFERENCE: Final = ("identical", "from_features", "unproved", "inputs_expired", "pending", "out_of_range")


class Plan(msgspec.Struct, frozen=True):
    """What to replay: the scores topic, event times, and offsets of scores and inputs by partition."""

    topic: str
    time_range: TimeRange
    scores: dict[int, OffsetRange]
    inputs: dict[int, OffsetRange]


class Apart(msgspec.Struct, frozen=True):
    """Hashes of card and transaction id: of misplaced inputs, and of scores whose input is not on their partition."""

    inputs: list[int] = []
    scores: list[int] = []


class ReplayResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """Result of a replay: the counts of `DecisionVerifier`, the first findings, and records that failed their check.

    `rejected` names records of models, snapshots and risk that are altered or not signed. `incomplete` names snapshots
    whose risk rows are missing. `apart` has what the partitions together must match.
    """

    counts: dict[str, int]
    findings: list[Finding]
    rejected: list[str]
    incomplete: list[str]
    apart: Apart = Apart()

    @property
    def differences(self) -> int:
        """Number of differences, listed or not; a rejected record counts as one."""
        return sum(count for name, count in self.counts.items() if name not in NO_DIFFERENCE) + len(self.rejected)


class ResumeFolder(NamedTuple):
    """The plan, results and checkpoints of a replay, each in a file. Without a path, it stores nothing."""

    path: Path | None = None

    def plan(self, asked: Plan) -> Plan:
        """Return the stored plan, with the end offsets of the first run. Without one, store the given plan.

        Raises `ConfigurationError` when the folder has another replay, or cannot be read or written.
        """
        kept = self.read("plan", Plan)
        if kept is None:
            self.write("plan", asked)
            return asked
        if (kept.topic, kept.time_range, kept.scores.keys()) != (asked.topic, asked.time_range, asked.scores.keys()):
            raise ConfigurationError(f"--resume {self.path}: has another replay: give the options it started with")
        return kept

    def read(self, name: str, kind: type[Stored]) -> Stored | None:
        """Read the file of this name; None if there is none."""
        if self.path is None or not (path := self.path / name).exists():
            return None
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=kind)
        except (OSError, *UNREADABLE) as error:
            raise ConfigurationError(f"--resume {path}: cannot be read: {error}; remove it to start over") from None

    def write(self, name: str, value: msgspec.Struct) -> None:
        """Write a value to the file of this name atomically, so that a killed process leaves no partial file."""
        if self.path is None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            fresh = self.path / f"{name}.new"
            fresh.write_bytes(msgspec.msgpack.encode(value))
            fresh.replace(self.path / name)
        except OSError as error:
            raise ConfigurationError(f"--resume {self.path}: cannot be written: {error}") from None

    def remove(self, name: str) -> None:
        """Remove the file of this name."""
        if self.path is None:
            return
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--resume {self.path}: {name} cannot be removed: {error}") from None


def plan(settings: Settings, time_range: TimeRange, partitions: Sequence[int] | None = None) -> Plan:
    """Read the ends of the topics. Raises `ConfigurationError` when a requested partition does not exist."""
    with log_reader.open_reader(settings) as reader:
        scores = reader.offset_ranges(settings.topics.scores)
        inputs = reader.offset_ranges(settings.topics.transactions)
    chosen = sorted(scores) if partitions is None else sorted(set(partitions))
    if missing := set(chosen) - scores.keys():
        raise ConfigurationError(
            f"--partitions: topic {settings.topics.scores} has no partition {min(missing)}, only 0 to {max(scores)}"
        )
    return _part(Plan(settings.topics.scores, time_range, scores, inputs), chosen)


def verify(
    settings: Settings,
    asked: Plan,
    progress: Callable[[int], None] = lambda _: None,
    kept: ResumeFolder = ResumeFolder(),  # noqa: B008 - frozen
) -> ReplayResult:
    """Recompute every decision of the plan; `progress` receives the number of further scores."""
    parts = run_in_processes(_verify, [(settings, share, kept) for share in split_plan(asked)], progress)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    findings = [finding for part in parts for finding in part.findings]
    misplaced = Counter(one for part in parts for one in part.apart.inputs)
    found = misplaced & Counter(one for part in parts for one in part.apart.scores)
    if found:  # their inputs are known: one finding is enough
        counts[FindingKind.UNEXPECTED] -= found.total()
        findings = [one for one in findings if one.kind is not FindingKind.UNEXPECTED or _identity(one) not in found]
    listed = {name: count for name, count in sorted(counts.items()) if count}
    return ReplayResult(listed, findings, parts[0].rejected, parts[0].incomplete)


def split_plan(asked: Plan) -> list[Plan]:
    """Divide the partitions of a plan among the cores."""
    return [_part(asked, share) for share in split_partitions(asked.scores)]


def split_partitions(partitions: Iterable[int]) -> list[list[int]]:
    """Divide partitions among the cores."""
    numbers = sorted(partitions)
    workers = min(os.cpu_count() or 1, len(numbers))
    return [numbers[first::workers] for first in range(workers)]


def _part(whole: Plan, numbers: Sequence[int]) -> Plan:
    scores, inputs = ({one: ranges[one] for one in numbers} for ranges in (whole.scores, whole.inputs))
    return Plan(whole.topic, whole.time_range, scores, inputs)


def _verify(settings: Settings, asked: Plan, kept: ResumeFolder, count: Callable[[], None]) -> ReplayResult:
    """Verify the partitions of a plan one after the other."""
    broadcasts = snapshots.load_broadcasts(settings)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    apart = Apart()
    for partition in asked.scores:
        part = kept.read(f"{partition}.result", ReplayResult)
        if part is None:
            part = _verify_partition(settings, asked, partition, broadcasts, count, kept)
            kept.write(f"{partition}.result", part)
            kept.remove(f"{partition}.checkpoint")
            kept.remove(f"{partition}.apart")
        findings += part.findings
        counts.update(part.counts)
        apart = Apart(apart.inputs + part.apart.inputs, apart.scores + part.apart.scores)
    return ReplayResult(dict(counts), findings, list(broadcasts.rejected), list(broadcasts.incomplete), apart)


def _verify_partition(
    settings: Settings,
    asked: Plan,
    partition: int,
    broadcasts: Broadcasts,
    count: Callable[[], None],
    kept: ResumeFolder,
) -> ReplayResult:
    """Verify one partition, and write a checkpoint every `MAX_RUN` decisions."""
    is_truncated = asked.inputs[partition].begin > 0
    verifier = broadcasts.verifier(factories.policy(settings), asked.time_range, is_truncated=is_truncated)
    findings: list[Finding] = []
    apart = kept.read(f"{partition}.apart", Apart) or Apart([], [])
    partitions = _partitions(settings)

    def add(found: Iterable[Finding]) -> None:
        for one in found:
            if len(findings) < MAX_LISTED:
                findings.append(one)

    earlier = kept.read(f"{partition}.checkpoint", Checkpoint)
    if earlier is not None:
        verifier.resume(earlier)
        findings += earlier.findings
    due = MAX_RUN
    for number, one in enumerate(pairs(settings, asked, partition, count, earlier), start=1):
        misplaced = _explain_misplaced(one, partitions)
        if misplaced is not None:
            apart.inputs.append(_identity(one.transaction))
            add([verifier.misplaced(one, misplaced)])
            continue
        found = list(verifier.take(one))
        if one.input is None and any(finding.kind is FindingKind.UNEXPECTED for finding in found):
            apart.scores.append(_identity(one.head))
        add(found)
        if number >= due and one.can_resume and one.input is not None and one.score is not None:
            add(verifier.flush())
            state = verifier.checkpoint(one.input.offset + 1, one.score.offset + 1, findings)
            kept.write(f"{partition}.checkpoint", state)
            kept.write(f"{partition}.apart", apart)
            due = number + MAX_RUN
    add(verifier.flush())
    return ReplayResult(dict(verifier.counts), findings, [], [], apart)


def _partitions(settings: Settings) -> int:
    with log_reader.open_reader(settings) as reader:
        return len(reader.offset_ranges(settings.topics.transactions))


def _explain_misplaced(one: Pair, partitions: int) -> str | None:
    """Explain an input without a score outside the partition of its card: its score is not in this partition."""
    if one.input is None or one.transaction is None or one.score is not None:
        return None
    key, partition = one.transaction.card_id.encode(), one.input.partition
    is_home = murmur2_partition(key, partitions) == partition
    return None if is_home else explain_misplaced(key, partition, partitions)


def _identity(about: Any) -> int:
    """Return a hash of card and transaction id, the same in every process."""
    return content_hash(f"{about.card_id} {about.transaction_id}".encode())


def pairs(
    settings: Settings, asked: Plan, partition: int, count: Callable[[], None], earlier: Checkpoint | None = None
) -> Iterator[Pair]:
    """Read inputs and scores of one partition side by side, from an earlier checkpoint on if one is given.

    `count` is called for each score.
    """
    inputs, scores = asked.inputs[partition], asked.scores[partition]
    is_truncated = inputs.begin > 0 and earlier is None
    if earlier is not None:
        inputs, scores = inputs._replace(begin=earlier.input_offset), scores._replace(begin=earlier.score_offset)
    with log_reader.open_reader(settings) as left, log_reader.open_reader(settings) as right:
        accepted = log_reader.read_accepted(left, settings, "transactions", [partition], inputs)
        for one in pair(accepted, right.read(settings.topics.scores, partition, *scores), is_truncated=is_truncated):
            if one.score is not None:
                count()
            yield one
