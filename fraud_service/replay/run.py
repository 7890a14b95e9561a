"""A replay over the live topics: each partition by itself, several at once, each in a process of its own.

Ends are taken before anything is read: of the scores first, so that every score read has its transaction and its
snapshot on the topics that are read after it. A folder, where one is given, keeps the plan and what each partition came
to: a replay that was ended goes on with the partitions that are left.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Final

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

MOST_LISTED: Final = 1000  # differences told one by one, by partition; all are counted


class Plan(msgspec.Struct, frozen=True):
    """What to replay: event time, and offsets of scores and transactions by partition."""

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
    return Plan(span, {one: scores[one] for one in chosen}, {one: transactions[one] for one in chosen})


def resumed(folder: Path, asked: Plan) -> Plan:
    """Return the plan that a folder keeps, to the ends it was begun with; the one asked for when it keeps none.

    Raises
    ------
    ConfigurationError
        When the folder keeps the replay of another time or of other partitions, or cannot be read or written.
    """
    path = folder / "plan.json"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.json.encode(asked))
            return asked
        kept = msgspec.json.decode(path.read_bytes(), type=Plan)
    except (OSError, *UNREADABLE) as error:
        raise ConfigurationError(f"--resume {folder}: cannot be used: {error}") from None
    if kept.span != asked.span or kept.scores.keys() != asked.scores.keys():
        raise ConfigurationError(f"--resume {folder}: keeps another replay: give the options it was begun with")
    return kept


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
        asked.span, {one: asked.scores[one] for one in numbers}, {one: asked.transactions[one] for one in numbers}
    )


def _verify(settings: Settings, asked: Plan, folder: Path | None, count: Callable[[], None]) -> Verified:
    """Verify the partitions of a plan one after the other."""
    told = taught.everything(settings)
    counts: Counter[str] = Counter()
    findings: list[Finding] = []
    for partition in asked.scores:
        path = None if folder is None else folder / f"{partition}.json"
        if path is not None and path.exists():
            part = msgspec.json.decode(path.read_bytes(), type=Verified)
        else:
            part = _partition(settings, asked, partition, told, count)
            if path is not None:  # there whole, or not at all
                path.with_suffix(".new").write_bytes(msgspec.json.encode(part))
                path.with_suffix(".new").replace(path)
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
