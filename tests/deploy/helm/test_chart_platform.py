"""What a platform adds to the chart: names, labels, users, sidecars, models and logins."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm_python import Chart
from helm_python.errors import HelmRenderError, HelmValuesError
from support import chart

from fraud_service.config import settings
from fraud_service.kafka import clients

EXTRAS = chart.ci(chart.CHART / "ci/extras-values.yaml")
OAUTH = chart.ci(chart.CHART / "ci/oauth-values.yaml")
TOKENIZER = {"enabled": True, "keysSecret": "tokens", "sharesKafkaUser": True}
EVERY_POD: dict[str, Any] = {"refit": {"enabled": True}, "tokenizer": TOKENIZER}
LONG_RUNNING = {"scorer", "learner", "tokenizer"}


def pods(*values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    everything = EVERY_POD
    for more in values:
        everything = chart.merged(everything, more)
    return chart.pods(chart.render(everything))


def config(manifests: list[dict[str, Any]], component: str = "scorer") -> dict[str, str]:
    return json.loads(chart.environment(manifests, component)["FRAUD_KAFKA_CONFIG"])


# Users and security contexts


def test_on_openshift_the_cluster_chooses_user_and_group_of_every_pod() -> None:
    for values in (
        {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
        chart.ci(chart.CHART / "ci/openshift-values.yaml"),
    ):
        for pod in pods(values).values():
            context = pod["spec"]["securityContext"]
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)
            assert context["runAsNonRoot"] is True
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for pod in pods({"podSecurityContext": {"runAsUser": None, "fsGroup": None}}).values():
        assert not {"runAsUser", "fsGroup"} & set(pod["spec"]["securityContext"])


def test_a_component_can_have_a_security_context_of_its_own() -> None:
    own = {"podSecurityContext": {"runAsUser": None, "fsGroup": 7}, "containerSecurityContext": {"privileged": False}}
    found = pods({"containerSecurityContext": {"readOnlyRootFilesystem": False}, "learner": own})
    assert found["scorer"]["spec"]["securityContext"]["runAsUser"] == 10001
    assert "runAsUser" not in found["learner"]["spec"]["securityContext"]
    assert found["learner"]["spec"]["securityContext"]["fsGroup"] == 7
    for component, pod in found.items():
        context = chart.container(pod)["securityContext"]
        assert context["readOnlyRootFilesystem"] is False
        assert ("privileged" in context) == (component == "learner")


# Names, labels, annotations


def test_names_can_be_chosen() -> None:
    named = chart.render(EVERY_POD | {"fullnameOverride": "cards"})
    assert all(one["metadata"]["name"].split("-")[0] == "cards" for one in named)
    renamed = chart.render(EVERY_POD | {"nameOverride": "fraud"})
    assert all(one["metadata"]["name"].startswith("rel-fraud") for one in renamed)
    assert {one["metadata"]["labels"]["app.kubernetes.io/name"] for one in renamed} == {"fraud"}


def test_common_labels_are_on_every_object_and_pod_but_in_no_selector() -> None:
    manifests = chart.render(EVERY_POD | {"commonLabels": {"team": "payments"}, "serviceMonitor": {"enabled": True}})
    assert {one["metadata"]["labels"]["team"] for one in manifests} == {"payments"}
    assert {pod["metadata"]["labels"]["team"] for pod in chart.pods(manifests).values()} == {"payments"}
    for one in manifests:
        assert "payments" not in json.dumps([one["spec"].get("selector"), one["spec"].get("podSelector")]
                                            if "spec" in one else [])  # fmt: skip


def test_a_mesh_leaves_every_pod_alone_by_an_annotation() -> None:
    for pod in pods({"podAnnotations": {"sidecar.istio.io/inject": "false"}}).values():
        assert pod["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"


def test_labels_and_annotations_of_a_component_replace_common_ones_of_the_same_name() -> None:
    found = pods(EXTRAS)
    annotation = "sidecar.istio.io/proxyCPU"
    assert {name: pod["metadata"]["annotations"][annotation] for name, pod in found.items()} == {
        **dict.fromkeys(found, "100m"),
        "scorer": "500m",
    }
    label = "sidecar.istio.io/inject"
    assert {name for name, pod in found.items() if pod["metadata"]["labels"][label] == "false"} == {"refit"}


@pytest.mark.parametrize(
    "values",
    [
        {"commonLabels": {"app.kubernetes.io/name": "mine"}},
        {"podLabels": {"app.kubernetes.io/component": "mine"}},
        {"scorer": {"podLabels": {"app.kubernetes.io/instance": "mine"}}},
        {"podSecurityContext": {"runAsUzer": 1}},
        {"learner": {"containerSecurityContext": {"runAsUzer": 1}}},
        {"extraEnv": [{"name": "FRAUD_REVIEW_THRESHOLD", "value": "1"}]},
        {"refit": {"extraEnv": [{"value": "1"}]}},
        {"extraVolumes": [{"emptyDir": {}}]},
        {"refit": {"extraContainers": [{"name": "shipper"}]}},
        {"kafka": {"secretOptions": {"ssl.key.password": "in clear"}}},
        {"kafka": {"bootstrapServers": "fd00::1:9092"}},
        {"kafka": {"sasl": {"tokenEndpoint": "login.example"}}},
        {"model": {"volume": {"emptyDir": {}, "configMap": {}}}},
        {"model": {"path": "../secret"}},
        {"links": {"runbook": ""}},
        {"prometheusRule": {"alerts": {"FraudScorerGone": {"enabled": False}}}},
        {"prometheusRule": {"alerts": {"FraudScorerDown": {"lagSeconds": 1}}}},
        {"prometheusRule": {"alerts": {"FraudScorerLagGrowing": {"lagSeconds": "1m"}}}},
        {"prometheusRule": {"alertLabels": {"severity": "page"}}},
    ],
    ids=str,
)
def test_a_value_that_would_do_nothing_or_harm_is_rejected(values: dict[str, Any]) -> None:
    with pytest.raises(HelmValuesError):
        chart.render(values)


def empty(values: dict[str, Any]) -> dict[str, Any]:
    """Return the empty maps and lists among the values, as a user leaves them: with nothing after the colon."""
    found: dict[str, Any] = {name: None for name, value in values.items() if value in ({}, [])}
    below = {name: empty(value) for name, value in values.items() if isinstance(value, dict)}
    return found | {name: value for name, value in below.items() if value}


def test_a_value_left_empty_is_its_default() -> None:
    given = empty(chart.loaded().values)
    assert {"extraEnv", "podLabels", "commonLabels", "prometheusRule", "kafka"} <= set(given)
    on = EVERY_POD | {name: {"enabled": True} for name in ("autoscaling", "serviceMonitor", "prometheusRule")}
    del given["networkPolicy"]["brokers"]
    assert chart.render(chart.merged(given, on)) == chart.render(on)


# What is added to pods, and where they run


def test_extra_variables_volumes_and_containers_are_in_every_pod_that_can_have_them() -> None:
    for component, pod in pods(EXTRAS).items():
        spec, mine = pod["spec"], chart.container(pod)
        assert {"name": "trust", "configMap": {"name": "company-ca"}} in spec["volumes"]
        assert {"name": "trust", "mountPath": "/etc/company-ca", "readOnly": True} in mine["volumeMounts"]
        assert [one["name"] for one in spec["initContainers"]] == ["wait"]
        others = [one["name"] for one in spec["containers"][1:]]
        assert others == (["shipper"] if component in LONG_RUNNING else []), "a Job waits for all its containers"
        own = [entry["name"] for entry in mine["env"] if not entry["name"].startswith(("FRAUD_", "KAFKA_"))]
        assert own == ["HTTPS_PROXY", *(["MALLOC_ARENA_MAX"] if component == "scorer" else [])]


def test_each_component_can_run_elsewhere() -> None:
    found = {component: pod["spec"] for component, pod in pods(EXTRAS).items()}
    assert {name for name, spec in found.items() if spec["nodeSelector"] == {"pool": "large"}} == {"learner"}
    assert {name for name, spec in found.items() if "priorityClassName" in spec} == {"learner"}
    assert [one["topologyKey"] for one in found["scorer"]["topologySpreadConstraints"]] == ["rack"]
    assert "topologySpreadConstraints" not in found["learner"]


def test_the_registry_is_before_every_image() -> None:
    registries = {chart.container(pod)["image"].rpartition("/fraud-service")[0] for pod in pods(EXTRAS).values()}
    assert registries == {"registry.example:5000/mirror"}
    parent = chart.merged(EXTRAS, {"global": {"imageRegistry": "parent.example"}})
    assert all(chart.container(pod)["image"].startswith("parent.example/fraud-") for pod in pods(parent).values())


def test_scorers_and_tokenizers_are_evicted_one_at_a_time() -> None:
    budgets = [one for one in chart.render(EVERY_POD) if one["kind"] == "PodDisruptionBudget"]
    assert {one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] for one in budgets} == {
        "scorer",
        "tokenizer",
    }
    assert {one["spec"]["maxUnavailable"] for one in budgets} == {1}


# The model


@pytest.mark.parametrize("path", ["", "models/2026-01"])
@pytest.mark.parametrize(
    "volume",
    [
        {"persistentVolumeClaim": {"claimName": "fraud-model"}},
        {"configMap": {"name": "fraud-model"}},
        {"csi": {"driver": "models.example", "readOnly": True}},
    ],
    ids=lambda volume: next(iter(volume)),
)
def test_a_model_is_mounted_where_the_setting_says_in_each_pod_that_reads_it(volume: Any, path: str) -> None:
    manifests = chart.render(EVERY_POD | {"model": {"volume": volume, "path": path}})
    readers = set()
    for component, pod in chart.pods(manifests).items():
        mounts = {one["name"]: one for one in chart.container(pod)["volumeMounts"]}
        folder = chart.environment(manifests, component).get("FRAUD_MODEL_DIR")
        assert (folder is None) == ("model" not in mounts)
        if folder is not None:
            readers.add(component)
            assert Path(folder) == Path(mounts["model"]["mountPath"]) / path
            assert mounts["model"]["readOnly"]
            assert {"name": "model", **volume} in pod["spec"]["volumes"]
    assert readers == {"scorer", "learner", "refit"}


def test_two_models_or_a_path_without_a_volume_are_rejected() -> None:
    volume = {"configMap": {"name": "m"}}
    with pytest.raises(HelmRenderError, match="name two models"):
        chart.render({"model": {"volume": volume}, "settings": {"FRAUD_MODEL_DIR": "/m"}})
    with pytest.raises(HelmRenderError, match=r"model\.path is a path in model\.volume"):
        chart.render({"model": {"path": "m"}})


def test_the_notes_say_that_the_shipped_model_is_simulated() -> None:
    def notes(values: dict[str, Any]) -> str:
        return next(text for name, text in chart.texts(values).items() if name.endswith("NOTES.txt"))

    assert "trained on simulated payments" in notes({})
    assert "simulated" not in notes({"model": {"volume": {"configMap": {"name": "m"}}}})
    assert "simulated" not in notes({"settings": {"FRAUD_MODEL_DIR": "/opt/model"}})
    assert "kafka.sasl.tokenEndpoint is empty" in notes(
        {"kafka": {"sasl": {"enabled": True, "mechanism": "OAUTHBEARER", "secret": "s"}}}
    )


# Login with tokens, secret options, brokers


def test_the_client_secret_of_oauth_is_only_in_a_file() -> None:
    manifests = chart.render({"kafka": {"sasl": {"enabled": True, "mechanism": "OAUTHBEARER", "secret": "s"}}})
    for component, pod in chart.pods(manifests).items():
        (source,) = chart.secrets(pod)["kafka-secrets"]
        assert source == {"name": "s", "items": [{"key": "password", "path": "sasl.oauthbearer.client.secret"}]}
        assert config(manifests, component) == {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.client.id": "fraud-service",
        }


def test_the_service_and_librdkafka_accept_a_login_with_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = chart.render(OAUTH)
    assert config(manifests)["sasl.oauthbearer.token.endpoint.url"] == "https://login.example/token"
    for source in chart.secrets(chart.pods(manifests)["scorer"])["kafka-secrets"]:
        for item in source["items"]:
            (tmp_path / item["path"]).write_text("secret")
    for name, value in chart.environment(manifests, "scorer").items():
        if name in {"FRAUD_KAFKA_CONFIG", "FRAUD_BOOTSTRAP_SERVERS"}:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("FRAUD_KAFKA_CONFIG_DIR", str(tmp_path))
    loaded = settings.load()
    assert loaded.kafka_config["sasl.oauthbearer.client.secret"] == "secret"
    clients.admin(loaded)


def test_the_autoscaler_gets_tokens_as_the_scorer_does() -> None:
    manifests = chart.render(OAUTH)
    assert chart.named(manifests, "ScaledObject")["spec"]["triggers"][0]["metadata"]["sasl"] == "oauthbearer"
    seen = chart.environment(manifests, "scorer")
    found = chart.named(manifests, "TriggerAuthentication")["spec"]["env"]
    assert {one["parameter"]: seen[one["name"]] for one in found} == {
        "username": "fraud-service",
        "oauthTokenEndpointUri": "https://login.example/token",
        "scopes": "kafka",
    }


def test_pods_may_reach_where_tokens_come_from() -> None:
    egress = chart.named(chart.render(OAUTH), "NetworkPolicy")["spec"]["egress"]
    assert egress[-1] == OAUTH["networkPolicy"]["extraEgress"][0]
    closed = chart.merged(OAUTH, {"networkPolicy": {"extraEgress": []}})
    with pytest.raises(HelmRenderError, match=r"extraEgress: pods get their tokens from https://login\.example/token"):
        chart.render(closed)
    assert chart.render(chart.merged(closed, {"networkPolicy": {"enabled": False}}))
    option = {"kafka": {"options": {"sasl.oauthbearer.token.endpoint.url": "https://login.example/other"}}}
    with pytest.raises(HelmRenderError, match=r"tokens from https://login\.example/other"):
        chart.render(option)


def test_each_component_can_be_a_client_of_its_own_with_oauth() -> None:
    own = {"kafka": {"username": "scores", "secret": "other"}}
    manifests = chart.render(chart.merged(OAUTH, {"scorer": own}))
    assert config(manifests)["sasl.oauthbearer.client.id"] == "scores"
    assert config(manifests, "learner")["sasl.oauthbearer.client.id"] == "fraud-service"
    assert "other" in {one["name"] for one in chart.secrets(chart.pods(manifests)["scorer"])["kafka-secrets"]}
    tokenizer = {"enabled": True, "keysSecret": "tokens"}
    with pytest.raises(HelmRenderError, match="tokenizer and scorer have the same Kafka user"):
        chart.render(chart.merged(OAUTH, {"tokenizer": tokenizer}))
    apart = tokenizer | {"kafka": {"username": "tokens", "secret": "third"}}
    assert chart.render(chart.merged(OAUTH, {"tokenizer": apart}))


def test_a_secret_option_is_a_file_named_after_it_in_every_pod() -> None:
    manifests = chart.render(chart.merged(EVERY_POD, OAUTH))
    for component, pod in chart.pods(manifests).items():
        _, source = chart.secrets(pod)["kafka-secrets"]
        assert source == {"name": "fraud-keystore", "items": [{"key": "password", "path": "ssl.keystore.password"}]}
        assert "ssl.keystore.password" not in config(manifests, component)
        (mount,) = [one for one in chart.container(pod)["volumeMounts"] if one["name"] == "kafka-secrets"]
        assert mount["mountPath"] == chart.environment(manifests, component)["FRAUD_KAFKA_CONFIG_DIR"]


SECRET = {"secret": "s", "key": "k"}


@pytest.mark.parametrize(
    ("kafka", "reason"),
    [
        ({"options": {"a.b": "1"}, "secretOptions": {"a.b": SECRET}}, "both have a.b"),
        ({"secretOptions": {"bootstrap.servers": SECRET}}, "bootstrap.servers would name brokers"),
        (
            {"sasl": {"enabled": True, "secret": "s"}, "secretOptions": {"sasl.password": SECRET}},
            "already sasl.password",
        ),
        ({"sasl": {"tokenEndpoint": "https://login.example"}}, "no effect without kafka.sasl.enabled"),
    ],
)
def test_options_that_contradict_each_other_are_rejected(kafka: dict[str, Any], reason: str) -> None:
    with pytest.raises(HelmRenderError, match=re.escape(reason)):
        chart.render({"kafka": kafka})


@pytest.mark.parametrize("option", ["sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.pem"])
def test_a_secret_option_with_an_identity_counts_as_a_shared_user(option: str) -> None:
    tokenizer = TOKENIZER | {"sharesKafkaUser": False}
    with pytest.raises(HelmRenderError, match="the same Kafka user"):
        chart.render({"kafka": {"secretOptions": {option: SECRET}}, "tokenizer": tokenizer})


def test_numbers_and_switches_among_the_options_arrive_as_text() -> None:
    found = config(chart.render(OAUTH))
    assert found["reconnect.backoff.max.ms"] == "1000000"
    assert found["log.connection.close"] == "false"


def test_brokers_and_pods_can_have_ipv6_addresses() -> None:
    manifests = chart.render(chart.ci(chart.CHART / "ci/ipv6-values.yaml"))
    servers = "[fd00::1]:9092,[fd00::2]:9093,kafka:9094"
    assert chart.environment(manifests, "scorer")["FRAUD_BOOTSTRAP_SERVERS"] == servers
    assert chart.environment(manifests, "scorer")["FRAUD_HTTP_HOST"] == "::"
    _, brokers = chart.named(manifests, "NetworkPolicy")["spec"]["egress"]
    assert [port["port"] for port in brokers["ports"]] == [9092, 9093, 9094]


# The chart itself


def test_the_chart_says_where_it_comes_from() -> None:
    metadata = chart.loaded().metadata
    assert {"home", "sources", "maintainers", "keywords", "description", "kubeVersion"} <= set(metadata)
    assert metadata["home"] in chart.loaded().values["links"]["runbook"]
    assert yaml.safe_load(metadata["annotations"]["artifacthub.io/links"])


def test_the_platforms_values_also_work_in_a_parent_chart(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    (parent / "charts/fraud-service").symlink_to(chart.CHART)
    (parent / "Chart.yaml").write_text("{apiVersion: v2, name: parent, version: 1.0.0}")
    values = chart.merged(chart.REQUIRED, {"podSecurityContext": {"runAsUser": None, "fsGroup": None}})
    whole = {"global": {"imageRegistry": "mirror.example"}, "fraud-service": values}
    rendered = Chart.load(parent).render(whole, name="rel", namespace="payments")
    scorer = yaml.safe_load(next(text for name, text in rendered.items() if name.endswith("scorer.yaml")))
    spec = scorer["spec"]["template"]["spec"]
    assert not {"runAsUser", "fsGroup"} & set(spec["securityContext"])
    assert spec["containers"][0]["image"].startswith("mirror.example/fraud-service:")
