"""Plain Kafka clients, configured in one place."""

from __future__ import annotations

import ctypes
import time
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from fraud_service.domain.errors import (
    ClusterUnavailable,
    ConfigurationError,
    FatalStreamError,
    PreflightError,
)
from fraud_service.kafka.unreadable_batches import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Headers

log = structlog.get_logger(__name__)

T = TypeVar("T")

PARTITIONER: Final = "murmur2"  # Java's default; librdkafka's own (crc32) would tear cards and labels apart
PARTITION_BY_KEY: Final = -1  # the partition that the hash of the key names
# What a consumer holds that nobody has looked at. Brokers count a batch as it is stored, and clients unpack all that an
# answer brings at once: by default a megabyte a partition, which may be a gigabyte. A larger batch comes all the same,
# alone.
BOUNDED: Final = {
    "fetch.message.max.bytes": 1 << 17,
    "fetch.max.bytes": 1 << 17,
    "message.max.bytes": 1 << 17,  # the client raises the line before to this
    "queued.max.messages.kbytes": 1 << 14,
}
REQUEST_TIMEOUT_S: Final = 30.0  # seconds for a request to the cluster
FLUSH_TIMEOUT_S: Final = 60.0  # seconds for the broker to take what was sent
BATCH: Final = 2000  # messages at once when a whole topic is read
RETRY_TIMEOUT_S: Final = 60.0  # seconds for a cluster that has just started to find its coordinators and leaders
RETRY_POLL_S: Final = 0.5  # seconds between two tries
CONNECT_TIMEOUT_S: Final = 10.0  # seconds for a first answer, or for a reason why there is none
REFUSED: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})  # noqa: SLF001 - as below
REFUSED_IN_WORDS: Final = ("SSL alert number", "connecting to a PLAINTEXT broker listener")  # a transport error by code
PROBE_TIMEOUT_S: Final = 5.0  # seconds; a cluster that is away is asked again and again
# What brokers and librdkafka say of a cluster that starts, stops, moves leaders, or is cut off. None of it is about us.
TRANSIENT_CODES: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001 - librdkafka's own codes are public, named so
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001 - the same
        KafkaError._RESOLVE,  # noqa: SLF001 - the same
        KafkaError._TIMED_OUT,  # noqa: SLF001 - the same
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001 - the same
        KafkaError._TRANSPORT,  # noqa: SLF001 - the same
        KafkaError._WAIT_COORD,  # noqa: SLF001 - the same
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    }
)


def check_connectivity(settings: Settings) -> None:
    """Find out whether brokers let us in, before anything waits for them.

    Of an outage nothing is said here: it passes. A certificate, a password or a token that is refused does not, and
    would look like an outage to whoever only waits.

    Raises
    ------
    PreflightError
        When a broker is not who it should be, or does not take us for who we say we are.
    """
    told: list[KafkaError] = []
    asker = _made(Producer, {**connection(settings), "error_cb": told.append})
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            asker.list_topics(timeout=1.0)
        except KafkaException:
            asker.poll(0)
        else:
            return
        for error in told:
            if error.code() in REFUSED or any(words in error.str() for words in REFUSED_IN_WORDS):
                raise PreflightError(
                    f"{settings.bootstrap_servers} cannot be talked to: {error.str()}. Look at the ssl.… and sasl.… "
                    "options of FRAUD_KAFKA_CONFIG and FRAUD_KAFKA_CONFIG_DIR, and at what the brokers demand"
                )


def connection(settings: Settings) -> dict[str, Any]:
    """Return what every client needs to reach the cluster."""
    return {**settings.kafka_config, "bootstrap.servers": settings.bootstrap_servers}


def admin(settings: Settings) -> AdminClient:
    """Make an admin client."""
    return _made(AdminClient, connection(settings))


def reader(settings: Settings, name: str) -> Reader:
    """Make a consumer that reads committed records, is assigned by hand and commits nothing."""
    made: Reader = _made(Reader, reading(settings, name))
    return made


def reading(settings: Settings, name: str) -> dict[str, Any]:
    """Return the options of such a consumer."""
    return {
        **BOUNDED,
        **connection(settings),
        "group.id": name,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 50,
    }


def producer(settings: Settings, options: dict[str, Any] | None = None) -> Producer:
    """Make an idempotent producer that partitions like everyone else here; `options` go before its own."""
    return _made(
        Producer,
        {
            **connection(settings),
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "compression.type": "lz4",
            "linger.ms": 5,
            **(options or {}),
        },
    )


def read_to_end(settings: Settings, name: str, topic: str, timeout: float) -> Iterator[list[bytes]]:
    """Read the values of a topic from its beginning to its present end, batch by batch.

    Raises
    ------
    FatalStreamError
        When the end is not reached within so many seconds.
    ClusterUnavailable, PreflightError
        As `retry_transient` does.
    """
    consumer = reader(settings, name)
    try:
        what = f"topic {topic} cannot be read"
        numbers = (
            retry_transient(what, lambda: consumer.list_topics(topic, timeout=REQUEST_TIMEOUT_S))
            .topics[topic]
            .partitions
        )
        places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in numbers]
        marks = [watermarks(consumer, place) for place in places]
        ends = {place.partition: high for place, (low, high) in zip(places, marks, strict=True) if high > low}
        consumer.assign([place for place in places if place.partition in ends])
        deadline = time.monotonic() + timeout
        while any(max(place.offset, 0) < ends[place.partition] for place in consumer.position(consumer.assignment())):
            if time.monotonic() > deadline:
                raise FatalStreamError(f"topic {topic} could not be read to its end within {timeout:.0f} s")
            messages = poll_available(consumer, BATCH, 0.1)
            yield [message.value() for message in messages if message.error() is None and message.value() is not None]
    finally:
        consumer.close()


def poll_available(consumer: Consumer, most: int, timeout: float) -> list[Any]:
    """Wait up to `timeout` seconds for a message, and return it with those that are there by then.

    The client's own bulk read waits until it has as many as it may have, or for all of the time.
    """
    first: list[Any] = consumer.consume(1, timeout=timeout)
    return [*first, *consumer.consume(most - 1, timeout=0)] if first else first


def headers(message: Any) -> Headers:
    """Return the headers of a message; none where they cannot be read.

    For a name that is no UTF-8, which anyone may send, the client returns with an exception that is set. A plain call
    of it in a warm loop does not look, and the exception comes up anywhere later; `methodcaller` looks.
    """
    try:
        found: Headers = _headers(message) or []
    except (SystemError, UnicodeDecodeError):
        return []
    return found


_headers: Final = methodcaller("headers")


def retry_transient(what: str, ask: Callable[[], T]) -> T:
    """Ask the cluster; when it is only not ready, ask again for a minute.

    Raises
    ------
    ClusterUnavailable
        When it is still not ready then; names `what` could not be done.
    PreflightError
        At once, when it refuses for a reason that does not pass.
    """
    deadline = time.monotonic() + RETRY_TIMEOUT_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() not in TRANSIENT_CODES:
                raise PreflightError(f"{what}: {reason.str()}") from error
            if time.monotonic() > deadline:
                raise ClusterUnavailable(
                    f"{what}, for {RETRY_TIMEOUT_S:.0f} s: {reason.str()}. The cluster has no coordinator for "
                    f"it, or no "
                    "leader of a topic: look after the brokers, then start again"
                ) from error
            log.warning("waiting_for_the_cluster", what=what, reason=reason.str())
        time.sleep(RETRY_POLL_S)


def watermarks(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """Return where the log of a partition begins and ends; a leader that is missing is waited for."""
    found: tuple[int, int] = retry_transient(
        f"{place.topic}[{place.partition}] cannot be read",
        lambda: consumer.get_watermark_offsets(place, timeout=REQUEST_TIMEOUT_S),
    )
    return found


def await_cluster(settings: Settings, beat: Callable[[], None]) -> None:
    """Wait until a broker answers, however long it takes; `beat` is called meanwhile."""
    asker = admin(settings)
    while True:
        beat()
        try:
            asker.list_topics(timeout=PROBE_TIMEOUT_S)
        except KafkaException:
            time.sleep(RETRY_POLL_S)
        else:
            return


class OutgoingRecord(NamedTuple):
    """One record to send."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int = PARTITION_BY_KEY


def produce_all(settings: Settings, records: Iterable[OutgoingRecord], options: dict[str, Any] | None = None) -> None:
    """Send records in order and wait until the broker has all of them; `options` as in `producer`.

    Raises
    ------
    FatalStreamError
        When it does not take one, or not in time.
    """
    refusals: list[str] = []

    def on_delivery(error: Any, _: Any) -> None:
        if error is not None:
            refusals.append(error.str())

    sender = producer(settings, options)
    for record in records:
        while True:
            try:
                sender.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    headers=record.headers,
                    on_delivery=on_delivery,
                )
                sender.poll(0)
                break
            except BufferError:
                sender.poll(0.1)  # the queue is full: let the broker take some
    left = sender.flush(FLUSH_TIMEOUT_S)
    if left or refusals:
        reason = refusals[0] if refusals else f"no answer within {FLUSH_TIMEOUT_S:.0f} s"
        raise FatalStreamError(f"{left + len(refusals)} records were not taken by the broker: {reason}")


def delete_records(settings: Settings, before: list[TopicPartition]) -> None:
    """Let the logs of partitions begin at the offsets given, as when retention has taken what was before them.

    Raises
    ------
    PreflightError
        When the broker does not.
    """
    asked = [TopicPartition(place.topic, place.partition, place.offset) for place in before]
    # confluent-kafka before 2.16 gives back one reference to the list too many (its issue 2275): the process would die.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(asked))
    admin_ = admin(settings)  # held on to: an answer for a client that is gone never comes
    try:
        for future in admin_.delete_records(asked).values():
            future.result(REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise PreflightError(f"records cannot be deleted: {error.args[0].str()}") from error


def _made(kind: Any, options: dict[str, Any]) -> Any:
    try:
        return kind(options)
    except KafkaException as error:
        raise ConfigurationError(f"FRAUD_KAFKA_CONFIG has an option that cannot work: {error.args[0].str()}") from None


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Return the partition that the murmur2 partitioner gives a key (Appleby's MurmurHash2, Kafka's seed)."""
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    whole = len(key) & ~3
    state = 0x9747B28C ^ len(key)
    for position in range(0, whole, 4):
        word = int.from_bytes(key[position : position + 4], "little") * multiplier & mask
        word = (word ^ (word >> 24)) * multiplier & mask
        state = (state * multiplier & mask) ^ word
    if len(key) > whole:
        state = (state ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    state = (state ^ (state >> 13)) * multiplier & mask
    return ((state ^ (state >> 15)) & 0x7FFFFFFF) % partitions
