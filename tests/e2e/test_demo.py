"""Test the demo as a user runs it: a separate process, its output, its exit code, and the files it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient

from fraud_service.demo.broker import EmbeddedBrokerError, end_process, find_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "DEMO_OF_THIS_TEST"
PROC = Path("/proc")
START = 90.0  # seconds for broker and services on a busy machine
END = 60.0


class Demo:
    """A running demo. Every process it starts inherits a mark in its environment."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.mark = uuid.uuid4().hex
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self._output = folder / "output"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FRAUD_")}
        environment |= {MARK: self.mark, "TMPDIR": str(self.folder)}
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fraud_service", "demo", *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def await_output(self, pattern: str) -> None:
        self._await(lambda: re.search(pattern, self.output) is not None, f"no {pattern!r} in {self.output}")

    def await_process(self, command: str) -> int:
        self._await(lambda: self.processes(command) != [], f"no process {command!r}")
        return self.processes(command)[0]

    def _await(self, condition: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + START
        while not condition():
            assert time.monotonic() < deadline, complaint
            assert self.process.poll() is None, self.output
            time.sleep(0.05)

    def end(self, seconds: float = END) -> int:
        return self.process.wait(seconds)

    def processes(self, command: str = "") -> list[int]:
        """Return the ids of this demo's processes whose command line contains `command`."""
        found = []
        for folder in PROC.glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # ended already, or not ours
            if f"{MARK}={self.mark}".encode() in environment and command in words:
                found.append(int(folder.name))
        return found

    def figure(self, name: str) -> int:
        found = re.search(rf"^{name} +([\d,]+)\b", self.output, re.MULTILINE)
        assert found is not None, self.output
        return int(found[1].replace(",", ""))

    def parts(self, name: str) -> list[int]:
        """Return the numbers in the explanation of a figure."""
        found = re.search(rf"^{name} +[\d,]+ +(.*)$", self.output, re.MULTILINE)
        return [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", found[1])]

    def has_left_nothing(self) -> bool:
        return self.processes() == [] and list(self.folder.iterdir()) == []


@pytest.fixture
def demo(tmp_path) -> Iterator[Callable[..., Demo]]:
    try:
        find_binary()
    except EmbeddedBrokerError as error:
        pytest.skip(str(error))
    if not PROC.is_dir():
        pytest.skip("needs /proc to find processes")
    started: list[Demo] = []

    def start(*options: str) -> Demo:
        started.append(Demo(tmp_path, *options))
        return started[-1]

    yield start
    for each in started:
        end_process(each.process, timeout_s=END)
        for number in each.processes():
            os.kill(number, signal.SIGKILL)


@pytest.mark.embedded
def test_the_demo_ends_with_a_consistent_summary(demo):
    shown = demo("--seconds", "12", "--rate", "200")
    assert shown.end(START + END) == 0, shown.output
    assert shown.figure("transactions") > 1000
    assert shown.figure("scores") == shown.figure("transactions")
    assert shown.figure("dead letters") == 0
    assert 0 < shown.figure("alerts") < shown.figure("scores") / 4
    assert 0 < shown.figure("labelled examples") <= shown.figure("scores")
    assert 0 < shown.figure("labels") < shown.figure("transactions")  # the demo sends no labels that come after the end
    assert shown.figure("snapshots") > 0
    caught, false, unlabelled = shown.parts("alerts")
    assert caught + false + unlabelled == shown.figure("alerts")
    found, missed = shown.parts("frauds known")
    assert found == caught
    assert found + missed == shown.figure("frauds known")
    assert "Traceback" not in shown.output
    assert shown.has_left_nothing()


@pytest.mark.embedded
def test_a_kept_demo_can_be_looked_at_until_ctrl_c(demo):
    shown = demo("--seconds", "8", "--rate", "100", "--keep")
    shown.await_output(r"Kept running until Ctrl-C")
    shown.await_output(r"\. (\S+demo\.env)")
    file = re.search(r"\. (\S+demo\.env)", shown.output)[1]
    done = subprocess.run(
        ["bash", "-c", f". {file}; {sys.executable} -m fraud_service verify --json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["counts"]["inputs"] == shown.figure("transactions")
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 0, shown.output
    assert shown.output.count("Summary") == 1
    assert shown.has_left_nothing()


@pytest.mark.embedded
def test_ctrl_c_stops_a_running_demo_cleanly(demo):
    shown = demo("--seconds", "300")
    shown.await_output(r"00:0[1-9] .* [1-9][\d,]* scored")
    shown.process.send_signal(signal.SIGINT)
    assert shown.end() == 0, shown.output
    assert "stopped early" in shown.output
    assert shown.figure("scores") == shown.figure("transactions") > 0
    assert "Traceback" not in shown.output
    assert shown.has_left_nothing()


@pytest.mark.embedded
def test_sigterm_stops_a_starting_demo_cleanly(demo):
    shown = demo()
    shown.await_process("fraud_service score")
    shown.process.send_signal(signal.SIGTERM)
    assert shown.end() == 0, shown.output
    assert "stopped before the first transaction" in shown.output
    assert shown.has_left_nothing()


@pytest.mark.embedded
def test_the_demo_ends_and_prints_the_log_when_a_service_dies(demo, embedded_broker):
    admin = AdminClient({"bootstrap.servers": embedded_broker.bootstrap})
    before = set(admin.list_topics(timeout=10).topics)
    shown = demo("--bootstrap", embedded_broker.bootstrap)
    shown.await_output("scorer and learner are ready")
    during = set(admin.list_topics(timeout=10).topics) - before
    assert during
    assert all(".demo-" in topic for topic in during)  # never the topic names of a real service
    os.kill(shown.await_process("fraud_service learn"), signal.SIGKILL)
    assert shown.end() == 1
    assert "the learner ended with exit code -9" in shown.output
    assert "learner_starting" in shown.output
    assert "Traceback" not in shown.output
    assert shown.has_left_nothing()
    assert set(admin.list_topics(timeout=10).topics) == before
