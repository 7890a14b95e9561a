"""A stand-in for `confluent_kafka.Producer`, as far as Quix and our code use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException
from simulation.admin import metadata
from simulation.errors import BrokerError, kafka_error, timed_out, undelivered
from simulation.host import here
from simulation.log import Record
from simulation.messages import Message

from fraud_service.kafka.partitioner import murmur2_partition

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation.groups import Membership
    from simulation.log import Place
    from simulation.transactions import Identity

RETRY = 0.05  # seconds between two attempts when librdkafka retries by itself
SENT_AT_ONCE = 0.7  # share of messages that travel before the next call of the client


class Queued(NamedTuple):
    """A message in the producer's queue."""

    place: Place
    record: Record
    on_delivery: Callable[[Any, Any], None] | None


class Producer:
    """A producer with a queue and delivery reports. As in librdkafka, a transaction starts with its first record."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._host = here.get()
        self._broker = self._host.broker
        self._name: str | None = options.get("transactional.id")
        self._timeout = options.get("transaction.timeout.ms", 60_000) / 1000
        self._identity: Identity | None = None
        self._queue: list[Queued] = []
        self._reports: list[tuple[Callable[[Any, Any], None] | None, Any, Message]] = []
        self._state = "idle"  # open, committing, aborting, failed
        self._is_known = False  # whether the broker has a record or offset of this transaction
        self._fatal: KafkaError | None = None

    def init_transactions(self, timeout: float = -1) -> None:
        """Get an epoch."""
        self._identity = self._ask(
            "init_transactions",
            lambda: self._broker.transactions.initialise(self._name, self._timeout, self._broker.now),
            timeout,
        )

    def begin_transaction(self) -> None:
        """Open a transaction, which the broker creates at the first record."""
        self._require_no_fatal()
        if self._state != "idle" or self._identity is None:
            raise kafka_error(KafkaError._STATE)
        self._state, self._is_known = "open", False

    def produce(  # noqa: PLR0917 - confluent_kafka has them so
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int | None = None,
        on_delivery: Callable[[Any, Any], None] | None = None,
        timestamp: int = 0,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        """Queue a message."""
        self._require_no_fatal()
        if self._name is not None and self._state != "open":
            raise kafka_error(KafkaError._STATE)
        if partition is None:
            partition = murmur2_partition(key or b"", self._broker.counts[topic])
        self._host.call("produce", lambda: None, [BufferError])
        named = headers.items() if isinstance(headers, dict) else headers or []
        pairs = [(name, text.encode() if isinstance(text, str) else text) for name, text in named]
        self._queue.append(Queued((topic, partition), Record(key, value, pairs, timestamp), on_delivery))
        if not self._host.calm and self._host.luck.random() < SENT_AT_ONCE:
            self._send()

    def poll(self, timeout: float = 0) -> int:
        """Call the delivery callbacks."""
        reports, self._reports = self._reports, []
        for callback, error, message in reports:
            if callback is not None:
                callback(error, message)
        return len(reports)

    def flush(self, timeout: float = -1) -> int:
        """Send everything and call the delivery callbacks; returns the number of messages left."""
        try:
            self._host.call("flush", self._send, [timed_out] if timeout >= 0 else [])
        except KafkaException:
            if timeout >= 0:
                self._host.pause(timeout)
        self.poll()
        return len(self._queue)

    def send_offsets_to_transaction(self, positions: list[Any], membership: Membership, timeout: float = -1) -> None:
        """Add consumed offsets to the transaction."""
        self._require("open")
        offsets = {(position.topic, position.partition): position.offset for position in positions}

        def effect() -> None:
            self._broker.transactions.send_offsets(self._identity, membership, offsets, self._broker.now)
            self._is_known = True

        self._ask("send_offsets", effect, timeout)

    def commit_transaction(self, timeout: float = -1) -> None:
        """Flush, then commit. The caller can retry after a timeout."""
        self._require("open", "committing")
        self._send()
        self.poll()
        self._require("open", "committing")
        self._state = "committing"
        self._end(timeout, is_commit=True)

    def abort_transaction(self, timeout: float = -1) -> None:
        """Drop the queue, then abort. The caller can retry after a timeout."""
        self._require("open", "aborting", "failed")
        self._state = "aborting"
        self.purge()
        self._end(timeout, is_commit=False)

    def purge(self) -> None:
        """Drop the queue."""
        queue, self._queue = self._queue, []
        for queued in queue:
            self._report(queued, -1, KafkaError(KafkaError._PURGE_QUEUE))

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Return the topics."""
        return self._host.call("list_topics", lambda: metadata(self._broker), [timed_out])

    def __bool__(self) -> bool:
        return True  # even when empty: Quix replaces a producer that is false

    def __len__(self) -> int:
        return len(self._queue) + len(self._reports)

    def _end(self, timeout: float, *, is_commit: bool) -> None:
        if self._is_known:
            name = "commit_transaction" if is_commit else "abort_transaction"
            self._ask(
                name,
                lambda: self._broker.transactions.end(self._identity, self._broker.now, is_commit=is_commit),
                timeout,
            )
        self._state = "idle"

    def _send(self) -> None:
        """Send the queue in order. After a failure in a transaction, the later messages fail too."""
        while self._queue:
            try:
                offset = self._host.call("send", self._append_first, [undelivered])
            except BrokerError as error:
                if error.code == KafkaError.CONCURRENT_TRANSACTIONS:
                    self._host.pause(RETRY)
                    continue
                self._fail(KafkaError(KafkaError._FENCED, error.args[0], fatal=True))
            except KafkaException as error:
                self._fail(error.args[0])
            else:
                self._report(self._queue.pop(0), offset, None)

    def _append_first(self) -> int:
        place, record = self._queue[0][:2]
        stamped = self._broker.stamped(place[0], record)
        if self._identity is None:
            return self._broker.log(place).append(stamped)
        offset = self._broker.transactions.produce(self._identity, place, stamped, self._broker.now)
        self._is_known = True
        return offset

    def _fail(self, reason: KafkaError) -> None:
        if reason.fatal():
            self._fatal = reason
        if self._name is not None and self._state == "open":
            self._state = "failed"
        if self._queue:
            self._report(self._queue.pop(0), -1, reason)
        if self._name is not None:
            self.purge()

    def _report(self, queued: Queued, offset: int, error: KafkaError | None) -> None:
        message = Message(queued.place, offset, queued.record, error)
        self._reports.append((queued.on_delivery, error, message))

    def _ask(self, name: str, effect: Callable[[], Any], timeout: float) -> Any:
        """Call the coordinator, and retry while the previous transaction is still ending."""
        deadline = self._broker.now + timeout if timeout >= 0 else float("inf")
        while True:
            try:
                return self._host.call(name, effect, [timed_out])
            except BrokerError as error:
                if error.code != KafkaError.CONCURRENT_TRANSACTIONS:
                    raise self._refusal(error) from error
                if self._broker.now >= deadline:
                    raise timed_out() from error
            self._host.pause(RETRY)

    def _refusal(self, error: BrokerError) -> KafkaException:
        if error.code == KafkaError.PRODUCER_FENCED:
            self._fatal = KafkaError(KafkaError._FENCED, error.args[0], fatal=True)
            return KafkaException(self._fatal)
        if self._state == "open":
            self._state = "failed"
        return kafka_error(error.code, abortable=True)

    def _require_no_fatal(self) -> None:
        if self._fatal is not None:
            raise KafkaException(self._fatal)

    def _require(self, *states: str) -> None:
        self._require_no_fatal()
        if self._state not in states:
            raise kafka_error(KafkaError._STATE, abortable=self._state == "failed")
