"""Everything made again: each decision from the transactions, each snapshot from the labelled examples.

What a replay proves by itself, told as findings of one verification: what is not the same to the last bit, and what
could not be proved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fraud_service.domain.errors import ArchiveError
from fraud_service.verification import replay, snapshots
from fraud_service.verification.decision_verifier import TimeRange
from fraud_service.verification.differences import Kind as Difference
from fraud_service.verification.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.verification.findings import Findings


def follow_decisions(settings: Settings, progress: Callable[[int], None], findings: Findings) -> None:
    """Make every decision of the log again; `progress` is told how many were read so far."""
    found = replay.verify(settings, replay.plan(settings, TimeRange()), progress)
    for one in found.findings:
        # A finding lies where its transaction does; only a score without one has a place on its own topic.
        is_score = one.kind in {Difference.INPUT_MISSING, Difference.SCORE_UNREADABLE}
        topic = settings.topics.scores if is_score else settings.topics.transactions
        findings.wrong_at(Kind.DECISION, topic, one.partition, one.offset, f"{one.kind}: {one.detail}")
    findings.count("decisions_again", found.counts.get("identical", 0) + found.counts.get("follow", 0))
    anew, unproved = found.counts.get("begun_anew", 0), found.counts.get("unproved", 0)
    untold = found.differences - len(found.refused) - len(found.findings) - anew
    if found.refused:  # scorers refuse them too; `lessons` tells where one is altered
        findings.note(
            f"{len(found.refused)} records of snapshots, risk and models are not believed: `replay` names them"
        )
    if untold:
        findings.note(f"{untold} decisions more differ than are listed")
    if anew:
        findings.note(
            f"{anew} cards were unknown again after they had been known: they were erased, or their state was"
        )
    if unproved:
        findings.note(f"{unproved} decisions repeat some that retention has taken: they are not proved")


def follow_snapshots(settings: Settings, findings: Findings) -> None:
    """Teach again what was taught, up to the newest snapshot."""
    try:
        proof = snapshots.rebuild(settings)
    except ArchiveError as error:
        findings.note(str(error))
        return
    findings.count("snapshots_again", proof.rebuilt)
    for version, differences in proof.differing.items():
        what = f"snapshot {version} is not what was taught: {'; '.join(differences)}"
        findings.wrong_at(Kind.SNAPSHOT, settings.topics.snapshots, 0, -1, what)
    for version in proof.not_rebuilt:
        what = f"snapshot {version} cannot be taught again: it or one before it names a model that is not here"
        findings.wrong_at(Kind.SNAPSHOT, settings.topics.snapshots, 0, -1, what)
