"""The metrics of each process, with their labels and meaning, as the code makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.snapshot import untrained
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics, StreamMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Counter, Gauge, Histogram, Info


class MetricRow(NamedTuple):
    """One metric as exposed."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class _Recorder(Metrics):
    """Metrics that record their constructor arguments, because the registry does not expose label names."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[MetricRow] = []

    def counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        self.rows.append(MetricRow(f"{name}_total", "counter", tuple(labels), text))
        return super().counter(name, text, **labels)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        self.rows.append(MetricRow(name, "gauge", labels, text))
        return super().gauge(name, text, *labels)

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        self.rows.append(MetricRow(name, "histogram", labels, text))
        return super().histogram(name, text, buckets, *labels)

    def info(self, name: str, text: str) -> Info:
        self.rows.append(MetricRow(f"{name}_info", "info", (), text))
        return super().info(name, text)


def metric_rows(kind: type[StreamMetrics]) -> list[MetricRow]:
    """Return the metrics of scorer or learner, in the order in which they are made."""
    recorder = _Recorder()
    made = kind(recorder)
    if isinstance(made, ScorerMetrics):  # the labels of an info metric appear with its value
        made.show_snapshot(untrained("", OnlineModel.untrained()))
    found = {sample.name: sample.labels for family in recorder.registry.collect() for sample in family.samples}
    return [row._replace(labels=tuple(found[row.name])) if row.kind == "info" else row for row in recorder.rows]
