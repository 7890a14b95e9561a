"""Share one Apache Kafka among all workers of a test run. The first user starts it and the last one stops it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.apache_kafka import ApacheKafka

STOP_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.05
# Keep the process handle alive: a worker that leaves early must not collect it while others use the broker.
_started: list[ApacheKafka] = []


@dataclass(frozen=True)
class SharedBroker:
    """A running broker that other workers use too. A test that kills or restarts a broker must start its own."""

    bootstrap: str
    pid: int
    folder: str


@contextmanager
def shared_broker(folder: Path, start: Callable[[], ApacheKafka]) -> Iterator[SharedBroker]:
    """Join the broker of the run that `folder` belongs to.

    Parameters
    ----------
    folder
        A folder that all workers of this run share.
    start
        Starts the broker within its own time limit. The other workers wait for it.
    """
    with _locked(folder):
        users = _living_users(folder)
        if not users:
            _write(folder, _start(start))
        broker = SharedBroker(**json.loads((folder / "broker.json").read_text()))
        _write_users(folder, [*users, os.getpid()])
    try:
        yield broker
    finally:
        with _locked(folder):
            users = _living_users(folder)
            users.remove(os.getpid())
            _write_users(folder, users)
            if not users:
                _stop(broker)


def _start(start: Callable[[], ApacheKafka]) -> SharedBroker:
    started = start()
    assert started.pid is not None
    _started.append(started)
    return SharedBroker(started.bootstrap, started.pid, str(started.folder))


def _stop(broker: SharedBroker) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if is_running(broker.pid):
            os.kill(broker.pid, number)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while is_running(broker.pid) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    for mine in [one for one in _started if one.pid == broker.pid]:
        _started.remove(mine)
        mine.close()
    shutil.rmtree(broker.folder, ignore_errors=True)


def is_running(pid: int) -> bool:
    """Whether a process runs. A zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "broker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed or the process ends
        yield


def _living_users(folder: Path) -> list[int]:
    """Return the users, without workers that ended and did not leave."""
    file = folder / "broker.users"
    return [pid for pid in map(int, file.read_text().split()) if is_running(pid)] if file.exists() else []


def _write_users(folder: Path, users: list[int]) -> None:
    (folder / "broker.users").write_text(" ".join(map(str, users)))


def _write(folder: Path, broker: SharedBroker) -> None:
    (folder / "broker.json").write_text(json.dumps(broker.__dict__))
