"""Run a real Apache Kafka for the tests marked `kafka`: one or more processes, each both broker and KRaft controller.

The embedded broker is quick. Only the real Kafka shows how transactions, fencing and rebalances behave, and whether a
crash of the broker loses data. Maven fetches the jars once; see `kafka/pom.xml` beside this file.

Environment
-----------
FRAUD_TEST_REQUIRE_KAFKA
    `1`: a test that needs Kafka fails instead of being skipped if Kafka cannot run. If Java or Maven is missing, the
    tests install it where possible (as root on a Debian system).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from xml.etree import ElementTree as ET

from support import fetched

from fraud_service.demo.broker import (
    LOOPBACK,
    end_process,
    free_loopback_port,
    tail,
    wait_for_broker,
)

if TYPE_CHECKING:
    from types import TracebackType

POM: Final = Path(__file__).with_name("kafka") / "pom.xml"
OLDEST_JAVA: Final = 17

# Seconds. Their sum is below the time limit of a test, because the first test has to do all of this too.
_APT_TIMEOUT: Final = 150.0
_FETCH_TIMEOUT: Final = 90.0
_FORMAT_TIMEOUT: Final = 20.0
_START_TIMEOUT: Final = 30.0
_STOP_TIMEOUT: Final = 20.0

_START_ATTEMPTS: Final = 3

_JAVA_OPTIONS: Final = (
    "-Xmx384m",
    # The three below halve the start-up: a short-lived, small process gains nothing from the defaults.
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Djava.net.preferIPv4Stack=true",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.showShortLogName=true",
)

_PROPERTIES: Final = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}

# As in production: a missing topic is an error, and no topic with one partition appears by itself.
auto.create.topics.enable=false

# One broker, and few partitions to create before the first group or transaction can work.
offsets.topic.replication.factor={replication}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={replication}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={replication}
share.coordinator.state.topic.min.isr={in_sync}
min.insync.replicas={in_sync}

# Tests wait for these. docs/deploy.md recommends the second: a commit of offsets then waits for no other commit.
group.initial.rebalance.delay.ms=0
group.coordinator.append.linger.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
# After kill -9 the controller rejects the restarted broker until the session of the killed one ends.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Sizes for the small heap and disk of a test run.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=8388608
log.index.size.max.bytes=1048576
"""

# The last line of a name counts. The second listener advertises another port than the one the broker listens on.
_FRONTED: Final = """
listeners=PLAINTEXT://{host}:{port},PROXIED://{host}:{back},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port},PROXIED://{host}:{front}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
"""


class KafkaError(RuntimeError):
    """Fetching or starting Apache Kafka failed. The message gives the reason."""


@dataclass(frozen=True)
class Plan:
    """The id of a future cluster, and the ports of each node for clients and for controllers."""

    cluster_id: str
    ports: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, nodes: int) -> Plan:
        """Choose ports that are free now."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        return cls(cluster_id, tuple(_two_ports() for _ in range(nodes)))


class ApacheKafka:
    """One Kafka broker on loopback ports and a temporary directory, which both stay the same across restarts.

    Parameters
    ----------
    plan, node
        The cluster, and the number of this node in it, from 0. The default is a cluster of one.
    is_fronted
        Add a second listener for a proxy: the broker advertises the port `front` and listens on `back`.
    properties, classes
        More lines of `server.properties`, and a folder with the Java classes that they name.

    Attributes
    ----------
    bootstrap : str
        `host:port` for `bootstrap.servers`. Set by the first `start`.
    front, back : int
        Ports of the second listener, if there is one.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        node: int = 0,
        *,
        is_fronted: bool = False,
        properties: str = "",
        classes: Path | None = None,
    ) -> None:
        self.bootstrap = ""
        self.front = self.back = 0
        self._properties = _PROPERTIES + (_FRONTED if is_fronted else "") + properties
        self._classes = classes
        self._plan, self._node = plan, node
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="fraud-service-kafka-"))

    @property
    def pid(self) -> int | None:
        """Process id of the broker, or None while it is not running."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> Path:
        """The broker's log file, for all starts together."""
        return self._directory / "broker.log"

    @property
    def folder(self) -> Path:
        """The folder of all files of this broker."""
        return self._directory

    @property
    def data(self) -> Path:
        """The folder of its topics, with one subfolder for each partition."""
        return self._directory / "data"

    def start(self) -> None:
        """Start the broker and wait until it answers. A later start uses the ports and data of the first one.

        Raises
        ------
        KafkaError
            When the broker did not start. The message has the end of its log.
        """
        if self._process is not None:
            return
        attempts = 1 if self.bootstrap or self._plan else _START_ATTEMPTS
        if self._plan and not self.bootstrap:
            self._prepare()
        for attempt in range(1, attempts + 1):
            if attempts > 1:
                self._prepare()
            problem = self._launch_and_wait()
            if problem is None:
                return
            log = tail(self.log)
            # Another process may have taken a port after we chose it and before the broker bound it.
            if attempt == attempts or "Address already in use" not in self.log.read_text(encoding="utf-8"):
                raise KafkaError(f"Apache Kafka {problem}; the end of its log:\n{log}")

    def stop(self) -> None:
        """Shut the broker down in an orderly way. Data and port are kept for `start`."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process, timeout_s=_STOP_TIMEOUT)

    def kill(self) -> None:
        """Kill the broker as a crash would (SIGKILL). Data and port are kept for `start`."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Stop the broker if it runs, and start it on the same data and port.

        Raises
        ------
        KafkaError
            When the broker did not start again. The message has the end of its log.
        """
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the broker and remove its data."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            # `__exit__` does not run when `__enter__` fails.
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _config(self) -> Path:
        return self._directory / "server.properties"

    def _prepare(self) -> None:
        """Choose ports, write the configuration, and format the empty data folder, as KRaft requires."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        plan = self._plan or Plan.of(1)
        port, controller_port = plan.ports[self._node]
        self.front, self.back = _two_ports()
        voters = [f"{number}@{LOOPBACK}:{controller}" for number, (_, controller) in enumerate(plan.ports, start=1)]
        self._config.write_text(
            self._properties.format(
                node=self._node + 1,
                voters=",".join(voters),
                host=LOOPBACK,
                port=port,
                controller_port=controller_port,
                front=self.front,
                back=self.back,
                data=self.data,
                replication=min(len(plan.ports), 3),
                in_sync=max(min(len(plan.ports), 3) - 1, 1),
            ),
            encoding="utf-8",
        )
        # With "=", because an id may begin with a dash.
        command = _java(
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={plan.cluster_id}",
            "-c",
            str(self._config),
            classes=self._classes,
        )
        _run(command, timeout=_FORMAT_TIMEOUT, what="formatting Kafka's data folder")
        self.bootstrap = f"{LOOPBACK}:{port}"

    def _launch_and_wait(self) -> str | None:
        with self.log.open("ab") as output:
            self._process = process = subprocess.Popen(
                _java("kafka.Kafka", str(self._config), classes=self._classes),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                # Keep Ctrl-C for pytest alone, whose fixtures then stop the broker.
                start_new_session=True,
            )
        problem: str | None = "was interrupted while starting"
        try:
            problem = wait_for_broker(self.bootstrap, timeout_s=_START_TIMEOUT, exit_code=process.poll)
        finally:
            if problem is not None:
                self.kill()
        return problem


class Cluster:
    """A cluster of brokers, as a context manager. Two of three brokers are enough to work."""

    def __init__(self, nodes: int = 3) -> None:
        plan = Plan.of(nodes)
        self.brokers = [ApacheKafka(plan, number) for number in range(nodes)]

    @property
    def bootstrap(self) -> str:
        """All brokers, for `bootstrap.servers`."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> None:
        """Start all stopped brokers together, because one alone does not answer."""
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            list(pool.map(ApacheKafka.start, self.brokers))

    def kill(self) -> None:
        """Kill all brokers at once, as a power cut would."""
        for broker in self.brokers:
            broker.kill()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.close()


def required() -> bool:
    """Whether a test that needs Kafka fails, instead of being skipped, if Kafka cannot run."""
    return os.environ.get("FRAUD_TEST_REQUIRE_KAFKA") == "1"


def ensure_java() -> None:
    """Install Java and Maven if Kafka is required and one is missing (as root on a Debian system).

    Raises
    ------
    KafkaError
        When the installation failed or took too long.
    """
    if not (required() and shutil.which("apt-get") and os.geteuid() == 0):
        return
    # The default runtime is 17 on Debian 12 and 21 on Debian 13. Both are new enough.
    script = "apt-get update -q && apt-get install -q -y --no-install-recommends default-jre-headless maven"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with fetched.tick():
        if _java_problem() is not None or (_cached_jars() is None and shutil.which("mvn") is None):
            _run(["sh", "-c", script], timeout=_APT_TIMEOUT, what="installing Java and Maven", env=environment)


@functools.cache
def why_unavailable() -> str | None:
    """Return why Apache Kafka cannot run here; fetches the jars if they are missing.

    Returns
    -------
    str or None
        The reason, or None if it can run.
    """
    problem = _java_problem()
    if problem is not None:
        return problem
    try:
        jars()
    except KafkaError as error:
        return str(error)
    return None


def jars() -> Path:
    """Return the folder with all of the broker's jars; fetches them the first time.

    Raises
    ------
    KafkaError
        When Maven is missing, or could not fetch them.
    """
    with fetched.tick():
        return _cached_jars() or _fetch()


def _fetch() -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaError("Maven (mvn), which fetches Apache Kafka, is not installed")
    target = _jar_folder()
    # Fill another folder and then rename it, so that an interrupted run never leaves an incomplete one.
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=target.parent) as scratch:
        filled = Path(scratch) / "jars"
        # The pom is copied, because Maven may create a folder `target` beside it.
        pom = shutil.copy(POM, scratch)
        command = [maven, "-q", "-B", "-f", pom, "dependency:copy-dependencies", f"-DoutputDirectory={filled}"]
        _run(command, timeout=_FETCH_TIMEOUT, what="fetching Apache Kafka through Maven")
        filled.rename(target)
    return target


def _jar_folder() -> Path:
    version = ET.parse(POM).findtext(".//{*}kafka.version")  # noqa: S314 - our own file
    # The digest changes with every dependency and version, so each set of jars has its own folder.
    return fetched.folder() / f"kafka-{version}-{hashlib.sha256(POM.read_bytes()).hexdigest()[:8]}"


def _cached_jars() -> Path | None:
    folder = _jar_folder()
    return folder if folder.is_dir() else None


def _java_problem() -> str | None:
    java = shutil.which("java")
    if java is None:
        return f"Java {OLDEST_JAVA} or newer, which runs Apache Kafka, is not installed"
    command = [java, "-version"]
    banner = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FORMAT_TIMEOUT).stderr
    version = re.search(r'version "(\d+)', banner)
    if version is None or int(version[1]) < OLDEST_JAVA:
        return f"Apache Kafka needs Java {OLDEST_JAVA} or newer, this is: {banner.strip() or 'unknown'}"
    return None


def _java(*arguments: str, classes: Path | None = None) -> list[str]:
    path = os.pathsep.join(map(str, [f"{jars()}/*", *([classes] if classes else [])]))
    return [shutil.which("java") or "java", *_JAVA_OPTIONS, "-cp", path, *arguments]


def _two_ports() -> tuple[int, int]:
    first = second = free_loopback_port()
    while second == first:
        second = free_loopback_port()
    return first, second


def _run(command: list[str], *, timeout: float, what: str, env: dict[str, str] | None = None) -> None:
    """Run a program to its end, and turn every failure into a `KafkaError`."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=env,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KafkaError(f"{what} failed: {error}") from error
    if done.returncode != 0:
        output = "\n".join(done.stdout.splitlines()[-20:])
        raise KafkaError(f"{what} failed with exit code {done.returncode}:\n{output}")
