"""The charts of a report as SVG, with a sentence about each. The same metrics give the same bytes.

A chart has one pair of axes and the width of a phone, so its text stays readable there. Text stays text.
"""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator, PercentFormatter

from fraud_service.evaluation.answer import percent
from fraud_service.evaluation.html import escaped
from fraud_service.evaluation.metrics import ALERTS_A_DAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from matplotlib.axes import Axes

    from fraud_service.evaluation.metrics import Bin, ComponentFigures, Distribution, Result

# The palette of Okabe and Ito, which people with colour blindness can read.
COLOURS: Final = {"blended": "#0072b2", "pretrained": "#d55e00", "online": "#009e73", "compared": "#6e6e6e"}
WIDTH: Final = 5.0  # inches, so 360 points: as many as a phone has pixels beside its margins
HEIGHT: Final = 3.6
STYLE: Final = {
    "svg.hashsalt": "fraud-service",
    "svg.fonttype": "none",
    "font.size": 15.2,  # points
    "axes.titlesize": "medium",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
MIN_LINE: Final = 3  # points: a line between two would claim a course that was not measured
MAX_FEATURES: Final = 12
WEEKLY: Final = {
    "average_precision": ("Average precision by week", "If it falls, the model ages, or the frauds change."),
    "auc_roc": (
        "AUC ROC by week",
        "The chance that a fraud has a higher score than a legitimate payment, for each week of event time.",
    ),
    "card_precision_100": (
        "Card precision by week",
        "The share of defrauded cards among the hundred with the highest scores of a day. It depends on their number.",
    ),
}
SHOWN_SCORES: Final = (0.0001, 0.01, 0.5, 0.99)

Curves = dict[str, "ComponentFigures"]


def charts(result: Result, compared: Result | None) -> Iterator[str]:
    """Yield the charts of all components of a run, and of the blended score of the compared run."""
    curves = dict(result.figures.components)
    if compared is not None and "blended" in compared.figures.components:
        curves["compared"] = compared.figures.components["blended"]
    if result.figures.frauds:
        yield _chart(
            "Precision and recall",
            "To the right, alerts catch more of the frauds. The height is the share of alerts that are right. Higher "
            "is better.",
            lambda axes: _precision_recall(curves, axes),
        )
        yield _chart(
            "Recall by alerts a day",
            "The share of frauds that so many alerts a day would catch, those with the highest scores.",
            lambda axes: _volume(curves, axes),
        )
    blended = curves["blended"]
    yield _chart(
        "Calibration of the blended score",
        "Payments are grouped by score; the number in brackets counts those of the group. The bar is the share of "
        "frauds among them, the diamond their mean score. The score is a probability where both agree.",
        lambda axes: _calibration(blended.calibration, axes),
        height=1.2 + 0.42 * len(blended.calibration),
    )
    yield _chart(
        "Scores of frauds and of legitimate payments",
        "How many payments have which blended score. The less both overlap, the better.",
        lambda axes: _distribution(blended.distribution, axes),
    )
    if all(one.roc for one in curves.values()):
        yield _chart(
            "ROC",
            "To the right, more legitimate payments have an alert. The height is the share of frauds that have one.",
            lambda axes: _roc(curves, axes),
        )
    yield from _weekly(curves)
    if result.weights:
        yield _chart(
            "Weight of the online model",
            "At 0 the pretrained model decides alone, at 1 the online model.",
            lambda axes: _weights(result.weights, axes),
        )
    if any(result.features.values()):
        yield _chart(
            "Features of alerts",
            "How much a feature moved the score of the average alert, in logits, up or down.",
            lambda axes: _features(result.features, axes),
            height=6.4,
        )


def _weekly(curves: Curves) -> Iterator[str]:
    for figure, (title, meaning) in WEEKLY.items():
        values = {
            name: [(_moment(week.start), getattr(week, figure)) for week in one.weeks] for name, one in curves.items()
        }
        known = [sum(y is not None for _, y in points) for points in values.values()]
        if max(known) > 1:  # a single week is in the table

            def draw(axes: Axes, values: Any = values) -> None:
                _plot(axes, values)
                _dates(axes)

            yield _chart(title, meaning, draw)


def _chart(title: str, meaning: str, draw: Callable[[Axes], None], *, height: float = HEIGHT) -> str:
    """Call `draw` with the axes; return the drawing as SVG, with title and meaning below."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        if len(handles) > 1:
            figure.legend(handles, labels, loc="outside upper left", ncols=2)
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    svg = text[text.index("<svg") :]
    return (
        f'<figure role="img" aria-label="{escaped(f"{title}. {meaning}")}">\n{svg}'
        f"<figcaption><strong>{escaped(title)}.</strong> {escaped(meaning)}</figcaption>\n</figure>\n"
    )


def _precision_recall(curves: Curves, axes: Axes) -> None:
    _plot(axes, {name: one.precision_recall for name, one in curves.items()}, marker="")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))


def _roc(curves: Curves, axes: Axes) -> None:
    _plot(axes, {name: one.roc for name, one in curves.items()}, marker="")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02))


def _volume(curves: Curves, axes: Axes) -> None:
    _plot(axes, {name: [(at.alerts_a_day, at.recall) for at in one.volume] for name, one in curves.items()})
    axes.set(xscale="log", xlabel="alerts a day", ylabel="recall", ylim=(0, 1.02))
    axes.set_xticks(ALERTS_A_DAY, [str(number) for number in ALERTS_A_DAY])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _distribution(found: Distribution, axes: Axes) -> None:
    for counts, name, colour in (
        (found.legitimate, "legitimate", COLOURS["blended"]),
        (found.frauds, "fraud", COLOURS["pretrained"]),
    ):
        axes.stairs(counts, found.edges, fill=True, alpha=0.5, color=colour, label=name)
    axes.set(yscale="symlog", xlabel="score", ylabel="payments")
    axes.set_xticks(
        [math.log(score / (1 - score)) for score in SHOWN_SCORES], [f"{100 * score:g} %" for score in SHOWN_SCORES]
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _calibration(groups: Sequence[Bin], axes: Axes) -> None:
    names = [f"{100 * one.low:g} to {100 * one.high:g} % ({one.rows:,})" for one in groups]
    axes.barh(names, [one.fraud_share for one in groups], color=COLOURS["blended"], alpha=0.6, label="fraud share")
    axes.plot([one.score for one in groups], names, "D", color="black", markersize=6, label="mean score")
    for name, one in zip(names, groups, strict=True):
        at = max(one.fraud_share, one.score)
        axes.annotate(percent(one.fraud_share, 1), (at, name), xytext=(8, 0), textcoords="offset points", va="center")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set(xlim=(0, 1.3))
    axes.set_xticks((0, 0.5, 1))


def _weights(weights: list[tuple[int, float]], axes: Axes) -> None:
    times, values = [_moment(at) for at, _ in weights], [weight for _, weight in weights]
    if len(weights) < MIN_LINE:
        axes.plot(times, values, "o", color=COLOURS["online"])  # type: ignore[arg-type] # it accepts times
    else:
        axes.step(times, values, where="post", color=COLOURS["online"])  # type: ignore[arg-type]
    axes.set(ylim=(-0.02, 1.02), ylabel="weight")
    _dates(axes)


def _features(features: dict[str, float], axes: Axes) -> None:
    strongest = sorted(features.items(), key=lambda item: (-item[1], item[0]))[:MAX_FEATURES][::-1]
    axes.barh(range(len(strongest)), [value for _, value in strongest], height=0.3, color=COLOURS["blended"])
    for place, (name, _) in enumerate(strongest):  # above its bar: beside it, long names leave no room on a phone
        axes.text(0, place + 0.2, name, va="bottom")
    axes.set(xlabel="logits", yticks=[])


def _plot(axes: Axes, lines: Mapping[str, Iterable[tuple[Any, float | None]]], marker: str = "o") -> None:
    """Plot the points of each component, without those whose value is unknown, as a line if there are enough."""
    for name, points in lines.items():
        known = [(x, y) for x, y in points if y is not None]
        horizontal, vertical = [x for x, _ in known], [y for _, y in known]
        is_line = len(known) >= MIN_LINE
        shape, line = (marker, "-") if is_line else ("o", "")
        axes.plot(horizontal, vertical, marker=shape, linestyle=line, markersize=5, color=COLOURS[name], label=name)


def _dates(axes: Axes) -> None:
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=4))
    axes.xaxis.set_major_formatter(DateFormatter("%d %b"))


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
