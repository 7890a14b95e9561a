"""Write the Grafana dashboards of the chart and the local stack.

``python ops/dashboards.py`` writes them. With ``--check`` it names the files that differ, and exits 1. Their content is
in `boards`.
"""

from __future__ import annotations

import argparse
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from boards import BOARDS
from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphThresholdsStyleMode,
    StackingMode,
)
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from boards.charts import Board, Chart, Limits, Query

FOLDER: Final = Path(__file__).resolve().parent.parent / "helm/fraud-service/dashboards"
RUNBOOK: Final = "https://github.com/fraud-service/fraud-service/blob/main/docs/runbook.md"
TAG: Final = "fraud-service"
SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${datasource}")
CHOSEN: Final = 'cluster=~"$cluster", namespace=~"$namespace", job=~"$job", pod=~"$pod"'
# Every process has this metric. Each variable offers the labels that are left after the ones before it.
VARIABLES: Final = {
    "cluster": "label_values(fraud_ready, cluster)",
    "namespace": 'label_values(fraud_ready{cluster=~"$cluster"}, namespace)',
    "job": 'label_values(fraud_ready{cluster=~"$cluster", namespace=~"$namespace"}, job)',
    "pod": 'label_values(fraud_ready{cluster=~"$cluster", namespace=~"$namespace", job=~"$job"}, pod)',
}
# A model is new for the first minutes, in which no process had it before.
PROMOTIONS: Final = (
    "count by (pretrained) (fraud_model_info{%}) unless count by (pretrained) (fraud_model_info{%} offset 5m)"
)
STARTS: Final = "1000 * max by (job, pod) (process_start_time_seconds{%})"
HEIGHTS: Final = {"number": 4}
HEIGHT: Final = 8

PanelBuilder = timeseries.Panel | stat.Panel | heatmap.Panel


class Annotation(AnnotationQuery):
    """Mark moments in every panel. Adds what Grafana asks of Prometheus, which the model lacks."""

    def __init__(self, name: str, expr: str, text: str, color: str, *, is_time: bool) -> None:
        super().__init__(name, SOURCE, icon_color=color, expr=expr.replace("%", CHOSEN))
        self._more = {"titleFormat": name, "textFormat": text, "step": "60s", "useValueForTime": is_time}

    def build(self) -> AnnotationQuery:
        """Return itself, as a builder does."""
        return self

    def to_json(self) -> dict[str, object]:
        """Return the fields for Grafana."""
        return super().to_json() | self._more


ANNOTATIONS: Final = (
    Annotation("Promotion", PROMOTIONS, "model {{pretrained}}", "purple", is_time=False),
    Annotation("Restart", STARTS, "{{job}} {{pod}}", "orange", is_time=True),
)


def files() -> dict[str, str]:
    """Return each dashboard: file name and text."""
    return {
        f"{board.uid}.json": JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(built(board).build())
        + "\n"
        for board in BOARDS
    }


def built(board: Board) -> dashboard.Dashboard:
    """Lay out a dashboard: variables, links to the others and to the runbook, annotations, panels in rows."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .editable()
        .refresh("30s")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Fraud service")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .link(dashboard.DashboardLink("Runbook").type(DashboardLinkType.LINK).url(RUNBOOK).target_blank(True))
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for name, query in VARIABLES.items():
        builder.with_variable(variable(name, query))
    for annotation in ANNOTATIONS:
        builder.annotation(annotation)
    number = count(1)
    for row in board.rows:
        builder.with_row(dashboard.Row(row.title).id(next(number)))
        for chart in row.charts:
            builder.with_panel(panel(chart, next(number)))
    return builder


def variable(name: str, query: str) -> dashboard.QueryVariable:
    """Make a variable. "All" also matches series without the label, as outside of Kubernetes."""
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .all_value(".*")
        .multi(True)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def panel(chart: Chart, number: int) -> PanelBuilder:
    """Make a panel."""
    made = drawn(chart)
    for place, query in enumerate(chart.queries):
        made.with_target(target(chart, query, chr(ord("A") + place)))
    return (
        made.id(number)
        .title(chart.title)
        .description(chart.description)
        .datasource(SOURCE)
        .unit(chart.unit)
        .span(chart.span)
        .height(HEIGHTS.get(chart.kind, HEIGHT))
    )


def drawn(chart: Chart) -> PanelBuilder:
    """Choose the kind of panel, with colours at its limits."""
    if chart.kind == "heatmap":
        return heatmap.Panel().calculate(False)
    if chart.kind == "number":
        return (
            stat.Panel()
            .graph_mode(BigValueGraphMode.NONE)
            .color_mode(BigValueColorMode.BACKGROUND if chart.limits else BigValueColorMode.NONE)
            .thresholds(thresholds(chart.limits))
            .text_mode(BigValueTextMode.AUTO if len(chart.queries) == 1 else BigValueTextMode.VALUE_AND_NAME)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        )
    lines = timeseries.Panel().fill_opacity(10).min(0).thresholds(thresholds(chart.limits))
    if chart.limits:
        lines.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    if chart.kind == "stacked":
        lines.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return lines


def thresholds(limits: Limits | None) -> dashboard.ThresholdsConfig:
    """Make the colours of a panel. Without limits it has one, because Grafana would turn it red from 80 up."""
    steps = limits.steps() if limits else [(None, "green")]
    return (
        dashboard.ThresholdsConfig()
        .mode(ThresholdsMode.ABSOLUTE)
        .steps([Threshold(value, color) for value, color in steps])
    )


def target(chart: Chart, query: Query, name: str) -> prometheus.Dataquery:
    """Make a query of a panel."""
    made = prometheus.Dataquery().ref_id(name).expr(query.expr.replace("%", CHOSEN)).legend_format(query.legend)
    if chart.kind == "heatmap":
        made.format(PromQueryFormat.HEATMAP)
    return made.instant() if chart.kind == "number" else made.range()


def differences(folder: Path) -> list[str]:
    """Return the names of files that are missing, differ, or belong to no dashboard."""
    wanted = files()
    there = {path.name for path in folder.glob("*.json")}
    changed = {name for name, text in wanted.items() if not _holds(folder / name, text)}
    return sorted(changed | (there - set(wanted)))


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def write(folder: Path) -> list[str]:
    """Update a folder, and return the names that it wrote or removed."""
    wanted, changed = files(), differences(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in wanted:
            (folder / name).write_bytes(wanted[name].encode())
        else:
            (folder / name).unlink()
    return changed


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check, and return the exit status."""
    parser = argparse.ArgumentParser(description="Write the Grafana dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something differs")
    is_check = parser.parse_args(arguments).check
    changed = differences(FOLDER) if is_check else write(FOLDER)
    for name in changed:
        sys.stdout.write(f"{name} {'differs: run `python ops/dashboards.py`' if is_check else 'written'}\n")
    return int(is_check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
