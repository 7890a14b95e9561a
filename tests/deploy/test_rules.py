"""Recording rules and alerts: sound, tested, and explained to whom they wake."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from support import observed
from support.prometheus import program

ROOT = Path(__file__).parents[2]
TESTS = sorted((ROOT / "tests/deploy/rules").glob("*.yaml"))
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
ALERTS = observed.alerts()
SEVERITIES = {"critical", "warning"}


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        [program("promtool"), *arguments], cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_the_rules():
    assert f"{len(observed.rules())} rules found" in promtool("check", "rules", str(observed.RULES))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_fire_exactly_when_they_should(path):
    assert "SUCCESS" in promtool("test", "rules", str(path))


def cases() -> dict[str, list[int]]:
    """Return how many alerts each test expects, by the name of the alert."""
    found: dict[str, list[int]] = {name: [] for name in ALERTS}
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for case in test["alert_rule_test"]:
                found[case["alertname"]].append(len(case["exp_alerts"]))
    return found


def test_every_alert_is_tested_to_fire_and_not_to_fire():
    tested = cases()
    assert len(ALERTS) >= 12
    assert {name for name, expected in tested.items() if not any(expected)} == set()
    assert {name for name, expected in tested.items() if all(expected)} == set()


def test_every_alert_has_severity_summary_and_runbook_link():
    for name, rule in ALERTS.items():
        assert rule["labels"] == {"severity": rule["labels"]["severity"]}
        assert rule["labels"]["severity"] in SEVERITIES
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, name
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/runbook.md#{name.lower()}")


def test_every_alert_has_a_section_in_the_runbook_and_every_section_an_alert():
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(ALERTS)
    for name, text in sections.items():
        assert "**It means**" in text, name
        assert "**Look" in text, name
        assert re.search(r"\*\*Do\*\*|and do\*\*", text), name


def test_links_within_the_runbook_are_valid():
    links = re.findall(r"\]\(#(\w+)\)", RUNBOOK)
    assert len(links) > 10
    assert set(links) <= {name.lower() for name in ALERTS}
    assert all((ROOT / "docs" / file).is_file() for file in re.findall(r"\]\(([\w-]+\.md)", RUNBOOK))


def test_a_second_parser_reads_every_expression():
    for rule in observed.rules():
        promql_parser.parse(rule["expr"])
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("sum(fraud_ready")


def test_no_rule_mixes_two_clusters_that_have_a_namespace_of_the_same_name():
    for rule in observed.rules():
        labels = re.findall(r"\b(?:by|on) \(([^)]*)\)", rule["expr"])
        assert all(names.startswith("cluster, namespace") for names in labels), rule
        grouped = re.findall(r"\b(?:sum|max|min|avg|count)\b(?! by)", re.sub(r'"[^"]*"', "", rule["expr"]))
        assert not grouped, rule


def test_every_recording_rule_is_used_by_an_alert():
    recorded = {rule["record"] for rule in observed.rules() if "record" in rule}
    used = {name for rule in observed.rules() for name, _ in observed.selectors(rule["expr"])}
    assert recorded - used == set()
