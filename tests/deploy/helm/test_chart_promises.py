from __future__ import annotations

import json
import re
import shutil
from contextlib import closing
from datetime import timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import certifi
import pytest
from helm_python.errors import HelmRenderError, HelmValuesError
from support import chart

from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError
from fraud_service.kafka import clients
from fraud_service.processors import learner
from fraud_service.runtime import health
from fraud_service.runtime.metrics.stream import Metrics

PORT = 8000
LOGIN = chart.ci(chart.CHART / "ci/login-values.yaml")
WITH_LOGIN = chart.render(LOGIN)
TOKENS = chart.ci(chart.CHART / "ci/tokenizer-values.yaml")
STATEFUL = ("scorer", "learner")


def container(component: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    return chart.container(chart.pods(chart.render(values))[component])


def volumes(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in pod["spec"]["volumes"]}


def with_files(folder: Path, files: dict[str, str]) -> Path:
    """Return a copy of the chart with these files instead of its own rules and dashboards."""
    copied = folder / "fraud-service"
    shutil.copytree(chart.CHART, copied, ignore=shutil.ignore_patterns("rules", "dashboards"))
    for name, text in files.items():
        (copied / name).parent.mkdir(exist_ok=True)
        (copied / name).write_text(text)
    return copied


# Settings


@pytest.mark.parametrize("path", chart.CI, ids=[path.name for path in chart.CI])
def test_every_setting_in_a_pod_exists_and_can_be_loaded(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = chart.render(chart.ci(path))
    for component in chart.pods(manifests):
        seen = chart.environment(manifests, component)
        named = {name: value for name, value in seen.items() if name.startswith("FRAUD_")}
        assert set(named) <= set(settings.variables())
        assert {"FRAUD_BOOTSTRAP_SERVERS", "FRAUD_KAFKA_CONFIG"} <= set(named)
        with monkeypatch.context() as patch:
            for name, value in named.items():
                patch.setenv(name, str(tmp_path) if name == "FRAUD_KAFKA_CONFIG_DIR" else value)
            assert settings.load().bootstrap_servers == seen["FRAUD_BOOTSTRAP_SERVERS"]


def test_settings_arrive_as_they_were_written(monkeypatch: pytest.MonkeyPatch) -> None:
    values = chart.ci(chart.CHART / "ci/settings-values.yaml")
    for name, value in chart.environment(chart.render(values), "scorer").items():
        monkeypatch.setenv(name, value)
    loaded = settings.load()
    assert (loaded.partitions, loaded.max_clock_skew, loaded.processing_guarantee) == (
        10_000,
        timedelta(days=2),
        "at-least-once",
    )
    assert loaded.label_rate_limit_per_source == 100_000_000
    assert loaded.topics.transactions == "payments.transactions.v2"


@pytest.mark.parametrize(
    "unfit",
    [
        {"FRAUD_REVIEW_TRESHOLD": 0.2},
        {"FRAUD_REVIEW_THRESHOLD": 1.2},
        {"FRAUD_PROCESSING_GUARANTEE": "perhaps"},
        {"FRAUD_INSTANCE_ID": "mine"},
        {"FRAUD_KAFKA_CONFIG": "{}"},
    ],
)
def test_an_invalid_setting_stops_the_installation(unfit: dict[str, Any]) -> None:
    with pytest.raises(HelmValuesError, match=next(iter(unfit))):
        chart.render({"settings": unfit})


def test_the_chart_and_the_service_have_the_same_defaults() -> None:
    everything = chart.render({"autoscaling": {"enabled": True}})
    trigger = chart.named(everything, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    plain = settings.Settings.model_fields
    assert trigger["consumerGroup"] == plain["scorer_group"].default
    assert trigger["topic"] == settings.TopicNames().transactions
    assert plain["http_port"].default == PORT
    with pytest.raises(HelmRenderError, match=f"there are {plain['partitions'].default} partitions"):
        chart.render({"settings": {"FRAUD_PARTITIONS": None}, "scorer": {"replicas": 5}})


def test_the_password_is_only_in_a_file_named_after_its_option() -> None:
    seen = chart.environment(WITH_LOGIN, "scorer")
    assert json.loads(seen["FRAUD_KAFKA_CONFIG"]) == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/etc/fraud-service/kafka-ca/ca.crt",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "fraud-service",
        "client.rack": "zone-a",
        "client.id": "literally $(KAFKA_USERNAME)",
    }
    for pod in chart.pods(WITH_LOGIN).values():
        (source,) = chart.secrets(pod)["kafka-secrets"]
        assert source == {"name": "fraud-service", "items": [{"key": "password", "path": "sasl.password"}]}
        (mount,) = [one for one in chart.container(pod)["volumeMounts"] if one["name"] == "kafka-secrets"]
        assert mount["mountPath"] == seen["FRAUD_KAFKA_CONFIG_DIR"]


def test_the_signing_keys_are_mounted_at_the_folder_of_the_setting() -> None:
    pods = chart.pods(chart.render(chart.merged(LOGIN, {"refit": {"enabled": True}})))
    with_keys = {name: pod for name, pod in pods.items() if "signing-keys" in volumes(pod)}
    assert sorted(with_keys) == ["learner", "refit", "scorer"]
    for component in ("learner", "scorer"):
        pod = with_keys[component]
        (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == "signing-keys"]
        assert volume["secret"] == {"secretName": "fraud-signing", "defaultMode": 0o440}
        (mount,) = [one for one in chart.container(pod)["volumeMounts"] if one["name"] == "signing-keys"]
        assert mount["mountPath"] == chart.environment(WITH_LOGIN, component)["FRAUD_SIGNING_KEY_DIR"]
        assert mount["readOnly"]


def test_without_keys_the_installation_stops_unless_unsigned_is_allowed() -> None:
    with pytest.raises(HelmRenderError, match=r"signing\.secret: name the Secret .* signing\.allowUnsigned=true"):
        chart.render({"signing": {"allowUnsigned": False}})
    seen = chart.environment(chart.render({"signing": {"allowUnsigned": True}}), "scorer")
    assert seen["FRAUD_ALLOW_UNSIGNED"] == "true"
    assert not {"FRAUD_SIGNING_KEY_DIR", "FRAUD_DEPLOYMENT"} & set(seen)


def test_the_deployment_is_namespace_and_release_by_default() -> None:
    for component in chart.pods(WITH_LOGIN):
        assert chart.environment(WITH_LOGIN, component)["FRAUD_DEPLOYMENT"] == "payments/rel"
    named = chart.render({"signing": {"secret": "fraud-signing", "deployment": "eu/payments", "allowUnsigned": True}})
    seen = chart.environment(named, "scorer")
    assert seen["FRAUD_DEPLOYMENT"] == "eu/payments"
    assert "FRAUD_ALLOW_UNSIGNED" not in seen


def test_only_the_tokenizer_mounts_the_tokenizer_keys_and_it_mounts_no_others() -> None:
    manifests = chart.render(TOKENS)
    there = {component: volumes(pod) for component, pod in chart.pods(manifests).items()}
    assert [component for component, mine in there.items() if "tokenizer-keys" in mine] == ["tokenizer"]
    assert "signing-keys" not in there["tokenizer"]
    assert there["tokenizer"]["tokenizer-keys"]["secret"] == {"secretName": "fraud-tokens", "defaultMode": 0o440}
    mounts = {one["name"]: one["mountPath"] for one in container("tokenizer", TOKENS)["volumeMounts"]}
    for component in ("tokenizer", "topics"):  # the topics job needs the setting to create the raw topics
        assert chart.environment(manifests, component)["FRAUD_TOKENIZER_KEY_DIR"] == mounts["tokenizer-keys"]
    stateful = chart.named(manifests, "StatefulSet", "-tokenizer")
    assert stateful["spec"]["replicas"] == TOKENS["tokenizer"]["replicas"]
    assert "volumeClaimTemplates" not in stateful["spec"]
    assert there["tokenizer"]["state"]["emptyDir"]


def test_a_tokenizer_without_keys_stops_the_installation() -> None:
    with pytest.raises(HelmRenderError, match="name the Secret with the keys of tokens"):
        chart.render({"tokenizer": {"enabled": True}})


def test_with_a_certificate_probes_and_scrapes_use_https() -> None:
    pods = chart.pods(WITH_LOGIN)
    assert sorted(name for name, pod in pods.items() if "http-tls" in volumes(pod)) == ["learner", "scorer"]
    for component in STATEFUL:
        pod = pods[component]
        (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == "http-tls"]
        assert volume["secret"] == {"secretName": "fraud-http", "defaultMode": 0o440}
        (mount,) = [one for one in chart.container(pod)["volumeMounts"] if one["name"] == "http-tls"]
        seen = chart.environment(WITH_LOGIN, component)
        files = {seen["FRAUD_HTTP_TLS_CERT"], seen["FRAUD_HTTP_TLS_KEY"]}
        assert files == {f"{mount['mountPath']}/{name}" for name in ("tls.crt", "tls.key")}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert chart.container(pod)[probe]["httpGet"]["scheme"] == "HTTPS"
    (monitor,) = [one for one in WITH_LOGIN if one["kind"] == "ServiceMonitor"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"] == {
        "ca": {"secret": {"name": "fraud-http", "key": "ca.crt"}},
        "serverName": "fraud-service.payments.svc",
    }


def test_certificates_are_mounted_at_the_paths_of_the_options() -> None:
    manifests = chart.render(chart.ci(chart.CHART / "ci/certificate-values.yaml"))
    for component, pod in chart.pods(manifests).items():
        options = json.loads(chart.environment(manifests, component)["FRAUD_KAFKA_CONFIG"])
        mounted = {mount["name"]: mount["mountPath"] for mount in chart.container(pod)["volumeMounts"]}
        files = {
            f"{mounted[volume['name']]}/{item['path']}"
            for volume in pod["spec"]["volumes"]
            if "secret" in volume
            for item in volume["secret"].get("items", [])
        }
        assert files == {value for name, value in options.items() if name.endswith(".location")}
        assert len(files) == 3


@pytest.mark.parametrize(
    ("tls", "sasl"), [({}, {"mechanism": "PLAIN"}), ({}, {"mechanism": "SCRAM-SHA-256"}), ({"caSecret": "ca"}, {})]
)
def test_librdkafka_accepts_the_options(
    tls: dict[str, str], sasl: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = {"tls": {"enabled": bool(tls), **tls}, "sasl": {"enabled": True, "secret": "login", **sasl}}
    seen = chart.environment(chart.render({"kafka": kafka}), "scorer")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/sasl.password").write_text("secret")
    monkeypatch.setenv("FRAUD_KAFKA_CONFIG_DIR", str(tmp_path / "secrets"))
    (tmp_path / "ca.crt").write_text(Path(certifi.where()).read_text())
    monkeypatch.setenv(
        "FRAUD_KAFKA_CONFIG", seen["FRAUD_KAFKA_CONFIG"].replace("/etc/fraud-service/kafka-ca", str(tmp_path))
    )
    loaded = settings.load()
    assert loaded.kafka_config["security.protocol"] == ("SASL_SSL" if tls else "SASL_PLAINTEXT")
    clients.admin(loaded)
    with pytest.raises(ConfigurationError, match="has an invalid option"):
        clients.admin(loaded.model_copy(update={"kafka_config": loaded.kafka_config | {"sasl.mechanism": "none such"}}))


def test_a_login_without_a_secret_is_rejected() -> None:
    with pytest.raises(HelmRenderError, match=r"kafka\.sasl\.secret: name the Secret"):
        chart.render({"kafka": {"sasl": {"enabled": True}}})


# A user of Kafka for each component

USERS = chart.ci(chart.CHART / "ci/users-values.yaml")
COMPONENTS = ("scorer", "learner", "refit", "tokenizer", "topics", "test")
SASL = {"sasl": {"enabled": True, "secret": "all"}}
TLS = {"tls": {"enabled": True, "clientSecret": "all"}}
TOKENIZER = {"enabled": True, "keysSecret": "tokens"}


def test_each_component_logs_in_with_its_own_user_and_mounts_no_other_password() -> None:
    manifests = chart.render(USERS)
    assert sorted(chart.pods(manifests)) == sorted(COMPONENTS)
    for component, pod in chart.pods(manifests).items():
        seen = chart.environment(manifests, component)
        assert json.loads(seen["FRAUD_KAFKA_CONFIG"])["sasl.username"] == seen["KAFKA_USERNAME"] == f"fraud-{component}"
        secrets = {one["name"] for sources in chart.secrets(pod).values() for one in sources}
        keys = {"tokenizer": {"fraud-tokens"}, "topics": set(), "test": set()}.get(component, {"fraud-signing"})
        assert secrets == {"kafka-cluster-ca-cert", f"fraud-{component}"} | keys
    (password,) = [
        one
        for one in chart.named(manifests, "TriggerAuthentication")["spec"]["secretTargetRef"]
        if one["parameter"] == "password"
    ]
    assert password["name"] == "fraud-scorer"


def test_each_component_can_have_a_certificate_of_its_own() -> None:
    own = {component: {"kafka": {"clientSecret": f"{component}-tls"}} for component in COMPONENTS}
    values = chart.merged(own, {"kafka": TLS, "refit": {"enabled": True}, "tokenizer": TOKENIZER})
    for component, pod in chart.pods(chart.render(values)).items():
        assert volumes(pod)["kafka-client"]["secret"]["secretName"] == f"{component}-tls"


@pytest.mark.parametrize("kafka", [{}, SASL, TLS, SASL | TLS], ids=["nobody", "name", "certificate", "both"])
@pytest.mark.parametrize("other", ["scorer", "learner", "refit"])
def test_a_tokenizer_that_shares_its_user_is_rejected(kafka: Any, other: str) -> None:
    off = {name: {"enabled": False} for name in ("scorer", "learner", "refit")}
    values = chart.merged(off, {"kafka": kafka, "tokenizer": TOKENIZER, other: {"enabled": True}})
    with pytest.raises(HelmRenderError, match=f"tokenizer and {other} have the same Kafka user"):
        chart.render(values)
    assert chart.render(chart.merged(values, {"tokenizer": {"sharesKafkaUser": True}}))


def test_with_sasl_another_certificate_is_not_another_user() -> None:
    tokenizer = TOKENIZER | {"kafka": {"clientSecret": "mine"}}
    with pytest.raises(HelmRenderError, match="the same Kafka user"):
        chart.render({"kafka": SASL | TLS, "tokenizer": tokenizer})
    assert chart.render({"kafka": TLS, "tokenizer": tokenizer})


@pytest.mark.parametrize(
    "option",
    [
        "sasl.username",
        "sasl.password",
        "sasl.oauthbearer.client.secret",
        "ssl.certificate.location",
        "ssl.key.pem",
        "ssl_key",
        "ssl.keystore.location",
    ],
)
def test_an_option_that_gives_all_components_one_user_is_rejected(option: str) -> None:
    with pytest.raises(HelmRenderError, match=f"{option} would give all components one user"):
        chart.render({"kafka": {"options": {option: "x"}}})


@pytest.mark.parametrize(
    "options",
    [
        {"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.client.id": "all"},
        {"sasl.mechanisms": "GSSAPI"},
        {"sasl.kerberos.principal": "all"},
    ],
    ids="-".join,
)
def test_an_option_with_its_own_identity_counts_as_a_shared_user(
    options: dict[str, str],
) -> None:
    tokenizer = TOKENIZER | {"kafka": {"username": "tokenizer", "secret": "mine"}}
    assert chart.render({"kafka": SASL, "tokenizer": tokenizer})
    assert chart.render({"kafka": SASL | {"options": options}})
    with pytest.raises(HelmRenderError, match="tokenizer and scorer have the same Kafka user"):
        chart.render({"kafka": SASL | {"options": options}, "tokenizer": tokenizer})


@pytest.mark.parametrize(
    "other",
    [
        {"http": {"tlsSecret": "keys"}},
        {"kafka": {"tls": {"enabled": True, "caSecret": "keys"}}},
        {"kafka": {"tls": {"enabled": True, "clientSecret": "keys"}}},
        {"kafka": {"sasl": {"enabled": True, "secret": "keys"}}},
    ],
    ids=str,
)
def test_the_secret_of_the_signing_keys_cannot_have_another_purpose(other: Any) -> None:
    with pytest.raises(HelmRenderError, match="every entry of Secret keys would be a key that signs"):
        chart.render(chart.merged(other, {"signing": {"secret": "keys", "allowUnsigned": False}}))


def test_the_secret_of_the_signing_keys_cannot_be_that_of_the_tokenizer() -> None:
    values = chart.merged(USERS, {"signing": {"secret": "both"}, "tokenizer": {"keysSecret": "both"}})
    with pytest.raises(HelmRenderError, match=r"tokenizer\.keysSecret and signing\.secret are the same Secret"):
        chart.render(values)


@pytest.mark.parametrize("kafka", [SASL, TLS], ids=["name", "certificate"])
@pytest.mark.parametrize("option", ["security.protocol", "bootstrap.servers", "metadata.broker.list"])
def test_an_option_cannot_override_brokers_or_security_of_the_values(option: str, kafka: Any) -> None:
    with pytest.raises(HelmRenderError, match=rf"kafka\.options: {option} would"):
        chart.render({"kafka": kafka | {"options": {option: "PLAINTEXT"}}})


@pytest.mark.parametrize(
    ("kafka", "own", "named"),
    [
        (SASL, {"username": "me"}, "username and secret belong together"),
        (SASL, {"secret": "mine"}, "username and secret belong together"),
        (TLS, {"username": "me", "secret": "mine"}, r"no effect without kafka\.sasl\.enabled"),
        (SASL, {"clientSecret": "mine"}, r"no effect without kafka\.tls\.enabled"),
    ],
)
@pytest.mark.parametrize("component", COMPONENTS)
def test_unused_credentials_stop_the_installation(component: str, kafka: Any, own: dict[str, str], named: str) -> None:
    on = {"refit": {"enabled": True}, "tokenizer": TOKENIZER | {"sharesKafkaUser": True}}
    with pytest.raises(HelmRenderError, match=rf"{component}\.kafka.*{named}"):
        chart.render(chart.merged(on, {"kafka": kafka, component: {"kafka": own}}))


def test_a_release_can_have_only_tokenizers() -> None:
    manifests = chart.render(chart.ci(chart.CHART / "ci/tokenizer-only-values.yaml"))
    assert list(chart.pods(manifests)) == ["tokenizer"]
    assert not {"Job", "CronJob"} & chart.kinds(manifests)
    assert chart.named(manifests, "PodDisruptionBudget")["metadata"]["name"].endswith("-tokenizer")
    assert chart.named(manifests, "Service")["metadata"]["name"].endswith("-tokenizer")
    assert "volumeClaimTemplates" not in chart.named(manifests, "StatefulSet")["spec"]


# Identity and state


@pytest.mark.parametrize("component", STATEFUL)
def test_the_name_of_a_pod_is_its_instance_id(component: str) -> None:
    (instance,) = [entry for entry in container(component)["env"] if entry["name"] == "FRAUD_INSTANCE_ID"]
    assert instance["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"


@pytest.mark.parametrize("component", STATEFUL)
def test_state_is_on_a_volume_that_outlives_the_pod(component: str) -> None:
    manifests = chart.render()
    spec = chart.named(manifests, "StatefulSet", component)["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    (mount,) = [one for one in container(component)["volumeMounts"] if one["name"] == claim["metadata"]["name"]]
    assert mount["mountPath"] == chart.environment(manifests, component)["FRAUD_STATE_DIR"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["podManagementPolicy"] == "Parallel"


def test_there_is_exactly_one_learner() -> None:
    assert chart.named(chart.render({"scorer": {"replicas": 9}}), "StatefulSet", "learner")["spec"]["replicas"] == 1


@pytest.mark.parametrize("component", STATEFUL)
@pytest.mark.parametrize("path", chart.CI, ids=[path.name for path in chart.CI])
def test_an_upgrade_to_any_feature_changes_nothing_that_kubernetes_forbids_to_change(
    path: Path, component: str
) -> None:
    both: dict[str, Any] = {part: {"enabled": True} for part in STATEFUL}
    values = chart.merged(chart.ci(path), both | {"tokenizer": {"sharesKafkaUser": True}})
    values |= {"nameOverride": "", "fullnameOverride": ""}  # names and the size of a volume are among those things
    for part in STATEFUL:
        values = {**values, part: {**values.get(part, {}), "volume": {}}}
    before, after = (
        chart.named(chart.render(some, is_upgrade=some is not None), "StatefulSet", component)["spec"]
        for some in (None, values)
    )
    free = {"replicas", "template", "persistentVolumeClaimRetentionPolicy"}
    assert {name: part for name, part in before.items() if name not in free} == {
        name: part for name, part in after.items() if name not in free
    }


# What rolls pods, and what does not


def template(values: dict[str, Any], folder: Path = chart.CHART) -> dict[str, Any]:
    return chart.named(chart.render(values, folder), "StatefulSet", "scorer")["spec"]["template"]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"FRAUD_REVIEW_THRESHOLD": 0.2}},
        {"kafka": {"bootstrapServers": "elsewhere:9092"}},
        {"kafka": {"options": {"client.rack": "b"}}},
        {"image": {"tag": "2"}},
    ],
)
def test_a_changed_setting_restarts_the_pods(change: dict[str, Any]) -> None:
    assert template(change) != template({})


def test_other_changes_do_not_restart_the_pods(tmp_path: Path) -> None:
    newer = with_files(tmp_path, {"rules/more.yaml": "groups: []"})
    text = (newer / "Chart.yaml").read_text()
    (newer / "Chart.yaml").write_text(re.sub(r"(?m)^version: .*$", "version: 9.9.9", text))
    (newer / "values.yaml").write_text((newer / "values.yaml").read_text().replace("replicas: 3", "replicas: 4"))
    changed = {"networkPolicy": {"enabled": False}, "serviceMonitor": {"enabled": True}}
    assert chart.loaded(newer).version == "9.9.9"
    assert template(changed, newer) == template({})


def test_the_topics_job_runs_again_when_image_or_settings_change() -> None:
    def job(values: dict[str, Any]) -> str:
        return chart.named(chart.render(values), "Job")["metadata"]["name"]

    changes: list[dict[str, Any]] = [{"settings": {"FRAUD_PARTITIONS": 24}}, {"image": {"tag": "2"}}, LOGIN]
    assert job({}) == job({"scorer": {"replicas": 4}})
    assert len({job({}), *map(job, changes)}) == 4


# Numbers of pods


@pytest.mark.parametrize(
    "values",
    [
        {"scorer": {"replicas": 13}},
        {"autoscaling": {"enabled": True, "maxReplicas": 13}},
        {"autoscaling": {"enabled": True, "maxReplicas": 2}},
    ],
)
def test_an_impossible_number_of_scorers_is_rejected(values: dict[str, Any]) -> None:
    with pytest.raises(HelmRenderError, match=r"partitions|least number"):
        chart.render(values)


def test_with_autoscaling_the_statefulset_has_no_replica_count() -> None:
    assert chart.named(chart.render(), "StatefulSet", "scorer")["spec"]["replicas"] == 3
    scaled = chart.render({"autoscaling": {"enabled": True}})
    assert "replicas" not in chart.named(scaled, "StatefulSet", "scorer")["spec"]
    spec = chart.named(scaled, "ScaledObject")["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (3, 12)


def test_the_autoscaler_logs_in_as_the_scorer_does() -> None:
    manifests = chart.render(chart.ci(chart.CHART / "ci/autoscaling-values.yaml"))
    trigger = chart.named(manifests, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    assert (trigger["sasl"], trigger["tls"], trigger["lagThreshold"]) == ("scram_sha256", "enable", "1000000")
    credentials = chart.named(manifests, "TriggerAuthentication")["spec"]
    variables = {entry["name"] for entry in chart.container(chart.pods(manifests)["scorer"])["env"]}
    assert {entry["name"] for entry in credentials["env"]} <= variables
    assert {entry["containerName"] for entry in credentials["env"]} == {"scorer"}
    assert [entry["parameter"] for entry in credentials["secretTargetRef"]] == ["password", "ca"]


# Probes, time to end, network


@pytest.mark.parametrize("component", STATEFUL)
def test_probes_use_paths_that_the_service_serves(component: str) -> None:
    mine = container(component)
    (port,) = mine["ports"]
    paths = {kind: mine[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startup": "/startupz",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in paths.values()} == {port["name"]}
    assert port["containerPort"] == PORT
    with health.HttpEndpoint("127.0.0.1", 0, Metrics(), health.Health()) as endpoint:
        for path in ("/metrics", *(probe["path"] for probe in paths.values())):
            with closing(HTTPConnection("127.0.0.1", endpoint.port, timeout=5)) as connection:
                connection.request("GET", path)
                assert connection.getresponse().status in {200, 503}


@pytest.mark.parametrize("component", STATEFUL)
def test_the_startup_probe_allows_the_configured_recovery_time(component: str) -> None:
    probe = container(component, {component: {"startupSeconds": 600}})["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 600


def test_the_grace_period_of_the_learner_covers_its_transaction_timeout() -> None:
    pods = chart.pods(chart.render())
    grace = {component: pods[component]["spec"]["terminationGracePeriodSeconds"] for component in STATEFUL}
    assert grace["learner"] * 1000 > learner.TRANSACTION_TIMEOUT_MS
    assert grace["scorer"] > settings.Settings.model_fields["session_timeout"].default.total_seconds()


@pytest.mark.parametrize(
    ("values", "ports"),
    [
        ({}, [9092]),
        ({"kafka": {"bootstrapServers": "a:9093,b:9093,c:9094"}}, [9093, 9094]),
        ({"networkPolicy": {"brokerPorts": [1234]}}, [1234]),
    ],
)
def test_pods_reach_only_brokers_and_dns(values: dict[str, Any], ports: list[int]) -> None:
    spec = chart.named(chart.render(values), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    dns, brokers = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    (peer,) = dns["to"]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kube-system"}
    assert peer["podSelector"]["matchLabels"] == {"k8s-app": "kube-dns"}
    assert brokers["to"] == chart.REQUIRED["networkPolicy"]["brokers"]
    assert [port["port"] for port in brokers["ports"]] == ports
    (scrape,) = spec["ingress"]
    assert [port["port"] for port in scrape["ports"]] == ["http"]
    assert scrape["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]


def test_brokers_must_be_named_unless_any_address_is_allowed() -> None:
    with pytest.raises(HelmRenderError, match=r"name the peers that are brokers.*networkPolicy\.anyBroker=true"):
        chart.render({"networkPolicy": {"brokers": []}})
    choice = {"networkPolicy": {"brokers": [], "anyBroker": True}}
    _, brokers = chart.named(chart.render(choice), "NetworkPolicy")["spec"]["egress"]
    assert "to" not in brokers
    assert "to every address" in notes(choice)
    assert chart.render({"networkPolicy": {"brokers": [], "enabled": False}})


def test_without_peers_for_dns_none_is_allowed() -> None:
    (brokers,) = chart.named(chart.render({"networkPolicy": {"dns": []}}), "NetworkPolicy")["spec"]["egress"]
    assert brokers["to"]


def notes(values: dict[str, Any]) -> str:
    (text,) = [text for name, text in chart.texts(values).items() if name.endswith("NOTES.txt")]
    return text


def test_the_notes_warn_about_an_image_without_digest() -> None:
    digest = {"digest": f"sha256:{'0' * 64}"}
    both = {"image": digest, "refit": {"enabled": True, "image": digest}}
    assert "WARNING" not in notes(both)
    assert "WARNING: image.digest is empty" in notes({})
    assert "WARNING: refit.image.digest is empty" in notes(both | {"refit": {"enabled": True}})


def test_without_scrapers_no_ingress_is_allowed() -> None:
    spec = chart.named(chart.render({"networkPolicy": {"scrapers": []}}), "NetworkPolicy")["spec"]
    assert "Ingress" in spec["policyTypes"]
    assert "ingress" not in spec


# Rules and dashboards


def test_rules_are_rendered_with_their_prometheus_templates(tmp_path: Path) -> None:
    rule = '{alert: Late, expr: up == 0, annotations: {summary: "{{ $labels.pod }} by {{ $value | humanize }}"}}'
    files = {
        "rules/alerts.yaml": f"groups: [{{name: alerts, rules: [{rule}]}}]",
        "rules/recording.yaml": "groups: [{name: recording, rules: [{record: a:b, expr: sum(up)}]}]",
    }
    manifests = chart.render({"prometheusRule": {"enabled": True}}, with_files(tmp_path, files))
    rules = chart.named(manifests, "PrometheusRule")
    assert chart.faults(rules) == []
    groups = {group["name"]: group["rules"] for group in rules["spec"]["groups"]}
    assert list(groups) == ["alerts", "recording"]
    assert set(groups["alerts"][0]["annotations"]) == {"summary"}
    assert groups["alerts"][0]["annotations"]["summary"] == "{{ $labels.pod }} by {{ $value | humanize }}"


def test_rules_that_are_not_yaml_are_rejected(tmp_path: Path) -> None:
    folder = with_files(tmp_path, {"rules/alerts.yaml": "groups: [\n"})
    with pytest.raises(HelmRenderError, match=r"rules/alerts\.yaml"):
        chart.render({"prometheusRule": {"enabled": True}}, folder)


def test_dashboards_are_rendered_unchanged_for_the_sidecar(tmp_path: Path) -> None:
    board = json.dumps({"title": "Overview", "templating": {"expr": 'rate(x{pod="$pod"}[$__rate_interval])'}}, indent=2)
    folder = with_files(tmp_path, {"dashboards/overview.json": board, "dashboards/models.json": "{}"})
    config = chart.named(chart.render({"dashboards": {"labels": {"mine": "1"}}}, folder), "ConfigMap", "-dashboards")
    assert chart.faults(config) == []
    assert config["data"] == {"overview.json": board, "models.json": "{}"}
    assert config["metadata"]["labels"].items() >= {"grafana_dashboard": "1", "mine": "1"}.items()


def test_a_chart_without_rules_and_dashboards_renders_none(tmp_path: Path) -> None:
    manifests = chart.render({"prometheusRule": {"enabled": True}}, with_files(tmp_path, {}))
    assert "PrometheusRule" not in chart.kinds(manifests)
    assert not [one for one in manifests if one["metadata"]["name"].endswith("-dashboards")]


def test_the_chart_contains_its_rules_and_dashboards() -> None:
    manifests = chart.render({"prometheusRule": {"enabled": True}})
    rules = sorted((chart.CHART / "rules").glob("*.yaml"))
    boards = sorted((chart.CHART / "dashboards").glob("*.json"))
    if not rules or not boards:
        pytest.skip("the chart has no rules or no dashboards yet")
    names = {group["name"] for group in chart.named(manifests, "PrometheusRule")["spec"]["groups"]}
    assert names == {group["name"] for file in rules for group in chart.ci(file)["groups"]}
    config = chart.named(manifests, "ConfigMap", "-dashboards")
    assert set(config["data"]) == {board.name for board in boards}
    assert len(json.dumps(config)) < 1 << 20, "etcd takes no larger object"
