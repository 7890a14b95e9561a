"""A replay over the live topics: each partition by itself, several at once, each in a process of its own.

Ends are taken before anything is read: of the scores first, so that every score read has its transaction and its
snapshot on the topics that are read after it. A folder, where one is given, keeps the plan and what each partition came
to: a replay that was ended goes on with the partitions that are left.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from fraud_service import service
from fraud_service.domain.reading import UNREADABLE
from fraud_service.errors import ConfigurationError
from fraud_service.replay import logs, taught
from fraud_service.replay.differences import Finding
from fraud_service.replay.engine import Span, Verifier
from fraud_service.replay.pairing import pair
from fraud_service.replay.processes import spread
from fraud_service.stream.archive import Span as Offsets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from fraud_service.replay.logs import Broadcasts
    from fraud_service.replay.pairing import Pair
    from fraud_service.settings import Settings

Kept = TypeVar("Kept")
MOST_LISTED: Final = 1000  # differences told one by one, by partition; all are counted


class Plan(msgspec.Struct, frozen=True):
    """What to replay: of which service, event time, and offsets of scores and transactions by partition."""

    topic: str  # of the scores
    span: Span
    scores: dict[int, Offsets]
    transactions: dict[int, Offsets]


class Verified(msgspec.Struct, frozen=True):
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


def plan(settings: Settings, span: Span, partitions: Sequence[int] | None = None) -> Plan:
    """Take the ends.

    Raises
    ------
    ArchiveError
        When a topic cannot be read.
    ConfigurationError
        When a partition is asked for that is not there.
    """
    with logs.opened(settings) as archive:
        scores = archive.spans(settings.topics.scores)
        transactions = archive.spans(settings.topics.transactions)
    chosen = sorted(scores) if partitions is None else sorted(set(partitions))
    if missing := set(chosen) - scores.keys():
        raise ConfigurationError(
            f"--partitions: topic {settings.topics.scores} has no partition {min(missing)}, only 0 to {max(scores)}"
        )
    begun = {one: scores[one] for one in chosen}, {one: transactions[one] for one in chosen}
    return Plan(settings.topics.scores, span, *begun)


def resumed(folder: Path, asked: Plan) -> Plan:
    """Return the plan that a folder keeps, to the ends it was begun with; the one asked for when it keeps none.

    Raises
    ------
    ConfigurationError
        When the folder keeps the replay of another service, time or partitions, or cannot be read or written.
    """
    kept = _kept(folder, "plan", Plan)
    if kept is None:
        _keep(folder, "plan", asked)
        return asked
    if (kept.topic, kept.span, kept.scores.keys()) != (asked.topic, asked.span, asked.scores.keys()):
        raise ConfigurationError(f"--resume {folder}: keeps another replay: give the options it was begun with")
    return kept


def _kept(folder: Path, name: str, kind: type[Kept]) -> Kept | None:
    path = folder / f"{name}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else None
    except (OSError, *UNREADABLE) as error:
        raise ConfigurationError(f"--resume {path}: cannot be read: {error}; remove it to begin anew") from None


def _keep(folder: Path, name: str, what: Plan | Verified) -> None:
    """Write a file, there whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f"{name}.new"
        fresh.write_bytes(msgspec.json.encode(what))
        fresh.replace(folder / f"{name}.json")
    except OSError as error:
        raise ConfigurationError(f"--resume {folder}: cannot be written: {error}") from None


def verify(
    settings: Settings, asked: Plan, progress: Callable[[int], None] = lambda _: None, folder: Path | None = None
) -> Verified:
    """Make every decision of the log again.

    Parameters
    ----------
    progress
        Is told how many pairs were read so far.
    folder
        Where finished partitions are kept, and found again.
    """
    parts = spread(_verify, [(settings, share, folder) for share in shares(asked)], progress)
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    return Verified(
        counts=dict(sorted(counts.items())),
        findings=[finding for part in parts for finding in part.findings],
        refused=parts[0].refused if parts else [],
        passed_over=parts[0].passed_over if parts else [],
    )


def shares(asked: Plan) -> list[Plan]:
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


def _verify(settings: Settings, asked: Plan, folder: Path | None, count: Callable[[], None]) -> Verified:
    """Verify the partitions of a plan one after the other."""
    told = taught.everything(settings)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    for partition in asked.scores:
        part = None if folder is None else _kept(folder, str(partition), Verified)
        if part is None:
            part = _partition(settings, asked, partition, told, count)
            if folder is not None:
                _keep(folder, str(partition), part)
        findings += part.findings
        counts.update(part.counts)
    return Verified(dict(counts), findings, list(told.refused), list(told.passed_over))


def _partition(
    settings: Settings, asked: Plan, partition: int, told: Broadcasts, count: Callable[[], None]
) -> Verified:
    is_cut = asked.transactions[partition].begin > 0
    verifier = Verifier(partition, told.detector(service.policy(settings)), told.taught(), asked.span, is_cut=is_cut)
    found = verifier.verify(pairs(settings, asked, partition, count))
    findings = [*islice(found, MOST_LISTED)]
    for _ in found:
        pass
    return Verified(dict(verifier.counts), findings, [], [])


def pairs(settings: Settings, asked: Plan, partition: int, count: Callable[[], None]) -> Iterator[Pair]:
    """Read transactions and scores of one partition side by side; `count` is called for each pair."""
    transactions, scores = asked.transactions[partition], asked.scores[partition]
    with logs.opened(settings) as left, logs.opened(settings) as right:
        refused = logs.refused_offsets(left, settings).get(partition, set())
        for one in pair(
            logs.logged(left, settings.topics.transactions, partition, transactions),
            logs.logged(right, settings.topics.scores, partition, scores),
            refused,
            is_cut=transactions.begin > 0,
        ):
            count()
            yield one
