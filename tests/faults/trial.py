"""A service under load and faults: real processes with restarts as in Kubernetes, and a final verification."""

from __future__ import annotations

import secrets
import signal
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from confluent_kafka import TopicPartition
from faults.load import Load, elapsed
from support.processes import Service, fresh_settings

from fraud_service.kafka import clients
from fraud_service.verification.verify import VerifyOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message

    from fraud_service.config.settings import Settings

TESTS = Path(__file__).parents[1]
PYTHONPATH = f"{TESTS.parent}:{TESTS}"
PARTITIONS = 4
PATIENCE = 600.0  # seconds; a learner without its volume reads nine records a payment, and a soak has a million
ASK = 0.1  # seconds between two polls


class Counted:
    """Count the committed records of topics as they arrive."""

    def __init__(self, settings: Settings, *names: str) -> None:
        self._consumer = clients.reader(settings, "faults-count")
        self.total = 0
        topics = {name: self._consumer.list_topics(name, timeout=30).topics[name].partitions for name in names}
        self._consumer.assign(
            [TopicPartition(name, number, 0) for name, numbers in topics.items() for number in numbers]
        )

    def read(self) -> int:
        """Return the number of records so far."""
        while messages := self._consumer.consume(10_000, timeout=ASK):
            self.total += sum(message.error() is None for message in messages)
        return self.total

    def close(self) -> None:
        self._consumer.close()


@dataclass
class Ending:
    """A process that ended without a request."""

    name: str
    code: int
    last_words: str


@dataclass
class Trial:
    """Scorers and a learner on new topics under load, as a context manager.

    Parameters
    ----------
    bootstrap
        The broker's address for load and verification.
    through
        The broker's address for the service, which differs with a proxy.
    """

    bootstrap: str
    folder: Path
    seed: int
    through: str = ""
    rate: float = 150.0
    replication: int = 1
    recoveries: list[float] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    forged: set[tuple[str, int, int]] = field(default_factory=set)

    def __enter__(self) -> Self:
        made = fresh_settings(self.bootstrap, self.folder, PARTITIONS, self.replication)
        keys = self.folder / "keys"
        keys.mkdir(parents=True)
        (keys / "2026").write_text(secrets.token_hex(32))
        signed = {"signing_key_dir": keys, "deployment": "trial", "allow_unsigned": False}
        self.settings = made.model_copy(
            update={
                "kafka_config": {"log_level": "0"},
                "label_rate_limit_per_source": 0,
                "label_rate_limit_per_card": 0,
            }
            | signed
        )
        # No log lines about brokers that are down on purpose. Event time runs faster than labels normally come.
        self.scorer = self.service("score", "scorer-0")
        self.learner = self.service("learn", "learner-0")
        self.running = [self.scorer, self.learner]
        with ExitStack() as stack:
            names = self.settings.topics
            self.decided = self._counted(stack, names.scores, names.dead_letters)
            self.published = self._counted(stack, names.snapshots)
            self.load = Load(self.settings, self.seed, self.rate)
            for process in self.running:
                stack.enter_context(process)
            for process in self.running:
                process.await_ready()
            stack.enter_context(self.load)
            self.await_(lambda: self.published.read() > 0, "the first snapshot")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    @property
    def depth(self) -> VerifyOptions:
        """The depth of the verification: everything, including the volume of the first scorer."""
        return VerifyOptions(state=True, volume=self.scorer.folder / "state", replay=True)

    def _counted(self, stack: ExitStack, *names: str) -> Counted:
        counted = Counted(self.settings, *names)
        stack.callback(counted.close)
        return counted

    def service(self, verb: str, name: str) -> Service:
        """Create a process with its name as instance id."""
        known = {"instance_id": name, "bootstrap_servers": self.through or self.bootstrap}
        folder = self.folder / f"{name}-{verb}"
        options = {"PYTHONPATH": PYTHONPATH}
        return Service(self.settings.model_copy(update=known), verb, folder, options, is_forked=False)

    @contextmanager
    def another(self, name: str, verb: str = "score") -> Iterator[Service]:
        """Run one additional process, and stop it with SIGTERM at the end."""
        process = self.service(verb, name)
        with process:
            # Longer than the usual limit of a start: after an hour, an empty volume means a long changelog to read.
            self.await_(lambda: process.status("/readyz") == 200, f"a start of {name}")
            self.running.append(process)
            yield process
            self.running.remove(process)
            assert process.stop() == 0

    def await_(self, happened: Callable[[], bool], what: str, timeout: float = PATIENCE) -> float:
        """Wait for a condition and restart every process that ends; returns the seconds it took."""
        started = time.monotonic()
        while not happened():
            self.supervise()
            assert elapsed(started) < timeout, f"{what} took longer than {timeout:.0f} s"
            time.sleep(ASK)
        return elapsed(started)

    def supervise(self) -> None:
        """Restart processes that have ended."""
        for process in self.running:
            code = process.process.poll()
            if code is not None:
                self.endings.append(Ending(process.verb, code, last_words(process)))
                process.start()

    def forge(self, error: object, message: Message) -> None:
        """Record the offset of a forged record. The verifier must report these records and no others."""
        assert error is None, error
        self.forged.add((message.topic(), message.partition(), message.offset()))

    def settle(self, since: float | None = None) -> None:
        """Wait until all messages so far are decided, and record the seconds from `since` (or now) as a recovery."""
        started, wanted = time.monotonic() if since is None else since, self.load.sent
        self.await_(lambda: self.decided.read() >= wanted, f"deciding {wanted} messages, {self.decided.total} done")
        self.recoveries.append(elapsed(started))

    def pass_time(self, seconds: float, is_so: Callable[[], bool] = lambda: True) -> None:
        """Let time pass during a fault, and check all the time that the condition holds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert is_so(), f"{is_so.__name__} no longer holds"
            self.decided.read()
            time.sleep(ASK)

    def stop(self, process: Service) -> None:
        """Stop a process with SIGTERM, without a restart."""
        self.running.remove(process)
        assert process.stop() == 0

    def crash(
        self, process: Service, spec: str, progress: Callable[[], int], before: int, down: float | None = None
    ) -> None:
        """Start a stopped process that kills itself (`faults.crash`), and wait for its end.

        If the process was `down` since some time, the seconds until `progress` exceeds `before` are a recovery.
        """
        process.module = "faults.crash"
        process.options["FRAUD_TEST_CRASH"] = spec
        process.start()
        process.module = "fraud_service"
        del process.options["FRAUD_TEST_CRASH"]
        deadline = time.monotonic() + PATIENCE
        while process.process.poll() is None:
            assert time.monotonic() < deadline, f"{process.verb} never reached the step {spec}"
            if progress() > before and down is not None:
                self.recoveries.append(elapsed(down))
                down = None
            time.sleep(ASK)
        assert process.process.returncode == -signal.SIGKILL, last_words(process)

    def finish(self) -> None:
        """Stop the load, wait until everything is decided, and stop the processes."""
        self.load.stop()
        wanted = self.load.sent
        self.await_(lambda: self.decided.read() >= wanted, f"deciding all {wanted} messages")
        for process in list(self.running):
            self.stop(process)


def last_words(process: Service) -> str:
    """Return the last line of the log."""
    return next((line for line in reversed(process.log().splitlines()) if line.strip()), "")
