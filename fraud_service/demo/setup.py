"""What the demo needs around it: a plan, settings of its own, topics, and the two services as processes.

The services are the real command line in processes of their own, with sessions of their own: Ctrl-C in a terminal
reaches the demo alone, and the demo ends them in order.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from fraud_service.config.settings import PREFIX, TopicNames
from fraud_service.demo.broker import LOOPBACK, end_process, free_loopback_port, tail
from fraud_service.demo.simulator import World
from fraud_service.domain.errors import FraudServiceError
from fraud_service.kafka import clients, topics
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from threading import Event

    from fraud_service.config.settings import Settings

SEED: Final = 13  # not that of the world on which the shipped model was fitted
PAYMENTS_PER_CARD: Final = 2.24  # a day, as the simulator draws them
FEWEST_CARDS: Final = 20
MERCHANTS_PER_CARD: Final = 0.8
DRIFT_AT: Final = 0.4  # of the days: what was learned before is overthrown, and there is time to learn anew

# Event time runs some ten thousand times faster than the clock, but a lesson takes as long as ever from the label to
# the scorers. Interval and lead are therefore chosen in seconds of the clock.
INTERVAL_SECONDS: Final = 0.67
LEAD_SECONDS: Final = 2.5

READY_TIMEOUT: Final = 60.0  # seconds
STOP_TIMEOUT: Final = 10.0  # seconds; the services need one to leave in order
REACH_TIMEOUT: Final = 10.0  # seconds for the user's Kafka to answer
PROBE_TIMEOUT: Final = 2.0
PAUSE: Final = 0.1


class DemoError(FraudServiceError):
    """The demo cannot go on; the message has the end of the log that tells why."""


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and how many days of event time pass meanwhile."""

    seconds: int = 60
    rate: float = 400.0
    days: int = 30

    @property
    def world(self) -> World:
        """The world that has about as many payments as are to be fed; on the drift day fraud changes."""
        cards = max(FEWEST_CARDS, round(self.rate * self.seconds / self.days / PAYMENTS_PER_CARD))
        return World(
            seed=SEED,
            cards=cards,
            merchants=max(50, round(cards * MERCHANTS_PER_CARD)),
            days=self.days,
            drift_day=int(self.days * DRIFT_AT),
        )

    def event_time(self, seconds: float) -> timedelta:
        """Return the event time that passes in a number of seconds: whole hours, at least one."""
        hours = seconds / self.seconds * self.days * 24
        return timedelta(hours=max(1, round(hours)))


def services_settings(base: Settings, plan: Plan, folder: Path, bootstrap: str | None) -> Settings:
    """Give scorer and learner settings under which nothing outside of the demo is touched.

    Parameters
    ----------
    base
        The user's settings: model and thresholds are kept; with the user's Kafka, how to connect and create, too.
    folder
        Of the local state.
    bootstrap
        Of the embedded broker; None with the user's Kafka.
    """
    suffix = f"demo-{secrets.token_hex(3)}"
    names = {role: f"{name}.{suffix}" for role, name in base.topics.model_dump().items()}
    own = {} if bootstrap is None else {"bootstrap_servers": bootstrap, "kafka_config": {}, "replication_factor": 1}
    return base.model_copy(
        update={
            **own,
            "topics": TopicNames(**names),
            "scorer_group": f"{base.scorer_group}.{suffix}",
            "learner_group": f"{base.learner_group}.{suffix}",
            "instance_id": "demo",
            "state_dir": folder / "state",
            "snapshot_interval": plan.event_time(INTERVAL_SECONDS),
            "snapshot_activation_delay": plan.event_time(LEAD_SECONDS),
            "negative_sample_rate": 1.0,
            "label_rate_limit_per_source": 0,  # weeks of labels come within a minute
            "label_rate_limit_per_card": 0,
            "http_host": LOOPBACK,
            "signing_key_dir": None,
            "active_signing_key": None,
            "allow_unsigned": True,
        }
    )


def suffix_of(settings: Settings) -> str:
    """Return what the names of the demo's topics and groups end in."""
    return settings.scorer_group.rpartition(".")[2]


def quiet(settings: Settings) -> Settings:
    """Keep librdkafka of this very process from writing across the screen."""
    return settings.model_copy(update={"kafka_config": {**settings.kafka_config, "log_level": "0"}})


def environment(settings: Settings) -> dict[str, str]:
    """Write settings as the environment of a process; `FRAUD_…` of ours does not shine through."""
    # ONNX Runtime of late reports its use to its maker, and leaves a file behind for it. A demo must do neither.
    silence = {"ORT_DISABLE_TELEMETRY": "1"}
    values = {name: value for name, value in settings.model_dump(mode="json").items() if value is not None}
    ours = {
        PREFIX + name.upper(): json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in values.items()
    }
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)} | ours | silence


class Service:
    """`fraud-service score` or `learn` for the length of a `with` block, its log in a file.

    Attributes
    ----------
    metrics : str
        Address of its metrics.
    """

    def __init__(self, command: str, settings: Settings, folder: Path) -> None:
        self.name = {"score": "scorer", "learn": "learner"}[command]
        self._command = command
        self._port = free_loopback_port()
        self._settings = settings.model_copy(update={"http_port": self._port})
        self._log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.metrics = f"http://{LOOPBACK}:{self._port}/metrics"

    def __enter__(self) -> Self:
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
                [sys.executable, "-m", "fraud_service", self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self._settings),
                start_new_session=True,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.ask_to_end()
        if self._process is not None:
            end_process(self._process, timeout=STOP_TIMEOUT)

    def ask_to_end(self) -> None:
        """Send SIGTERM and do not wait: so both services leave at the same time."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def require_alive(self) -> None:
        """Raise `DemoError` with the end of the log when the process has ended."""
        code = None if self._process is None else self._process.poll()
        if code is not None:
            raise DemoError(f"the {self.name} ended with exit code {code}; the end of its log:\n{tail(self._log)}")

    def await_ready(self, stop: Event) -> None:
        """Wait until it works on its partitions, or until the demo is to stop.

        Raises
        ------
        DemoError
            When it died or is not ready in time, with the end of its log.
        """

        def is_over() -> bool:
            self.require_alive()
            return stop.is_set() or self._is_ready()

        if not wait_until(is_over, READY_TIMEOUT, PAUSE, stop.wait):
            late = f"the {self.name} was not ready within {READY_TIMEOUT:.0f} s"
            raise DemoError(f"{late}; the end of its log:\n{tail(self._log)}")

    def _is_ready(self) -> bool:
        probe = http.client.HTTPConnection(LOOPBACK, self._port, timeout=PROBE_TIMEOUT)
        try:
            probe.request("GET", "/readyz")
            return probe.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False  # it does not listen yet
        finally:
            probe.close()


def require_reachable(settings: Settings, stop: Event) -> None:
    """Raise `DemoError` when the user's Kafka does not answer: otherwise every client would wait for it much longer."""
    admin = clients.admin(settings)  # an answer does not outlive its client
    answer = admin.describe_cluster(request_timeout=REACH_TIMEOUT)
    while not answer.done():
        if stop.wait(PAUSE):
            return
    if answer.exception() is not None:
        raise DemoError(
            f"Kafka on {settings.bootstrap_servers} does not answer: {_reason(answer.exception())}. "
            "Check address and network; FRAUD_KAFKA_CONFIG takes options for TLS and SASL"
        )


def create_topics(settings: Settings) -> list[str]:
    """Create all topics of the demo; returns their names."""
    return topics.create(clients.admin(settings), topics.topic_specs(settings), settings.replication_factor)


def delete_topics(settings: Settings, tell: Callable[[str], None]) -> None:
    """Remove what the demo made on the user's Kafka; says what could not be removed.

    The brokers forget the offsets together with the topics, and the groups when they are empty.
    """
    names = [spec.name for spec in topics.topic_specs(settings)]
    admin = clients.admin(settings)
    left = []
    for name, future in admin.delete_topics(names, operation_timeout=REACH_TIMEOUT, request_timeout=30.0).items():
        error = future.exception()
        if error is not None and error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
            left.append(f"{name} ({_reason(error)})")
    if left:
        tell(f"These topics could not be deleted, please delete them: {', '.join(left)}")


def _reason(error: BaseException) -> str:
    return str(error.args[0].str())
