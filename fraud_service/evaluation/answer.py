"""The answer of a run in words: one sentence, and tables of it, for the terminal and for the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fraud_service.domain.text import money
from fraud_service.domain.time import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fraud_service.evaluation.alerts import AlertVolume, FraudCase
    from fraud_service.evaluation.metrics import Figures, Result

MAX_SAID: Final = 3  # currencies in the sentence
UNKNOWN: Final = "-"
MARK: Final = "<- "
RANKING: Final = {"average_precision": "AP", "auc_roc": "AUC ROC", "card_precision_100": "CP@100"}


class AnswerTable(NamedTuple):
    """A table with its title, and what its columns mean."""

    title: str
    meaning: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    @staticmethod
    def marks(row: Sequence[str]) -> bool:
        """Whether a row is that of a threshold that is set."""
        return row[-1].startswith(MARK)


def sentence(found: AlertVolume, frauds: int, labelled: int) -> str:
    """Say what the alerts caught, as in "caught 121 of 188 frauds and 84.8 % of the money with 12.8 alerts a day"."""
    volume = f"{found.alerts_a_day:,.1f} alerts a day"
    if not labelled:
        return f"raised {volume}; no payment has a label, so it is unknown what they caught"
    if not frauds:
        false = found.alerts - found.unlabelled
        return f"raised {volume}, {false:,} of them on labelled payments and false; no payment is labelled as fraud"
    said = f"caught {found.caught:,} of {frauds:,} frauds{_money(found)} with {volume}"
    if found.precision is None:
        return said
    if not found.unlabelled:
        return f"{said}; {percent(found.precision)} of alerts are right"
    return (
        f"{said}; {percent(found.precision)} of the labelled alerts are right, and {found.unlabelled:,} of "
        f"{found.alerts:,} alerts have no label"
    )


def _money(found: AlertVolume) -> str:
    """Say the share of the money, for each currency: there is no sum of several."""
    known = [(name, one.share) for name, one in found.money.items() if one.share is not None]
    if not known:
        return ""
    if len(found.money) == 1:
        return f" and {percent(known[0][1], 1)} of the money"
    shares = [f"{percent(share, 1)} of the money in {name}" for name, share in known[:MAX_SAID]]
    if len(known) > MAX_SAID:
        shares.append(f"and {len(known) - MAX_SAID} other currencies")
    return f" ({', '.join(shares)})"


def percent(share: float | None, decimals: int = 0) -> str:
    """Write a share. It never rounds to nothing or all what is not.

    >>> percent(0.8604), percent(0.8482, 1), percent(0.9999), percent(0.0001, 1), percent(None)
    ('86 %', '84.8 %', 'over 99 %', 'under 0.1 %', '-')
    """
    if share is None:
        return UNKNOWN
    step = 10.0**-decimals
    written = f"{100 * share:.{decimals}f}"
    if share < 1 and written == f"{100:.{decimals}f}":
        return f"over {100 - step:.{decimals}f} %"
    if share > 0 and not float(written):
        return f"under {step:.{decimals}f} %"
    return f"{written} %"


def tables(figures: Figures) -> Iterator[AnswerTable]:
    """Yield the tables about alerts, those that have rows."""
    if figures.thresholds:
        yield _thresholds(figures)
    for currency, found in figures.largest.items():
        of = f" in {currency}" if len(figures.largest) > 1 else ""
        for title, meaning, cases in (
            (f"Largest frauds caught{of}", "The strongest reason is that of the alert.", found.caught),
            (f"Largest frauds missed{of}", "Their scores were below the review threshold.", found.missed),
        ):
            if cases:
                yield AnswerTable(title, meaning, ("transaction", "time", "amount", "score", "reason"), _cases(cases))


def _thresholds(figures: Figures) -> AnswerTable:
    currencies = list(figures.thresholds[0].money)
    values = [f"value {name}" for name in currencies] if len(currencies) > 1 else ["value"]
    meaning = (
        "Each row says what alerts at this threshold would catch: the share of frauds (recall), the share of alerts "
        "that are right (precision), the share of the fraud amount (value), and how many cards with a false alert "
        "(customers bothered). The thresholds that are set are marked."
    )
    rows = [
        (
            f"{one.threshold:g}",
            f"{one.alerts_a_day:,.1f}",
            percent(one.recall, 1),
            percent(one.precision, 1),
            *([percent(one.money[name].share, 1) for name in currencies] or [UNKNOWN]),
            f"{one.cards_bothered:,}",
            f"{MARK}{one.setting}" if one.setting else "",
        )
        for one in figures.thresholds
    ]
    head = ("threshold", "alerts a day", "recall", "precision", *values, "customers bothered", "")
    return AnswerTable("Other thresholds", meaning, head, rows)


def _cases(cases: Sequence[FraudCase]) -> list[tuple[str, ...]]:
    return [
        (
            one.transaction_id,
            rfc3339(one.timestamp),
            money(one.amount, one.currency),
            f"{one.score:.3f}",
            one.reason or UNKNOWN,
        )
        for one in cases
    ]


def text(result: Result) -> Iterator[str]:
    """Yield the lines that a backtest prints: how well the scores rank, tables, and the sentence at the end."""
    figures, run = result.figures, result.run
    if figures.components:
        names = [*RANKING.values()]
        rows = [
            (name, *(_figure(getattr(one, figure)) for figure in RANKING)) for name, one in figures.components.items()
        ]
        yield from _lines(AnswerTable("How well the scores rank frauds", "", ("component", *names), rows))
    for table in tables(figures):
        yield from _lines(table)
    said = " · ".join(
        f"{name.replace('_', ' ')} {'yes' if value is True else value:}" for name, value in run.items() if value
    )
    yield said
    if figures.operating is not None:
        yield sentence(figures.operating, figures.frauds, figures.rows)


def _figure(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"


def _lines(table: AnswerTable) -> Iterator[str]:
    """Yield a table in columns: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (table.head, *table.rows)) for place in range(len(table.head))]
    yield table.title
    for row in (table.head, *table.rows):
        cells = [
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()
    yield ""
