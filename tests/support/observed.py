"""The queries of the committed dashboards and rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = Path(__file__).parents[2] / "helm/fraud-service"
RULES = CHART / "rules/fraud-service.yaml"
# The values that Grafana uses with "All" selected, on a range of some minutes.
VARIABLES = {
    "$cluster": ".*",
    "$namespace": ".*",
    "$job": ".*",
    "$pod": ".*",
    "$__rate_interval": "30s",
    "$__range": "5m",
}


def rules() -> list[dict[str, Any]]:
    """Return all recording rules and alerts."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((CHART / "dashboards").glob("*.json"))]


def panels() -> list[tuple[str, dict[str, Any]]]:
    """Return every panel but the titles of rows, named by its dashboard and its title."""
    return [
        (f"{board['title']} / {panel['title']}", panel)
        for board in dashboards()
        for panel in board["panels"]
        if panel["type"] != "row"
    ]


def queries() -> list[tuple[str, str]]:
    """Return every expression of a panel or annotation with its name."""
    marks = [
        (f"{board['title']} / {mark['name']}", mark["expr"])
        for board in dashboards()
        for mark in board["annotations"]["list"]
    ]
    return marks + [(name, target["expr"]) for name, panel in panels() for target in panel["targets"]]


def expressions() -> list[tuple[str, str]]:
    """Return the same with their variables filled in."""
    return [(name, filled(expression)) for name, expression in queries()]


def filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def selectors(expression: str) -> set[tuple[str, str]]:
    """Return the metrics of an expression, each with its matchers but without window and offset.

    Raises
    ------
    ValueError
        When the expression is not valid PromQL.
    """
    return {(node.name, f"{node.name}{node.matchers}") for node in _nodes(promql_parser.parse(expression))}


def _nodes(node: Any) -> Iterator[Any]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
        return
    inner = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector")]
    for child in [*inner, *(getattr(node, "args", None) or [])]:
        if child is not None:
            yield from _nodes(child)
