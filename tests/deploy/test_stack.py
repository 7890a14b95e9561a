"""The local stack: what can be known of compose.yaml and ops/ without Docker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import apache_kafka as kafka

from fraud_service.config import settings
from fraud_service.demo.broker import LOOPBACK, free_loopback_port

ROOT = Path(__file__).parents[2]
OURS = {"topics", "scorer", "learner", "feeder"}


@pytest.fixture(scope="module")
def stack() -> dict:
    """Give the file as Docker Compose itself reads it, with the variables' defaults."""
    compose = shutil.which("docker-compose", path=Path(sys.executable).parent)
    if compose is None:
        pytest.skip("docker-compose is not installed")
    images = {"BASE_IMAGE", "KAFKA_IMAGE", "PROMETHEUS_IMAGE", "ALERTMANAGER_IMAGE", "GRAFANA_IMAGE"}
    done = subprocess.run(
        [compose, "--project-name=fraud", "--profile=demo", "config", "--format=json"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env={name: value for name, value in os.environ.items() if name not in images},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return json.loads(done.stdout)


def document(path: str) -> dict:
    return yaml.safe_load((ROOT / path).read_text())


def test_our_containers_are_as_restricted_as_pods(stack):
    assert set(stack["services"]) > OURS
    for name in OURS:
        service = stack["services"][name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) <= 1 << 30, name
        assert "user" not in service, name  # the image's own number


def test_nothing_is_published_beyond_loopback(stack):
    published = [port for service in stack["services"].values() for port in service.get("ports", [])]
    assert len(published) >= 6
    assert {port["host_ip"] for port in published} == {"127.0.0.1"}
    assert len({port["published"] for port in published}) == len(published)


def test_every_image_has_a_version(stack):
    for name, service in stack["services"].items():
        if name not in OURS:
            assert service["image"].rpartition(":")[2][:1] in "v0123456789", name


def test_the_settings_of_the_stack_are_settings_of_the_service(stack, monkeypatch):
    for name in OURS:
        with monkeypatch.context() as context:
            for variable, value in stack["services"][name]["environment"].items():
                context.setenv(variable, value)
            assert settings.load().bootstrap_servers == "kafka:9092", name
    instances = [stack["services"][name]["environment"]["FRAUD_INSTANCE_ID"] for name in ("scorer", "learner")]
    assert len(set(instances)) == 2


def test_every_mounted_file_exists(stack):
    binds = [v for s in stack["services"].values() for v in s.get("volumes", []) if v["type"] == "bind"]
    assert len(binds) == 6
    for bind in binds:
        assert bind["read_only"]
        if "helm" in Path(bind["source"]).parts and not (ROOT / "helm").is_dir():
            continue  # the chart is not in this tree
        assert Path(bind["source"]).exists(), bind["source"]


def test_prometheus_scrapes_and_alerts_the_services_of_the_stack(stack):
    config = document("ops/prometheus.yml")
    targets = [job["static_configs"][0]["targets"][0] for job in config["scrape_configs"]]
    assert targets == ["scorer:8000", "learner:8000"]
    for target in targets:
        (port,) = stack["services"][target.partition(":")[0]]["ports"]
        assert port["target"] == 8000
    (alertmanager,) = config["alerting"]["alertmanagers"]
    assert alertmanager["static_configs"][0]["targets"] == ["alertmanager:9093"]
    mounts = {v["target"] for v in stack["services"]["prometheus"]["volumes"]}
    assert {str(Path(pattern).parent) for pattern in config["rule_files"]} <= mounts


def test_grafana_finds_its_dashboards_and_its_prometheus(stack):
    mounts = {v["target"] for v in stack["services"]["grafana"]["volumes"]}
    (provider,) = document("ops/grafana/dashboards.yaml")["providers"]
    assert provider["options"]["path"] in mounts
    home = stack["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) in mounts
    (source,) = document("ops/grafana/datasources.yaml")["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    if (ROOT / "helm").is_dir():
        assert (ROOT / "helm" / "fraud-service" / "dashboards" / Path(home).name).is_file()


@pytest.mark.parametrize(
    ("tool", "command", "config"),
    [
        ("promtool", ["check", "config", "--syntax-only"], "ops/prometheus.yml"),
        ("amtool", ["check-config"], "ops/alertmanager.yml"),
    ],
)
def test_the_configurations_pass_the_checks_of_their_own_tools(tool, command, config):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *command, str(ROOT / config)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


class StackKafka(kafka.ApacheKafka):
    """A broker with the settings of the stack: only addresses and the folder are another machine's."""

    environment: dict[str, str]

    def _prepare(self) -> None:
        super()._prepare()
        inside, outside, controller = self.bootstrap, *(f"{LOOPBACK}:{free_loopback_port()}" for _ in range(2))
        places = {
            "KAFKA_LISTENERS": f"INSIDE://{inside},OUTSIDE://{outside},CONTROLLER://{controller}",
            "KAFKA_ADVERTISED_LISTENERS": f"INSIDE://{inside},OUTSIDE://{outside}",
            "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@{controller}",
            "KAFKA_LOG_DIRS": str(self.data),
        }
        assert places.keys() < self.environment.keys()
        # The image turns KAFKA_A_B into a.b; KAFKA_HEAP_OPTS is for its start script.
        lines = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value
            for name, value in {**self.environment, **places}.items()
            if name != "KAFKA_HEAP_OPTS"
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        command = kafka._java("kafka.tools.StorageTool", "format", "-t", "c3RhY2stdGVzdC1pZC0wMQ", "-c")
        shutil.rmtree(self.data, ignore_errors=True)
        subprocess.run([*command, str(self._config)], check=True, timeout=30, capture_output=True)


@pytest.mark.kafka
def test_apache_kafka_of_the_stacks_version_starts_with_its_settings(stack, kafka_can_run):
    service = stack["services"]["kafka"]
    assert f"<kafka.version>{service['image'].rpartition(':')[2]}</kafka.version>" in kafka.POM.read_text()
    broker = StackKafka()
    broker.environment = service["environment"]
    with broker:
        log = broker.log.read_text()
        assert "OUTSIDE" in log
        assert "auto.create.topics.enable = false" in log
