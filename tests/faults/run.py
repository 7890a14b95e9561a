"""Run the faults and say what came of them: `PYTHONPATH=tests python -m faults.run --quick`.

Ends with one JSON line on stdout. `--full` also writes `docs/faults.md`.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sys
import tempfile
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from faults.faults import FAULTS, Fault, Ground
from faults.check import verdict
from faults.load import elapsed
from faults.trial import Trial
from support.apache_kafka import ApacheKafka, Cluster, ensure_java, why_unavailable
from support.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

LAST = "log start beyond the committed offset"  # its trial has no verdict: input is gone by intention


@dataclass
class Result:
    """What a kind of fault came to."""

    fault: Fault
    seed: int
    runs: int = 0
    lost: int = 0
    duplicated: int = 0
    anomalies: int = 0
    recoveries: list[float] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0


def attempt(fault: Fault, times: int, seed: int, ground: Ground, folder: Path) -> Result:
    """Do a fault so many times to one trial, then verify everything it has produced."""
    result, began = Result(fault, seed), time.monotonic()
    through = f"127.0.0.1:{ground.proxy.port}" if ground.proxy else ""
    replication = min(fault.brokers, 3)
    trial = Trial(ground.broker.bootstrap, folder, seed, through, replication=replication)
    rng = random.Random(seed)
    try:
        with trial:
            for _ in range(times):
                fault.do(trial, rng, ground)
                result.runs += 1
            if fault.name != LAST:
                trial.finish()
                result.lost, result.duplicated, result.anomalies = verdict(trial.settings)
    except Exception as error:  # noqa: BLE001 - a trial that fails is a finding, and the next fault is tried
        traceback.print_exc()
        result.anomalies += 1
        result.remarks.append(f"{type(error).__name__}: {error}".splitlines()[0][:300])
    result.recoveries = trial.recoveries
    result.remarks += [*dict.fromkeys(trial.remarks)]
    result.remarks += [f"{ending.name} ended with {ending.code}: {ending.last_words[:160]}" for ending in trial.endings]
    result.seconds = elapsed(began)
    return result


def grounds(stack: ExitStack, *, is_quick: bool) -> dict[int, Ground]:
    """Start what trials run on as they need it, each for all trials."""

    class Grounds(dict[int, Ground]):
        def __missing__(self, brokers: int) -> Ground:
            if brokers == 1:
                broker = stack.enter_context(ApacheKafka())
                proxy = stack.enter_context(Proxy(broker.back, broker.front))
                self[brokers] = Ground(broker, proxy, is_quick)
            else:
                self[brokers] = Ground(stack.enter_context(Cluster(brokers)), None, is_quick)
            return self[brokers]

    return Grounds()


def summary(results: list[Result], seed: int) -> dict[str, float]:
    """Return the figures of the last line."""
    return {
        "runs": sum(result.runs for result in results),
        "lost": sum(result.lost for result in results),
        "duplicated": sum(result.duplicated for result in results),
        "anomalies": sum(result.anomalies for result in results),
        "max_recovery_s": max((seconds for result in results for seconds in result.recoveries), default=0.0),
        "seed": seed,
    }


def table(results: list[Result]) -> Iterator[str]:
    """Write the rows of `docs/faults.md`."""
    yield "| fault | runs | lost | doubled | anomalies | worst recovery, s | median, s | seed |"
    yield "|---|---|---|---|---|---|---|---|"
    for result in results:
        known = sorted(result.recoveries) or [0.0]
        yield (
            f"| {result.fault.name} | {result.runs} | {result.lost} | {result.duplicated} | {result.anomalies} | "
            f"{known[-1]} | {known[len(known) // 2]} | {result.seed} |"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all runs, and docs/faults.md; by default a sample of each")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(100_000))
    parser.add_argument("--only", default="", help="faults whose name contains this")
    parser.add_argument("--times", type=int, help="runs of each")
    parser.add_argument("--keep", type=Path, help="folder for logs and state, kept")
    return parser.parse_args()


def main() -> int:
    """Run what was asked for; 0 when nothing is wrong."""
    asked = arguments()
    ensure_java()
    reason = why_unavailable()
    if reason is not None:
        sys.exit(f"Apache Kafka cannot run here: {reason}")
    print(f"seed {asked.seed}", file=sys.stderr, flush=True)
    results = []
    with ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        ready = grounds(stack, is_quick=not asked.full)
        for number, fault in enumerate(FAULTS):
            times = asked.times or (fault.full if asked.full else fault.quick)
            if asked.only not in fault.name or not times:
                continue
            seed = asked.seed + 1000 * number
            result = attempt(fault, times, seed, ready[fault.brokers], folder / f"{number:02}")
            results.append(result)
            facts = f"{result.runs} runs, {result.lost}/{result.duplicated}/{result.anomalies}, {result.recoveries[-8:]}"
            print(f"{fault.name}: {facts}, {result.seconds} s; {result.remarks}", file=sys.stderr, flush=True)
    found = summary(results, asked.seed)
    if asked.full and not asked.only:
        write(results, found)
    print(json.dumps(found))
    return int(bool(found["lost"] or found["duplicated"] or found["anomalies"]))


def write(results: list[Result], found: dict[str, float]) -> None:
    """Write `docs/faults.md`."""
    raise NotImplementedError


if __name__ == "__main__":
    sys.exit(main())
