"""Set up the demo: its plan, settings and topics, and scorer and learner as processes.

The processes run the real command line in sessions of their own. So Ctrl-C in a terminal reaches only the demo, which
then stops the processes in order.
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

SEED: Final = 13  # the shipped model was trained on another world
PAYMENTS_PER_CARD: Final = 2.24  # a day, as the simulator draws them
MIN_CARDS: Final = 20
MERCHANTS_PER_CARD: Final = 0.8
DRIFT_SHARE: Final = 0.4  # of the days: the fraud changes, and the rest is enough to learn it

# Event time runs some ten thousand times faster than the clock, but a snapshot takes as long as ever to reach the
# scorers. So interval and activation delay are chosen in seconds of the clock.
INTERVAL_S: Final = 0.67
ACTIVATION_DELAY_S: Final = 2.5

READY_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0  # the processes need one second
REACH_TIMEOUT_S: Final = 10.0  # for the user's Kafka to answer
PROBE_TIMEOUT_S: Final = 2.0
POLL_S: Final = 0.1


class DemoError(FraudServiceError):
    """The demo cannot continue. The message has the end of the log that says why."""


@dataclass(frozen=True)
class Plan:
    """How long the demo runs, how many payments a second it feeds, and over how many days of event time.

    With `keep`, everything runs on after the summary, until Ctrl-C or SIGTERM.
    """

    seconds: int = 60
    rate: float = 400.0
    days: int = 30
    keep: bool = False

    @property
    def world(self) -> World:
        """The simulated world with about as many payments as the plan feeds. Its fraud changes on the drift day."""
        cards = max(MIN_CARDS, round(self.rate * self.seconds / self.days / PAYMENTS_PER_CARD))
        return World(
            seed=SEED,
            cards=cards,
            merchants=max(50, round(cards * MERCHANTS_PER_CARD)),
            days=self.days,
            drift_day=int(self.days * DRIFT_SHARE),
        )

    def event_time(self, seconds: float) -> timedelta:
        """Return the event time that passes in so many seconds: whole hours, at least one."""
        hours = seconds / self.seconds * self.days * 24
        return timedelta(hours=max(1, round(hours)))


def services_settings(base: Settings, plan: Plan, folder: Path, bootstrap: str | None) -> Settings:
    """Return settings for scorer and learner that keep the demo apart from everything else.

    They keep the user's model and thresholds. Without the address of an embedded broker (`bootstrap`), they also keep
    the connection to the user's Kafka.
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
            "snapshot_interval": plan.event_time(INTERVAL_S),
            "snapshot_activation_delay": plan.event_time(ACTIVATION_DELAY_S),
            "negative_sample_rate": 1.0,
            "label_rate_limit_per_source": 0,  # weeks of labels come within a minute
            "label_rate_limit_per_card": 0,
            "http_host": LOOPBACK,
            "signing_key_dir": None,
            "active_signing_key": None,
            "allow_unsigned": True,
        }
    )


def variables(settings: Settings) -> dict[str, str]:
    """Write settings as `FRAUD_…` variables."""
    return {
        PREFIX + name.upper(): json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in settings.model_dump(mode="json").items()
        if value is not None
    }


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process with these settings, without the `FRAUD_…` variables of our own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    # ONNX Runtime would report its use to its maker, and leave a file behind.
    return inherited | variables(settings) | {"ORT_DISABLE_TELEMETRY": "1"}


class Service:
    """Run `fraud-service score` or `learn` in a process, with its log in a file. A context manager."""

    def __init__(self, command: str, settings: Settings, folder: Path) -> None:
        self.name = {"score": "scorer", "learn": "learner"}[command]
        self._port = free_loopback_port()
        self.metrics = f"http://{LOOPBACK}:{self._port}/metrics"
        self._log = folder / f"{self.name}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line, no shell
                [sys.executable, "-m", "fraud_service", command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(settings.model_copy(update={"http_port": self._port})),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        end_process(self._process, timeout_s=STOP_TIMEOUT_S)

    def request_stop(self) -> None:
        """Send SIGTERM without waiting, so that both processes stop at the same time."""
        if self._process.poll() is None:
            self._process.terminate()

    def require_alive(self) -> None:
        """Raise `DemoError` with the end of the log if the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise self._error(f"ended with exit code {code}")

    def await_ready(self, stop: Event) -> None:
        """Wait until the process is ready, or until the demo stops. Raises `DemoError` when it ends or is too slow."""

        def is_over() -> bool:
            self.require_alive()
            return stop.is_set() or self._is_ready()

        if not wait_until(is_over, READY_TIMEOUT_S, POLL_S, stop.wait):
            raise self._error(f"was not ready within {READY_TIMEOUT_S:.0f} s")

    def _error(self, what: str) -> DemoError:
        return DemoError(f"the {self.name} {what}; the end of its log:\n{tail(self._log)}")

    def _is_ready(self) -> bool:
        probe = http.client.HTTPConnection(LOOPBACK, self._port, timeout=PROBE_TIMEOUT_S)
        try:
            probe.request("GET", "/readyz")
            return probe.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False  # the process does not listen yet
        finally:
            probe.close()


def delete_topics(settings: Settings, report: Callable[[str], None]) -> None:
    """Delete the demo's topics on the user's Kafka, and report those that could not be deleted.

    The brokers delete the offsets with the topics, and a consumer group when it is empty.
    """
    names = [spec.name for spec in topics.topic_specs(settings)]
    admin = clients.admin(settings)
    left = []
    for name, future in admin.delete_topics(names, operation_timeout=REACH_TIMEOUT_S, request_timeout=30.0).items():
        error = future.exception()
        if error is not None and error.args[0].name() != "UNKNOWN_TOPIC_OR_PART":
            left.append(f"{name} ({_reason(error)})")
    if left:
        report(f"These topics could not be deleted, please delete them: {', '.join(left)}")


def _reason(error: BaseException) -> str:
    return str(error.args[0].str())
