"""Charts of the report as SVG elements. The same metrics give the same bytes."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from matplotlib.axes import Axes

    from fraud_service.evaluation.metrics import ComponentFigures
    from fraud_service.evaluation.result import Result

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
MAX_FEATURES: Final = 15

Curves = dict[str, "ComponentFigures"]


def curves(result: Result, compared: Result | None) -> Curves:
    """Return the curves to draw: all components of the run, and the blended score of the compared run."""
    drawn = dict(result.figures.components)
    if compared is not None and "blended" in compared.figures.components:
        drawn["compared"] = compared.figures.components["blended"]
    return drawn


def rankings(drawn: Curves) -> str:
    """Draw the precision-recall curve and the ROC curve."""

    def draw(axes: list[Axes]) -> None:
        for name, component in drawn.items():
            _line(axes[0], name, component.precision_recall)
            _line(axes[1], name, component.roc)
        axes[0].set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="Precision and recall")
        axes[1].set(xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1), ylim=(0, 1.02), title="ROC")
        axes[0].legend()

    return _svg(draw, columns=2, width=10.0, height=3.6)


def weeks(drawn: Curves) -> str:
    """Draw three metrics for each week."""
    titles = {
        "average_precision": "Average precision",
        "auc_roc": "AUC ROC",
        "card_precision_100": "Card precision@100",
    }

    def draw(axes: list[Axes]) -> None:
        for ax, (figure, title) in zip(axes, titles.items(), strict=True):
            for name, component in drawn.items():
                points = [(week.start, getattr(week, figure)) for week in component.weeks]
                known = [(_moment(start), value) for start, value in points if value is not None]
                ax.plot(*_columns(known), marker="o", markersize=3, color=COLOURS[name], label=name)
            ax.set_title(title)
            ax.tick_params(axis="x", rotation=60)
        axes[0].legend()

    return _svg(draw, columns=3, width=10.0)


def distribution(component: ComponentFigures) -> str:
    """Draw histograms of the logits of frauds and of legitimate transactions."""

    def draw(axes: list[Axes]) -> None:
        found = component.distribution
        for counts, name, colour in (
            (found.genuine, "legitimate", COLOURS["blended"]),
            (found.frauds, "fraud", COLOURS["pretrained"]),
        ):
            axes[0].stairs(counts, found.edges, fill=True, alpha=0.5, color=colour, label=name)
        axes[0].set(yscale="symlog", xlabel="logit of the score", ylabel="transactions", title="Scores")
        axes[0].legend()

    return _svg(draw)


def calibration(drawn: Curves) -> str:
    """Draw the fraud share against the mean score."""

    def draw(axes: list[Axes]) -> None:
        for name, component in drawn.items():
            points = [(group.score, group.fraud_share) for group in component.calibration]
            axes[0].plot(*_columns(points), marker="o", markersize=3, color=COLOURS[name], label=name)
        axes[0].plot([1e-5, 1], [1e-5, 1], color="black", linewidth=0.7, linestyle=":")
        axes[0].set(xlabel="mean score", ylabel="fraud share", title="Calibration by deciles")
        axes[0].set_xscale("symlog", linthresh=1e-4)
        axes[0].set_yscale("symlog", linthresh=1e-4)
        axes[0].legend()

    return _svg(draw)


def volume(drawn: Curves) -> str:
    """Draw recall against alerts per day."""

    def draw(axes: list[Axes]) -> None:
        for name, component in drawn.items():
            points = [(one.alerts_a_day, one.recall) for one in component.volume if one.recall is not None]
            axes[0].plot(*_columns(points), marker="o", markersize=3, color=COLOURS[name], label=name)
        axes[0].set(xscale="log", xlabel="alerts per day", ylabel="recall", title="Alert volume")
        axes[0].legend()

    return _svg(draw)


def weights(result: Result) -> str:
    """Draw the weight of the online model by event time."""

    def draw(axes: list[Axes]) -> None:
        points = [(_moment(at), weight) for at, weight in result.weights]
        axes[0].step(*_columns(points), where="post", color=COLOURS["online"])
        axes[0].set(ylim=(-0.02, 1.02), ylabel="weight of the online model", title="Component weights")
        axes[0].tick_params(axis="x", rotation=30)

    return _svg(draw)


def features(result: Result) -> str:
    """Draw the features that contribute most to flagged transactions."""
    strongest = sorted(result.features.items(), key=lambda item: (-item[1], item[0]))[:MAX_FEATURES][::-1]

    def draw(axes: list[Axes]) -> None:
        axes[0].barh([name for name, _ in strongest], [value for _, value in strongest], color=COLOURS["blended"])
        axes[0].set(xlabel="mean absolute contribution, logits", title="Features of flagged transactions")

    return _svg(draw, width=10.0, height=3.6)


def _svg(draw: Callable[[list[Axes]], None], *, columns: int = 1, width: float = 4.6, height: float = 3.2) -> str:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw([figure.add_subplot(1, columns, place + 1) for place in range(columns)])
        written = io.StringIO()
        FigureCanvasSVG(figure).print_svg(written, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return text[text.index("<svg") :]


def _line(ax: Axes, name: str, points: Iterable[tuple[float, float]]) -> None:
    ax.plot(*_columns(points), color=COLOURS[name], label=name)


def _columns(points: Iterable[tuple[Any, float]]) -> tuple[list[Any], list[float]]:
    pairs = list(points)
    return [x for x, _ in pairs], [y for _, y in pairs]


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
