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


class Chart(NamedTuple):
    """One panel. `span` is its width in 24ths of the row."""

    title: str
    unit: str
    description: str
    queries: tuple[Query, ...]
    kind: Literal["lines", "stacked", "number", "heatmap"] = "lines"
    span: int = 8


class Board(NamedTuple):
    """One dashboard. Its uid is part of its URL and never changes."""

    uid: str
    title: str
    description: str
    charts: tuple[Chart, ...]


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
