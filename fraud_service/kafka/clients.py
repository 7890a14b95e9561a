"""Make Kafka clients from the settings, check the connection, and translate the clients' errors."""

from __future__ import annotations

import logging
import re
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, libversion
from confluent_kafka.admin import AdminClient

from fraud_service.domain.errors import ClusterUnavailable, ConfigurationError, PreflightError
from fraud_service.kafka.partitioner import PARTITIONER
from fraud_service.kafka.unreadable_batches import SkippingConsumer
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.errors import FraudServiceError

log = structlog.get_logger(__name__)
# The clients log here. By default they would write lines of their own to stderr.
CLIENT_LOG: Final = logging.getLogger("librdkafka")

# Limits for what a consumer fetches ahead. Brokers count the stored bytes of a batch, and the client unpacks a whole
# answer at once: with the default of one megabyte a partition, that can be a gigabyte. A larger batch still comes,
# but alone.
FETCH_LIMITS: Final = {
    "fetch.message.max.bytes": 1 << 17,
    "fetch.max.bytes": 1 << 17,
    "message.max.bytes": 1 << 17,  # the client raises fetch.max.bytes to this
    "queued.max.messages.kbytes": 1 << 14,
}
# All topics are compressed with what every client can read (ADR 38).
COMPRESSION: Final = {"compression.type": "gzip", "compression.level": 1}
REQUEST_TIMEOUT_S: Final = 30.0
PROBE_TIMEOUT_S: Final = 5.0  # short, because the client repeats the request
PROBE_POLL_S: Final = 0.5
REACH_TIMEOUT_S: Final = 2.5  # then we name the brokers that do not answer
SILENCE_TIMEOUT_S: Final = 7.5  # more for brokers that do not answer; a slow one may still accept or reject us
CONNECT_POLL_S: Final = 0.5
MAX_ADDRESSES: Final = 3  # of brokers that are tried: one that accepts is enough
ADDRESS_TIMEOUT_S: Final = 1.0
UNREACHABLE: Final = (
    "Check FRAUD_BOOTSTRAP_SERVERS or --bootstrap, and whether the security.protocol of FRAUD_KAFKA_CONFIG is the "
    "protocol of that listener"
)
DECORATION: Final = re.compile(r"^\S+: | \(after .*\)$")  # what librdkafka adds to the cause of an error
REJECTED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})  # noqa: SLF001 - librdkafka's own codes are public, named so
# Rejections that librdkafka reports as a transport error, like an outage.
REJECTED_TEXTS: Final = ("SSL alert number", "connecting to a PLAINTEXT broker listener")


class _Probe:
    """Find out whether the brokers accept our connection."""

    def __init__(self, settings: Settings) -> None:
        self._bootstrap = settings.bootstrap_servers
        self._errors: list[KafkaError] = []
        self.addresses: list[tuple[str, int]] = []  # of the brokers, as they name themselves
        self._client = _create(Producer, {**connection(settings), "error_cb": self._errors.append})

    def has_answered(self) -> bool:
        """Ask for an answer. Raises `PreflightError` when we reject the broker, or the broker rejects us."""
        try:
            brokers = self._client.list_topics(timeout=CONNECT_POLL_S).brokers.values()
        except KafkaException:
            self._client.poll(0)
        else:
            self.addresses = sorted((broker.host, broker.port) for broker in brokers)
            return True
        for error in self._errors:
            if error.code() in REJECTED or any(text in error.str() for text in REJECTED_TEXTS):
                raise PreflightError(
                    f"{self._bootstrap} rejects the connection: {error.str()}. Compare the ssl.… and sasl.… options "
                    "of FRAUD_KAFKA_CONFIG and FRAUD_KAFKA_CONFIG_DIR with what the brokers require"
                )
        return False

    @property
    def is_refused(self) -> bool:
        """Whether every connection has failed, so that waiting longer cannot help."""
        return any(error.code() == KafkaError._ALL_BROKERS_DOWN for error in self._errors)  # noqa: SLF001 - librdkafka's own codes are public, named so

    def problem(self) -> str:
        """Return which address does not answer, and what the client says about it."""
        causes = [error.str() for error in self._errors if error.code() != KafkaError._ALL_BROKERS_DOWN]  # noqa: SLF001 - the same
        cause = f" ({DECORATION.sub('', causes[0])})" if causes else ""
        return f"no Kafka broker answers at {self._bootstrap}{cause}. {UNREACHABLE}"


def require_connection(settings: Settings) -> None:
    """Raise `ClusterUnavailable`, which names the brokers, when no broker answers. For commands.

    It takes 2.5 seconds when the connection fails, and ten when brokers accept it but do not answer. Every client
    would wait much longer. Raises `PreflightError` as `check_connectivity` does.
    """
    probe = _Probe(settings)
    has_answered = wait_until(probe.has_answered, REACH_TIMEOUT_S, poll_s=0.0)
    if not has_answered and not probe.is_refused:
        log.warning("waiting_for_the_cluster", what=f"no Kafka broker has answered at {settings.bootstrap_servers} yet")
        has_answered = wait_until(probe.has_answered, SILENCE_TIMEOUT_S, poll_s=0.0)
    if not has_answered:
        raise ClusterUnavailable(probe.problem())
    some = probe.addresses[:MAX_ADDRESSES]
    if some and not any(_accepts(*address) for address in some):
        listed = ", ".join(f"{host}:{port}" for host, port in some)
        raise ClusterUnavailable(
            f"the brokers at {settings.bootstrap_servers} give {listed} as their address, which does not answer from "
            "here: correct advertised.listeners of the brokers, or the names and routes of this machine"
        )


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=ADDRESS_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def check_connectivity(settings: Settings) -> None:
    """Check that brokers accept our connection, before anything waits for them.

    Logs the brokers that do not answer, and returns after ten seconds, because an outage passes. A certificate,
    password or token that the brokers reject does not pass, and a client that only waits would see it as an outage. So
    this raises `PreflightError` when we reject the broker's certificate, or the broker rejects our identity.
    """
    probe = _Probe(settings)
    if not wait_until(probe.has_answered, REACH_TIMEOUT_S, poll_s=0.0):
        log.warning("waiting_for_the_cluster", what=probe.problem())
        wait_until(probe.has_answered, SILENCE_TIMEOUT_S, poll_s=0.0)


def await_cluster(settings: Settings, heartbeat: Callable[[], None]) -> None:
    """Wait until a broker answers, without a limit. Calls `heartbeat` before each request."""
    client = admin(settings)
    while True:
        heartbeat()
        try:
            client.list_topics(timeout=PROBE_TIMEOUT_S)
        except KafkaException:
            time.sleep(PROBE_POLL_S)
        else:
            return


def librdkafka_version() -> str:
    """Return the version of the client library."""
    return str(libversion()[0])


def connection(settings: Settings) -> dict[str, Any]:
    """Return the options with which every client reaches the cluster."""
    return {**settings.kafka_config, "bootstrap.servers": settings.bootstrap_servers, "logger": CLIENT_LOG}


def admin(settings: Settings) -> AdminClient:
    """Create an admin client. Keep a reference until its answers arrive, because a deleted client gets none."""
    return _create(AdminClient, connection(settings))


def reader(settings: Settings, name: str) -> SkippingConsumer:
    """Create a consumer that is assigned by hand, reads only committed records, and commits no offsets.

    `name` is the group id, which identifies the consumer in the broker's logs.
    """
    consumer: SkippingConsumer = _create(SkippingConsumer, reader_options(settings, name))
    return consumer


def reader_options(settings: Settings, name: str) -> dict[str, Any]:
    """Return the options of `reader`."""
    return {
        **FETCH_LIMITS,
        "fetch.wait.max.ms": 50,
        **connection(settings),
        "group.id": name,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
    }


def compression(settings: Settings) -> dict[str, Any]:
    """Return our default compression; nothing if the user chose one, whose levels are others."""
    chosen = settings.kafka_config.keys() & {"compression.type", "compression.codec"}
    return {} if chosen else dict(COMPRESSION)


def producer(settings: Settings, options: dict[str, Any] | None = None) -> Producer:
    """Create an idempotent producer with our partitioner.

    `options` replace our defaults, and options of the user replace both. `config.kafka_options` refuses the others.
    """
    return _create(
        Producer,
        {
            **compression(settings),
            "linger.ms": 5,
            **(options or {}),
            **connection(settings),
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
        },
    )


def kafka_reason(error: Exception) -> str | None:
    """Return what the brokers or the client said, None if they did not cause the error."""
    return str(error.args[0].str()) if isinstance(error, KafkaException) else None


@contextmanager
def kafka_errors_as(kind: type[FraudServiceError], failure: str) -> Iterator[None]:
    """Raise an error of the client within the block as an error of the service, which says what failed and why."""
    try:
        yield
    except KafkaException as error:
        raise kind(f"{failure}: {error.args[0].str()}") from error


def _create(kind: Any, options: dict[str, Any]) -> Any:
    try:
        return kind(options)
    except KafkaException as error:
        raise ConfigurationError(f"FRAUD_KAFKA_CONFIG has an invalid option: {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:  # an option that takes a function, which no setting can name
        raise ConfigurationError(f"FRAUD_KAFKA_CONFIG has an invalid option: {error}") from None
