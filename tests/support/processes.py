"""Run processes of the service against a real broker, and commands of the command line in this process."""

from __future__ import annotations

import http.client
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self
from unittest import mock
from uuid import uuid4

import structlog
from confluent_kafka import TopicPartition
from support import forked

from fraud_service import cli
from fraud_service.cli import logging as cli_logging
from fraud_service.config.settings import Settings, TopicNames
from fraud_service.demo.broker import free_loopback_port
from fraud_service.kafka import clients, topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message
    from support.forked import ForkedProcess

READY_TIMEOUT = 90.0
STOP_TIMEOUT = 40.0


def fresh_settings(bootstrap: str, folder: Path, partitions: int = 4, replication: int = 1) -> Settings:
    """Return settings with new topics and groups; creates the topics."""
    name = uuid4().hex[:8]
    names = TopicNames(**{role: f"{default}.{name}" for role, default in TopicNames().model_dump().items()})
    settings = Settings(
        bootstrap_servers=bootstrap,
        topics=names,
        partitions=partitions,
        scorer_group=f"scorer-{name}",
        learner_group=f"learner-{name}",
        state_dir=folder,
        http_host="127.0.0.1",
        instance_id="test-0",
        session_timeout=timedelta(seconds=6),
        allow_unsigned=True,
    )
    topics.create(clients.admin(settings), topics.topic_specs(settings), replication)
    return settings


def environment(settings: Settings) -> dict[str, str]:
    """Return the settings as environment variables of a process."""
    values = settings.model_dump(mode="json", exclude={"topics", "kafka_config", "model_dir"}, exclude_none=True)
    named = {f"FRAUD_{key.upper()}": str(value) for key, value in values.items()}
    named |= {f"FRAUD_TOPICS__{role.upper()}": name for role, name in settings.topics.model_dump().items()}
    return {**os.environ, **named}


@dataclass(frozen=True)
class Done:
    """The exit code and the output of a command."""

    returncode: int
    stdout: str
    stderr: str


def run_here(settings: Settings, *arguments: str, **variables: str) -> Done:
    """Run a command of the command line in this process, which saves the seconds of a process start.

    The result includes what libraries write to the descriptor of stderr. Logs are text instead of JSON. The function
    restores logging, signals, environment and arguments at the end.
    """
    named = environment(settings) | {"FRAUD_HTTP_PORT": str(free_loopback_port())} | variables
    configured, on_sigterm = structlog.get_config(), signal.getsignal(signal.SIGTERM)
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with (
        mock.patch.dict(os.environ, named),
        mock.patch.object(sys, "argv", ["fraud-service", *arguments]),
        mock.patch.object(cli_logging, "configure"),
        redirect_stdout(out),
        _stderr() as err,
    ):
        code = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            structlog.configure(**configured)
            signal.signal(signal.SIGTERM, on_sigterm)
        err.seek(0)
        return Done(code, out.buffer.getvalue().decode(), err.read())


@contextmanager
def _stderr() -> Iterator[io.TextIOWrapper]:
    """Collect everything written to stderr, through `sys.stderr` and by C libraries."""
    kept = os.dup(2)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file:
        file.reconfigure(write_through=True)
        os.dup2(file.fileno(), 2)
        try:
            with redirect_stderr(file):
                yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@dataclass
class Service:
    """One process of the service. Leaving the context ends the process.

    Parameters
    ----------
    module
        What `python -m` runs.
    is_forked
        Fork a process that has imported the service, which saves two seconds. False starts a new interpreter, for tests
        of the start, the end or the memory of a process.
    """

    settings: Settings
    verb: str
    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_loopback_port)
    process: subprocess.Popen[bytes] | ForkedProcess | None = None
    module: str = "fraud_service"
    is_forked: bool = True

    @classmethod
    def patient(cls, settings: Settings, verb: str, folder: Path, options: dict[str, str] | None = None) -> Service:
        """Return a process whose scorer waits for a published snapshot, however busy the machine is."""
        tests = Path(__file__).parents[1]
        path = {"PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}
        return cls(settings, verb, folder, {**(options or {}), **path}, module="support.patient")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        env = environment(self.settings) | {
            "FRAUD_HTTP_PORT": str(self.port),
            "FRAUD_STATE_DIR": str(self.folder / "state"),
            **self.options,
        }
        if self.is_forked:
            self.process = forked.start(self.module, self.verb, env, self.folder / "log")
            return
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", self.module, self.verb], env=env, stderr=log)

    def kill(self) -> None:
        """Kill the process as `kill -9` does."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(STOP_TIMEOUT)

    def stop(self) -> int:
        """Stop the process as Kubernetes does; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT)

    def status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()

    def await_ready(self) -> None:
        self.wait_until(lambda: self.status("/readyz") == 200, READY_TIMEOUT)

    def wait_until(self, happened: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not happened():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / "log").read_text()[-3000:]
                raise AssertionError(f"{self.verb} exited with {self.process.poll()} or took too long:\n{tail}")
            time.sleep(0.1)

    def log(self) -> str:
        return (self.folder / "log").read_text()


class Tail:
    """Read the committed records of a topic from its beginning to its end."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._consumer = clients.reader(settings, f"test-{uuid4().hex}")
        numbers = self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
        self._partitions = [TopicPartition(topic, number, 0) for number in numbers]
        self._consumer.assign(self._partitions)
        self.messages: list[Message] = []

    def read(self) -> list[Message]:
        """Read to the current end; returns all messages so far."""
        ends = {p.partition: self._consumer.get_watermark_offsets(p, timeout=30)[1] for p in self._partitions}
        deadline = time.monotonic() + 60
        while any(max(p.offset, 0) < ends[p.partition] for p in self._consumer.position(self._partitions)):
            for message in self._consumer.consume(10_000, timeout=0.2):
                assert message.error() is None, message.error()
                self.messages.append(message)
            assert time.monotonic() < deadline, "the topic could not be read to its end"
        return self.messages

    def close(self) -> None:
        self._consumer.close()


def read_all(settings: Settings, topic: str) -> list[Message]:
    """Return every committed record of a topic."""
    tail = Tail(settings, topic)
    try:
        return list(tail.read())
    finally:
        tail.close()
