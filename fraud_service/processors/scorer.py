"""Score transactions: publish scores, alerts and dead letters. Wraps `Detector.assess`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fraud_service.config.duration import to_ms
from fraud_service.domain.entry_modes import KNOWN, entry_mode
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.events import TEST_CURRENCY, Transaction, decode_transaction
from fraud_service.domain.profile import decode_profile, encode_profile
from fraud_service.domain.records import alert_id, alert_record, encode_record, score_record
from fraud_service.domain.time import rfc3339
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Output, Received, require_content
from fraud_service.kafka.partitioner import explain_misplaced, murmur2_partition
from fraud_service.runtime.stream import StreamSpec
from fraud_service.security.card_data import has_no_card_data, reject_card_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fraud_service.config.settings import Settings
    from fraud_service.domain.detector import Assessment, Detector
    from fraud_service.domain.profile import Profile
    from fraud_service.domain.snapshot import SnapshotStore
    from fraud_service.kafka.messages import Headers
    from fraud_service.runtime.metrics.scorer import ScorerMetrics
    from fraud_service.runtime.stream import StateAccessor

    Readable = tuple[int, Received, Transaction]  # index in the batch, message, decoded transaction

PROFILE: Final = "profile"
ALERT_TYPE: Final = "fraud-service.alert.v1"
ALERT_SOURCE: Final = "/fraud-service/scorer"


def stream_spec(settings: Settings) -> StreamSpec:
    """Return what the scorer reads, writes and keeps."""
    names = settings.topics
    return StreamSpec(
        group=settings.scorer_group,
        inputs=(names.transactions,),
        outputs={"scores": names.scores, "alerts": names.alerts, "dead_letters": names.dead_letters},
        guarantee=settings.processing_guarantee,
        commit_interval_s=settings.commit_interval.total_seconds(),
        has_state=True,
        read_state=decode_profile,
    )


class ScorerProcessor:
    """Decode and assess a batch, store the profiles, and encode the outputs: a `BatchProcessor`.

    Calls `refresh` when a transaction needs a newer snapshot than the store has, because one may just have been
    published. Calls `heartbeat` before each long step. `settings.partitions` is the number that the input topic has.
    """

    def __init__(
        self,
        settings: Settings,
        detector: Detector,
        snapshots: SnapshotStore,
        metrics: ScorerMetrics,
        refresh: Callable[[], None] = lambda: None,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._detector = detector
        self._snapshots = snapshots
        self._metrics = metrics
        self._refresh = refresh
        self._tolerance_ms = to_ms(settings.max_clock_skew)
        self._rejects_numbers = settings.reject_pan
        self._partitions = settings.partitions
        self._rejects_misplaced = settings.reject_wrong_partition
        self._rejects_modes = settings.reject_unknown_entry_modes
        self._heartbeat = heartbeat

    def __call__(self, batch: Sequence[Received], state_of: StateAccessor) -> list[list[Output]]:
        """Process a batch; return the outputs of each message."""
        start = time.perf_counter()
        self._metrics.lag_tracker.record_received(min(message.timestamp for message in batch) / 1000)
        outputs: list[list[Output]] = [[] for _ in batch]
        readable = []
        # A quick check covers a whole batch. A single message gets the full check only: both would double its cost.
        is_plain = len(batch) > 1 and has_no_card_data(
            part for message in batch for part in (message.value, message.key)
        )
        for place, message in enumerate(batch):
            is_known_clean = is_plain
            try:
                require_content(message)
                if not is_plain:
                    self._heartbeat()  # the full check of a message may take long
                    reject_card_data(message.value, message.key, numbers=self._rejects_numbers)
                    is_known_clean = self._rejects_numbers
                transaction = decode_message(message, self._tolerance_ms, rejects_modes=self._rejects_modes)
                self._check_partition(message)
                readable.append((place, message, transaction))
            except InvalidEvent as error:
                self._metrics.dead_letters.labels(error.reason).inc()
                outputs[place].append(dead_letter(message, error, is_known_clean=is_known_clean))
        if readable and self._snapshots.is_behind(max(transaction.timestamp for *_, transaction in readable)):
            self._refresh()
        for part in _split_by_partition(readable):
            assessments = self._assess(part, state_of)
            for (place, message, _), assessment in zip(part, assessments, strict=True):
                outputs[place].extend(_outputs(assessment, message.key))
            self._observe(assessments, [message.timestamp for _, message, _ in part])
        each = (time.perf_counter() - start) / len(batch)
        self._metrics.processing.observe_all([each] * len(batch))
        return outputs

    def _check_partition(self, message: Received) -> None:
        """Count a transaction outside the partition of its card, and reject it unless the settings accept it."""
        try:
            check_partition(message, self._partitions)
        except InvalidEvent:
            self._metrics.misplaced.inc()
            if self._rejects_misplaced:
                raise

    def _assess(self, part: Sequence[Readable], state_of: StateAccessor) -> list[Assessment]:
        states = {transaction.card_id: state_of(message) for _, message, transaction in part}
        profiles: dict[str, Profile] = {}
        for card_id, state in states.items():
            known = state.get_bytes(PROFILE)
            if known is not None:
                profiles[card_id] = decode_profile(known)
        assessments = self._detector.assess([transaction for *_, transaction in part], profiles, self._snapshots)
        for card_id in {
            assessment.transaction.card_id: None for assessment in assessments if not assessment.is_duplicate
        }:
            states[card_id].set_bytes(PROFILE, encode_profile(profiles[card_id]))
        return assessments

    def _observe(self, assessments: Sequence[Assessment], timestamps: Sequence[int]) -> None:
        self._metrics.observe(assessments)
        times = [one.transaction.timestamp for one in assessments if one.transaction.currency != TEST_CURRENCY]
        if times:
            self._metrics.event_time.set(times[-1] / 1000)
        now = time.time()
        self._metrics.latency.observe_all([max(now - timestamp / 1000, 0.0) for timestamp in timestamps])


def _split_by_partition(readable: Sequence[Readable]) -> Iterator[list[Readable]]:
    """Split a batch where a card appears on a second partition, because it has another profile there."""
    part: list[Readable] = []
    partitions: dict[str, int] = {}
    for one in readable:
        _, message, transaction = one
        if partitions.setdefault(transaction.card_id, message.partition) != message.partition:
            yield part
            part, partitions = [], {transaction.card_id: message.partition}
        part.append(one)
    if part:
        yield part


def _outputs(assessment: Assessment, key: bytes | None) -> Iterator[Output]:
    yield Output("scores", key, encode_record(score_record(assessment)))
    # A duplicate raises no second alert: the first decision already raised one.
    if assessment.decision.is_flagged and not assessment.is_duplicate:
        yield Output("alerts", key, encode_record(alert_record(assessment)), _cloud_event(assessment))


def _cloud_event(assessment: Assessment) -> Headers:
    """Headers of CloudEvents 1.0 in binary mode (Kafka protocol binding)."""
    transaction = assessment.transaction
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", alert_id(transaction).encode()),
        ("ce_source", ALERT_SOURCE.encode()),
        ("ce_type", ALERT_TYPE.encode()),
        ("ce_time", rfc3339(transaction.timestamp).encode()),
        ("ce_subject", transaction.transaction_id.encode()),
        ("content-type", b"application/json"),
    ]


def decode_message(message: Received, tolerance_ms: int, *, rejects_modes: bool = False) -> Transaction:
    """Decode a transaction, and check its key and time. Raises `InvalidEvent` when the message is a dead letter.

    Its event time may be `tolerance_ms` ahead of the broker's timestamp. With `rejects_modes`, its entry mode must have
    a known meaning.
    """
    transaction = decode_transaction(message.value)
    check_key(message.key, transaction.card_id)
    check_time(transaction.timestamp, message.timestamp + tolerance_ms, "timestamp")
    if rejects_modes and entry_mode(transaction.entry_mode) is None:
        raise InvalidEvent(
            DeadLetterReason.INVALID_FIELD,
            f"`entry_mode` has no known meaning: send {KNOWN}, or set FRAUD_REJECT_UNKNOWN_ENTRY_MODES=false",
        )
    return transaction


def check_key(key: bytes | None, card_id: str) -> None:
    """Reject an event whose key is not its card: it would use the state of another card, or none."""
    if key is None:
        raise InvalidEvent(DeadLetterReason.MISSING_KEY, "the message has no key; its key must be the card_id")
    if key != card_id.encode():
        raise InvalidEvent(DeadLetterReason.KEY_MISMATCH, "the key of the message is not its card_id")


def check_partition(message: Received, partitions: int) -> None:
    """Reject an event outside the partition of its key: the state of its card, and its score, are in another one."""
    key = message.key or b""
    if murmur2_partition(key, partitions) != message.partition:
        raise InvalidEvent(DeadLetterReason.WRONG_PARTITION, explain_misplaced(key, message.partition, partitions))


def check_time(event_time: int, latest: int, field: str) -> None:
    """Reject an event from the future: it would move the state of its card and the learner's event time forward."""
    if event_time > latest:
        raise InvalidEvent(
            DeadLetterReason.FUTURE_TIMESTAMP, f"`{field}` is later than the broker's timestamp of the message"
        )
