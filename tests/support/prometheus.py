"""Run a real Prometheus from its Debian package, for the tests of rules and dashboards.

The tests unpack the package into a cache instead of installing it, because an installed one would start a server.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import pytest
from support import fetched
from support.apache_kafka import required

from fraud_service.demo.broker import LOOPBACK, end_process, free_loopback_port, tail

if TYPE_CHECKING:
    from types import TracebackType

FETCH_TIMEOUT: Final = 150.0  # seconds
START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 20.0
QUERY_TIMEOUT: Final = 30.0


class PrometheusError(RuntimeError):
    """Fetching or starting Prometheus failed. The message gives the reason."""


@functools.cache
def program(name: str) -> str:
    """Return the path of `prometheus` or `promtool`. Without one, skip the test, or fail if real tools are required.

    An installed program comes first, then the Debian package. Root fetches package lists first if there are none.
    """
    found = shutil.which(name)
    if found is not None:
        return found
    try:
        return str(_unpacked() / name)
    except PrometheusError as error:
        reason = f"{name} is not installed, and its Debian package cannot be had: {error}"
        if required():
            pytest.fail(reason)
        pytest.skip(reason)


def _unpacked() -> Path:
    folder = fetched.folder() / "prometheus"
    with fetched.tick():
        if not folder.is_dir():
            _fetch(folder)
    return folder / "usr/bin"


def _fetch(folder: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise PrometheusError("this is no Debian system")
    # Fill another folder and then rename it, so that an interrupted run never leaves an incomplete one.
    with tempfile.TemporaryDirectory(prefix="prometheus.", dir=folder.parent) as scratch:
        _download(Path(scratch))
        (package,) = Path(scratch).glob("prometheus_*.deb")
        _run(["dpkg-deb", "-x", str(package), f"{scratch}/tree"], Path(scratch))
        Path(scratch, "tree").rename(folder)


def _download(folder: Path) -> None:
    command = ["apt-get", "download", "-q", "prometheus"]
    try:
        _run(command, folder)
    except PrometheusError:
        if os.geteuid() != 0:
            raise
        _run(["apt-get", "update", "-q"], folder)
        _run(command, folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=FETCH_TIMEOUT)
    except subprocess.CalledProcessError as error:
        raise PrometheusError(f"{' '.join(command)}: {error.stderr.strip()[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise PrometheusError(f"{' '.join(command)} took longer than {FETCH_TIMEOUT:.0f} s") from error


class Prometheus:
    """A Prometheus that scrapes and evaluates rules every second. Leaving the context ends the process.

    Parameters
    ----------
    targets
        Ports on the loopback address, by pod name.
    """

    def __init__(self, folder: Path, targets: dict[str, int], rules: Path) -> None:
        self._folder, self._log = folder, folder / "log"
        self._program = program("prometheus")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_loopback_port()
        jobs = [
            {
                "job_name": f"fraud-service-{name}",
                "static_configs": [
                    {"targets": [f"{LOOPBACK}:{port}"], "labels": {"namespace": "fraud", "pod": f"{name}-0"}}
                ],
            }
            for name, port in targets.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": jobs,
        }
        folder.mkdir()
        (folder / "prometheus.yaml").write_text(json.dumps(config))  # JSON is YAML

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder}/prometheus.yaml",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address={LOOPBACK}:{self.port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._await_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            end_process(self._process, timeout_s=STOP_TIMEOUT)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise PrometheusError(f"Prometheus did not start; the end of its log:\n{tail(self._log)}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self.port}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an API response; an error response fails the test."""
        query = urllib.parse.urlencode(parameters)
        address = f"http://{LOOPBACK}:{self.port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(address, timeout=QUERY_TIMEOUT) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the current series of an expression."""
        series: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return series
