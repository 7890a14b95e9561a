"""The scorer: transactions in; scores, alerts and dead letters out. One step around `Detector.assess`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from quixstreams import State, message_context

from fraud_service.domain.events import Reason, Transaction, decode_transaction, rfc3339
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.records import alert_id, alert_record, encode_record, score_record
from fraud_service.errors import InvalidEvent
from fraud_service.stream.application import GuardedApplication, Headers, Output, OutputValue

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from fraud_service.domain.detector import Detector, Verdict
    from fraud_service.domain.snapshot import Knowledge
    from fraud_service.metrics import ScorerMetrics
    from fraud_service.settings import Settings

PROFILE: Final = "profile"
ALERT_TYPE: Final = "fraud-service.alert.v1"
ALERT_SOURCE: Final = "/fraud-service/scorer"
MOST_KEPT: Final = 900_000  # bytes of a value; clients and brokers refuse messages of about a million
MOST_KEY_KEPT: Final = 32_768


def wire(app: GuardedApplication, settings: Settings, step: ScorerStep) -> None:
    """Lay the topology: every transaction through the step, every output to its topic."""
    names = settings.topics
    source = app.topic(names.transactions, value_deserializer="bytes", key_deserializer="bytes")
    sinks = {
        role: app.topic(name, value_serializer=OutputValue(), key_serializer="bytes")
        for role, name in {"scores": names.scores, "alerts": names.alerts, "dead_letters": names.dead_letters}.items()
    }
    stream = app.dataframe(source).apply(step, expand=True, stateful=True, metadata=True)
    stream = stream.set_headers(lambda output, *_: output.headers)
    stream.to_topic(lambda output, *_: sinks[output.topic], key=lambda output: output.key)


class ScorerStep:
    """Decode, assess, remember, encode: everything that happens to one message, or nothing of it."""

    def __init__(self, settings: Settings, detector: Detector, knowledge: Knowledge, metrics: ScorerMetrics) -> None:
        self._detector = detector
        self._knowledge = knowledge
        self._metrics = metrics
        self._tolerance = int(settings.future_tolerance * 1000)

    def __call__(self, value: bytes | None, key: bytes | None, timestamp: int, _: Any, state: State) -> list[Output]:
        """Process one message; returns what it produces."""
        began = time.perf_counter()
        try:
            transaction = decode_transaction(value)
            check_key(key, transaction.card_id)
            check_time(transaction.timestamp, timestamp + self._tolerance, "timestamp")
        except InvalidEvent as error:
            self._metrics.dead_letters.labels(error.reason).inc()
            return [dead_letter(value, key, error)]
        verdict = self._assess(transaction, state)
        outputs = list(_outputs(verdict, key))
        self._observe(verdict, timestamp, began)
        return outputs

    def _assess(self, transaction: Transaction, state: State) -> Verdict:
        known = state.get_bytes(PROFILE)
        profiles: MutableMapping[str, Profile] = {} if known is None else {transaction.card_id: decode_profile(known)}
        (verdict,) = self._detector.assess([transaction], profiles, self._knowledge)
        if not verdict.is_repeated:
            state.set_bytes(PROFILE, encode_profile(profiles[transaction.card_id]))
        return verdict

    def _observe(self, verdict: Verdict, timestamp: int, began: float) -> None:
        metrics = self._metrics
        metrics.observe(verdict)
        metrics.event_time.set(verdict.transaction.timestamp / 1000)
        metrics.latency.observe(max(time.time() - timestamp / 1000, 0.0))
        metrics.processing.observe(time.perf_counter() - began)


def _outputs(verdict: Verdict, key: bytes | None) -> Iterator[Output]:
    yield Output("scores", key, encode_record(score_record(verdict)))
    # A repetition raises no second alert: the first one went out with the first decision.
    if verdict.decision.is_flagged and not verdict.is_repeated:
        yield Output("alerts", key, encode_record(alert_record(verdict)), _cloud_event(verdict))


def _cloud_event(verdict: Verdict) -> Headers:
    """Headers of CloudEvents 1.0 in binary mode (Kafka protocol binding)."""
    transaction = verdict.transaction
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", alert_id(transaction).encode()),
        ("ce_source", ALERT_SOURCE.encode()),
        ("ce_type", ALERT_TYPE.encode()),
        ("ce_time", rfc3339(transaction.timestamp).encode()),
        ("ce_subject", transaction.transaction_id.encode()),
        ("content-type", b"application/json"),
    ]


def check_key(key: bytes | None, card_id: str) -> None:
    """Refuse an event whose key is not its card: it would meet another card's state, or none."""
    if key is None:
        raise InvalidEvent(Reason.MISSING_KEY, "the message has no key; its key must be the card_id")
    if key != card_id.encode():
        raise InvalidEvent(Reason.KEY_MISMATCH, "the key of the message is not its card_id")


def check_time(event_time: int, latest: int, field: str) -> None:
    """Refuse an event from the future: it would age the state of its card, and the learner's clock, at a stroke."""
    if event_time > latest:
        raise InvalidEvent(Reason.FUTURE_TIMESTAMP, f"`{field}` lies after the broker's timestamp of the message")


def dead_letter(value: bytes | None, key: bytes | None, error: InvalidEvent) -> Output:
    """Keep the original bytes, with the reason and where they came from in the headers.

    Only bytes that no topic would take are cut off: a dead letter must always fit, or its source is read for ever.
    """
    origin = message_context()
    headers = {
        "fraud-reason": error.reason,
        "fraud-detail": error.detail,
        "fraud-source-topic": origin.topic,
        "fraud-source-partition": str(origin.partition),
        "fraud-source-offset": str(origin.offset),
    }
    if value is not None and len(value) > MOST_KEPT:
        headers["fraud-cut-from"] = str(len(value))
        value = value[:MOST_KEPT]
    if key is not None:
        key = key[:MOST_KEY_KEPT]
    return Output("dead_letters", key, value, [(name, text.encode()) for name, text in headers.items()])
