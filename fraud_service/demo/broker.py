"""Run an embedded Kafka-compatible broker, for `fraud-service demo` and quick tests.

The broker is one binary that starts in milliseconds and supports transactions. It is no production broker: data goes
to a temporary directory, and SIGKILL can lose records that were acknowledged last. It answers an empty fetch at once,
whatever `fetch.wait.max.ms` and `fetch.min.bytes` say. So each idle consumer sends thousands of fetches a second, which
no option of the client limits; on Apache Kafka an idle process waits. The binary is closed source, in the
wheel `noida-db`. Only the `demo` extra installs it, no image contains it, and `fraud-service demo --bootstrap` does not
use it.
"""

from __future__ import annotations

import importlib.util
import random
import socket
import subprocess
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fraud_service.domain.errors import FraudServiceError
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK: Final = "127.0.0.1"
INSTALL_HINT: Final = "pip install 'fraud-service[demo]'"
REINSTALL_HINT: Final = f"reinstall it with: {INSTALL_HINT}, or point the service to a Kafka cluster instead"

# Below the ephemeral ports of Linux, macOS and Windows. A client that reconnects to a stopped broker could otherwise
# get the broker's port as its local port, connect to itself, and block the restart.
_PORTS: Final = range(15_000, 32_000)
_PORT_ATTEMPTS: Final = 200
_START_ATTEMPTS: Final = 3
_START_TIMEOUT_S: Final = 15.0
_STOP_TIMEOUT_S: Final = 5.0
_PROBE_TIMEOUT_S: Final = 0.5
_POLL_S: Final = 0.02
_LOG_TAIL_LINES: Final = 20


class EmbeddedBrokerError(FraudServiceError):
    """The embedded broker is not installed, or did not start."""


class EmbeddedBroker:
    """Run the embedded broker for the length of a `with` block, on a free loopback port and a temporary directory.

    The broker has a session of its own, so Ctrl-C in a terminal does not reach it. The caller must leave the block on
    SIGTERM too. `bootstrap` is the `host:port` for `bootstrap.servers`, valid inside the block.
    """

    def __init__(self) -> None:
        self.bootstrap = ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        binary = find_binary()
        with ExitStack() as stack:  # `__exit__` does not run when `__enter__` fails, also on Ctrl-C
            folder = tempfile.TemporaryDirectory(prefix="fraud-service-broker-", ignore_cleanup_errors=True)
            self._start_on_a_free_port(binary, Path(stack.enter_context(folder)), stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start_on_a_free_port(self, binary: Path, folder: Path, stack: ExitStack) -> None:
        """Launch the broker, and try again if another process took the port before the broker could bind it."""
        for attempt in range(1, _START_ATTEMPTS + 1):
            log = folder / f"broker-{attempt}.log"
            port = free_loopback_port()
            process = _launch(binary, port, folder / f"data-{attempt}", log)
            stack.callback(end_process, process, timeout_s=_STOP_TIMEOUT_S)
            self.bootstrap = f"{LOOPBACK}:{port}"
            problem = wait_for_broker(self.bootstrap, timeout_s=_START_TIMEOUT_S, exit_code=process.poll)
            if problem is None:
                return
            if process.poll() is None or attempt == _START_ATTEMPTS:
                raise EmbeddedBrokerError(f"the embedded broker {problem}; the end of its log:\n{tail(log)}")


def find_binary() -> Path:
    """Return the path of the broker's executable in the `noida_db` package."""
    # The package is not imported: its Python wrapper would be the child process, and killing it would leave the
    # broker behind.
    spec = importlib.util.find_spec("noida_db")
    if spec is None or spec.origin is None:
        raise EmbeddedBrokerError(f"the embedded broker is not installed; install it with: {INSTALL_HINT}")
    binary = Path(spec.origin).with_name("noida-db")
    if not binary.is_file():
        raise EmbeddedBrokerError(
            f"the noida_db package in {binary.parent} has no broker binary for this platform; {REINSTALL_HINT}"
        )
    return binary


def free_loopback_port() -> int:
    """Return a free loopback TCP port below the ephemeral ports. It is not reserved, so it may be taken soon."""
    for port in random.SystemRandom().sample(_PORTS, _PORT_ATTEMPTS):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
    raise EmbeddedBrokerError(
        f"no free port on {LOOPBACK}: tried {_PORT_ATTEMPTS} between {_PORTS.start} and {_PORTS.stop - 1}"
    )


def wait_for_broker(bootstrap: str, *, timeout_s: float, exit_code: Callable[[], int | None]) -> str | None:
    """Wait at most `timeout_s` until a broker answers an admin client.

    `exit_code` returns the exit code of the broker's process, None while it runs. Returns None when the broker
    answered, otherwise what went wrong.
    """
    # The client must not write to the terminal of the user, or wait long before it connects again.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 100})

    def has_answered_or_ended() -> bool:
        try:
            return exit_code() is not None or bool(admin.list_topics(timeout=_PROBE_TIMEOUT_S).brokers)
        except KafkaException:
            return False

    if not wait_until(has_answered_or_ended, timeout_s, _POLL_S):
        return f"did not answer on {bootstrap} within {timeout_s:g} s"
    code = exit_code()
    return None if code is None else f"ended with exit code {code} while starting"


def end_process(process: subprocess.Popen[bytes], *, timeout_s: float) -> None:
    """End a child process with SIGTERM, after `timeout_s` with SIGKILL, and reap it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def tail(log: Path) -> str:
    """Return the last lines of a log, or "(empty)" if there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return "\n".join(text.splitlines()[-_LOG_TAIL_LINES:]) or "(empty)"


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
            f"the embedded broker {binary} cannot be run here ({error}); {REINSTALL_HINT}"
        ) from error
