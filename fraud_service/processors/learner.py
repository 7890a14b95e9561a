"""The learner: scores and labels in; labelled examples, risk and snapshots out. One step around ledger and teacher.

It is a single process that owns all partitions, always exactly-once: what it taught, its state and its offsets are one
transaction. Scores drive its clock. When event time passes a boundary, the boundary is closed only after everything
that was in both logs by then has been read (`EndOffsetBarrier`); so a label that was there in time is in the
snapshot, however
the partitions were interleaved.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import structlog

from fraud_service.config.duration import to_ms
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.errors import FatalStreamError, InvalidEvent, InvalidRecord
from fraud_service.domain.events import DeadLetterReason, decode_label
from fraud_service.domain.label_join import ITEMS_PER_HEARTBEAT, Admission, LabelJoin, examples_due
from fraud_service.domain.online_training import (
    LearnerState,
    OnlineTrainer,
    decode_learner_state,
    encode_learner_state,
)
from fraud_service.domain.records import decode_score, encode_record
from fraud_service.domain.snapshot import encode_snapshot
from fraud_service.domain.time import DAY
from fraud_service.kafka import partitioner
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Output, require_content
from fraud_service.processors.input_log import Position
from fraud_service.processors.scorer import check_key, check_time
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.runtime.batching import Batches
from fraud_service.runtime.fast_state import KeyState
from fraud_service.security.card_data import reject_card_data
from fraud_service.security.label_rate_limit import LabelRateLimiter, LabelRateLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from confluent_kafka import TopicPartition

    from fraud_service.config.settings import Settings
    from fraud_service.domain.online_training import BoundaryResult, NegativeSampler, OnlineLearner
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.domain.scoring import PretrainedModel
    from fraud_service.domain.time import LearningSchedule
    from fraud_service.kafka.messages import Received
    from fraud_service.runtime.application import FraudApplication
    from fraud_service.runtime.batching import StateAccessor
    from fraud_service.runtime.metrics.learner import LearnerMetrics

log = structlog.get_logger(__name__)

JOIN_KEY: Final = b"ledger"
EXAMPLES_KEY: Final = b"lessons"
RATE_LIMIT_KEY: Final = b"limits"
STATE_KEY: Final = "progress"
WATERMARK_KEY: Final = "passed"
SIGNED: Final = frozenset({"risk", "snapshots"})  # what scorers believe
MAX_GAP: Final = 3650 * DAY  # no history is silent so long
CLOCKS_DIFFER: Final = 2 * DAY  # at most: between brokers and learner
MAX_TICK_S: Final = 5.0  # seconds: heartbeats and checkpoints come between turns

SWEEP_BATCH: Final = 10_000  # entries of one commit; each changes two rows, which lie in memory until then

T = TypeVar("T")


class StateStore:
    """A domain `Store` in a Quix state store, in the transaction of the current checkpoint."""

    def __init__(self, state: Callable[[], KeyState]) -> None:
        self._state = state

    def get(self, key: str) -> bytes | None:
        """Return the value, None where there is none."""
        return self._state().get_bytes(key)

    def put(self, key: str, value: bytes) -> None:
        """Set the value."""
        self._state().set_bytes(key, value)

    def delete(self, key: str) -> None:
        """Remove the value, if there is one."""
        self._state().delete(key)


class EndOffsetBarrier(msgspec.Struct, frozen=True):
    """Where reading must have come to before boundaries up to `until` may be closed."""

    until: int
    ends: Mapping[Position, int]


def build_topology(app: FraudApplication, settings: Settings, step: LearnerProcessor) -> None:
    """Lay the topology: scores and labels in batches through the step, every output to its topic."""
    names = settings.topics
    sinks = {
        "labelled": names.labelled,
        "risk": names.risk,
        "snapshots": names.snapshots,
        "dead_letters": names.dead_letters,
    }
    for name in sinks.values():
        app.topic(name)  # Quix checks that it is there
    for name in (names.labels, names.scores):
        frame = app.dataframe(app.topic(name, value_deserializer="bytes", key_deserializer="bytes"))
    frame.register_store()  # the state lies beside the scores
    context, stream_id = frame.processing_context, frame.stream_id

    def store(partition: int, prefix: bytes) -> StateStore:
        return StateStore(lambda: KeyState(context.checkpoint.get_store_transaction(stream_id, partition), prefix))

    keyring = load_keyring(settings)

    def publish(outputs: Iterator[Output]) -> None:
        for output in outputs:
            headers = output.headers
            if output.topic in SIGNED:
                headers = keyring.signed(output.topic, output.key, output.value, headers)
            context.producer.produce(topic=sinks[output.topic], key=output.key, value=output.value, headers=headers)

    step.attach(store, publish, lambda: context.commit_checkpoint(force=True))
    app.batches = Batches(context, stream_id, step, sinks, is_awaited=False, end_of=app.end_finder(settings))
    app.each_turn = step.tick


class LearnerProcessor:
    """Ledger and teacher, driven by batches of messages and by the turns of the loop; a `BatchStep`.

    Messages only go into the ledgers, and nobody waits for that. Boundaries are closed between batches, because what a
    boundary waits for may be the end of a log, of which no message tells; what was learned then is committed at once.
    """

    def __init__(
        self,
        settings: Settings,
        calendar: LearningSchedule,
        sampling: NegativeSampler,
        pretrained: PretrainedModel,
        restore: Callable[[bytes | None], OnlineLearner],
        metrics: LearnerMetrics,
    ) -> None:
        self._scores, self._labels = settings.topics.scores, settings.topics.labels
        self._tolerance = to_ms(settings.max_clock_skew)
        self._refuses_numbers = settings.reject_pan
        self._limits = LabelRateLimits(settings.label_rate_limit_per_source, settings.label_rate_limit_per_card)
        self._calendar = calendar
        self._sampling = sampling
        self._pretrained = pretrained
        self._restore = restore
        self._metrics = metrics
        self._log: Any = None
        self._barrier: EndOffsetBarrier | None = None
        self._clocks: dict[int, int] = {}
        self._newest: int | None = -1  # None: to be read
        self._swept: dict[int, int] = {}  # by partition, up to which entry of the next boundary
        self._progress: LearnerState | None = None
        self.beat: Callable[[], None] = lambda: None
        self.before_closing: Callable[[], None] = lambda: None

    def attach(
        self,
        store: Callable[[int, bytes], StateStore],
        publish: Callable[[Iterator[Output]], None],
        commit: Callable[[], None],
    ) -> None:
        """Take the ways to the state stores, by partition and prefix, and out. The lessons lie beside partition 0."""
        self._store = store
        self._publish = publish
        self._commit = commit
        self._lessons = store(0, EXAMPLES_KEY)
        self._teacher = OnlineTrainer(self._lessons, self._calendar, self._sampling, self._pretrained)

    def promote(self, model: PretrainedModel, restore: Callable[[bytes | None], OnlineLearner]) -> None:
        """Teach beside another pretrained model from the next boundary on."""
        self._restore = restore
        self._teacher.promote(model)

    def follow(self, log_: Any) -> None:
        """Take the view of the logs; ledgers come one a partition."""
        self._log = log_
        self._ledgers = [LabelJoin(self._store(number, JOIN_KEY), self._calendar) for number in range(log_.partitions)]
        self._sluices = [
            LabelRateLimiter(self._store(number, RATE_LIMIT_KEY), self._limits) for number in range(log_.partitions)
        ]

    def on_partitions(self, assigned: list[TopicPartition]) -> None:
        """Forget what was remembered of the state; refuse to share the work.

        Raises
        ------
        FatalStreamError
            When only some of the partitions were assigned: a second learner is running.
        """
        self._progress, self._barrier = None, None
        self._clocks.clear()
        self._swept.clear()
        own = [partition for partition in assigned if partition.topic in {self._scores, self._labels}]
        self._newest = None if own else -1
        if own and len(own) != 2 * len(self._ledgers):
            raise FatalStreamError(
                f"this learner was given {len(own)} of {2 * len(self._ledgers)} partitions: a second learner runs in "
                "its group. One model is taught by one learner: stop the other one"
            )

    def __call__(self, batch: Sequence[Received], state_of: StateAccessor) -> list[list[Output]]:  # noqa: ARG002 - of a step
        """Take in a batch; returns a dead letter for each message that cannot be read, or is one too many."""
        self._metrics.pace.record_received(min(message.timestamp for message in batch) / 1000)
        outputs = [self._take(one) for one in batch]
        if self._clocks:
            self._metrics.event_time.set(max(self._clocks.values()) / 1000)
        return outputs

    def _take(self, message: Received) -> list[Output]:
        """Take in a message; one that cannot be taken in becomes a dead letter."""
        self.beat()
        is_known_clean = False
        try:
            require_content(message)
            if message.topic == self._scores:
                self._score(message)
            else:
                reject_card_data(message.value, message.key, numbers=self._refuses_numbers)
                is_known_clean = self._refuses_numbers
                self._label(message)
        except InvalidEvent as error:
            self._metrics.dead_letters.labels(error.reason).inc()
            return [dead_letter(message, error, is_known_clean=is_known_clean)]
        return []

    def _score(self, message: Received) -> None:
        """Take in a scored transaction."""
        try:
            record = decode_score(message.value)
        except InvalidRecord as error:
            raise InvalidEvent(DeadLetterReason.INVALID_RECORD, str(error)) from error
        self._check_clock(record)
        self._begin(record)
        taken = self._ledgers[message.partition].add_scored(record, self._now.closed)
        if taken is Admission.ADDED:
            self._metrics.scores.inc()
        elif taken is Admission.TOO_MANY:
            self._metrics.untaught.inc()
        self._clocks[message.partition] = max(self._clocks.get(message.partition, 0), record.timestamp)
        self._advance_watermark(record.timestamp // self._calendar.interval)

    def _check_clock(self, record: ScoreRecord) -> None:
        """Refuse a score from the future, which no scorer writes: it would move the calendar, and snapshots, for good.

        By the clock of this process: who forges a score writes the timestamp of its message too.
        """
        if record.timestamp > time.time() * 1000 + self._tolerance + CLOCKS_DIFFER:
            raise InvalidEvent(
                DeadLetterReason.FUTURE_TIMESTAMP, "`timestamp` lies days after the clock of the learner"
            )

    def _label(self, message: Received) -> None:
        """Take in a label."""
        label = decode_label(message.value)
        check_key(message.key, label.card_id)
        check_time(label.labelled_at, message.timestamp + self._tolerance, "labelled_at")
        self._check_partition(label.card_id, message.partition)
        self._check_age(label.labelled_at)
        self._sluices[message.partition].check(label, message.timestamp)
        self._metrics.labels.labels(str(label.is_fraud).lower(), label.source).inc()
        if not self._ledgers[message.partition].add_label(label, self._now.closed):
            self._metrics.early.inc()

    def _check_partition(self, card_id: str, partition: int) -> None:
        expected = partitioner.murmur2_partition(card_id.encode(), len(self._ledgers))
        if partition != expected:
            raise InvalidEvent(
                DeadLetterReason.WRONG_PARTITION,
                f"the label lies in partition {partition}, its card belongs to {expected}: "
                "set partitioner=murmur2 on its producer",
            )

    def _check_age(self, labelled_at: int) -> None:
        """Refuse a label older than any transaction that is kept: it would wait for a transaction that is forgotten."""
        if self._calendar.is_forgotten(labelled_at, self._now.closed):
            raise InvalidEvent(
                DeadLetterReason.LABEL_TOO_OLD,
                f"`labelled_at` lies more than {self._calendar.retention / DAY:g} days before the newest boundary: "
                "transactions that old are forgotten",
            )

    @property
    def _now(self) -> LearnerState:
        if self._progress is None:
            self._progress = decode_learner_state(self._lessons.get(STATE_KEY))
        return self._progress

    def _begin(self, record: ScoreRecord) -> None:
        """Let the first transaction ever say where the calendar begins."""
        if self._now.closed < 0:
            self._keep(LearnerState.starting_at(record.timestamp // self._calendar.interval))

    def _keep(self, progress: LearnerState) -> None:
        self._progress = progress
        self._lessons.put(STATE_KEY, encode_learner_state(progress))

    @property
    def _passed(self) -> int:
        """The newest interval that event time has come to; -1 when no score has told any. Labels alone tell no time."""
        if self._newest is None:
            self._newest = int(self._lessons.get(WATERMARK_KEY) or b"-1")
        return self._newest

    def _advance_watermark(self, interval: int) -> None:
        """Remember how far event time is: a learner that starts when all is read hears of it by the next score only."""
        if interval > self._passed:
            self._newest = interval
            self._lessons.put(WATERMARK_KEY, b"%d" % interval)

    def tick(self) -> None:
        """Close the boundaries that event time has passed, once everything before them was read."""
        newest = self._passed
        if newest < 0 or newest <= self._now.closed:
            return
        if self._now.taught_at < 0 and (newest - self._now.closed) * self._calendar.interval > MAX_GAP:
            self._keep(LearnerState.starting_at(newest - 1))  # the first transaction ever had a wrong time
        if self._barrier is None:
            ends = self._log.unread()
            if ends is None:
                return
            self._barrier = EndOffsetBarrier(newest, ends)
        if not self._has_passed(self._barrier):
            return
        self.before_closing()  # a model promoted by now is taught beside, however soon the boundary follows
        deadline = time.monotonic() + MAX_TICK_S
        while self._now.closed < self._barrier.until and time.monotonic() < deadline:
            if self._sweep(self._now.closed + 1):
                self._close(self._now.closed + 1)
        if self._now.closed >= self._barrier.until:
            self._barrier = None
        self._commit()  # scorers wait for it

    def _has_passed(self, barrier: EndOffsetBarrier) -> bool:
        """Whether everything before the barrier was read, or is scores of a partition that is past the boundary."""
        boundary = barrier.until * self._calendar.interval
        waiting = [
            (topic, number)
            for topic, number in barrier.ends
            if topic != self._scores or self._clocks.get(number, 0) < boundary
        ]
        positions = self._log.positions(waiting) if waiting else {}
        return all(positions[place] >= barrier.ends[place] for place in waiting)

    def _sweep(self, boundary: int) -> bool:
        """Remove and commit a part of what teaches nothing; returns whether the boundary is small enough to close."""
        for number, ledger in enumerate(self._ledgers):
            start = self._swept.get(number, 0)
            if ledger.count(boundary) - start > SWEEP_BATCH:
                self._swept[number] = ledger.sweep(boundary, start, SWEEP_BATCH)
                self._commit()
                self.beat()
                return False
        return True

    def _close(self, boundary: int) -> None:
        began = time.perf_counter()
        learner = self._restore(self._now.model)
        examples = self._beating(examples_due(self._ledgers, boundary, self.beat))
        lesson = self._teacher.close(boundary, self._now, examples, learner)
        self._keep(lesson.progress)
        self._publish(self._beating(_outputs(lesson)))
        self._swept.clear()
        self._observe(lesson, began)

    def _beating(self, work: Iterable[T]) -> Iterator[T]:
        """Say now and then that a long lesson is no standstill."""
        for number, one in enumerate(work):
            if number % ITEMS_PER_HEARTBEAT == 0:
                self.beat()
            yield one

    def _observe(self, lesson: BoundaryResult, began: float) -> None:
        for example, _ in lesson.examples:
            self._metrics.observe(example)
        if lesson.snapshot is not None:
            self._metrics.show_snapshot(lesson.snapshot)
            log.info(
                "snapshot_published",
                version=lesson.snapshot.version,
                examples=lesson.snapshot.examples,
                learned=len(lesson.examples),
                risk_rows=lesson.snapshot.risk_rows,
                online_weight=round(lesson.snapshot.online_weight, 4),
            )
        self._metrics.closing.observe(time.perf_counter() - began)


def _outputs(lesson: BoundaryResult) -> Iterator[Output]:
    """Examples, then risk, then the snapshot: what it depends on comes before it."""
    for record in lesson.labelled():
        yield Output("labelled", record.merchant_id.encode(), encode_record(record))
    if lesson.snapshot is None:
        return
    version = lesson.snapshot.version.encode()
    for key, row in lesson.risk.items():
        yield Output("risk", key.encode(), row, [(VERSION_HEADER, version)])
    yield Output("snapshots", version, encode_snapshot(lesson.snapshot))
