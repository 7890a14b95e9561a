"""The model topic: promoted models, the report of the newest re-fit, and the switch of the online model.

The topic has one partition. The learner and every scorer read all of it:

* The learner trains with the model that was promoted last from its next snapshot boundary on. The snapshot of that
  boundary is the first to name the model.
* Scorers only load the models. The active snapshot names the model that scores a transaction.
* The report of the newest re-fit has a key of its own, and the learner exports it as metrics.
* The switch of the online model has a key of its own, and scorers apply it at once.

Every record has a sequence number that must grow. Without it, anyone could replay an old model, which is still
correctly signed, and make it active again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from fraud_service.config.keyring import load_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.errors import ConfigurationError, FatalStreamError, InvalidRecord, RejectedRecord
from fraud_service.kafka import clients
from fraud_service.kafka.messages import read_headers
from fraud_service.kafka.sender import OutgoingRecord, produce_all
from fraud_service.kafka.topic_reader import TopicReader, end_to_read, poll_available, read_to_end, watermarks
from fraud_service.kafka.topics import MAX_MODEL_BYTES
from fraud_service.kafka.waiting import Deadline
from fraud_service.security.signatures import KEY_HEADER, RejectReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Headers
    from fraud_service.security.signatures import Keyring

log = structlog.get_logger(__name__)

ROLE: Final = "models"
CATCH_UP_TIMEOUT_S: Final = 60.0
REFRESH_TIMEOUT_S: Final = 5.0
READ_POLL_S: Final = 0.2
MAX_MODELS_AT_ONCE: Final = 10  # a model can have megabytes
REFIT_KEY: Final = "re-fit"  # differs from all versions, which begin with the kind of model
SWITCH_KEY: Final = "online"
NON_MODEL_KEYS: Final = frozenset({REFIT_KEY.encode(), SWITCH_KEY.encode()})
SEQUENCE_HEADER: Final = "fraud-sequence"
MAX_PUBLISHED_BYTES: Final = 2 * MAX_MODEL_BYTES  # before compression
MAX_SEQUENCE_DIGITS: Final = 18  # numbers start at epoch milliseconds; Python refuses to parse thousands of digits


class ReplayGuard:
    """Accepts only records that are correctly signed and have a higher sequence number than all before."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.newest = 0

    def check(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise `RejectedRecord` for a record that is not accepted."""
        if value is not None and len(value) > MAX_MODEL_BYTES:
            raise RejectedRecord(
                RejectReason.INVALID,
                f"a record on the model topic has {len(value)} bytes; the limit is {MAX_MODEL_BYTES}",
            )
        self._keyring.require_signature(ROLE, key, value, headers)
        number = dict(headers).get(SEQUENCE_HEADER, b"")
        if not number and not self._keyring.requires_signatures:
            return  # from a version without sequence numbers
        if not number.isdigit() or len(number) > MAX_SEQUENCE_DIGITS or int(number) <= self.newest:
            shown = number[:MAX_SEQUENCE_DIGITS]
            raise RejectedRecord(
                RejectReason.REPLAYED,
                f"the sequence number {shown!r} on the model topic is not a number above {self.newest}: a replay",
            )
        self.newest = int(number)


class ModelTopicReader:
    """Reads the model topic from its beginning, then follows it.

    ``name``         identifies the consumer in the broker's logs
    ``handlers``     called with the value of records that are no models, by key
    ``on_rejected``  called with the `RejectReason` of each rejected record
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        handlers: Mapping[str, Callable[[bytes], None]] | None = None,
        on_rejected: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._handlers = handlers or {}
        self._on_rejected = on_rejected
        self._guard = ReplayGuard(load_keyring(settings))
        self._partition = TopicPartition(settings.topics.models, 0, OFFSET_BEGINNING)
        self._consumer = clients.reader(settings, f"{name}-models")
        self._consumer.assign([self._partition])
        # Requests need a second connection: on the first one they would queue behind the fetch that waits for records.
        self._end_finder = clients.reader(settings, f"{name}-models-ends")
        self._unreadable = RateLimitedLog(log.warning, "model_topic_read_error")
        self._rejected = RateLimitedLog(log.warning, "model_record_rejected")

    def catch_up(self) -> Iterator[bytes]:
        """Yield all models up to the present end, in the order of promotion, without keeping them in memory.

        Raises `FatalStreamError` when the broker sends nothing for a minute, and else as `watermarks` does.
        """
        for models in self._read_to(watermarks(self._end_finder, self._partition)):
            yield from models

    def read_available(self) -> list[bytes]:
        """Return the models that have arrived since the last call, without waiting."""
        return self._parse(poll_available(self._consumer, MAX_MODELS_AT_ONCE, 0.0))

    def read_to_end(self) -> list[bytes]:
        """Return the models since the last call, up to the present end of the topic.

        For loops that must go on: in an outage the call returns after some seconds, and a later call returns the rest.
        """
        try:
            marks = self._end_finder.get_watermark_offsets(self._partition, timeout=REFRESH_TIMEOUT_S)
        except KafkaException as error:
            log.warning("model_topic_end_unknown", reason=error.args[0].str())
            return self.read_available()
        found: list[bytes] = []
        deadline = Deadline(REFRESH_TIMEOUT_S)
        for models in self._read_to(marks):
            found += models
            if deadline.has_passed():
                log.warning("model_topic_incomplete", timeout_s=REFRESH_TIMEOUT_S)
                break
        return found

    def _read_to(self, marks: tuple[int, int]) -> Iterator[list[bytes]]:
        ends = {(self._partition.topic, 0): end_to_read(*marks)}
        return map(
            self._parse,
            read_to_end(self._consumer, ends, CATCH_UP_TIMEOUT_S, poll_s=READ_POLL_S, max_messages=MAX_MODELS_AT_ONCE),
        )

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()
        self._end_finder.close()

    def _parse(self, messages: list[Any]) -> list[bytes]:
        found = []
        for message in messages:
            if message.error() is not None:
                self._unreadable(message.error().name())
                continue
            try:
                found += self._models(message)
            except InvalidRecord as error:
                self._on_rejected(error.reason)
                self._rejected(error.reason, reason=str(error), offset=message.offset())
        for limited in (self._rejected, self._unreadable):
            limited.flush()
        return found

    def _models(self, message: Any) -> list[bytes]:
        key, value = message.key() or b"", message.value()
        self._guard.check(message.key(), value, read_headers(message))
        if value is None:
            return []
        if key not in NON_MODEL_KEYS:
            return [value]
        if handler := self._handlers.get(key.decode()):
            handler(value)
        return []


class PromotedModel(NamedTuple):
    """An accepted record of the model topic: its timestamp in epoch milliseconds, and the key that signed it."""

    key: bytes
    value: bytes
    at: int
    signed_with: str | None


def promoted(settings: Settings, guard: ReplayGuard) -> Iterator[PromotedModel]:
    """Yield every record that the guard accepts, in order. Raises `TopicReadError`."""
    rejected = RateLimitedLog(log.warning, "model_record_rejected")
    with TopicReader(settings, "fraud-models") as reader:
        for entry in reader.read(settings.topics.models, 0):
            try:
                guard.check(entry.key, entry.value, entry.headers)
            except RejectedRecord as error:
                rejected(error.reason, reason=str(error), offset=entry.offset)
                continue
            if entry.key is not None and entry.value is not None:
                yield PromotedModel(entry.key, entry.value, entry.timestamp, entry.header(KEY_HEADER))
    rejected.flush(final=True)


def publish(settings: Settings, key: str, data: bytes) -> None:
    """Publish a model under its version, a report under `REFIT_KEY`, or the switch under `SWITCH_KEY`.

    Reads the topic first, because the sequence number follows from the records before. Raises `TopicReadError` when
    that fails, and `FatalStreamError` when the broker does not accept the record.
    """
    guard = ReplayGuard(load_keyring(settings))
    for _ in promoted(settings, guard):
        pass
    publish_all(settings, guard, [(key.encode(), data)])


def publish_all(settings: Settings, guard: ReplayGuard, records: list[tuple[bytes, bytes]]) -> None:
    """Sign and publish records in order, with numbers above those that the guard has seen. Raises as `publish` does."""
    keyring = load_keyring(settings)
    # The clock counts too: when two processes publish at once, readers accept the one that started later.
    number = max(guard.newest, int(time.time() * 1000))
    if number + len(records) >= 10**MAX_SEQUENCE_DIGITS:
        raise FatalStreamError(
            f"the sequence number {guard.newest} on topic {settings.topics.models} leaves no higher one: it is forged. "
            "Set FRAUD_SIGNING_KEY_DIR, or delete the topic and create it again"
        )
    sent = []
    for place, (key, data) in enumerate(records, start=1):
        if len(data) > MAX_MODEL_BYTES:  # no reader would accept it
            raise ConfigurationError(
                f"the model {key.decode()} has {len(data)} bytes, and the limit is {MAX_MODEL_BYTES}: train a smaller "
                "one, with fewer or shallower trees"
            )
        headers = keyring.sign_headers(ROLE, key, data, [(SEQUENCE_HEADER, str(number + place).encode())])
        sent.append(OutgoingRecord(settings.topics.models, key, data, headers))
    deliver(settings, sent)


def deliver(settings: Settings, records: list[OutgoingRecord]) -> None:
    """Send records unchanged. Raises `FatalStreamError` when the broker does not accept one."""
    produce_all(settings, records, {"message.max.bytes": MAX_PUBLISHED_BYTES})
