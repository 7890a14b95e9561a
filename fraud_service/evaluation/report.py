"""The report of a run: one page that needs nothing else, neither scripts nor the network."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from fraud_service.evaluation import pictures

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fraud_service.evaluation.figures import AlertVolume
    from fraud_service.evaluation.result import Result

FIGURES: Final = {
    "average_precision": "AP",
    "auc_roc": "AUC ROC",
    "card_precision_100": "CP@100",
    "log_loss": "log loss",
    "brier": "Brier",
}

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .2rem .9rem .2rem 0; text-align: left; font-variant-numeric: tabular-nums; }
thead th { border-bottom: 1px solid #8888; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption, .note { color: #777; font-size: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
"""


def report(result: Result, compared: Result | None = None) -> str:
    """Write the page, with another run beside this one if there is one."""
    parts = [_summary(result), _comparison(result, compared), _pictures(result, compared), _refits(result)]
    title = f"Backtest of {escape(str(result.run.get('source', 'a run')))}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{''.join(parts)}</body>\n</html>\n"
    )


def _summary(result: Result) -> str:
    figures = result.figures
    facts = [(name.replace("_", " "), value) for name, value in result.run.items()]
    facts += [("labelled", f"{figures.rows:,}, of which {figures.frauds:,} frauds")]
    facts += [("flagged by the policy", _policy(figures.operating))] if figures.operating else []
    rows = [
        [name, *(getattr(found, key) for key in FIGURES), found.failed] for name, found in figures.components.items()
    ]
    return (
        _table([], facts)
        + "<h2>How good each component is</h2>\n"
        + _table(["component", *FIGURES.values(), "failed"], rows)
        + '<p class="note">CP@100: share of defrauded cards among the hundred with the highest scores of a day.</p>\n'
    )


def _policy(found: AlertVolume) -> str:
    return (
        f"{found.alerts_a_day:,.1f} alerts a day, precision {_text(found.precision)}, recall {_text(found.recall)}, "
        f"{_text(found.value_recall)} of the amount of fraud"
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
    source = escape(str(compared.run.get("source", "another run")))
    models = escape(", ".join(compared.models))
    return (
        f"<h2>Compared with {source} ({models})</h2>\n{_table(['figure', 'this run', 'the other', 'difference'], rows)}"
    )


def _pictures(result: Result, compared: Result | None) -> str:
    drawn = pictures.curves(result, compared)
    if not drawn:
        return "<p>No labelled transaction: there is nothing to draw.</p>\n"
    blended = result.figures.components["blended"]
    return (
        _figure(pictures.rankings(drawn), "How many alerts are right, and how many frauds they find: higher is better.")
        + _figure(pictures.weeks(drawn), "The same by week of event time: a falling line is a model that ages.")
        + '<div class="pair">\n'
        + _figure(pictures.distribution(blended), "Blended scores: the less the two overlap, the better.")
        + _figure(pictures.calibration(drawn), "On the dotted line a score is the probability that it claims to be.")
        + _figure(pictures.volume(drawn), "How much fraud is found with so many alerts a day.")
        + (_figure(pictures.weights(result), "Who decides: 1 is the online model alone.") if result.weights else "")
        + "</div>\n"
        + _figure(pictures.features(result), "What moved the scores of flagged transactions most.")
    )


def _refits(result: Result) -> str:
    if not result.refits:
        return ""
    names = list(result.refits[0])
    rows = [[refit.get(name) for name in names] for refit in result.refits]
    return f"<h2>Re-fits</h2>\n{_table([name.replace('_', ' ') for name in names], rows)}"


def _figure(svg: str, caption: str) -> str:
    label = escape(caption, quote=True)
    return f'<figure role="img" aria-label="{label}">\n{svg}<figcaption>{escape(caption)}</figcaption>\n</figure>\n'


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    titles = f"<thead><tr>{''.join(f'<th>{escape(title)}</th>' for title in head)}</tr></thead>\n" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(_text(value))}</td>' for value in row)}</tr>\n" for row in rows)
    return f"<table>\n{titles}<tbody>\n{body}</tbody>\n</table>\n"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
