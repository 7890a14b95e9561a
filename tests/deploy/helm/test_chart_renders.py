from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart
from helm_python.chart import lint
from helm_python.errors import HelmRenderError
from hypothesis import given, settings
from hypothesis import strategies as st
from support import chart, observed

WARNING = 2  # Helm's number of the lowest severity that fails with --strict
by_feature = pytest.mark.parametrize(
    "path", chart.CI, ids=[path.name.removesuffix("-values.yaml") for path in chart.CI]
)


def switches(values: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], bool]:
    """Return every `enabled` of the values with its default."""
    found: dict[tuple[str, ...], bool] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= switches(value, (*path, name))
        elif name == "enabled":
            found[*path, name] = value
    return found


SWITCHES = switches(chart.loaded().values)


def switched(positions: dict[tuple[str, ...], bool]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "kafka": {"sasl": {"secret": "login"}},
        "tokenizer": {"keysSecret": "tokens", "sharesKafkaUser": True},
    }
    for path, position in positions.items():
        place = values
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place["enabled"] = position
    return values


@by_feature
def test_strict_lint_finds_nothing(path: Path) -> None:
    found = lint(chart.CHART, chart.ci(path), strict=True, namespace="payments")
    assert found["total_charts_linted"] == 1
    assert found["errors"] == []
    assert [message for message in found["messages"] if message["severity"] >= WARNING] == []


def test_strict_lint_finds_a_mistake(tmp_path: Path) -> None:
    shutil.copytree(chart.CHART, tmp_path / "fraud-service")
    (tmp_path / "fraud-service/templates/configmap.yaml").write_text("kind: {{ .Values.nothing.at.all }}")
    assert lint(tmp_path / "fraud-service", {}, strict=True)["errors"]


@by_feature
def test_every_manifest_of_a_feature_is_valid(path: Path) -> None:
    manifests = chart.render(chart.ci(path))
    assert len(manifests) >= 3
    assert [fault for manifest in manifests for fault in chart.faults(manifest)] == []


def test_kubernetes_validate_checks_every_built_in_resource(tmp_path: Path) -> None:
    everything = [one for path in chart.CI for one in chart.render(chart.ci(path))]
    manifests = [one for one in everything if (one["apiVersion"], one["kind"]) not in chart.CUSTOM]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(manifests))
    tool = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run(
        [tool, "--strict", "-k", "1.31.0", tmp_path / "all.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("INFO") == len(manifests) > 50, done.stdout


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("StatefulSet", {"replica": 1}),
        ("Job", {"backoffLimit": "20"}),
        ("ScaledObject", {"scaleTarget": {}}),
        ("ServiceMonitor", {"endpoints": [{"port": 8000}]}),
    ],
)
def test_a_misspelt_or_mistyped_field_is_found(kind: str, change: dict[str, Any]) -> None:
    everything = chart.render(switched(dict.fromkeys(SWITCHES, True)))
    one = next(manifest for manifest in everything if manifest["kind"] == kind)
    assert chart.faults(one) == []
    assert chart.faults({**one, "spec": one["spec"] | change})


def test_the_ci_files_use_every_switch() -> None:
    assert len(SWITCHES) > 10
    thrown = {
        path
        for file in chart.CI
        for path, position in switches(chart.ci(file)).items()
        if path in SWITCHES and position != SWITCHES[path]
    }
    assert thrown == set(SWITCHES)


def test_a_packaged_chart_renders_the_same(tmp_path: Path) -> None:
    with Chart.load(chart.loaded().save(tmp_path)) as packaged:
        assert packaged.render(chart.REQUIRED, name="rel", namespace="payments") == chart.texts()
        assert not [file["name"] for file in packaged.files if file["name"].startswith("ci/")]


def test_the_chart_installs_the_version_it_comes_with() -> None:
    project = tomllib.loads((chart.CHART.parent.parent / "pyproject.toml").read_text())["project"]
    assert chart.loaded().metadata["appVersion"] == project["version"]
    images = {component: chart.container(pod)["image"] for component, pod in chart.pods(chart.render()).items()}
    assert set(images.values()) == {f"fraud-service:{project['version']}"}


def test_the_chart_works_as_a_subchart() -> None:
    chart.loaded().validate_schema({"global": {"anything": {"of": "the parent"}}})


def test_custom_resources_are_off_by_default() -> None:
    assert not any((one["apiVersion"], one["kind"]) in chart.CUSTOM for one in chart.render())


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?", fullmatch=True)


WORDS = st.from_regex(r"[a-z]{1,8}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
LABELS = st.dictionaries(WORDS.map("example.com/{}".format), WORDS, max_size=2)
HOSTS = st.one_of(WORDS, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map("[{}]".format))
BROKERS = st.lists(st.tuples(HOSTS, st.integers(1, 65_535)).map(lambda one: f"{one[0]}:{one[1]}"), min_size=1).map(
    ",".join
)


def some(**values: Any) -> Any:
    """Give some of the values."""
    return st.fixed_dictionaries({}, optional=values)


def pod_values(prefix: str, *, ends: bool = False) -> Any:
    """Give values that all pods or those of one component can have. Names do not repeat with another prefix."""
    named = WORDS.map(lambda word: f"{prefix}{word}")
    containers = st.lists(
        st.fixed_dictionaries({"name": named, "image": WORDS}), max_size=2, unique_by=itemgetter("name")
    )
    return some(
        podLabels=LABELS,
        podAnnotations=LABELS,
        podSecurityContext=some(runAsUser=st.sampled_from([None, 20_000]), fsGroup=st.none(), runAsGroup=st.none()),
        containerSecurityContext=some(readOnlyRootFilesystem=st.booleans(), runAsUser=st.just(20_000)),
        scheduling=some(
            nodeSelector=LABELS,
            tolerations=st.just([{"key": "payments", "operator": "Exists"}]),
            priorityClassName=WORDS,
            affinity=st.just({"nodeAffinity": {}}),
        ),
        extraEnv=st.lists(
            st.fixed_dictionaries({"name": named, "value": TEXT}), max_size=2, unique_by=itemgetter("name")
        ),
        extraVolumes=st.lists(
            st.fixed_dictionaries({"name": named, "emptyDir": st.just({})}), max_size=2, unique_by=itemgetter("name")
        ),
        extraInitContainers=containers,
        **({} if ends else {"extraContainers": containers}),
    )


PLATFORM = some(
    nameOverride=WORDS,
    fullnameOverride=WORDS,
    commonLabels=LABELS,
    cluster=WORDS,
    model=some(volume=st.sampled_from([{"configMap": {"name": "m"}}, {"persistentVolumeClaim": {"claimName": "m"}}])),
    image=some(registry=st.sampled_from(["registry.example", "registry.example:5000/a/b"])),
    links=st.just({"grafana": "https://grafana.example"}),
    kafka=some(
        bootstrapServers=BROKERS,
        options=st.dictionaries(WORDS, st.one_of(st.integers(), st.booleans(), TEXT), max_size=2),
        secretOptions=st.dictionaries(WORDS.map("x.{}".format), st.just({"secret": "s", "key": "k"}), max_size=2),
        sasl=st.fixed_dictionaries({"mechanism": st.sampled_from(["PLAIN", "SCRAM-SHA-512", "OAUTHBEARER"])}),
    ),
    networkPolicy=st.just({"extraEgress": [{"ports": [{"port": 443}]}]}),
    serviceMonitor=st.just({"relabelings": [{"targetLabel": "zone", "replacement": "a"}]}),
    prometheusRule=some(
        alertLabels=LABELS,
        alerts=st.dictionaries(
            st.sampled_from(sorted(observed.alerts())),
            some(enabled=st.booleans(), severity=WORDS, **{"for": st.just("3m")}),
            max_size=3,
        ),
    ),
)
COMPONENTS = ("scorer", "learner", "tokenizer", "refit", "topics", "test")


@settings(max_examples=60, deadline=None)
@given(
    positions=st.fixed_dictionaries({path: st.booleans() for path in SWITCHES}),
    name=NAMES,
    replicas=st.integers(1, 12),
    platform=PLATFORM,
    common=pod_values("common-"),
    own=some(
        **{component: pod_values("own-", ends=component in {"refit", "topics", "test"}) for component in COMPONENTS}
    ),
)
def test_any_mix_of_values_is_valid(
    positions: dict[tuple[str, ...], bool],
    name: str,
    replicas: int,
    platform: dict[str, Any],
    common: dict[str, Any],
    own: dict[str, Any],
) -> None:
    values = {"settings": {"FRAUD_PARTITIONS": 12}, "scorer": {"replicas": replicas}}
    for more in (switched(positions), platform, common, own):
        values = chart.merged(values, more)
    manifests = chart.render(values, name=name)
    assert [fault for manifest in manifests for fault in chart.faults(manifest)] == []
    assert_names_fit(manifests)
    assert_references_lead_somewhere(manifests)
    assert ("learner" in chart.pods(manifests)) == positions["learner", "enabled"]
    assert_values_arrive(values, manifests)


def assert_values_arrive(values: dict[str, Any], manifests: list[dict[str, Any]]) -> None:
    labels = values.get("commonLabels", {}).items()
    assert all(labels <= one["metadata"]["labels"].items() for one in manifests)
    for component, pod in chart.pods(manifests).items():
        own, spec = values.get(component, {}), pod["spec"]
        for kind, place in (("podLabels", "labels"), ("podAnnotations", "annotations")):
            wanted = values.get(kind, {}) | own.get(kind, {})
            assert wanted.items() <= pod["metadata"][place].items()
        for kind, there in (
            ("extraVolumes", spec["volumes"]),
            ("extraInitContainers", spec.get("initContainers", [])),
            ("extraEnv", chart.container(pod)["env"]),
        ):
            assert all(one in there for one in values.get(kind, []) + own.get(kind, []))
        wanted = values.get("podSecurityContext", {}) | own.get("podSecurityContext", {})
        assert {name: spec["securityContext"].get(name) for name in wanted} == wanted


OPTIONAL = ("scorer", "learner", "refit", "test")
names = st.sampled_from(["one", "two", "three"])


@given(
    users=st.fixed_dictionaries(dict.fromkeys((*OPTIONAL, "tokenizer", "topics"), names)),
    on=st.sets(st.sampled_from(OPTIONAL)),
)
@settings(max_examples=60, deadline=None)
def test_a_component_with_the_user_of_the_tokenizer_is_rejected(users: dict[str, str], on: set[str]) -> None:
    values = {name: {"kafka": {"username": user, "secret": user}} for name, user in users.items()}
    values = chart.merged(values, {name: {"enabled": name in on} for name in OPTIONAL})
    values = chart.merged(
        values, {"kafka": {"sasl": {"enabled": True}}, "tokenizer": {"enabled": True, "keysSecret": "tokens"}}
    )
    there = on if "scorer" in on else on - {"test"}
    if users["tokenizer"] in {users[name] for name in there}:
        with pytest.raises(HelmRenderError, match="same Kafka user"):
            chart.render(values)
    else:
        assert set(chart.pods(chart.render(values))) == there | {"tokenizer", "topics"}


def assert_names_fit(manifests: list[dict[str, Any]]) -> None:
    """A StatefulSet's name and a revision's hash become a label, a CronJob's name gets a suffix."""
    longest = {"StatefulSet": 52, "CronJob": 52}
    names = [(one["kind"], one["metadata"]["name"]) for one in manifests]
    assert len(names) == len(set(names))
    for kind, name in names:
        assert len(name) <= longest.get(kind, 63)
    assert {one["metadata"]["namespace"] for one in manifests} == {"payments"}


def assert_references_lead_somewhere(manifests: list[dict[str, Any]]) -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    for pod in chart.pods(manifests).values():
        account = pod["spec"]["serviceAccountName"]
        assert ("ServiceAccount", account) in there or account == "default"
        for source in chart.container(pod)["envFrom"]:
            assert ("ConfigMap", source["configMapRef"]["name"]) in there
        names = [volume["name"] for volume in pod["spec"]["volumes"]]
        assert len(names) == len(set(names))
        volumes = {*names, "state"}
        assert {mount["name"] for mount in chart.container(pod)["volumeMounts"]} <= volumes
    for one in manifests:
        if one["kind"] == "StatefulSet":
            assert ("Service", one["spec"]["serviceName"]) in there
        if one["kind"] == "ScaledObject":
            target = one["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in there
            asked = one["spec"]["triggers"][0].get("authenticationRef")
            assert asked is None or ("TriggerAuthentication", asked["name"]) in there
    assert_selectors_find_pods(manifests)


SELECTORS = {
    "Service": ("spec", "selector"),
    "StatefulSet": ("spec", "selector", "matchLabels"),
    "PodDisruptionBudget": ("spec", "selector", "matchLabels"),
    "NetworkPolicy": ("spec", "podSelector", "matchLabels"),
}


def assert_selectors_find_pods(manifests: list[dict[str, Any]]) -> None:
    labels = [pod["metadata"]["labels"] for pod in chart.pods(manifests).values()]
    for one in manifests:
        if one["kind"] in SELECTORS:
            wanted = chart.inside(one, SELECTORS[one["kind"]]).items()
            found = [mine for mine in labels if wanted <= mine.items()]
            assert len(found) == (len(labels) if one["kind"] == "NetworkPolicy" else 1), one["kind"]
