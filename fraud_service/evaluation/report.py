"""The report of a run: one page that needs nothing else, neither scripts nor the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fraud_service.evaluation import charts
from fraud_service.evaluation.html import escaped, page, shown, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.evaluation.metrics import AlertVolume
    from fraud_service.evaluation.result import Result

FIGURES: Final = {
    "average_precision": "AP",
    "auc_roc": "AUC ROC",
    "card_precision_100": "CP@100",
    "log_loss": "log loss",
    "brier": "Brier",
}

MOVED: Final = "What moved the scores of flagged transactions most."


def report(result: Result, compared: Result | None = None, changes: str = "") -> str:
    """Write the page, with another run beside this one if there is one, and what is to be said of both."""
    parts = [_summary(result), changes, _comparison(result, compared), _pictures(result, compared), _refits(result)]
    return page(f"Backtest of {result.run.get('source', 'a run')}", "".join(parts))


def _summary(result: Result) -> str:
    figures = result.figures
    facts = [(name.replace("_", " "), value) for name, value in result.run.items()]
    facts += [("labelled", f"{figures.rows:,}, of which {figures.frauds:,} frauds")]
    facts += [("flagged by the policy", _policy(figures.operating))] if figures.operating else []
    rows = [
        [name, *(getattr(found, key) for key in FIGURES), found.failed] for name, found in figures.components.items()
    ]
    return (
        table([], facts)
        + "<h2>How good each component is</h2>\n"
        + table(["component", *FIGURES.values(), "failed"], rows)
        + '<p class="note">CP@100: share of defrauded cards among the hundred with the highest scores of a day.</p>\n'
    )


def _policy(found: AlertVolume) -> str:
    return (
        f"{found.alerts_a_day:,.1f} alerts a day, precision {shown(found.precision)}, recall {shown(found.recall)}, "
        f"{shown(found.value_recall)} of the amount of fraud"
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
        f"<h2>Compared with {source} ({models})</h2>\n{table(['figure', 'this run', 'the other', 'difference'], rows)}"
    )


def _pictures(result: Result, compared: Result | None) -> str:
    drawn = charts.curves(result, compared)
    if not drawn:
        return "<p>No labelled transaction: there is nothing to draw.</p>\n"
    blended = result.figures.components["blended"]
    return (
        _figure(charts.rankings(drawn), "How many alerts are right, and how many frauds they find: higher is better.")
        + _figure(charts.weeks(drawn), "The same by week of event time: a falling line is a model that ages.")
        + '<div class="pair">\n'
        + _figure(charts.distribution(blended), "Blended scores: the less the two overlap, the better.")
        + _figure(charts.calibration(drawn), "On the dotted line a score is the probability that it claims to be.")
        + _figure(charts.volume(drawn), "How much fraud is found with so many alerts a day.")
        + (_figure(charts.weights(result), "Who decides: 1 is the online model alone.") if result.weights else "")
        + "</div>\n"
        + (_figure(charts.features(result), MOVED) if result.features else "")
    )


def _refits(result: Result) -> str:
    if not result.refits:
        return ""
    names = list(result.refits[0])
    rows = [[refit.get(name) for name in names] for refit in result.refits]
    return f"<h2>Re-fits</h2>\n{table([name.replace('_', ' ') for name in names], rows)}"


def _figure(svg: str, caption: str) -> str:
    label = escaped(caption)
    return f'<figure role="img" aria-label="{label}">\n{svg}<figcaption>{escaped(caption)}</figcaption>\n</figure>\n'
