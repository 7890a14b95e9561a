"""Metrics, alerts and dashboards of the chart: thresholds, switches, links and the cluster come from values."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import chart, observed
from support.prometheus import program

if TYPE_CHECKING:
    from pathlib import Path

MONITORING = chart.ci(chart.CHART / "ci/monitoring-values.yaml")
PLACEHOLDER = "github.com/fraud-service"


def alerts(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rule = chart.named(chart.render(chart.merged({"prometheusRule": {"enabled": True}}, values)), "PrometheusRule")
    return {one["alert"]: one for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one}


def test_the_cluster_is_a_label_of_every_metric() -> None:
    (endpoint,) = chart.named(chart.render(MONITORING), "ServiceMonitor")["spec"]["endpoints"]
    cluster, own = endpoint["relabelings"]
    assert cluster == {"targetLabel": "cluster", "replacement": "eu-1"}
    assert own == MONITORING["serviceMonitor"]["relabelings"][0]
    assert endpoint["metricRelabelings"] == MONITORING["serviceMonitor"]["metricRelabelings"]
    (plain,) = chart.named(chart.render({"serviceMonitor": {"enabled": True}}), "ServiceMonitor")["spec"]["endpoints"]
    assert not {"relabelings", "metricRelabelings"} & set(plain)


def test_without_changes_the_rules_are_those_of_the_file() -> None:
    rule = chart.named(chart.render({"prometheusRule": {"enabled": True}}), "PrometheusRule")
    assert rule["spec"] == yaml.safe_load(observed.RULES.read_text())


def test_alerts_can_be_switched_off_or_changed_one_by_one() -> None:
    plain, changed = alerts({}), alerts(MONITORING)
    assert set(plain) - set(changed) == {"FraudNoTransactions"}
    lag = changed["FraudScorerLagGrowing"]
    assert (lag["for"], lag["expr"]) == ("2m", plain["FraudScorerLagGrowing"]["expr"].replace("> 60 #", "> 30 #"))
    assert changed["FraudRecordsForged"]["labels"]["severity"] == "critical"
    assert {one["labels"]["team"] for one in changed.values()} == {"payments"}
    assert changed["FraudScorerDown"]["expr"] == plain["FraudScorerDown"]["expr"]


THRESHOLDS = {
    (name, threshold)
    for name, rule in observed.alerts().items()
    for threshold in re.findall(r"[0-9.]+ # (\w+)$", rule["expr"], re.MULTILINE)
}


def test_a_value_changes_every_place_of_its_threshold_and_nothing_else() -> None:
    assert len(THRESHOLDS) > 20
    changes: dict[str, dict[str, float]] = {}
    for number, (name, threshold) in enumerate(sorted(THRESHOLDS)):
        changes.setdefault(name, {})[threshold] = 1_000_000.5 + number
    changed = alerts({"prometheusRule": {"alerts": changes}})
    for name, rule in observed.alerts().items():
        wanted = rule["expr"]
        for threshold, value in changes.get(name, {}).items():
            wanted = re.sub(rf"[0-9.]+ # {threshold}\b", f"{value} # {threshold}", wanted)
        assert changed[name]["expr"] == wanted
        assert observed.selectors(wanted) == observed.selectors(rule["expr"])


def test_every_alert_with_a_threshold_has_a_value_for_it() -> None:
    without = {name for name in observed.alerts() if name not in {alert for alert, _ in THRESHOLDS}}
    assert without == {
        "FraudScorerDown", "FraudNoTransactions", "FraudProcessNotReady", "FraudLearnerDown",  # up or down
        "FraudManyCards",  # FRAUD_CARDS_PER_PARTITION is its threshold
        "FraudOnlineModelOff", "FraudRecordsRejected", "FraudRecordsForged",  # one is too many
    }  # fmt: skip


def test_no_text_of_an_alert_repeats_a_number_that_values_can_change() -> None:
    for name, rule in observed.alerts().items():
        for text in rule["annotations"]["summary"], rule["annotations"]["description"]:
            fixed = re.sub(
                r"\{\{.*?\}\}|250 ms|At 10 s|At 0 the|\(0 is equal, 1 is disjoint\)|within 30 minutes", "", text
            )
            assert not re.search(r"\d", fixed), (name, fixed)


LATE = """
rule_files: [rules.yaml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {series: 'fraud_ready{role="scorer", namespace="p", job="s", instance="i"}', values: 1x60}
      - {series: 'fraud_lag_seconds{namespace="p", job="s", instance="i"}', values: 0+1x60}
    alert_rule_test:
      - {eval_time: 45m, alertname: FraudScorerLagGrowing, exp_alerts: EXPECTED}
"""


@pytest.mark.parametrize("is_changed", [False, True])
def test_prometheus_fires_at_the_threshold_of_the_values(tmp_path: Path, *, is_changed: bool) -> None:
    values = MONITORING if is_changed else {"prometheusRule": {"enabled": True}}
    rules = chart.named(chart.render(values), "PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    annotations = alerts(values)["FraudScorerLagGrowing"]["annotations"] | {
        "description": "i works on transactions 40s old, and the lag grows."
    }
    if is_changed:
        query = "var-cluster=&var-namespace=p"
        annotations["dashboard_url"] = f"https://grafana.example/d/fraud-service-overview?{query}"
    labels = {"severity": "critical", "namespace": "p", "job": "s", "instance": "i", "team": "payments"}
    expected = json.dumps([{"exp_labels": labels, "exp_annotations": annotations}] if is_changed else [])
    (tmp_path / "test.yaml").write_text(LATE.replace("EXPECTED", expected))
    command = [program("promtool"), "test", "rules", str(tmp_path / "test.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_links_lead_to_the_runbook_and_the_grafana_of_the_values() -> None:
    manifests = chart.render(MONITORING)
    boards = chart.named(manifests, "ConfigMap", "-dashboards")["data"]
    assert PLACEHOLDER not in json.dumps(manifests)
    assert all('"url": "https://wiki.example/fraud"' in board for board in boards.values())
    uids = {json.loads(board)["uid"] for board in boards.values()}
    for name, alert in alerts(MONITORING).items():
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/fraud#{name.lower()}"
        address, _, query = alert["annotations"]["dashboard_url"].partition("?")
        assert address.removeprefix("https://grafana.example/d/") in uids
        assert query == "var-cluster={{ $labels.cluster }}&var-namespace={{ $labels.namespace }}"
    assert all("dashboard_url" not in alert["annotations"] for alert in alerts({}).values())
