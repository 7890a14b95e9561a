"""All workers share one broker: the first starts it, the last stops it, also after a worker was killed."""

from __future__ import annotations

import subprocess
import sys
from multiprocessing import get_context

import pytest
from support.shared_broker import is_running, shared_broker


class Asleep:
    """The attributes of a broker that `shared_broker` uses, and a process that does nothing."""

    bootstrap = "127.0.0.1:1"

    def __init__(self, folder) -> None:
        self.folder = folder / "data"
        self.folder.mkdir()
        self._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
        self.pid = self._process.pid

    def close(self) -> None:
        self._process.wait(20)


def use(folder, channel) -> None:
    """Use the broker until the channel has a message."""
    with shared_broker(folder, lambda: Asleep(folder)) as broker:
        channel.send(broker.pid)
        channel.recv()


class Worker:
    def __init__(self, folder) -> None:
        spawn = get_context("spawn")
        self._channel, theirs = spawn.Pipe()
        self.process = spawn.Process(target=use, args=(folder, theirs))
        self.process.start()
        assert self._channel.poll(60)
        self.broker = self._channel.recv()

    def leave(self) -> None:
        self._channel.send("leave")
        self.process.join(60)
        assert self.process.exitcode == 0


@pytest.fixture
def workers(tmp_path):
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(tmp_path))
        return started[-1]

    yield start
    for worker in started:
        worker.process.kill()
        worker.process.join(60)


def test_the_last_worker_stops_the_broker(workers, tmp_path):
    first, second = workers(), workers()
    assert first.broker == second.broker
    first.leave()
    assert is_running(second.broker)
    second.leave()
    assert not is_running(second.broker)
    assert not (tmp_path / "data").exists()


def test_a_worker_that_was_killed_does_not_keep_the_broker_running(workers):
    killed, last = workers(), workers()
    killed.process.kill()
    killed.process.join(60)
    last.leave()
    assert not is_running(last.broker)


def test_a_broker_that_was_stopped_is_started_again_for_the_next_worker(workers):
    first = workers()
    first.leave()
    second = workers()
    assert second.broker != first.broker
    assert is_running(second.broker)
    second.leave()
