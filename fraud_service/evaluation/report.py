"""The report of a run: one HTML page with its answer, tables and charts. The same metrics give the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fraud_service.evaluation import answer
from fraud_service.evaluation.charts import charts
from fraud_service.evaluation.html import escaped, page, section, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.evaluation.metrics import Figures, Result

# Each figure with its title and what it says.
FIGURES: Final = {
    "average_precision": (
        "AP",
        "Average precision: the mean share of alerts that are right, over all shares of caught frauds; at best 1.",
    ),
    "auc_roc": (
        "AUC ROC",
        "The chance that a fraud has a higher score than a legitimate payment: 0.5 without knowledge, at best 1.",
    ),
    "card_precision_100": (
        "CP@100",
        "The fraud share among the hundred cards with the highest scores of a day. With few frauds it is below 1.",
    ),
    "log_loss": ("log loss", "How far the scores are from the truth; overconfident ones cost most. Lower is better."),
    "brier": ("Brier", "The mean squared difference between score and truth. Lower is better."),
    "failed": ("failed", "Payments that the component could not score."),
}
RUN: Final = {
    "source": "The data that were scored.",
    "from": "Event time of the first measured payment.",
    "to": "Event time of the last one.",
    "transactions": "Measured payments.",
    "label_delay_days": "When labels became known, if the file does not say it.",
    "model": "The pretrained model at the start.",
    "online": "Whether the online model learned and scored too.",
    "refit_every_days": "How often the pretrained model was trained again.",
    "duplicates": "Rows that repeat an earlier payment. They are not measured.",
    "reused_ids": "Payments under a transaction id that their card used before.",
    "review": "A payment with this score or more is reviewed.",
    "decline": "A payment with this score or more is declined.",
}


def report(result: Result, compared: Result | None = None, changes: str = "", title: str = "") -> str:
    """Return the page; `compared` is another run to compare with, `changes` is HTML about both.

    Without a title, it is the report of a backtest.
    """
    parts = [
        _answer(result),
        changes,
        _alerts(result.figures),
        _components(result.figures),
        _comparison(result, compared),
        _charts(result, compared),
        _refits(result),
        _run(result),
    ]
    return page(title or f"Backtest of {result.run.get('source', 'a run')}", "".join(parts))


def _answer(result: Result) -> str:
    figures = result.figures
    said = ""
    if figures.operating is not None:
        words = answer.sentence(figures.operating, figures.frauds, figures.rows)
        said = f'<p class="answer">{escaped(f"{words[:1].upper()}{words[1:]}.")}</p>\n'
    return said + "".join(f'<p class="warning">{escaped(warning)}.</p>\n' for warning in result.warnings)


def _alerts(figures: Figures) -> str:
    parts = ""
    for one in answer.tables(figures):
        marked = [number for number, row in enumerate(one.rows) if one.marks(row)]
        parts += section(one.title, one.meaning, table(one.head, one.rows, marked=marked))
    return parts


def _components(figures: Figures) -> str:
    if not figures.components:
        return ""
    rows = [
        [title, *(getattr(found, key) for found in figures.components.values())] for key, (title, _) in FIGURES.items()
    ]
    meanings = "".join(
        f"<li><strong>{title}</strong>: {escaped(meaning)}</li>\n" for title, meaning in FIGURES.values()
    )
    return section(
        "How good each component is",
        "The service decides with the blended score, of the pretrained model and the online model.",
        table(["figure", *figures.components], rows) + f'<ul class="note">\n{meanings}</ul>\n',
    )


def _comparison(result: Result, compared: Result | None) -> str:
    if compared is None:
        return ""
    models = f" ({', '.join(compared.models)})" if compared.models else ""
    rows: list[Sequence[Any]] = []
    for name, found in result.figures.components.items():
        other = compared.figures.components.get(name)
        for key, (title, _) in FIGURES.items():
            here, there = getattr(found, key), getattr(other, key, None)
            difference = "" if here is None or there is None else f"{here - there:+.4f}"
            rows.append([f"{name}, {title}", here, there, difference])
    return section(
        f"Compared with {compared.run.get('source', 'another run')}{models}",
        "The difference is that of this run minus the other.",
        table(["figure", "this run", "other run", "difference"], rows),
    )


def _charts(result: Result, compared: Result | None) -> str:
    if not result.figures.components:
        return "<p>There is nothing to draw: no transaction has a label.</p>\n"
    return f'<div class="charts">\n{"".join(charts(result, compared))}</div>\n'


def _refits(result: Result) -> str:
    if not result.refits:
        return ""
    names = list(result.refits[0])
    rows = [[refit.get(name) for name in names] for refit in result.refits]
    return section(
        "Re-fits",
        "Each time a challenger was trained on the newest labels. It was promoted if its average precision was better "
        "than that of the champion by more than the margin.",
        table([name.replace("_", " ") for name in names], rows),
    )


def _run(result: Result) -> str:
    figures = result.figures
    facts: list[Sequence[Any]] = [
        (name.replace("_", " "), _fact(value), RUN.get(name, "")) for name, value in result.run.items()
    ]
    labelled = f"{figures.rows:,}, {figures.frauds:,} of them frauds"
    facts.append(("labelled", labelled, "Measured payments whose truth is known."))
    return section("The run", "", table([], facts))


def _fact(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else value
