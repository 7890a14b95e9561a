"""The results of trials, for the last line of a run and for `docs/faults.md`."""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fraud_service.verification.report import FindingKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.verification.report import Report

DOCS = Path(__file__).parents[2] / "docs"
PREAMBLE = """\
# Faults

`make faults` wrote this page: {runs} runs, seed {seed}, {minutes} minutes. Broker, load and service shared {cores} cores. `make faults-quick` runs a sample of each fault.

In each row, one real scorer and one real learner run on Apache Kafka under load: {rate:.0f} payments a second with labels. There is one broker unless the row says three. The fault happens again and again. Then the verifier reads all topics, and rebuilds and compares every profile, decision and snapshot.

| column | meaning |
|---|---|
| lost | transactions without a score or dead letter |
| duplicated | transactions with two scores or dead letters, and alert ids that occur twice |
| anomalies | other findings of the verifier, and trials with an unexpected end |
| recovery | seconds from the fault (from its end if it lasts) until all transactions sent by then were decided. After a kill: until the successor committed |

"""


@dataclass
class Result:
    """The result of one trial."""

    seed: int
    names: list[str] = field(default_factory=list)
    runs: int = 0
    lost: int = 0
    duplicated: int = 0
    anomalies: int = 0
    recoveries: list[float] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def judge(self, report: Report, forged: set[tuple[str, int, int]]) -> None:
        """Add the verifier's findings, except the expected ones about forged records. Its notes list unproven points."""
        meant = [one for one in report.findings if (one.topic, one.partition, one.offset) in forged]
        found = Counter(report.found) - Counter(one.kind.value for one in meant)
        self.lost, self.duplicated = found.pop(FindingKind.MISSING, 0), found.pop(FindingKind.DUPLICATED, 0)
        self.lost += report.counts.get("cards_without_profile", 0)  # trials erase no cards
        self.anomalies = found.total()
        self.remarks += [str(one) for one in report.findings if one not in meant][:5] + list(report.notes)
        if forged:
            self.remarks.append(f"the verifier named {len(meant)} of {len(forged)} forged records")

    def __str__(self) -> str:
        known = sorted(self.recoveries)
        recovery = f"recovery up to {known[-1]} s" if known else "no recovery"
        found = f"{self.lost} lost, {self.duplicated} duplicated, {self.anomalies} anomalies"
        return "\n  ".join(
            [f"{', '.join(self.names)}: {self.runs} runs, {found}, {recovery}, {self.seconds} s", *self.remarks]
        )


def say(text: str) -> None:
    """Report progress on stderr; only the last line goes to stdout."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def summary(results: list[Result], seed: int) -> dict[str, float]:
    """Return the figures for the last line."""
    return {
        "runs": sum(result.runs for result in results),
        "lost": sum(result.lost for result in results),
        "duplicated": sum(result.duplicated for result in results),
        "anomalies": sum(result.anomalies for result in results),
        "max_recovery_s": max((seconds for result in results for seconds in result.recoveries), default=0.0),
        "seed": seed,
    }


def write(results: list[Result], seed: int, rate: float) -> None:
    """Write `docs/faults.md`."""
    text = PREAMBLE.format(
        runs=sum(result.runs for result in results),
        seed=seed,
        minutes=round(sum(result.seconds for result in results) / 60),
        cores=os.cpu_count(),
        rate=rate,
    )
    remarks = [f"* **{result.names[0]}**: {remark}" for result in results for remark in result.remarks]
    if remarks:
        remarks = ["", "## Remarks", "", *remarks]
    (DOCS / "faults.md").write_text(text + "\n".join([*_table(results), *remarks]) + "\n", encoding="utf-8")


def _table(results: list[Result]) -> Iterator[str]:
    yield "| fault | runs | lost | duplicated | anomalies | worst recovery, s | median, s | seed |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        known = sorted(result.recoveries) or [0.0]
        figures = result.runs, result.lost, result.duplicated, result.anomalies, known[-1], known[len(known) // 2]
        yield f"| {' | '.join([result.names[0], *map(str, figures), str(result.seed)])} |"
