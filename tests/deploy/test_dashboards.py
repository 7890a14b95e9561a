"""The dashboards: as the generator writes them, explained, linked, and of metrics that exist."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support import observed

from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics, TokenizerMetrics

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
KINDS = (ScorerMetrics, LearnerMetrics, TokenizerMetrics)
FROM_PROMETHEUS = {"up"}  # made by the one who scrapes
CHOSEN = ("cluster", "namespace", "job", "pod")
SAMPLES = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def generator():
    sys.path.insert(0, str(OPS))
    try:
        yield importlib.import_module("dashboards")
    finally:
        sys.path.remove(str(OPS))


def test_the_files_are_what_the_generator_writes():
    command = [sys.executable, str(OPS / "dashboards.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_check_names_missing_changed_and_stale_files(generator, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generator, "FOLDER", tmp_path)
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "fraud-service-models.json").write_text("by hand")
    (tmp_path / "fraud-service-runtime.json").unlink()
    (tmp_path / "old.json").write_text("{}")
    capsys.readouterr()
    assert generator.main(["--check"]) == 1
    named = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert named == ["fraud-service-models.json", "fraud-service-runtime.json", "old.json"]
    assert generator.write(tmp_path) == named
    assert generator.differences(tmp_path) == []


def test_every_panel_has_a_description_and_a_unit():
    panels = observed.panels()
    assert len(panels) > 40
    for name, panel in panels:
        assert len(panel["description"]) > 10, name
        assert panel["fieldConfig"]["defaults"]["unit"], name
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, name
        assert panel["targets"], name


def test_dashboard_addresses_are_stable_and_dashboards_link_to_each_other():
    boards = observed.dashboards()
    assert {board["uid"] for board in boards} == {
        f"fraud-service-{name}" for name in ("overview", "models", "runtime", "business")
    }
    for board in boards:
        others, runbook = board["links"]
        assert (others["type"], others["tags"], others["includeVars"]) == ("dashboards", board["tags"], True)
        assert runbook["url"].endswith("/docs/runbook.md")
        assert board["description"]


def test_panels_have_unique_ids_and_do_not_overlap():
    for board in observed.dashboards():
        assert max(Counter(panel["id"] for panel in board["panels"]).values()) == 1
        cells = Counter(
            (place["x"] + x, place["y"] + y)
            for place in (panel["gridPos"] for panel in board["panels"])
            for x in range(place["w"])
            for y in range(place["h"])
        )
        assert max(cells.values()) == 1, board["title"]
        assert max(x for x, _ in cells) == 23, board["title"]


def test_every_panel_can_select_an_installation_and_its_pods():
    for board in observed.dashboards():
        names = [variable["name"] for variable in board["templating"]["list"]]
        assert names == ["datasource", *CHOSEN]
    for name, expression in observed.expressions():
        asked = observed.selectors(expression)
        assert asked, name
        for _, selector in asked:
            assert all(f'{label}=~".*"' in selector for label in CHOSEN), selector


def test_each_variable_offers_only_what_is_left_by_those_before_it():
    for board in observed.dashboards():
        _, *variables = board["templating"]["list"]
        for number, variable in enumerate(variables):
            asked = re.findall(r'(\w+)=~"\$\1"', variable["query"])
            assert asked == list(CHOSEN[:number]), variable["query"]
            assert variable["allValue"] == ".*"  # also series without the label


def test_every_panel_is_in_a_titled_row():
    for board in observed.dashboards():
        assert board["panels"][0]["type"] == "row"
        rows = [panel for panel in board["panels"] if panel["type"] == "row"]
        assert len(rows) >= 3
        assert all(row["title"] and row["gridPos"]["w"] == 24 for row in rows)
        kinds = "".join("r" if panel["type"] == "row" else "p" for panel in board["panels"])
        assert "rr" not in kinds
        assert kinds.endswith("p")


def test_every_dashboard_marks_promotions_and_restarts():
    for board in observed.dashboards():
        promotion, restart = board["annotations"]["list"]
        assert (promotion["name"], restart["name"]) == ("Promotion", "Restart")
        assert all(mark["enable"] and mark["datasource"]["uid"] == "${datasource}" for mark in (promotion, restart))
        assert "fraud_model_info" in promotion["expr"]
        assert restart["useValueForTime"]
        assert restart["expr"].startswith("1000 * max by (job, pod) (process_start_time_seconds{")


def colors(panel):
    """Return the value from which each colour holds; the first has none."""
    return {step["color"]: step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]}


# What can go wrong, by the alert whose threshold is the red line.
RED = {
    "Overview / Lag": ("FraudScorerLagGrowing", "lagSeconds"),
    "Overview / Lag by process": ("FraudLearnerLagGrowing", "lagSeconds"),
    "Models / Drift of scores": ("FraudScoreDrift", "distance"),
    "Runtime / Age of the snapshot": ("FraudSnapshotOld", "seconds"),
    "Runtime / Decisions on an old snapshot": ("FraudOnlineModelStale", "share"),
}


def test_colours_change_where_alerts_fire():
    panels = {name.removeprefix("Fraud service / "): panel for name, panel in observed.panels()}
    for name, (alert, threshold) in RED.items():
        (number,) = set(re.findall(rf"([0-9.]+) # {threshold}$", observed.alerts()[alert]["expr"], re.MULTILINE))
        assert colors(panels[name])["red"] == float(number), name
    assert colors(panels["Runtime / State volume in use"])["red"] == pytest.approx(1 - 0.1)
    assert colors(panels["Runtime / Checkpoints"])["yellow"] == 5
    assert colors(panels["Overview / Latency of decisions"]) == {"green": None, "red": 0.25}
    assert colors(panels["Overview / In time"]) == {"red": None, "yellow": 0.99, "green": 0.995}
    assert colors(panels["Overview / Ready"]) == {"red": None, "yellow": 0.5, "green": 1}
    assert colors(panels["Overview / Dead letters"])["yellow"] == 1


def test_limits_are_drawn_and_a_panel_without_limits_has_one_colour():
    for name, panel in observed.panels():
        if panel["type"] == "heatmap":
            continue
        has_limits = len(colors(panel)) > 1
        if panel["type"] == "stat":
            assert panel["options"]["colorMode"] == ("background" if has_limits else "none"), name
        else:
            style = panel["fieldConfig"]["defaults"]["custom"].get("thresholdsStyle", {"mode": "off"})
            assert style["mode"] == ("dashed" if has_limits else "off"), name


def test_the_tests_replace_every_grafana_variable():
    assert [text for _, text in observed.expressions() if "$" in text] == []


def exposed() -> set[str]:
    """Return the metrics of all processes, those of the Prometheus client included."""
    found = set()
    for kind in KINDS:
        metrics = Metrics()
        kind(metrics)
        for family in metrics.registry.collect():
            suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
            found.add(family.name + suffix)
    return found


def asked(*, with_rules: bool = True) -> set[str]:
    """Return the metrics that dashboards and rules name, without what rules record."""
    recorded = {rule["record"] for rule in observed.rules() if "record" in rule}
    texts = [text for _, text in observed.expressions()]
    texts += [rule["expr"] for rule in observed.rules() if with_rules]
    names = {name for text in texts for name, _ in observed.selectors(text)} - recorded - FROM_PROMETHEUS
    histograms = {name for name in exposed() if not name.endswith(("_total", "_info"))}
    return {base if (base := SAMPLES.sub("", name)) in histograms else name for name in names}


def test_every_metric_named_in_a_dashboard_or_rule_exists():
    assert asked() - exposed() == set()


def test_every_metric_of_the_service_is_on_a_panel():
    ours = {name for name in exposed() if name.startswith("fraud_")}
    assert len(ours) > 55
    assert ours - asked(with_rules=False) == set()


def test_every_label_of_a_query_exists():
    known = {"cluster", "namespace", "job", "pod", "instance", "le"}
    for kind in KINDS:
        metrics = Metrics()
        kind(metrics)
        for family in metrics.registry.collect():
            known |= {label for sample in family.samples for label in sample.labels}
    known |= {"currency", "partition", "pretrained"}  # their series begin with their first value
    texts = [text for _, text in observed.expressions()] + [rule["expr"] for rule in observed.rules()]
    named = {
        label.strip()
        for text in texts
        for group in re.findall(r"(?:by|on|group_left) \(([^)]*)\)", text)
        for label in group.split(",")
        if label.strip()
    }
    named |= {label for text in texts for label in re.findall(r"(\w+)(?:=~|!=|!~|=)\"", text)}
    assert len(named) > 8
    assert named - known == set()
