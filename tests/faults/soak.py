"""Run hours of load with random faults: `PYTHONPATH=tests python -m faults.soak --hours 1`.

Samples memory, descriptors, state and latency, verifies all topics at the end, and writes `docs/soak.md` with plots.
Ends with one JSON line.
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
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

from faults.faults import FAULTS, Ground
from faults.load import elapsed
from faults.report import Result, say, summary
from faults.run import require_kafka
from faults.soak_report import Sample, write
from faults.trial import Trial
from support.apache_kafka import ApacheKafka
from support.proxy import Proxy

from fraud_service.verification.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.processes import Service

CALM = (45.0, 90.0)  # seconds between two faults, so that the samples show the usual memory and latency
EVERY = 5.0  # seconds between two samples
LATENCY = "fraud_latency_seconds_bucket"


@dataclass
class Sampler:
    """Sample the processes of a trial every few seconds in a thread, as a context manager."""

    trial: Trial
    started: float
    samples: list[Sample] = field(default_factory=list)

    def __enter__(self) -> list[Sample]:
        self._stopping = Event()
        self._before: dict[float, float] = {}
        self._thread = Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()
        return self.samples

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY):
            for process in (self.trial.scorer, self.trial.learner):
                with suppress(OSError, ValueError, StopIteration):  # the process is down, just started, or a zombie
                    self.samples.append(self._sample(process))

    def _sample(self, process: Service) -> Sample:
        place = Path("/proc") / str(process.process.pid)
        resident = next(line for line in (place / "status").read_text().splitlines() if line.startswith("VmRSS"))
        files = [path.stat().st_size for path in (process.folder / "state").rglob("*") if path.is_file()]
        return Sample(
            elapsed(self.started),
            process.verb,
            int(resident.split()[1]) / 1024,
            len(list((place / "fd").iterdir())),
            sum(files) / 1e6,
            self._latency(process) if process.verb == "score" else None,
        )

    def _latency(self, process: Service) -> float | None:
        """Return the upper bound (s) of the bucket with the 99th percentile since the last sample."""
        with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=5) as answer:
            now = dict(_buckets(answer.read().decode()))
        fresh = {bound: count - self._before.get(bound, 0.0) for bound, count in now.items()}
        self._before = now
        total = fresh.get(float("inf"), 0.0)
        if total <= 0:
            return None
        return next(bound for bound, count in sorted(fresh.items()) if count >= 0.99 * total)


def _buckets(page: str) -> Iterator[tuple[float, float]]:
    for line in page.splitlines():
        if line.startswith(LATENCY):
            yield float(line.split('le="')[1].split('"')[0].replace("+Inf", "inf")), float(line.rsplit(" ", 1)[1])


def main() -> int:
    """Run the soak; returns 0 without anomalies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=300.0, help="transactions a second")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(100_000))
    parser.add_argument("--keep", type=Path, help="folder for logs and state, kept")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    require_kafka()
    say(f"seed {asked.seed}")
    result, struck, started = Result(asked.seed), [], time.monotonic()
    with ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = stack.enter_context(ApacheKafka(is_fronted=True))
        proxy = stack.enter_context(Proxy(broker.back, broker.front))
        trial = Trial(broker.bootstrap, folder, asked.seed, f"127.0.0.1:{proxy.port}", asked.rate)
        with trial, Sampler(trial, started) as samples:
            strike(trial, Ground(broker, proxy, is_quick=True), asked, struck, started)
            result.runs = len(struck)
            trial.finish()
        result.judge(verify(trial.settings, trial.depth), trial.forged)
    result.recoveries, result.seconds = trial.recoveries, elapsed(started)
    result.remarks += [f"{ending.name} ended with {ending.code}: {ending.last_words}" for ending in trial.endings]
    found = summary([result], asked.seed) | {"seconds": result.seconds, "transactions": trial.load.sent}
    say(str(result))
    write(found, result, struck, samples, asked.rate)
    sys.stdout.write(json.dumps(found) + "\n")
    return int(bool(result.lost or result.duplicated or result.anomalies))


def strike(
    trial: Trial, ground: Ground, asked: argparse.Namespace, struck: list[tuple[float, str]], started: float
) -> None:
    """Cause random faults with pauses between them until the time is over."""
    rng = random.Random(asked.seed)
    faults = [one for one in FAULTS if one.brokers == 1 and not one.loses_input]
    while elapsed(started) < asked.hours * 3600:
        trial.pass_time(rng.uniform(*CALM))
        trial.supervise()
        fault = rng.choice(faults)
        struck.append((elapsed(started), fault.name))
        fault.do(trial, rng, ground)
        say(f"{elapsed(started):7.1f} s  {fault.name}: recovered in {trial.recoveries[-1]} s")


if __name__ == "__main__":
    sys.exit(main())
