"""Replay the live topics: recompute every decision, with one process for each share of the partitions.

The ends of the scores are read before those of the inputs, and snapshots after both. So every score that is read has
its transaction and its snapshot. With `--resume`, a folder has the plan, the results of finished partitions and the
checkpoints of the others, so that a replay that was stopped goes on from there.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.config import factories
from fraud_service.domain.errors import ConfigurationError
from fraud_service.kafka.topic_reader import OffsetRange
from fraud_service.verification import checkpoint, log_reader, snapshots
from fraud_service.verification.decisions import DecisionVerifier, TimeRange
from fraud_service.verification.matching import pair
from fraud_service.verification.report import Finding
from fraud_service.verification.worker_pool import run_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.verification.decisions import Checkpoint
    from fraud_service.verification.log_reader import Broadcasts
    from fraud_service.verification.matching import Pair

MAX_LISTED: Final = 1000  # findings listed for a partition; all are counted
MAX_RUN: Final = 2_000_000  # decisions of a partition between two checkpoints
NO_DIFFERENCE: Final = ("identical", "from_features", "unproved", "inputs_expired", "pending", "out_of_range")


class Plan(msgspec.Struct, frozen=True):
    """What to replay: the scores topic, event times, and offsets of scores and inputs by partition."""

    topic: str
    time_range: TimeRange
    scores: dict[int, OffsetRange]
    inputs: dict[int, OffsetRange]


class ReplayResult(msgspec.Struct, frozen=True):
    """Result of a replay: the counts of `DecisionVerifier`, the first findings, and records that failed their check.

    `rejected` names records of models, snapshots and risk that are altered or not signed. `incomplete` names snapshots
    whose risk rows are missing.
    """

    counts: dict[str, int]
    findings: list[Finding]
    rejected: list[str]
    incomplete: list[str]

    @property
    def differences(self) -> int:
        """Number of differences, listed or not; a rejected record counts as one."""
        return sum(count for name, count in self.counts.items() if name not in NO_DIFFERENCE) + len(self.rejected)


def plan(settings: Settings, time_range: TimeRange, partitions: Sequence[int] | None = None) -> Plan:
    """Read the ends of the topics.

    Raises
    ------
    TopicReadError
        When a topic cannot be read.
    ConfigurationError
        When a requested partition does not exist.
    """
    with log_reader.opened(settings) as reader:
        scores = reader.spans(settings.topics.scores)
        inputs = reader.spans(settings.topics.transactions)
    chosen = sorted(scores) if partitions is None else sorted(set(partitions))
    if missing := set(chosen) - scores.keys():
        raise ConfigurationError(
            f"--partitions: topic {settings.topics.scores} has no partition {min(missing)}, only 0 to {max(scores)}"
        )
    return _part(Plan(settings.topics.scores, time_range, scores, inputs), chosen)


def load_plan(folder: Path, asked: Plan) -> Plan:
    """Return the plan in a folder, with the ends it was begun with. Without one, write the given plan.

    Raises
    ------
    ConfigurationError
        When the folder has a replay of another service, time or partitions, or cannot be read or written.
    """
    stored = checkpoint.read(folder, "plan", Plan)
    if stored is None:
        checkpoint.write(folder, "plan", asked)
        return asked
    if (stored.topic, stored.time_range, stored.scores.keys()) != (asked.topic, asked.time_range, asked.scores.keys()):
        raise ConfigurationError(f"--resume {folder}: has another replay: give the options it was begun with")
    return stored


def verify(
    settings: Settings, asked: Plan, progress: Callable[[int], None] = lambda _: None, folder: Path | None = None
) -> ReplayResult:
    """Recompute every decision of the plan.

    Parameters
    ----------
    progress
        Called with the number of further pairs that were read.
    folder
        Where to write checkpoints and results, and to resume from.
    """
    parts = run_in_processes(_verify, [(settings, share, folder) for share in split(asked)], progress)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return ReplayResult(
        counts=dict(sorted(counts.items())),
        findings=[finding for part in parts for finding in part.findings],
        rejected=parts[0].rejected if parts else [],
        incomplete=parts[0].incomplete if parts else [],
    )


def split(asked: Plan) -> list[Plan]:
    """Divide the partitions of a plan among the cores."""
    return [_part(asked, share) for share in shares(asked.scores)]


def shares(partitions: Iterable[int]) -> list[list[int]]:
    """Divide partitions among the cores."""
    numbers = sorted(partitions)
    workers = min(os.cpu_count() or 1, len(numbers))
    return [numbers[first::workers] for first in range(workers)]


def _part(whole: Plan, numbers: Sequence[int]) -> Plan:
    scores, inputs = ({one: ranges[one] for one in numbers} for ranges in (whole.scores, whole.inputs))
    return Plan(whole.topic, whole.time_range, scores, inputs)


def _verify(settings: Settings, asked: Plan, folder: Path | None, count: Callable[[], None]) -> ReplayResult:
    """Verify the partitions of a plan one after the other."""
    broadcasts = snapshots.load_broadcasts(settings)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    for partition in asked.scores:
        part = None if folder is None else checkpoint.read(folder, str(partition), ReplayResult)
        if part is None:
            part = _verify_partition(settings, asked, partition, broadcasts, count, folder)
            if folder is not None:
                checkpoint.write(folder, str(partition), part)
                checkpoint.drop(folder, str(partition))
        findings += part.findings
        counts.update(part.counts)
    return ReplayResult(dict(counts), findings, list(broadcasts.rejected), list(broadcasts.incomplete))


def _verify_partition(
    settings: Settings,
    asked: Plan,
    partition: int,
    broadcasts: Broadcasts,
    count: Callable[[], None],
    folder: Path | None,
) -> ReplayResult:
    """Verify one partition, and write a checkpoint every `MAX_RUN` decisions."""
    verifier = decision_verifier(settings, broadcasts, asked.time_range, is_cut=asked.inputs[partition].begin > 0)
    findings: list[Finding] = []

    def add(found: Iterable[Finding]) -> None:
        for one in found:
            if len(findings) < MAX_LISTED:
                findings.append(one)

    earlier = None if folder is None else checkpoint.load(folder, str(partition))
    if earlier is not None:
        verifier.resume(earlier)
        findings += earlier.findings
    due = MAX_RUN
    for number, one in enumerate(pairs(settings, asked, partition, count, earlier), start=1):
        add(verifier.take(one))
        if folder is not None and number >= due and one.can_resume and one.input is not None and one.score is not None:
            add(verifier.flush())
            standing = verifier.checkpoint(one.input.offset + 1, one.score.offset + 1, findings)
            checkpoint.save(folder, str(partition), standing)
            due = number + MAX_RUN
    add(verifier.flush())
    return ReplayResult(dict(verifier.counts), findings, [], [])


def decision_verifier(
    settings: Settings, broadcasts: Broadcasts, time_range: TimeRange, *, is_cut: bool
) -> DecisionVerifier:
    """Return a verifier with every model and snapshot that was published."""
    detector = broadcasts.detector(factories.policy(settings))
    return DecisionVerifier(detector, broadcasts.known(), time_range, is_cut=is_cut)


def pairs(
    settings: Settings, asked: Plan, partition: int, count: Callable[[], None], earlier: Checkpoint | None = None
) -> Iterator[Pair]:
    """Read inputs and scores of one partition side by side, after an earlier checkpoint if one is given.

    `count` is called for each pair.
    """
    inputs, scores, topics = asked.inputs[partition], asked.scores[partition], settings.topics
    is_cut = inputs.begin > 0 and earlier is None
    if earlier is not None:
        inputs, scores = inputs._replace(begin=earlier.input_offset), scores._replace(begin=earlier.score_offset)
    with log_reader.opened(settings) as left, log_reader.opened(settings) as right:
        rejected = log_reader.dead_letters(left, settings).of(topics.transactions, partition)
        accepted = (
            entry for entry in left.read(topics.transactions, partition, *inputs) if entry.offset not in rejected
        )
        for one in pair(accepted, right.read(topics.scores, partition, *scores), is_cut=is_cut):
            count()
            yield one
