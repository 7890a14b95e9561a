"""Read snapshots and risk into memory: first both whole topics, then new records on a background thread.

The thread passes records to `SnapshotStore`, which activates a snapshot only when it is complete. The scorer only looks
up snapshots. The thread checks each record, its signature first. It counts and skips a record that fails, and the
previous snapshot stays active.
"""

from __future__ import annotations

import time
from threading import Condition, Event, Thread
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaException, TopicPartition

from fraud_service.config.keyring import load_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.errors import FatalStreamError, InvalidRecord
from fraud_service.domain.risk import MAX_ROW_BYTES, decode_risk
from fraud_service.domain.snapshot import VERSION, decode_snapshot
from fraud_service.kafka import clients
from fraud_service.kafka.messages import read_headers
from fraud_service.kafka.topic_reader import (
    MAX_MESSAGES,
    end_to_read,
    has_reached,
    poll_available,
    read_positions,
    read_to_end,
    watermarks,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.snapshot import SnapshotStore
    from fraud_service.kafka.messages import Headers
    from fraud_service.kafka.topic_reader import Ends

log = structlog.get_logger(__name__)

VERSION_HEADER: Final = "fraud-snapshot"
MAX_KEY_BYTES: Final = 1024  # an id has at most 128 characters
FOLLOW_POLL_S: Final = 0.2
CATCH_UP_TIMEOUT_S: Final = 600.0  # without progress, before the first transaction
MAX_RECORD_BYTES: Final = 1_000_000  # no learner can send more
REFRESH_TIMEOUT_S: Final = 1.0  # for each step; after that, scoring continues with the newest snapshot
OUTAGE_POLL_S: Final = 5.0  # after a refresh that failed; otherwise every batch would wait for the timeout


class SnapshotReader:
    """Read the snapshots and the risk rows.

    Parameters
    ----------
    on_rejected
        Called with the reason of each record that failed its check (`fraud_service.security.signatures.RejectReason`).
    update_models
        Activates promoted models. Called several times a second with False. Called with True before new snapshots are
        activated: then it must wait for the models that they may name.
    """

    def __init__(
        self,
        settings: Settings,
        store: SnapshotStore,
        on_rejected: Callable[[str], None],
        update_models: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._update_models = update_models
        self._on_rejected = on_rejected
        self._keyring = load_keyring(settings)
        self._snapshot_topic = settings.topics.snapshots
        self._places = [(self._snapshot_topic, 0), (settings.topics.risk, 0)]
        self._consumer = clients.reader(settings, f"{settings.scorer_group}-broadcast")
        # A separate connection: on the reader's, a request would wait behind a fetch that waits for new records.
        self._ends_reader = clients.reader(settings, f"{settings.scorer_group}-broadcast-ends")
        self._stopping = Event()
        self._thread = Thread(target=self._follow, name="broadcast", daemon=True)
        self._failure: Exception | None = None
        self._has_polled = Condition()
        self._applied: Ends = {}
        self._next_refresh = 0.0
        self._rejected = RateLimitedLog(log.warning, "snapshot_record_rejected")
        self._unreadable = RateLimitedLog(log.warning, "snapshot_read_error")
        self._skipped = RateLimitedLog(log.warning, "snapshots_skipped")

    def start(self) -> None:
        """Read both topics to their current end, then continue in the background.

        Raises
        ------
        FatalStreamError
            When the broker sends nothing for ten minutes.
        ClusterUnavailable, PreflightError
            When the cluster does not return the end offsets.
        """
        self._catch_up()
        self._update_models(True)  # noqa: FBT003 - the signature explains it
        self._activate(final=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        self._consumer.close()
        self._ends_reader.close()

    def refresh(self) -> None:
        """Wait until the thread has applied everything that is on the topics now.

        The scorer calls this when it needs a newer snapshot, and then uses one that was just published. It does so for
        each such batch: the snapshot may have been published since the last one. A request takes about a millisecond.
        """
        if time.monotonic() < self._next_refresh:
            return
        try:
            ends = self._ends(self._end)
            with self._has_polled:
                is_refreshed = self._has_polled.wait_for(lambda: self._has_applied(ends), REFRESH_TIMEOUT_S)
            reason = None if is_refreshed else f"not all records were applied within {REFRESH_TIMEOUT_S:.0f} s"
        except KafkaException as error:  # an outage, which the stream reports itself
            reason = error.args[0].str()
        if reason is not None:
            log.warning("snapshots_not_refreshed", reason=reason)
            self._next_refresh = time.monotonic() + OUTAGE_POLL_S

    def _has_applied(self, ends: Ends) -> bool:
        # A transaction ends on one topic before the other, so rows of a snapshot may arrive later.
        return has_reached(ends, self._applied) and not self._store.is_waiting_for_rows

    def raise_failure(self) -> None:
        """Raise the error that ended the thread, if any: a scorer must not continue without new snapshots."""
        if self._failure is not None:
            raise FatalStreamError(f"the snapshot reader failed: {self._failure}") from self._failure

    def _catch_up(self) -> None:
        ends = self._ends(lambda place: watermarks(self._consumer, place))
        self._consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in ends])
        for messages in read_to_end(self._consumer, ends, CATCH_UP_TIMEOUT_S, poll_s=FOLLOW_POLL_S):
            self._take(messages)

    def _end(self, place: TopicPartition) -> tuple[int, int]:
        # The poll loop waits for this answer, so the timeout must be short.
        found: tuple[int, int] = self._ends_reader.get_watermark_offsets(place, timeout=REFRESH_TIMEOUT_S)
        return found

    def _ends(self, fetch: Callable[[TopicPartition], tuple[int, int]]) -> Ends:
        return {place: end_to_read(*fetch(TopicPartition(*place))) for place in self._places}

    def _follow(self) -> None:
        try:
            while not self._stopping.is_set():
                has_news = self._take(poll_available(self._consumer, MAX_MESSAGES, FOLLOW_POLL_S))
                self._update_models(has_news)
                if has_news:
                    self._activate()
                with self._has_polled:
                    self._applied = read_positions(self._consumer, self._places)
                    self._has_polled.notify_all()
        except Exception as error:  # noqa: BLE001 - handed to the main thread, which ends the process
            self._failure = error

    def _activate(self, *, final: bool = False) -> None:
        before = len(self._store.incomplete)
        self._store.apply_received(final=final)
        skipped = len(self._store.incomplete) - before
        if skipped:
            self._skipped(
                "incomplete",
                skipped=skipped,
                active=self._store.newest.version,
                hint="risk rows are missing, or the snapshot names a pretrained model that is not loaded",
            )

    def _take(self, messages: list[Any]) -> bool:
        for message in messages:
            if message.error() is not None:
                self._unreadable(message.error().name())
                continue
            try:
                self._receive(message)
            except InvalidRecord as error:
                self._on_rejected(error.reason)
                self._rejected(error.reason, reason=str(error), topic=message.topic(), offset=message.offset())
        for limited in (self._rejected, self._unreadable, self._skipped):
            limited.flush()
        return bool(messages)

    def _receive(self, message: Any) -> None:
        size = len(message.key() or b"") + len(message.value() or b"")
        if size > MAX_RECORD_BYTES:
            raise InvalidRecord(f"a record has {size} bytes; the limit is {MAX_RECORD_BYTES}")
        is_snapshot, headers = message.topic() == self._snapshot_topic, read_headers(message)
        self._keyring.require_signature("snapshots" if is_snapshot else "risk", message.key(), message.value(), headers)
        if is_snapshot:
            self._store.receive_snapshot(decode_snapshot(message.value() or b""))
        else:
            self._store.receive_risk(*risk_row(message.key(), message.value(), headers))


def risk_row(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[str, str, bytes | None]:
    """Check a risk row; return the version of its snapshot, its key and its value.

    Raises
    ------
    InvalidRecord
        When the row is invalid. A scorer would fail at the first payment that needs it.
    """
    version = dict(headers).get(VERSION_HEADER)
    if version is None or key is None:
        raise InvalidRecord("a risk row names no snapshot or has no key")
    if len(key) > MAX_KEY_BYTES or len(value or b"") > MAX_ROW_BYTES:
        raise InvalidRecord(
            f"a risk row has {len(key)} bytes of key and {len(value or b'')} of value; "
            f"the limits are {MAX_KEY_BYTES} and {MAX_ROW_BYTES}"
        )
    try:
        texts = version.decode(), key.decode()
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"the key or the snapshot of a risk row is not UTF-8: {error.reason}") from None
    if VERSION.fullmatch(texts[0]) is None:
        raise InvalidRecord("a risk row names an invalid snapshot version")
    if value is not None:
        decode_risk(value)
    return *texts, value
