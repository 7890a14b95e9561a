"""Parts of a dashboard, and expressions that several panels share.

`%` in a query stands for the variables that select an installation and its pods. Queries use no recording rules, so the
dashboards also work without them.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple


class Query(NamedTuple):
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str = ""


class Limits(NamedTuple):
    """Values from which a panel turns yellow and red. If `red` is the smaller one, low values are bad."""

    yellow: float | None = None
    red: float | None = None

    def steps(self) -> list[tuple[float | None, str]]:
        """Return the colours from the lowest value up. The first has no value."""
        if self.yellow is not None and self.red is not None and self.red < self.yellow:
            return [(None, "red"), (self.red, "yellow"), (self.yellow, "green")]
        above = [(self.yellow, "yellow"), (self.red, "red")]
        return [(None, "green"), *(step for step in above if step[0] is not None)]


class Chart(NamedTuple):
    """One panel. `span` is its width in 24ths of the row."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "stacked", "number", "heatmap"] = "lines"
    span: int = 8
    limits: Limits | None = None


class Row(NamedTuple):
    """A titled row of panels."""

    title: str
    charts: tuple[Chart, ...]


class Board(NamedTuple):
    """One dashboard. Its uid is part of its URL and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]


def quantiles(metric: str, *shares: float, window: str = "$__rate_interval") -> tuple[Query, ...]:
    """Return the quantiles of a histogram over all pods."""
    buckets = f"sum by (le) (rate({metric}_bucket{{%}}[{window}]))"
    return tuple(Query(f"histogram_quantile({share}, {buckets})", f"p{100 * share:g}") for share in shares)


def per_second(metric: str, by: str, matchers: str = "", window: str = "$__rate_interval") -> str:
    """Return the rate of a counter, summed."""
    return f"sum by ({by}) (rate({metric}{{{matchers}%}}[{window}]))"


def share(part: str, whole: str, window: str = "$__rate_interval") -> str:
    """Return the ratio of two counters, over all pods."""
    return f"sum(rate({part}[{window}])) / sum(rate({whole}[{window}]))"


CAUGHT: Final = 'fraud_labelled_decisions_total{outcome!="approve", is_fraud="true", %}'
DECISIONS: Final = 'fraud_labelled_decisions_total{outcome!="approve", %}'
AGE: Final = "max(fraud_event_time_seconds{%})"
