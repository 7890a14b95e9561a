"""The report of a run: one HTML page with tables and charts. The same metrics give the same bytes."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from fraud_service.evaluation.html import escaped, page, shown, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.axes import Axes

    from fraud_service.evaluation.metrics import AlertVolume, ComponentFigures, Distribution, Result

FIGURES: Final = {
    "average_precision": "AP",
    "auc_roc": "AUC ROC",
    "card_precision_100": "CP@100",
    "log_loss": "log loss",
    "brier": "Brier",
}
WEEKLY: Final = {
    "average_precision": "Average precision",
    "auc_roc": "AUC ROC",
    "card_precision_100": "Card precision@100",
}
# The palette of Okabe and Ito, which people with colour blindness can read.
COLOURS: Final = {"blended": "#0072b2", "pretrained": "#d55e00", "online": "#009e73", "compared": "#6e6e6e"}
STYLE: Final = {
    "svg.hashsalt": "fraud-service",
    "svg.fonttype": "path",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
SMALL, WIDE = (4.6, 3.2), (10.0, 3.6)  # inches
MAX_FEATURES: Final = 15

Curves = dict[str, "ComponentFigures"]


def report(result: Result, compared: Result | None = None, changes: str = "", title: str = "") -> str:
    """Return the page; `compared` is another run to compare with, `changes` is HTML about both.

    Without a title, it is the report of a backtest.
    """
    parts = [_summary(result), changes, _comparison(result, compared), _charts(result, compared), _refits(result)]
    return page(title or f"Backtest of {result.run.get('source', 'a run')}", "".join(parts))


def _summary(result: Result) -> str:
    figures = result.figures
    facts = [(name.replace("_", " "), value) for name, value in result.run.items()]
    facts += [("labelled", f"{figures.rows:,}, {figures.frauds:,} of them frauds")]
    facts += [("flagged by the policy", _policy(figures.operating))] if figures.operating else []
    rows = [
        [name, *(getattr(found, key) for key in FIGURES), found.failed] for name, found in figures.components.items()
    ]
    return (
        table([], facts)
        + "<h2>How good each component is</h2>\n"
        + table(["component", *FIGURES.values(), "failed"], rows)
        + '<p class="note">CP@100: fraud share among the hundred cards with the highest scores of a day.</p>\n'
    )


def _policy(found: AlertVolume) -> str:
    return (
        f"{found.alerts_a_day:,.1f} alerts per day, precision {shown(found.precision)}, recall {shown(found.recall)}, "
        f"{shown(found.value_recall)} of the fraud amount"
    )


def _comparison(result: Result, compared: Result | None) -> str:
    if compared is None:
        return ""
    rows: list[Sequence[Any]] = []
    for name, found in result.figures.components.items():
        other = compared.figures.components.get(name)
        for key, title in FIGURES.items():
            here, there = getattr(found, key), getattr(other, key, None)
            difference = "" if here is None or there is None else f"{here - there:+.4f}"
            rows.append([f"{name}, {title}", here, there, difference])
    source = escaped(str(compared.run.get("source", "another run")))
    models = escaped(", ".join(compared.models))
    return (
        f"<h2>Compared with {source} ({models})</h2>\n{table(['figure', 'this run', 'other run', 'difference'], rows)}"
    )


def _refits(result: Result) -> str:
    if not result.refits:
        return ""
    names = list(result.refits[0])
    rows = [[refit.get(name) for name in names] for refit in result.refits]
    return f"<h2>Re-fits</h2>\n{table([name.replace('_', ' ') for name in names], rows)}"


def _charts(result: Result, compared: Result | None) -> str:
    """Chart all components of the run, and the blended score of the compared run."""
    curves = dict(result.figures.components)
    if compared is not None and "blended" in compared.figures.components:
        curves["compared"] = compared.figures.components["blended"]
    if not curves:
        return "<p>There is nothing to draw: no transaction has a label.</p>\n"
    charts = [
        _chart("Precision and recall of the alerts: higher is better.", _rankings, curves, columns=2, size=WIDE),
        _chart(
            "The same by week of event time: the line falls when a model ages.",
            _weeks,
            curves,
            columns=len(WEEKLY),
            size=(10.0, 3.2),
        ),
        '<div class="pair">\n',
        _chart("Blended scores: less overlap is better.", _distribution, curves["blended"].distribution),
        _chart("On the dotted line, the score equals the fraud share.", _calibration, curves),
        _chart("Recall by number of alerts per day.", _volume, curves),
    ]
    if result.weights:
        charts.append(_chart("Weight of the online model: at 1 it decides alone.", _weights, result.weights))
    charts.append("</div>\n")
    if result.features:
        caption = "Features with the largest effect on flagged transactions."
        charts.append(_chart(caption, _features, result.features, size=WIDE))
    return "".join(charts)


def _chart(
    caption: str, draw: Callable[..., None], data: Any, *, columns: int = 1, size: tuple[float, float] = SMALL
) -> str:
    """Call `draw` with the data and the axes of each column; return the drawing as SVG, with its caption."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(data, *(figure.add_subplot(1, columns, place + 1) for place in range(columns)))
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    text, label = written.getvalue(), escaped(caption)
    svg = text[text.index("<svg") :]
    return f'<figure role="img" aria-label="{label}">\n{svg}<figcaption>{label}</figcaption>\n</figure>\n'


def _rankings(curves: Curves, precision: Axes, roc: Axes) -> None:
    _plot(precision, {name: one.precision_recall for name, one in curves.items()}, marker="")
    _plot(roc, {name: one.roc for name, one in curves.items()}, marker="")
    precision.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
    roc.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02), title="ROC")
    precision.legend()


def _weeks(curves: Curves, *columns: Axes) -> None:
    for axes, (figure, title) in zip(columns, WEEKLY.items(), strict=True):
        values = {
            name: [(_moment(week.start), getattr(week, figure)) for week in one.weeks] for name, one in curves.items()
        }
        _plot(axes, values)
        axes.set_title(title)
        axes.tick_params(axis="x", rotation=60)
    columns[0].legend()


def _distribution(found: Distribution, axes: Axes) -> None:
    for counts, name, colour in (
        (found.legitimate, "legitimate", COLOURS["blended"]),
        (found.frauds, "fraud", COLOURS["pretrained"]),
    ):
        axes.stairs(counts, found.edges, fill=True, alpha=0.5, color=colour, label=name)
    axes.set(yscale="symlog", xlabel="logit of the score", ylabel="transactions", title="Scores")
    axes.legend()


def _calibration(curves: Curves, axes: Axes) -> None:
    _plot(axes, {name: [(group.score, group.fraud_share) for group in one.calibration] for name, one in curves.items()})
    axes.plot([1e-5, 1], [1e-5, 1], color="black", linewidth=0.7, linestyle=":")
    axes.set(xlabel="mean score", ylabel="fraud share", title="Calibration by deciles")
    axes.set_xscale("symlog", linthresh=1e-4)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.legend()


def _volume(curves: Curves, axes: Axes) -> None:
    _plot(axes, {name: [(at.alerts_a_day, at.recall) for at in one.volume] for name, one in curves.items()})
    axes.set(xscale="log", xlabel="alerts per day", ylabel="recall", title="Alert volume")
    axes.legend()


def _weights(weights: list[tuple[int, float]], axes: Axes) -> None:
    times, values = [_moment(at) for at, _ in weights], [weight for _, weight in weights]
    axes.step(times, values, where="post", color=COLOURS["online"])  # type: ignore[arg-type] # it accepts times
    axes.set(ylim=(-0.02, 1.02), ylabel="weight of the online model", title="Component weights")
    axes.tick_params(axis="x", rotation=30)


def _features(features: dict[str, float], axes: Axes) -> None:
    strongest = sorted(features.items(), key=lambda item: (-item[1], item[0]))[:MAX_FEATURES][::-1]
    axes.barh([name for name, _ in strongest], [value for _, value in strongest], color=COLOURS["blended"])
    axes.set(xlabel="mean absolute contribution, logits", title="Features of flagged transactions")


def _plot(axes: Axes, lines: Mapping[str, Iterable[tuple[Any, float | None]]], marker: str = "o") -> None:
    """Plot the points of each component as a line, without those whose value is unknown."""
    for name, points in lines.items():
        known = [(x, y) for x, y in points if y is not None]
        horizontal, vertical = [x for x, _ in known], [y for _, y in known]
        axes.plot(horizontal, vertical, marker=marker, markersize=3, color=COLOURS[name], label=name)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
