"""Test whether this tree scores slower than another commit (`make bench-quick`).

Prints one JSON line at the end, and exits with 1 if this tree is slower. The runs of both trees are interleaved on one
broker, so that a slow minute of the machine affects both. Each round gives one ratio for each figure. The bound is not
a constant: it follows from the spread of the ratios of this run.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tarfile
import tempfile
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import ladder
from harness import LEAST, ONCE, broker, end_in_good_order, payments, say, send
from support.processes import fresh_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness import Broker

    from fraud_service.config.settings import Settings

HERE: Final = Path(__file__).resolve().parents[1]
MESSAGES: Final = 40_000
MIN_ROUNDS: Final = 5
MAX_ROUNDS: Final = 10
MIN_SLOWDOWN: Final = 0.08  # a smaller one is never reported, even with a narrow confidence interval
ENOUGH: Final = 0.08  # half width of the confidence interval (as a logarithm) that needs no further round
GUARANTEES: Final = {"at_least_once": LEAST, "exactly_once": ONCE}
FIGURES: Final = tuple(f"{figure}_{guarantee}" for guarantee in GUARANTEES for figure in ("cpu", "seconds"))
# Student's t, one-sided, 99.9 %, by the number of rounds.
T: Final = {5: 7.17, 6: 5.89, 7: 5.21, 8: 4.79, 9: 4.50, 10: 4.30}

Round = dict[str, float]


class Slowdown(NamedTuple):
    """One figure of this tree as a multiple of the base's, with the bounds of the 99.8 % confidence interval.

    >>> slowdown([1.0, 1.02, 0.98, 1.01, 0.99]).is_worse
    False
    >>> slowdown([1.30, 1.33, 1.28, 1.31, 1.29]).is_worse
    True
    """

    ratio: float
    least: float
    most: float

    @property
    def is_worse(self) -> bool:
        """Whether the slow-down exceeds the noise of this run and the smallest reported one."""
        return self.least > 1 and self.ratio > 1 + MIN_SLOWDOWN


def slowdown(ratios: list[float]) -> Slowdown:
    """Estimate a slow-down from the ratios of five to ten rounds."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.fmean(logs)
    half = T[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
    return Slowdown(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Extract a commit into a folder for the length of the block."""
    command = ["git", "archive", revision]
    archive = subprocess.run(command, cwd=HERE, check=True, capture_output=True).stdout  # noqa: S603 - our own
    with tempfile.TemporaryDirectory(prefix="fraud-service-base-") as folder:
        with tarfile.open(fileobj=BytesIO(archive)) as packed:
            packed.extractall(folder, filter="data")
        yield Path(folder)


def code_of(tree: Path) -> dict[str, str]:
    """Return the environment in which Python imports the service of this tree."""
    # Without PYTHONSAFEPATH, Python would import the tree in the working directory.
    return {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}


def measured(settings: Settings, place: Broker, trees: dict[str, Path]) -> Round:
    """Run the scorer of each tree over the topic under each guarantee, and return the ratios: here over base."""
    ratios = {}
    for guarantee, options in GUARANTEES.items():
        costs = {}
        for name, tree in trees.items():
            rung = ladder.Rung(f"{name} {guarantee}", 1.0, scorer=options | code_of(tree))
            costs[name] = ladder.measure(rung, settings, place, MESSAGES)
        ratios[f"cpu_{guarantee}"] = costs["here"].cpu / costs["base"].cpu
        ratios[f"seconds_{guarantee}"] = costs["base"].rate / costs["here"].rate
    return ratios


def compared(base: Path) -> dict[str, list[float]]:
    """Measure rounds until the ratios are precise enough, and return them by figure."""
    found: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    trees = {"here": HERE, "base": base}
    with broker() as place:
        settings = fresh_settings(place.bootstrap, place.folder)
        send(settings, payments(MESSAGES))
        say(f"on {place.kind}, {MESSAGES:,} payments a run")
        for number in range(1, MAX_ROUNDS + 1):
            for figure, ratio in measured(settings, place, trees).items():
                found[figure].append(ratio)
            say(f"round {number}: " + ", ".join(f"{name} × {ratios[-1]:.2f}" for name, ratios in found.items()))
            trees = dict(reversed(trees.items()))  # swap the order in the next round
            if number >= MIN_ROUNDS and all(is_sure(slowdown(ratios)) for ratios in found.values()):
                break
    return found


def is_sure(found: Slowdown) -> bool:
    """Whether another round is unlikely to change the verdict."""
    return found.is_worse or math.log(found.most / found.ratio) < ENOUGH


def main() -> None:
    """Measure, compare, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="HEAD", help="the commit to compare with; by default the last one")
    revision = parser.parse_args().base
    end_in_good_order()
    with checkout(revision) as base:
        found = compared(base)
    slow = {figure: slowdown(ratios) for figure, ratios in found.items()}
    for figure, one in slow.items():
        verdict = "WORSE" if one.is_worse else "not worse"
        say(f"{figure}: × {one.ratio:.3f} ({one.least:.3f} to {one.most:.3f}): {verdict}")
    worse = [figure for figure, one in slow.items() if one.is_worse]
    ratios = {figure: [round(part, 3) for part in one] for figure, one in slow.items()}
    print(json.dumps({"base": revision, "rounds": len(found[FIGURES[0]]), **ratios, "worse": worse}))  # noqa: T201
    sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
