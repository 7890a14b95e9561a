"""Run an embedded Kafka-compatible broker, for `fraud-service demo` and quick tests.

The broker is one binary that starts in milliseconds and supports transactions. It is no production broker: data goes
to a temporary directory, and SIGKILL can lose records that were acknowledged last. The binary is closed source, in the
wheel `noida-db`. Only the `demo` extra installs it, no image contains it, and `fraud-service demo --bootstrap` does not
use it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import random
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fraud_service.domain.errors import FraudServiceError
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LOOPBACK: Final = "127.0.0.1"
INSTALL_HINT: Final = "pip install 'fraud-service[demo]'"

# Below the ephemeral ports of Linux, macOS and Windows. A client that reconnects to a stopped broker could otherwise
# get the broker's port as its local port, connect to itself, and block the restart.
_PORTS: Final = range(15_000, 32_000)
_PORT_ATTEMPTS: Final = 200
_START_ATTEMPTS: Final = 3
_PROBE_TIMEOUT_S: Final = 0.5
_POLL_S: Final = 0.02
_LOG_TAIL_LINES: Final = 20


class EmbeddedBrokerError(FraudServiceError):
    """The embedded broker is not installed, or did not start."""


class EmbeddedBroker:
    """Run the embedded broker for the length of a `with` block, on a free loopback port and a temporary directory.

    The broker has a session of its own, so Ctrl-C in a terminal does not reach it. Leaving the block ends it. The
    caller
    must leave the block on SIGTERM too.

    Parameters
    ----------
    start_timeout
        Seconds until the broker must answer an admin client.
    stop_timeout
        Seconds from SIGTERM to SIGKILL.

    Attributes
    ----------
    bootstrap : str
        `host:port` for `bootstrap.servers`. Valid inside the block.
    """

    def __init__(self, *, start_timeout: float = 15.0, stop_timeout: float = 5.0) -> None:
        self.bootstrap = ""
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the broker, or None while it is not running."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the broker and wait until it answers. Does nothing if it is already started.

        Raises
        ------
        EmbeddedBrokerError
            The `noida_db` package is missing, or the broker did not start. The message has the end of its log.
        """
        if self._process is not None:
            return
        binary = find_binary()
        try:
            self._start_on_a_free_port(binary)
        except BaseException:
            # Also on Ctrl-C: `__exit__` does not run when `__enter__` fails.
            self.stop()
            raise

    def stop(self) -> None:
        """End the broker and remove its data. Does nothing if it is not started."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process, timeout=self._stop_timeout)
        directory, self._directory = self._directory, None
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
        self.bootstrap = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _start_on_a_free_port(self, binary: Path) -> None:
        """Launch the broker, and try again if another process took the port before the broker could bind it."""
        self._directory = Path(tempfile.mkdtemp(prefix="fraud-service-broker-"))
        for attempt in range(1, _START_ATTEMPTS + 1):
            directory = self._directory / str(attempt)
            directory.mkdir()
            log = directory / "broker.log"
            port = free_loopback_port()
            self._process = _launch(binary, port, directory / "data", log)
            self.bootstrap = f"{LOOPBACK}:{port}"
            problem = wait_for_broker(self.bootstrap, timeout=self._start_timeout, exit_code=self._process.poll)
            if problem is None:
                return
            if self._process.poll() is None or attempt == _START_ATTEMPTS:
                raise EmbeddedBrokerError(f"the embedded broker {problem}; the end of its log:\n{tail(log)}")


def find_binary() -> Path:
    """Return the path of the broker's executable in the `noida_db` package.

    Raises
    ------
    EmbeddedBrokerError
        The package is not installed, or it has no binary for this platform.
    """
    # The package is not imported: its Python wrapper would be the child process, and killing it would leave the
    # broker behind.
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise EmbeddedBrokerError(f"the embedded broker is not installed; install it with: {INSTALL_HINT}")
    for name in ("noida-db", "noida-db.exe"):
        binary = Path(spec.origin).with_name(name)
        if binary.is_file():
            return binary
    raise EmbeddedBrokerError(
        f"the noida_db package in {Path(spec.origin).parent} has no broker binary for this platform; "
        f"reinstall it with: {INSTALL_HINT}, or point the service to a Kafka cluster instead"
    )


def free_loopback_port() -> int:
    """Return a free loopback TCP port below the ephemeral ports.

    The port is not reserved: bind it soon, and try another if it is taken by then.

    Raises
    ------
    EmbeddedBrokerError
        When all ports that were tried are taken.
    """
    for port in random.SystemRandom().sample(_PORTS, _PORT_ATTEMPTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise EmbeddedBrokerError(
        f"no free port on {LOOPBACK}: tried {_PORT_ATTEMPTS} between {_PORTS.start} and {_PORTS.stop - 1}"
    )


def wait_for_broker(bootstrap: str, *, timeout: float, exit_code: Callable[[], int | None]) -> str | None:
    """Wait at most `timeout` seconds until a broker answers an admin client.

    `exit_code` returns the exit code of the broker's process, None while it runs. Returns None when the broker
    answered, otherwise what went wrong.
    """

    def has_answered_or_ended() -> bool:
        # A plain connect first: after a refused connection librdkafka logs and backs off, which slows the start.
        return exit_code() is not None or (_accepts_connections(bootstrap) and _answers(bootstrap))

    if not wait_until(has_answered_or_ended, timeout, _POLL_S):
        return f"did not answer on {bootstrap} within {timeout:g} s"
    code = exit_code()
    return None if code is None else f"ended with exit code {code} while starting"


def end_process(process: subprocess.Popen[bytes], *, timeout: float) -> None:
    """End a child process with SIGTERM, after `timeout` seconds with SIGKILL, and reap it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def tail(log: Path, lines: int = _LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, or "(empty)" if there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


def _launch(binary: Path, port: int, data: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [str(binary), "start", "--host", LOOPBACK, "--only", "kafka"]
    command += ["--kafka-port", str(port), "--data-dir", str(data)]
    try:
        with log.open("wb") as output:
            return subprocess.Popen(  # noqa: S603 - our own binary, no shell, no outside input
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                start_new_session=True,
            )
    except OSError as error:
        raise EmbeddedBrokerError(
            f"the embedded broker {binary} cannot be run here ({error}); reinstall it with: {INSTALL_HINT}, "
            "or point the service to a Kafka cluster instead"
        ) from error


def _accepts_connections(bootstrap: str) -> bool:
    host, _, port = bootstrap.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_TIMEOUT_S):
            return True
    except OSError:
        return False


def _answers(bootstrap: str) -> bool:
    # log_level 0: a broker that is not ready yet is expected here, and must not write to the user's terminal.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "allow.auto.create.topics": False})
    try:
        return bool(admin.list_topics(timeout=_PROBE_TIMEOUT_S).brokers)
    except KafkaException:
        return False
