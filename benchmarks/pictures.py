"""Draw the two pictures of the performance page."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from latency import GUARANTEES, PERCENTILES, SHARES

mpl.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from pathlib import Path

DOTS: Final = 90  # per inch
COLOURS: Final = ("#1f5fa8", "#d9822b")


def ladder(rungs: dict[str, Any], path: Path) -> None:
    """Draw the transactions per second and the processor time (µs) of each rung as bars."""
    names = [*rungs][::-1]
    figure, sides = plt.subplots(1, 2, figsize=(10, 0.45 * len(names) + 1), sharey=True, layout="constrained")
    for axis, kind, title, colour in zip(
        sides, ("rate", "cpu"), ("transactions a second", "µs of processor time each"), COLOURS, strict=True
    ):
        medians = [rungs[name][kind]["median"] for name in names]
        ends = [
            [abs(rungs[name][kind][end] - rungs[name][kind]["median"]) for name in names]
            for end in ("least", "largest")
        ]
        axis.barh(names, medians, xerr=ends, color=colour, error_kw={"elinewidth": 1})
        axis.set_xscale("log")
        axis.set_xlabel(title)
        axis.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=DOTS, metadata={"Software": None})
    plt.close(figure)


def latency(found: dict[str, Any], path: Path) -> None:
    """Draw the percentiles of the time to the score, one line for each load."""
    figure, sides = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, guarantee in zip(sides, GUARANTEES, strict=True):
        for share in SHARES:
            runs = [run for name, run in found.items() if name.startswith(f"{guarantee} at {share:.0%} #")]
            if runs:
                values = [statistics.median(run["score"][name] for run in runs) for name in PERCENTILES]
                axis.plot([*PERCENTILES], values, marker="o", label=f"{share:.0%} of capacity")
        axis.set_yscale("log")
        axis.set_title(guarantee, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    sides[0].set_ylabel("ms to the score")
    figure.savefig(path, dpi=DOTS, metadata={"Software": None})
    plt.close(figure)
