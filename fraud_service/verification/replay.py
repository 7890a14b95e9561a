"""A replay over the live topics: each partition by itself, several at once, each in a process of its own.

Ends are taken before anything is read: of the scores first, so that every score read has its transaction and its
snapshot on the topics that are read after it. A folder, where one is given, keeps the plan, what each partition came
to, and how far the others are: a replay that was ended goes on from there.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from fraud_service.config import factories
from fraud_service.domain.errors import ConfigurationError
from fraud_service.kafka.topic_reader import OffsetRange as Offsets
from fraud_service.verification import checkpoint, snapshots, topic_views
from fraud_service.verification.decision_verifier import TimeRange, Verifier
from fraud_service.verification.differences import Finding
from fraud_service.verification.pairing import pair
from fraud_service.verification.worker_pool import run_in_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.verification.decision_verifier import Checkpoint
    from fraud_service.verification.pairing import Pair
    from fraud_service.verification.topic_views import Broadcasts

MAX_LISTED: Final = 1000  # differences told one by one, by partition; all are counted
MAX_RUN: Final = 2_000_000  # decisions of a partition after which a folder keeps how far it is


class Plan(msgspec.Struct, frozen=True):
    """What to replay: of which service, event time, and offsets of scores and transactions by partition."""

    topic: str  # of the scores
    span: TimeRange
    scores: dict[int, Offsets]
    transactions: dict[int, Offsets]


class ReplayResult(msgspec.Struct, frozen=True):
    """What a verification found: how many of each kind, and the differences themselves, as far as they are listed."""

    counts: dict[str, int]
    findings: list[Finding]
    refused: list[str]
    passed_over: list[str]

    @property
    def differences(self) -> int:
        """How many differences there are, listed or not; a record of the broadcast topics that is refused is one."""
        return sum(count for name, count in self.counts.items() if name not in NO_DIFFERENCE) + len(self.refused)


NO_DIFFERENCE: Final = ("identical", "follow", "unproved", "cut", "waiting", "outside")


def plan(settings: Settings, span: TimeRange, partitions: Sequence[int] | None = None) -> Plan:
    """Take the ends.

    Raises
    ------
    ArchiveError
        When a topic cannot be read.
    ConfigurationError
        When a partition is asked for that is not there.
    """
    with topic_views.opened(settings) as archive:
        scores = archive.spans(settings.topics.scores)
        transactions = archive.spans(settings.topics.transactions)
    chosen = sorted(scores) if partitions is None else sorted(set(partitions))
    if missing := set(chosen) - scores.keys():
        raise ConfigurationError(
            f"--partitions: topic {settings.topics.scores} has no partition {min(missing)}, only 0 to {max(scores)}"
        )
    begun = {one: scores[one] for one in chosen}, {one: transactions[one] for one in chosen}
    return Plan(settings.topics.scores, span, *begun)


def load_checkpoints(folder: Path, asked: Plan) -> Plan:
    """Return the plan that a folder keeps, to the ends it was begun with; the one asked for when it keeps none.

    Raises
    ------
    ConfigurationError
        When the folder keeps the replay of another service, time or partitions, or cannot be read or written.
    """
    kept = checkpoint.read(folder, "plan", Plan)
    if kept is None:
        checkpoint.write(folder, "plan", asked)
        return asked
    if (kept.topic, kept.span, kept.scores.keys()) != (asked.topic, asked.span, asked.scores.keys()):
        raise ConfigurationError(f"--resume {folder}: keeps another replay: give the options it was begun with")
    return kept


def verify(
    settings: Settings, asked: Plan, progress: Callable[[int], None] = lambda _: None, folder: Path | None = None
) -> ReplayResult:
    """Make every decision of the log again.

    Parameters
    ----------
    progress
        Is told how many pairs were read so far.
    folder
        Where finished partitions are kept, and how far the others are, and where both are found again.
    """
    parts = run_in_processes(_verify, [(settings, share, folder) for share in split(asked)], progress)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return ReplayResult(
        counts=dict(sorted(counts.items())),
        findings=[finding for part in parts for finding in part.findings],
        refused=parts[0].refused if parts else [],
        passed_over=parts[0].passed_over if parts else [],
    )


def split(asked: Plan) -> list[Plan]:
    """Divide the partitions of a plan, one share a core."""
    numbers = sorted(asked.scores)
    workers = min(os.cpu_count() or 1, len(numbers))
    return [_part(asked, numbers[first::workers]) for first in range(workers)]


def _part(asked: Plan, numbers: Sequence[int]) -> Plan:
    return Plan(
        asked.topic,
        asked.span,
        {one: asked.scores[one] for one in numbers},
        {one: asked.transactions[one] for one in numbers},
    )


def _verify(settings: Settings, asked: Plan, folder: Path | None, count: Callable[[], None]) -> ReplayResult:
    """Verify the partitions of a plan one after the other."""
    told = snapshots.load_broadcasts(settings)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    for partition in asked.scores:
        part = None if folder is None else checkpoint.read(folder, str(partition), ReplayResult)
        if part is None:
            part = _partition(settings, asked, partition, told, count, folder)
            if folder is not None:
                checkpoint.write(folder, str(partition), part)
                checkpoint.drop(folder, str(partition))
        findings += part.findings
        counts.update(part.counts)
    return ReplayResult(dict(counts), findings, list(told.refused), list(told.passed_over))


def _partition(
    settings: Settings, asked: Plan, partition: int, told: Broadcasts, count: Callable[[], None], folder: Path | None
) -> ReplayResult:
    is_cut = asked.transactions[partition].begin > 0
    verifier = Verifier(partition, told.detector(factories.policy(settings)), told.taught(), asked.span, is_cut=is_cut)
    stood = None if folder is None else checkpoint.load(folder, str(partition))
    findings: list[Finding] = []
    if stood is not None:
        verifier.go_on(stood)
        findings += stood.findings
    due = MAX_RUN
    for number, one in enumerate(pairs(settings, asked, partition, count, stood), start=1):
        _list(findings, verifier.take(one))
        if folder is not None and number >= due and one.behind is not None:
            _list(findings, verifier.flush())
            checkpoint.save(folder, str(partition), verifier.standing(one.offset + 1, one.behind, findings))
            due = number + MAX_RUN
    _list(findings, verifier.flush())
    return ReplayResult(dict(verifier.counts), findings, [], [])


def _list(findings: list[Finding], found: Iterable[Finding]) -> None:
    for one in found:
        if len(findings) < MAX_LISTED:
            findings.append(one)


def pairs(
    settings: Settings, asked: Plan, partition: int, count: Callable[[], None], stood: Checkpoint | None = None
) -> Iterator[Pair]:
    """Read transactions and scores of one partition side by side; `count` is called for each pair.

    Where a verification stood before, they are read from there on.
    """
    transactions, scores = asked.transactions[partition], asked.scores[partition]
    is_cut = transactions.begin > 0 and stood is None
    if stood is not None:
        transactions, scores = transactions._replace(begin=stood.transaction), scores._replace(begin=stood.score)
    with topic_views.opened(settings) as left, topic_views.opened(settings) as right:
        refused = topic_views.refused_offsets(left, settings).get(partition, set())
        for one in pair(
            topic_views.logged(left, settings.topics.transactions, partition, transactions),
            topic_views.logged(right, settings.topics.scores, partition, scores),
            refused,
            is_cut=is_cut,
        ):
            count()
            yield one
