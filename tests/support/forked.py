"""Start processes of the service quickly: fork a process that has already imported the service.

The imports take two seconds of processor time, most of what a process of a test takes.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess
    from pathlib import Path

_context = get_context("forkserver")
_context.set_forkserver_preload(["fraud_service.cli", "fraud_service.service", "fraud_service.models.river_learner"])


@dataclass
class ForkedProcess:
    """A forked process with the methods of `subprocess.Popen`."""

    _process: ForkServerProcess

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, the negative number of the signal that ended the process, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Wait for the exit code; raises `subprocess.TimeoutExpired`."""
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(module: str, verb: str, environment: dict[str, str], log: Path) -> ForkedProcess:
    """Run `python -m module verb` in a fork. It appends stderr to the log."""
    log.touch()
    # A daemon ends with pytest, as a last resort. Services end when the test leaves their context.
    process = _context.Process(target=_run, args=(module, verb, environment, log), daemon=True)
    process.start()
    return ForkedProcess(process)


def _run(module: str, verb: str, environment: dict[str, str], log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [module, verb]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
