from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import chart

pytestmark = pytest.mark.attack

EVERYTHING: dict[str, Any] = {
    "kafka": {
        "tls": {"enabled": True, "caSecret": "authority", "clientSecret": "certificate"},
        "sasl": {"enabled": True, "secret": "login"},
    },
    **{name: {"enabled": True} for name in ("refit", "autoscaling", "serviceMonitor", "prometheusRule")},
}
PODS = chart.pods(chart.render(EVERYTHING))
every_pod = pytest.mark.parametrize("component", sorted(PODS))


def test_every_kind_of_pod_is_tested() -> None:
    assert sorted(PODS) == ["learner", "refit", "scorer", "test", "topics"]


@every_pod
def test_a_pod_fits_the_restricted_standard(component: str) -> None:
    """The controls of Kubernetes' Pod Security Standards, "restricted", as far as a chart can break them."""
    spec = PODS[component]["spec"]
    pod, mine = spec["securityContext"], chart.container(PODS[component])
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"} & set(spec)
    assert not any("hostPort" in port for port in mine.get("ports", []))
    assert pod["runAsNonRoot"] is True
    assert (pod["runAsUser"], pod["runAsGroup"]) == (10001, 10001)
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions"} & (set(pod) | set(mine))
    assert mine["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    kinds = {kind for volume in spec["volumes"] for kind in volume if kind != "name"}
    assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}


@every_pod
def test_a_pod_has_no_token_and_can_write_to_tmp(component: str) -> None:
    spec = PODS[component]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    mounts = {mount["mountPath"]: mount for mount in chart.container(PODS[component])["volumeMounts"]}
    (tmp,) = [volume for volume in spec["volumes"] if volume["name"] == mounts["/tmp"]["name"]]  # noqa: S108 - in a pod
    assert "emptyDir" in tmp
    secrets = set(chart.secrets(PODS[component]))
    assert len(secrets) == 3
    assert all(mount["readOnly"] for mount in mounts.values() if mount["name"] in secrets)


def test_no_account_has_a_token() -> None:
    assert chart.named(chart.render(), "ServiceAccount")["automountServiceAccountToken"] is False


@every_pod
def test_a_container_has_limits(component: str) -> None:
    resources = chart.container(PODS[component])["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_the_chart_creates_no_secret() -> None:
    assert "Secret" not in chart.kinds(chart.render(EVERYTHING))


def trivy(folder: Path, home: Path) -> list[tuple[str, str]]:
    """Return what the scanner finds, with the checks that it carries: none are fetched."""
    tool = Path(sys.executable).with_name("trivy")
    options = ["--skip-check-update", "--skip-version-check", "--quiet", "--cache-dir", home / "cache"]
    options += ["--helm-set", "networkPolicy.anyBroker=true,signing.secret=fraud-signing"]  # values without a default
    command = [tool, "config", *options, "--format", "json", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    results = json.loads(done.stdout).get("Results", [])
    assert any(result["MisconfSummary"]["Successes"] > 50 for result in results), done.stdout
    return [(result["Target"], one["ID"]) for result in results for one in result.get("Misconfigurations", [])]


# What the scanner may find, by the file it is found in; in the chart with little more than its default values, nothing.
EXCEPTIONS = {
    ("placement-values.yaml", "KSV-0125"): "registry.example is a placeholder for the registry of the installation",
    ("refit-values.yaml", "KSV-0125"): "the same",
    ("extras-values.yaml", "KSV-0125"): "the same",
    ("openshift-values.yaml", "KSV-0020"): "OpenShift chooses the user",
    ("openshift-values.yaml", "KSV-0021"): "and the group",
    ("settings-values.yaml", "KSV-01010"): "it takes numbers of several digits in a ConfigMap for secrets",
}


def test_trivy_finds_nothing_without_a_reason_in_the_chart_and_in_any_feature(tmp_path: Path) -> None:
    shutil.copytree(chart.CHART, tmp_path / "scanned/chart")
    features = {path.name: chart.render(chart.ci(path)) for path in chart.CI}
    features["everything.yaml"] = chart.render(EVERYTHING)
    for name, manifests in features.items():
        (tmp_path / "scanned" / name).write_text(yaml.safe_dump_all(manifests))
    assert set(trivy(tmp_path / "scanned", tmp_path)) == set(EXCEPTIONS)


def test_trivy_finds_a_planted_writable_root(tmp_path: Path) -> None:
    shutil.copytree(chart.CHART, tmp_path / "chart")
    values = tmp_path / "chart/values.yaml"
    text, changes = re.subn("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", values.read_text())
    values.write_text(text)
    assert changes == 1
    assert "templates/scorer.yaml" in {target for target, _ in trivy(tmp_path / "chart", tmp_path)}
