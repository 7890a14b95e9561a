"""The image, built and run for real against Apache Kafka: `make image`. What it measures goes to .cache/image.json."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from support import containers
from support.containers import Container, podman, podman_environment, restrictions, service_settings
from support.processes import Tail, fresh_settings
from support.simulated import simulated_file

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.demo.broker import free_loopback_port
from fraud_service.training.history import History

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        os.environ.get("FRAUD_TEST_IMAGE") != "1", reason="the image is built and run by `make image`, with podman"
    ),
]

DAYS = 24
RATE = 1500.0  # transactions a second: the load is bounded
WORLD = {"seed": 3, "cards": 600, "merchants": 200, "days": DAYS}
DAY = 86_400_000


@pytest.fixture(scope="module")
def figures():
    found: dict[str, float] = {}
    yield found
    path = containers.ROOT / ".cache" / "image.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")


@pytest.fixture(scope="module")
def image():
    return containers.build("service")


@pytest.fixture(scope="module")
def refit_image():
    return containers.build("refit")


@pytest.fixture(scope="module")
def settings(apache_kafka, tmp_path_factory):
    return fresh_settings(apache_kafka.bootstrap, tmp_path_factory.mktemp("image"))


def test_the_layers_beyond_the_base_are_small(image, refit_image, figures):
    figures["service_megabytes_compressed"] = round(containers.compressed_megabytes(image), 1)
    figures["refit_megabytes_compressed"] = round(containers.compressed_megabytes(refit_image), 1)
    assert 20 < figures["service_megabytes_compressed"] <= 150


def test_the_image_has_labels(image):
    config = containers.inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.title"] == "fraud-service"
    assert config["Labels"]["org.opencontainers.image.base.name"] == containers.base_image()
    assert "OMP_NUM_THREADS=1" in config["Env"]
    assert containers.inspect(image)["Healthcheck"]["Test"][0] == "CMD"


def in_image(image: str, script: str) -> str:
    return podman("run", "--rm", *restrictions("512m"), "--entrypoint=/bin/sh", image, "-c", script)


def test_the_serving_image_has_no_build_tools_and_no_training_libraries(image, refit_image):
    look = "command -v cc gcc make git uv; python -m pip --version >/dev/null 2>&1 && echo pip; ls /src /opt/uv; true"
    assert in_image(image, f"({look}) 2>/dev/null") == ""
    packages = "ls /opt/fraud-service/lib/python3*/site-packages"
    training = {"sklearn", "pyarrow", "onnx", "matplotlib", "noida_db"}
    assert training.isdisjoint(in_image(image, packages).split())
    assert training & set(in_image(refit_image, packages).split()) == {"sklearn", "pyarrow"}


def run_once(image: str, settings, *arguments: str, memory: str = "512m") -> subprocess.CompletedProcess[str]:
    command = ["podman", "run", "--rm", *restrictions(memory), *service_settings(settings), image, *arguments]
    return subprocess.run(command, env=podman_environment(), capture_output=True, text=True, timeout=300, check=False)


def test_a_command_that_needs_training_libraries_says_so_in_the_serving_image(image, settings):
    done = run_once(image, settings, "simulate", "x.parquet")
    assert done.returncode == 2
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def ready_after(container: Container) -> float:
    started = time.monotonic()
    container.start()
    container.await_ready()
    return round(time.monotonic() - started, 1)


def megabytes(container: Container, key: str) -> int:
    """Return the resident memory now (VmRSS) or at its peak (VmHWM)."""
    return round(int(container.kernel_status()[key].split()[0]) / 1024)


def assert_restricted(container: Container) -> None:
    """Ask the kernel, not podman."""
    status = container.kernel_status()
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert container.root_is_read_only()


@pytest.fixture(scope="module")
def worked(image, settings, figures, tmp_path_factory):
    """Run scorer and learner over a bounded load, with every restriction; returns them still running."""
    folder = tmp_path_factory.mktemp("containers")
    scorer, learner = (Container(settings, verb, folder / verb, image=image) for verb in ("score", "learn"))
    scores, snapshots = Tail(settings, settings.topics.scores), Tail(settings, settings.topics.snapshots)
    try:
        for container in (scorer, learner):
            figures[f"{container.verb}_seconds_to_ready"] = ready_after(container)
            figures[f"{container.verb}_megabytes_idle"] = megabytes(container, "VmRSS")
        history = History.open(simulated_file(folder, **WORLD))
        started = time.monotonic()
        with HistoryProducer(settings) as feed:
            feed.produce(history, 7 * DAY, RATE)
        scorer.wait_until(lambda: len(scores.read()) == len(history), 120)
        learner.wait_until(lambda: len(snapshots.read()) > (DAYS - 2) * 24, 120)
        for container in (scorer, learner):
            figures[f"{container.verb}_megabytes_after_load"] = megabytes(container, "VmRSS")
            figures[f"{container.verb}_megabytes_peak"] = megabytes(container, "VmHWM")
        figures |= {"transactions": len(history), "labels": feed.labels, "snapshots": len(snapshots.messages)}
        figures["seconds_of_load"] = round(time.monotonic() - started, 1)
        yield scorer, learner
    finally:
        scorer.kill()
        learner.kill()
        scores.close()
        snapshots.close()


def test_scorer_and_learner_work_without_root_capabilities_or_a_writable_root(worked):
    for container in worked:
        assert_restricted(container)


def test_the_health_check_of_the_image_asks_the_poll_loop(worked, image):
    for container in worked:
        podman("healthcheck", "run", container.name)
    _, python, *arguments = containers.inspect(image)["Healthcheck"]["Test"]
    nobody_there = ["podman", "run", "--rm", *restrictions("512m"), f"--env=FRAUD_HTTP_PORT={free_loopback_port()}"]
    done = subprocess.run(
        [*nobody_there, f"--entrypoint={python}", image, *arguments],
        env=podman_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Connection refused" in done.stderr


def test_memory_under_load_leaves_room_below_the_limit(worked, figures):
    for container in worked:
        assert 50 < figures[f"{container.verb}_megabytes_peak"] < 400  # of 512


def test_a_re_fit_runs_in_its_own_image_with_the_same_restrictions(worked, refit_image, settings, figures):
    started = time.monotonic()
    done = run_once(refit_image, settings, "refit", "--dry-run", memory="1g")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["dry_run"]
    assert found["challenger"] is not None, found
    figures["refit_seconds"] = round(time.monotonic() - started, 1)


def test_sigterm_ends_scorer_and_learner_with_0_in_the_grace_period_and_a_restart_continues(worked, figures):
    for container in worked:
        started = time.monotonic()
        assert container.stop() == 0, container.log()[-3000:]
        figures[f"{container.verb}_seconds_to_stop"] = round(time.monotonic() - started, 1)
        figures[f"{container.verb}_seconds_to_ready_again"] = ready_after(container)
        assert container.stop() == 0, container.log()[-3000:]


def test_sigterm_during_the_start_ends_a_process_with_0(image, settings, tmp_path):
    container = Container(settings, "score", tmp_path, image=image)
    try:
        container.start()
        container.wait_until(container.listens_to_sigterm, 30)  # modules are still being loaded
        assert "scorer_starting" not in container.log()
        assert container.stop() == 0, container.log()[-3000:]
    finally:
        container.kill()
