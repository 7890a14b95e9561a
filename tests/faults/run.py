"""Run the faults and report the results: `PYTHONPATH=tests python -m faults.run`.

Ends with one JSON line on stdout. `--full` also writes `docs/faults.md`. After an interruption, the same seed continues
the run.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import signal
import sys
import tempfile
import time
import traceback
from collections import deque
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from faults.faults import FAULTS, Fault, Ground
from faults.load import elapsed
from faults.report import Result, say, summary, write
from faults.trial import Trial
from support.apache_kafka import ApacheKafka, Cluster, ensure_java, why_unavailable
from support.proxy import Proxy

from fraud_service.verification.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE = 150.0  # transactions a second
DONE = Path(__file__).parents[2] / ".cache" / "faults"


class Grounds(dict[int, Ground]):
    """The brokers and proxies of trials, by the number of brokers. The first trial that needs one starts it."""

    def __init__(self, stack: ExitStack, *, is_quick: bool) -> None:
        super().__init__()
        self._stack = stack
        self._is_quick = is_quick

    def __missing__(self, brokers: int) -> Ground:
        if brokers == 1:
            broker = self._stack.enter_context(ApacheKafka(is_fronted=True))
            self[brokers] = Ground(broker, self._stack.enter_context(Proxy(broker.back, broker.front)), self._is_quick)
        else:
            self[brokers] = Ground(self._stack.enter_context(Cluster(brokers)), None, self._is_quick)
        return self[brokers]


def attempt(course: deque[tuple[Fault, int]], seed: int, ground: Ground, folder: Path) -> Result:
    """Run the faults of a course on one trial, each the given number of times, then verify all its output.

    Completed faults leave the course. If one fails, another trial continues with the rest.
    """
    result, started, rng = Result(seed), time.monotonic(), random.Random(seed)
    through = f"127.0.0.1:{ground.proxy.port}" if ground.proxy and not course[0][0].is_direct else ""
    trial = Trial(ground.broker.bootstrap, folder, seed, through, RATE, replication=course[0][0].brokers)
    try:
        with trial:
            while course:
                fault, times = course.popleft()
                result.names.append(fault.name)
                if fault.loses_input:
                    trial.finish()
                    result.judge(verify(trial.settings, trial.depth), trial.forged)
                for _ in range(times):
                    result.runs += fault.do(trial, rng, ground) or 1
                say(f"{elapsed(started):7.1f} s  {fault.name}: recovered in {trial.recoveries[-times:]} s")
            if not fault.loses_input:
                trial.finish()
                result.judge(verify(trial.settings, trial.depth), trial.forged)
    except Exception as error:  # noqa: BLE001 - a trial that fails is a finding, and the next fault is tried
        say(traceback.format_exc())
        result.anomalies += 1
        result.remarks.append(f"{type(error).__name__}: {error}".splitlines()[0][:300])
    result.recoveries = trial.recoveries
    result.remarks += dict.fromkeys(trial.remarks)
    result.remarks += dict.fromkeys(f"{ending.name} ended with {ending.code}" for ending in trial.endings)
    result.seconds = elapsed(started)
    return result


def courses(asked: argparse.Namespace) -> Iterator[deque[tuple[Fault, int]]]:
    """Plan the trials: one for each fault, or one for all faults with the same number of brokers."""
    chosen = [(fault, fault.full if asked.full else fault.quick) for fault in FAULTS if asked.only in fault.name]
    most = 10_000 if asked.times is None else asked.times
    planned = [(fault, min(most, times) if asked.full else asked.times or times) for fault, times in chosen if times]
    if asked.full:
        yield from (deque([one]) for one in planned)
        return
    for brokers in sorted({fault.brokers for fault, _ in planned}):
        yield deque(one for one in planned if one[0].brokers == brokers)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="all runs, and docs/faults.md; by default a sample of each")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(100_000))
    parser.add_argument("--only", default="", help="only faults whose name contains this text")
    parser.add_argument("--times", type=int, help="runs of each fault; with --full, the maximum")
    parser.add_argument("--keep", type=Path, help="folder for logs and state, kept")
    return parser.parse_args()


def require_kafka() -> None:
    """Exit with the reason if Apache Kafka cannot run."""
    ensure_java()
    reason = why_unavailable()
    if reason is not None:
        sys.exit(f"Apache Kafka cannot run here: {reason}")


def main() -> int:
    """Run the requested faults; returns 0 without anomalies."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all started processes end too
    require_kafka()
    say(f"seed {asked.seed}")
    results: list[Result] = []
    with ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        grounds = Grounds(stack, is_quick=not asked.full)
        for course in courses(asked):
            kept = DONE / str(asked.seed) / f"{FAULTS.index(course[0][0]):02}.json"
            if asked.full and kept.exists():
                results.append(Result(**json.loads(kept.read_text())))
                continue
            while course:
                first = FAULTS.index(course[0][0])
                seed = asked.seed + 1000 * first
                results.append(attempt(course, seed, grounds[course[0][0].brokers], folder / f"{first:02}"))
                say(str(results[-1]))
            if asked.full:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(asdict(results[-1])))
    found = summary(results, asked.seed)
    if asked.full and not asked.only:
        write(results, asked.seed, RATE)
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(found["lost"] or found["duplicated"] or found["anomalies"]))


if __name__ == "__main__":
    sys.exit(main())
