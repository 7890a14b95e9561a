"""Run seeds and report anomalies: `python -m simulation --seeds 1000`, or `--seed 17` for one with its trace."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from simulation.learner_world import LearnerWorld
from simulation.process import silence
from simulation.world import Run, World, run


def both(seed: int) -> list[Run]:
    """Run a seed twice: with scorers, and with a learner."""
    return [run(seed, World), run(seed, LearnerWorld)]


def main() -> int:
    """Run the requested seeds; returns 1 after any anomaly."""
    parser = argparse.ArgumentParser(prog="simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds to run")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="run only this seed, and print its trace")
    parser.add_argument("--processes", type=int, default=2, help="number of processes")
    options = parser.parse_args()
    started = time.monotonic()
    if options.seed is None:
        with ProcessPoolExecutor(options.processes, initializer=silence) as pool:
            seeds = range(options.first, options.first + options.seeds)
            runs = [one for pair in pool.map(both, seeds, chunksize=4) for one in pair]
    else:
        silence()
        runs = both(options.seed)
        for one in runs:
            print(one.role, *one.trace, sep="\n", file=sys.stderr)
    report(runs, time.monotonic() - started)
    return int(any(one.anomalies for one in runs))


def report(runs: list[Run], seconds: float) -> None:
    """Print each seed with anomalies and the command that repeats it, then the figures."""
    for one in runs:
        for anomaly in one.anomalies:
            print(
                f"seed {one.seed}, {one.role}: {anomaly[:500]}\n  make simulate-faults SEED={one.seed}", file=sys.stderr
            )
    events = sum((Counter(one.events) for one in runs), Counter())
    print(
        json.dumps(
            {
                "seeds": len({one.seed for one in runs}),
                "crashes": events["crash"],
                "anomalies": sum(bool(one.anomalies) for one in runs),
                "seeds_per_minute": round(60 * len({one.seed for one in runs}) / seconds),
                "events": dict(sorted(events.items())),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
