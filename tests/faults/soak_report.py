"""Write the page and the plots of a soak."""

from __future__ import annotations

import os
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
from faults.report import DOCS, Result
from matplotlib.figure import Figure

from fraud_service.evaluation.report import COLOURS, STYLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes

PICTURE = "soak.png"
ROLES = {"score": "scorer", "learn": "learner"}
COLOUR = {"score": COLOURS["blended"], "learn": COLOURS["pretrained"]}
PAGE = """\
# Soak

`make soak` wrote this page: {minutes:.0f} minutes, {rate:.0f} payments a second with their labels, seed {seed}. Broker, load and
service shared {cores} cores. One scorer and one learner ran on one Apache Kafka broker. A random fault happened every one to
two minutes. Then the verifier read all topics.

| transactions | faults | lost | duplicated | anomalies | worst recovery, s | median, s |
|---|---|---|---|---|---|---|
| {transactions:,} | {runs} | {lost} | {duplicated} | {anomalies} | {max_recovery_s} | {median_recovery} |

When a fault ends a process, its figures start from zero. The table has the medians of the first and the last quarter of
the time:

| | memory, MB | descriptors | state, MB |
|---|---|---|---|
{drift}

Latency: we took the 99th percentile of every five seconds. The median of these is {latency} s (upper bound of its bucket).

![memory, descriptors, state and latency over time; grey lines mark faults]({picture})

| fault | times |
|---|---|
{faults}
"""


class Sample(NamedTuple):
    """One sample of a process: seconds since the start, MB resident, open descriptors, MB of state, latency (s)."""

    at: float
    verb: str
    memory: float
    descriptors: int
    state: float
    latency: float | None


def write(
    found: dict[str, float], result: Result, struck: list[tuple[float, str]], samples: list[Sample], rate: float
) -> None:
    """Write `docs/soak.md` and its plots."""
    latencies = [sample.latency for sample in samples if sample.latency is not None]
    known = sorted(result.recoveries) or [0.0]
    page = PAGE.format(
        **found,
        minutes=result.seconds / 60,
        rate=rate,
        cores=os.cpu_count(),
        median_recovery=known[len(known) // 2],
        drift="\n".join(_drift(samples)),
        latency=median(latencies) if latencies else "unknown",
        picture=PICTURE,
        faults="\n".join(f"| {name} | {times} |" for name, times in sorted(Counter(n for _, n in struck).items())),
    )
    if result.remarks:
        page += "\n" + "\n".join(f"* {remark}" for remark in dict.fromkeys(result.remarks)) + "\n"
    (DOCS / "soak.md").write_text(page, encoding="utf-8")
    _draw(struck, samples)


def _drift(samples: list[Sample]) -> list[str]:
    rows = []
    for verb, role in ROLES.items():
        of_role = [sample for sample in samples if sample.verb == verb]
        quarter = max(len(of_role) // 4, 1)
        ends = of_role[:quarter], of_role[-quarter:]
        cells = [
            " → ".join(f"{median(look(sample) for sample in end):.0f}" for end in ends if end)
            for look in (lambda s: s.memory, lambda s: s.descriptors, lambda s: s.state)
        ]
        rows.append(f"| {role} | {' | '.join(cells)} |")
    return rows


def _draw(struck: list[tuple[float, str]], samples: list[Sample]) -> None:
    looks: list[tuple[str, Callable[[Sample], float | None]]] = [
        ("resident memory, MB", lambda sample: sample.memory),
        ("descriptors", lambda sample: sample.descriptors),
        ("local state, MB", lambda sample: sample.state),
        ("latency p99, s", lambda sample: sample.latency),
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 8), layout="constrained")
        axes: list[Axes] = list(figure.subplots(len(looks), 1, sharex=True))
        for ax, (label, look) in zip(axes, looks, strict=True):
            for moment, _ in struck:
                ax.axvline(moment / 60, color="0.85", linewidth=0.8)
            for verb, role in ROLES.items():
                points = [(s.at / 60, look(s)) for s in samples if s.verb == verb and look(s) is not None]
                if points:
                    ax.plot(*zip(*points, strict=True), ".", markersize=2, color=COLOUR[verb], label=role)
            ax.set_ylabel(label)
        axes[-1].set(xlabel="minutes", yscale="log")
        axes[0].legend(loc="upper left")
        figure.savefig(DOCS / PICTURE, dpi=110)
