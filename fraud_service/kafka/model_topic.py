"""Promoted models: a topic of one partition, written by a re-fit, read whole by the learner and by every scorer.

The learner teaches beside the last one from its next boundary on, and the snapshot of that boundary is the first to
name it. Scorers only make models ready: which one scores a transaction is told by the snapshot in force.
What the newest re-fit found, promotion or not, lies beside the models under a key of its own; the learner shows it.
So does the switch of the online model, which scorers obey at once.

Every record has a number that grows. One whose number does not was sent again by somebody: it is passed over, or an old
model, signed as it is, could be made to reign again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from fraud_service.config.keyring import load_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.errors import FatalStreamError, InvalidRecord, RefusedRecord
from fraud_service.kafka import clients
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.kafka.topics import MAX_MODEL_BYTES
from fraud_service.security.signatures import KEY_HEADER, RejectReason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fraud_service.config.settings import Settings
    from fraud_service.kafka.messages import Headers
    from fraud_service.security.signatures import Keyring

log = structlog.get_logger(__name__)

ROLE: Final = "models"
CATCH_UP_TIMEOUT: Final = 60.0  # seconds
REQUEST_TIMEOUT_S: Final = 5.0  # seconds
REFIT_KEY: Final = "re-fit"  # no version: those begin with the kind of model
SWITCH_KEY: Final = "online"  # the same
NON_MODEL_KEYS: Final = frozenset({REFIT_KEY.encode(), SWITCH_KEY.encode()})
SEQUENCE_HEADER: Final = "fraud-sequence"
MAX_PUBLISHED_BYTES: Final = 2 * MAX_MODEL_BYTES  # before compression
LONGEST_NUMBER: Final = 18  # digits: they begin as milliseconds since the epoch, and Python refuses to read thousands


class ReplayGuard:
    """Lets a record pass when it is signed as it must be and its number is above all before it."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self.newest = 0

    def check(self, key: bytes | None, value: bytes | None, headers: Headers) -> None:
        """Raise `RefusedRecord` for one that may not pass."""
        if value is not None and len(value) > MAX_MODEL_BYTES:
            raise RefusedRecord(RejectReason.INVALID, f"a record on the topic of models has {len(value)} bytes")
        self._keyring.require(ROLE, key, value, headers)
        number = dict(headers).get(SEQUENCE_HEADER, b"")
        if not number and not self._keyring.is_demanding:
            return  # from a version that did not number
        if not number.isdigit() or len(number) > LONGEST_NUMBER or int(number) <= self.newest:
            shown = number[:LONGEST_NUMBER]
            raise RefusedRecord(
                RejectReason.REPLAYED, f"record {shown!r} on the topic of models was sent before, or never"
            )
        self.newest = int(number)


class ModelTopicReader:
    """Read the topic of promoted models from its beginning.

    Parameters
    ----------
    name
        Tells the reader apart in the broker's logs.
    handlers
        Told of the records that are no models, as they were written, by key.
    on_refused
        Told why a record did not pass (`fraud_service.security.signatures.RejectReason`).
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        handlers: Mapping[str, Callable[[bytes], None]] | None = None,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._handlers = handlers or {}
        self._on_refused = on_refused
        self._gate = ReplayGuard(load_keyring(settings))
        self._partition = TopicPartition(settings.topics.models, 0, OFFSET_BEGINNING)
        self._consumer = clients.reader(settings, f"{name}-models")
        self._consumer.assign([self._partition])
        # A connection of its own: on the reader's, a question waits behind the fetch that waits for news.
        self._asker = clients.reader(settings, f"{name}-models-ends")
        self._unreadable = RateLimitedLog(log.warning, "promotions_read_error")
        self._refused = RateLimitedLog(log.warning, "promotion_refused")

    def catch_up(self) -> Iterator[bytes]:
        """Read all models there are, the last one promoted last; one by one, because all of them are kept.

        Raises
        ------
        FatalStreamError
            When the topic gives nothing for a minute.
        ClusterUnavailable, PreflightError
            When the cluster does not say where the end is.
        """
        (low, high), before = clients.watermarks(self._asker, self._partition), 0
        deadline = time.monotonic() + CATCH_UP_TIMEOUT
        while high > low and (position := self._position()) < high:
            if position > before:
                before, deadline = position, time.monotonic() + CATCH_UP_TIMEOUT
            if time.monotonic() > deadline:
                raise FatalStreamError(f"promoted models could not be read: nothing came for {CATCH_UP_TIMEOUT:.0f} s")
            yield from self._read(0.2)

    def take(self) -> list[bytes]:
        """Return the models that came since the last call; never waits."""
        return self._read(0.0)

    def take_all(self) -> list[bytes]:
        """Return those that came since the last call, up to the one promoted last.

        Called by loops that must turn: in an outage, what is not here within some seconds comes with a later call.
        """
        try:
            ends = self._asker.get_watermark_offsets(self._partition, timeout=REQUEST_TIMEOUT_S)
        except KafkaException as error:
            log.warning("promotions_end_unknown", reason=error.args[0].str())
            return self.take()
        (low, high), deadline = ends, time.monotonic() + REQUEST_TIMEOUT_S
        found: list[bytes] = []
        while high > low and self._position() < high:
            if time.monotonic() > deadline:
                log.warning("promotions_not_whole", waited=REQUEST_TIMEOUT_S)
                break
            found += self._read(0.2)
        return found

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()
        self._asker.close()

    def _position(self) -> int:
        (position,) = self._consumer.position([self._partition])
        return max(int(position.offset), 0)

    def _read(self, timeout: float) -> list[bytes]:
        found = []
        for message in clients.poll_available(self._consumer, 10, timeout):
            if message.error() is not None:
                self._unreadable(message.error().name())
                continue
            try:
                found += self._models(message)
            except InvalidRecord as error:
                self._on_refused(error.reason)
                self._refused(error.reason, reason=str(error), offset=message.offset())
        for limited in (self._refused, self._unreadable):
            limited.flush()
        return found

    def _models(self, message: Any) -> list[bytes]:
        key, value = message.key() or b"", message.value()
        self._gate.check(message.key(), value, clients.headers(message))
        if value is None:
            return []
        if key in NON_MODEL_KEYS:
            handler = self._handlers.get(key.decode())
            if handler is not None:
                handler(value)
            return []
        return [value]


class PromotedModel(NamedTuple):
    """A record on the topic of models that passes: its key, its value, when it came, and the key that signed it."""

    key: bytes
    value: bytes
    at: int
    signed_with: str | None


def promoted(settings: Settings, gate: ReplayGuard) -> Iterator[PromotedModel]:
    """Read every record that passes a gate, in order.

    Raises
    ------
    ArchiveError
        When the topic cannot be read.
    """
    refused = RateLimitedLog(log.warning, "promotion_refused")
    with TopicReader(settings, "fraud-models") as archive:
        for entry in archive.read(settings.topics.models, 0):
            try:
                gate.check(entry.key, entry.value, entry.headers)
            except RefusedRecord as error:
                refused(error.reason, reason=str(error), offset=entry.offset)
                continue
            if entry.key is not None and entry.value is not None:
                yield PromotedModel(entry.key, entry.value, entry.timestamp, entry.header(KEY_HEADER))
    refused.flush(final=True)


def publish(settings: Settings, key: str, data: bytes) -> None:
    """Promote a model by its version, say under `REFIT_KEY` what a re-fit found, or switch under `SWITCH_KEY`.

    Raises
    ------
    ArchiveError
        When the topic cannot be read: the number of the record comes from the one before.
    FatalStreamError
        When the broker does not take it.
    """
    gate = ReplayGuard(load_keyring(settings))
    for _ in promoted(settings, gate):
        pass
    publish_all(settings, gate, [(key.encode(), data)])


def publish_all(settings: Settings, gate: ReplayGuard, records: list[tuple[bytes, bytes]]) -> None:
    """Publish records in order, numbered after what a gate has seen, signed. Raises as `publish` does."""
    keyring = load_keyring(settings)
    # The clock too: of two that publish at once, the one that began later is believed.
    number = max(gate.newest, int(time.time() * 1000))
    if number + len(records) >= 10**LONGEST_NUMBER:
        raise FatalStreamError(
            f"record {gate.newest} on topic {settings.topics.models} leaves no number for another: it is forged. "
            "Set FRAUD_SIGNING_KEY_DIR, or delete the topic and create it again"
        )
    sent = []
    for place, (key, data) in enumerate(records, start=1):
        headers = keyring.signed(ROLE, key, data, [(SEQUENCE_HEADER, str(number + place).encode())])
        sent.append(clients.OutgoingRecord(settings.topics.models, key, data, headers))
    deliver(settings, sent)


def deliver(settings: Settings, records: list[clients.OutgoingRecord]) -> None:
    """Send records as they are; raises `FatalStreamError` when the broker does not take one."""
    clients.produce_all(settings, records, {"message.max.bytes": MAX_PUBLISHED_BYTES, "compression.type": "zstd"})
