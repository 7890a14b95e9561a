"""The rendered pods, run by podman with their security settings in force: topics, scorer, learner, and helm's test."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest
import yaml
from support import chart, containers
from support.processes import READY_TIMEOUT, Service

from fraud_service.config.settings import Settings
from fraud_service.demo.broker import EmbeddedBroker, free_loopback_port

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.embedded,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("FRAUD_TEST_IMAGE") != "1", reason="the image is built and run by `make image`, with podman"
    ),
]


class Played:
    """One pod of the chart in podman, which has neither StatefulSets nor Jobs, but their pods. A context."""

    def __init__(self, manifests: list[dict[str, Any]], component: str, folder: Path) -> None:
        self.component, self.port = component, free_loopback_port()
        self.name = f"{component}-{uuid4().hex[:8]}"
        self.container = f"{self.name}-{chart.container(chart.pods(manifests)[component])['name']}"
        self.file = folder / f"{self.name}.yaml"
        config = chart.named(manifests, "ConfigMap", "fraud-service")
        self.file.write_text(yaml.safe_dump_all([config, self._pod(chart.pods(manifests)[component])]))

    def _pod(self, template: dict[str, Any]) -> dict[str, Any]:
        """Return the pod as the kubelet would get it, but on the network of this machine and a port of its own."""
        spec = template["spec"] | {"hostNetwork": True}
        mine = chart.container(template)
        mine = mine | {"env": [*mine["env"], {"name": "FRAUD_HTTP_PORT", "value": str(self.port)}]}
        mine.pop("ports", None)
        if self.component in {"scorer", "learner"}:
            claim = {"name": "state", "persistentVolumeClaim": {"claimName": self.name}}
            spec["volumes"] = [*spec["volumes"], claim]
        metadata = {"name": self.name, "labels": template["metadata"]["labels"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | {"containers": [mine]}}

    def __enter__(self) -> Self:
        containers.podman("play", "kube", "--log-driver=k8s-file", str(self.file))
        return self

    def __exit__(self, *_: object) -> None:
        containers.podman("pod", "rm", "--force", "--ignore", "--time=0", self.name)
        containers.podman("volume", "rm", "--force", self.name)

    def log(self) -> str:
        return subprocess.run(
            ["podman", "logs", self.container], capture_output=True, text=True, check=False, timeout=30
        ).stdout

    def exit_code(self, timeout: float) -> int:
        return int(containers.podman("wait", self.container, timeout=timeout))

    def await_ready(self, settings: Settings, folder: Path) -> None:
        probe = Service(settings, self.component, folder, port=self.port)
        deadline = time.monotonic() + READY_TIMEOUT
        while probe.status("/startupz") != 200 or probe.status("/readyz") != 200:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def kernel_status(self) -> dict[str, str]:
        pid = containers.inspect(self.container)["State"]["Pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.fixture(scope="module")
def manifests() -> Iterator[list[dict[str, Any]]]:
    repository, _, tag = containers.build("service").rpartition(":")
    with EmbeddedBroker() as broker:
        yield chart.render(
            {
                "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
                "kafka": {"bootstrapServers": broker.bootstrap},
                "settings": {"FRAUD_PARTITIONS": 4, "FRAUD_REPLICATION_FACTOR": 1},
            }
        )


def test_the_pods_of_the_chart_create_topics_start_score_and_end(manifests: Any, tmp_path: Path) -> None:
    environment = chart.named(manifests, "ConfigMap", "fraud-service")["data"]
    settings = Settings(bootstrap_servers=environment["FRAUD_BOOTSTRAP_SERVERS"])
    with Played(manifests, "topics", tmp_path) as topics:
        assert topics.exit_code(60) == 0, topics.log()
    with Played(manifests, "scorer", tmp_path) as scorer, Played(manifests, "learner", tmp_path) as learner:
        for pod in (scorer, learner):
            pod.await_ready(settings, tmp_path)
            status = pod.kernel_status()
            assert status["Uid"].split() == status["Gid"].split() == ["10001"] * 4
            assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
            assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
            assert containers.inspect(pod.container)["HostConfig"]["ReadonlyRootfs"] is True
        with Played(manifests, "test", tmp_path) as test:
            assert test.exit_code(150) == 0, test.log()
            assert test.log().startswith("scored after ")
        for pod in (scorer, learner):
            containers.podman("stop", "--time=60", pod.container, timeout=90)
            assert containers.inspect(pod.container)["State"]["ExitCode"] == 0, pod.log()
