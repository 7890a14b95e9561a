"""The report of a run: one HTML page with tables and charts."""

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


def report(result: Result, compared: Result | None = None, changes: str = "") -> str:
    """Return the page; `compared` is another run to compare with, `changes` is HTML about both."""
    parts = [_summary(result), changes, _comparison(result, compared), _charts(result, compared), _refits(result)]
    return page(f"Backtest of {result.run.get('source', 'a run')}", "".join(parts))


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


def _charts(result: Result, compared: Result | None) -> str:
    drawn = charts.curves(result, compared)
    if not drawn:
        return "<p>There is nothing to draw: no transaction has a label.</p>\n"
    blended = result.figures.components["blended"]
    return (
        _figure(charts.rankings(drawn), "Precision and recall of the alerts: higher is better.")
        + _figure(charts.weeks(drawn), "The same by week of event time: the line falls when a model ages.")
        + '<div class="pair">\n'
        + _figure(charts.distribution(blended), "Blended scores: less overlap is better.")
        + _figure(charts.calibration(drawn), "On the dotted line, the score equals the fraud share.")
        + _figure(charts.volume(drawn), "Recall by number of alerts per day.")
        + (
            _figure(charts.weights(result), "Weight of the online model: at 1 it decides alone.")
            if result.weights
            else ""
        )
        + "</div>\n"
        + (
            _figure(charts.features(result), "Features with the largest effect on flagged transactions.")
            if result.features
            else ""
        )
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
