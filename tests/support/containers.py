"""Build the image with podman on a base that needs no registry, and run it with every restriction of a deployment."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from support.processes import STOP_TIMEOUT, Service, environment

ROOT = Path(__file__).parents[2]
STATE = "/var/lib/fraud-service"
# The default base comes from a registry. Debian's own Python of the same version comes from its package archive.
LOCAL_BASE = "localhost/fraud-service-base:trixie"
BUILD_TIMEOUT = 900.0
GRACE = 30  # seconds: the default of Kubernetes
# Works inside a virtual machine or a container too: needs neither systemd nor higher limits.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
"""


def podman(*arguments: str, timeout: float = 120.0) -> str:
    """Run podman to its end; returns its output."""
    done = subprocess.run(
        ["podman", *arguments], env=podman_environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"podman {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr[-3000:]}"
    return done.stdout.strip()


@functools.cache
def podman_environment() -> dict[str, str]:
    path = ROOT / ".cache" / "containers.conf"
    path.parent.mkdir(exist_ok=True)
    path.write_text(CONTAINERS_CONF)
    return {**os.environ, "CONTAINERS_CONF": str(path)}


def base_image() -> str:
    """Return the base image: `BASE_IMAGE` of the environment, or a Debian with Python that is built here once."""
    given = os.environ.get("BASE_IMAGE")
    if given:
        return given
    if not podman("images", "--quiet", LOCAL_BASE):
        with tempfile.TemporaryDirectory() as folder:
            tar = f"{folder}/base.tar"
            packages = "--include=python3,python3-venv,ca-certificates"
            command = ["mmdebstrap", "--quiet", "--variant=minbase", packages, "trixie", tar]
            subprocess.run(command, check=True, timeout=BUILD_TIMEOUT)
            podman("import", tar, LOCAL_BASE, timeout=BUILD_TIMEOUT)
    return LOCAL_BASE


def build(target: str) -> str:
    """Build one target of the Dockerfile; returns the name of the image."""
    name = f"localhost/fraud-service:{target}"
    # The build can use the machine's own certificates and package index. They do not become part of the image.
    outside = ["--volume=/etc/ssl/certs:/etc/ssl/certs:ro"] if Path("/etc/ssl/certs").is_dir() else []
    outside += [f"--build-arg={name}" for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX") if name in os.environ]
    podman(
        "build", "--isolation=chroot", "--network=host", "--format=docker", "--layers", *outside,
        f"--build-arg=BASE_IMAGE={base_image()}", f"--target={target}", f"--tag={name}", str(ROOT),
        timeout=BUILD_TIMEOUT,
    )  # fmt: skip
    return name


def inspect(name: str) -> dict:
    """Return podman's description of an image or a container."""
    return json.loads(podman("inspect", name))[0]


def compressed_megabytes(image: str) -> float:
    """Return the compressed size (MB) of the layers above the base, as in a registry."""
    below = len(inspect(base_image())["RootFS"]["Layers"])
    with tempfile.TemporaryDirectory() as folder:
        podman("push", "--quiet", image, f"oci:{folder}:image", timeout=BUILD_TIMEOUT)
        index = json.loads((Path(folder) / "index.json").read_text())
        digest = index["manifests"][0]["digest"].replace(":", "/")
        layers = json.loads((Path(folder) / "blobs" / digest).read_text())["layers"]
    assert len(layers) > below
    return sum(layer["size"] for layer in layers[below:]) / 1e6


def restrictions(memory: str) -> list[str]:
    """Return podman's options for Pod Security "restricted" with a read-only root and no temporary files."""
    return [
        "--network=host", "--read-only", "--read-only-tmpfs=false", "--cap-drop=all",
        "--security-opt=no-new-privileges", f"--memory={memory}", f"--memory-swap={memory}", "--pids-limit=256",
    ]  # fmt: skip


def service_settings(settings, **options: str) -> list[str]:
    """Return the settings of the service as options of `podman run`."""
    ours = {name: value for name, value in environment(settings).items() if re.match("FRAUD_(?!TEST_)", name)}
    return [f"--env={name}={value}" for name, value in {**ours, "FRAUD_STATE_DIR": STATE, **options}.items()]


@dataclass
class Container(Service):
    """A process of the service in a separate container, with a volume for its state."""

    image: str = "localhost/fraud-service:service"
    memory: str = "512m"
    name: str = field(default_factory=lambda: f"fraud-service-{uuid4().hex[:8]}")

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [
            "podman", "run", "--rm", f"--name={self.name}", *restrictions(self.memory),
            f"--volume={self.name}:{STATE}", *service_settings(self.settings, FRAUD_HTTP_PORT=str(self.port)),
            self.image, self.verb,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=podman_environment(), stdout=log, stderr=log)

    def kill(self) -> None:
        podman("rm", "--force", "--ignore", "--time=0", self.name)
        podman("volume", "rm", "--force", self.name)
        if self.process is not None:
            self.process.wait(STOP_TIMEOUT)

    def stop(self) -> int:
        """Stop with SIGTERM, and with SIGKILL after the grace period (exit code 137)."""
        podman("stop", f"--time={GRACE}", self.name, timeout=GRACE + 30)
        return self.process.wait(STOP_TIMEOUT)

    def kernel_status(self) -> dict[str, str]:
        """Return the fields of `/proc/<pid>/status`."""
        pid = inspect(self.name)["State"]["Pid"]
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def listens_to_sigterm(self) -> bool:
        """Whether a handler for SIGTERM is installed. Without one, process 1 of a container never gets the signal."""
        if podman("ps", "--quiet", f"--filter=name={self.name}") == "":
            return False
        return bool(int(self.kernel_status()["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)

    def root_is_read_only(self) -> bool:
        pid = inspect(self.name)["State"]["Pid"]
        mounts = [line.split() for line in Path(f"/proc/{pid}/mounts").read_text().splitlines()]
        return all("ro" in options.split(",") for _, place, _, options, *_ in mounts if place == "/")
