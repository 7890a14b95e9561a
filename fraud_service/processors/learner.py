"""Learn from scores and labels: publish labelled examples, risk and snapshots.

One process owns all partitions, always exactly-once: examples, snapshots, state and offsets are one transaction. Event
time comes from the scores. When it passes a boundary, the learner first reads both inputs up to
their present ends (`EndOffsetBarrier`). Then it closes the boundary. So the snapshot contains every label that arrived
in time, whatever the order in which the partitions were read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import structlog

from fraud_service.config import factories
from fraud_service.config.duration import to_ms
from fraud_service.config.keyring import load_keyring
from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.domain.errors import DeadLetterReason, FatalStreamError, InvalidEvent, InvalidRecord
from fraud_service.domain.events import TEST_CURRENCY, decode_label
from fraud_service.domain.label_join import ITEMS_PER_HEARTBEAT, Admission, Ignored, LabelJoin, examples_due
from fraud_service.domain.online_training import (
    LearnerState,
    NegativeSampler,
    OnlineTrainer,
    decode_learner_state,
    encode_learner_state,
)
from fraud_service.domain.records import decode_score, encode_record
from fraud_service.domain.snapshot import encode_snapshot
from fraud_service.domain.time import DAY
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Output, require_content
from fraud_service.kafka.waiting import Deadline
from fraud_service.processors.scorer import check_key, check_partition, check_time
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.runtime.stream import StreamSpec
from fraud_service.security.card_data import reject_card_data
from fraud_service.security.label_rate_limit import LabelRateLimiter, LabelRateLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from confluent_kafka import TopicPartition

    from fraud_service.config.settings import Settings
    from fraud_service.domain.online_training import BoundaryResult, OnlineLearner
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.kafka.messages import Headers, Received
    from fraud_service.models.onnx_forest import OnnxForest
    from fraud_service.models.registry import ModelRegistry
    from fraud_service.processors.input_log import InputLog
    from fraud_service.runtime.metrics.learner import LearnerMetrics
    from fraud_service.runtime.stream import Position, StateAccessor, StreamAccess
    from fraud_service.security.signatures import Keyring

    Restore = Callable[[OnnxForest], Callable[[bytes | None], OnlineLearner]]

log = structlog.get_logger(__name__)

JOIN_KEY: Final = b"join"
EXAMPLES_KEY: Final = b"examples"
RATE_LIMIT_KEY: Final = b"limits"
STATE_KEY: Final = "state"
WATERMARK_KEY: Final = "watermark"
COMMIT_INTERVAL_S: Final = 1.0
TRANSACTION_TIMEOUT_MS: Final = 300_000  # closing a boundary may take minutes
MAX_CLOCK_DIFFERENCE_MS: Final = 2 * DAY  # between brokers and learner
MAX_TICK_S: Final = 5.0  # heartbeats and checkpoints come between ticks
SWEEP_BATCH: Final = 10_000  # entries removed per commit; each changes two rows, which stay in memory until the commit

T = TypeVar("T")


class EndOffsetBarrier(NamedTuple):
    """The end offsets that the learner must reach before it closes the boundaries up to `until`."""

    until: int
    ends: Mapping[Position, int]


class LearnerModels(NamedTuple):
    """The pretrained models of a learner.

    ``restore``        returns a function that creates the online learner of a pretrained model from its last state
    ``update(False)``  activates the models that have arrived; called by every tick
    ``update(True)``   waits for the newest promotion; called before the learner closes boundaries
    """

    registry: ModelRegistry
    restore: Restore
    update: Callable[[bool], None] = lambda _: None


def stream_spec(settings: Settings) -> StreamSpec:
    """Return what the learner reads, writes and keeps."""
    names = settings.topics
    return StreamSpec(
        group=settings.learner_group,
        inputs=(names.labels, names.scores),
        outputs={
            "labelled": names.labelled,
            "risk": names.risk,
            "snapshots": names.snapshots,
            "dead_letters": names.dead_letters,
        },
        guarantee="exactly-once",
        commit_interval_s=COMMIT_INTERVAL_S,
        has_state=True,
        commits_early=False,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
    )


class LearnerProcessor:
    """Join labels with scores, and close boundaries: a `BatchProcessor` that also needs ticks.

    A batch only updates the label join, and no reader waits for that. `tick` closes boundaries between batches, because
    no message marks the end of the inputs. It commits at once, because scorers wait for the snapshot.
    """

    def __init__(
        self,
        settings: Settings,
        models: LearnerModels,
        stream: StreamAccess,
        inputs: InputLog,
        metrics: LearnerMetrics,
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self._scores, self._labels = settings.topics.scores, settings.topics.labels
        self._tolerance_ms = to_ms(settings.max_clock_skew)
        self._rejects_numbers = settings.reject_pan
        self._keyring = load_keyring(settings)
        self._schedule = factories.learning_schedule(settings)
        self._models = models
        self._stream = stream
        self._inputs = inputs
        self._metrics = metrics
        self._heartbeat = heartbeat
        limits = LabelRateLimits(settings.label_rate_limit_per_source, settings.label_rate_limit_per_card)
        numbers = range(inputs.partitions)
        self._ignored_log = RateLimitedLog(log.warning, "label_join_ignored")
        self._joins = [LabelJoin(stream.store(number, JOIN_KEY), self._schedule, self._ignore) for number in numbers]
        self._rate_limiters = [LabelRateLimiter(stream.store(number, RATE_LIMIT_KEY), limits) for number in numbers]
        self._examples = stream.store(0, EXAMPLES_KEY)
        sampling = NegativeSampler(settings.negative_sample_rate)
        self._trainer = OnlineTrainer(self._examples, self._schedule, sampling, models.registry.active)
        self._restore = models.restore(models.registry.active)  # also imports river, which takes seconds
        self._forget_state()

    def _forget_state(self) -> None:
        """Drop the cached state, because another process may change the stored state after a rebalance."""
        self._state: LearnerState | None = None
        self._barrier: EndOffsetBarrier | None = None
        self._event_times: dict[int, int] = {}  # newest event time, by partition
        self._newest: int | None = -1  # None: not read yet
        self._swept: dict[int, int] = {}  # number of swept entries of the next boundary, by partition

    def _ignore(self, cause: Ignored) -> None:
        self._metrics.ignored.labels(cause).inc()
        self._ignored_log(cause)

    def on_assign(self, assigned: list[TopicPartition]) -> None:
        """Drop the cached state. Raise `FatalStreamError` when a second learner got some of the partitions."""
        self._forget_state()
        own = [partition for partition in assigned if partition.topic in {self._scores, self._labels}]
        self._newest = None if own else -1
        if own and len(own) != 2 * len(self._joins):
            raise FatalStreamError(
                f"this learner was assigned {len(own)} of {2 * len(self._joins)} partitions, so a second learner runs "
                "in its group. Only one learner may run: stop the other one"
            )

    def __call__(self, batch: Sequence[Received], state_of: StateAccessor) -> list[list[Output]]:  # noqa: ARG002 - part of the protocol
        """Add a batch to the label join; return a dead letter for each message that is rejected."""
        self._metrics.lag_tracker.record_received(min(message.timestamp for message in batch) / 1000)
        outputs = [self._add(one) for one in batch]
        if self._event_times:
            self._metrics.event_time.set(max(self._event_times.values()) / 1000)
        return outputs

    def _add(self, message: Received) -> list[Output]:
        self._heartbeat()
        is_known_clean = False
        try:
            require_content(message)
            if message.topic == self._scores:
                self._add_score(message)
            else:
                reject_card_data(message.value, message.key, numbers=self._rejects_numbers)
                is_known_clean = self._rejects_numbers
                self._add_label(message)
        except InvalidEvent as error:
            self._metrics.dead_letters.labels(error.reason).inc()
            return [dead_letter(message, error, is_known_clean=is_known_clean)]
        return []

    def _add_score(self, message: Received) -> None:
        try:
            record = decode_score(message.value)
        except InvalidRecord as error:
            raise InvalidEvent(DeadLetterReason.INVALID_RECORD, str(error)) from error
        self._check_clock(record)
        if record.currency == TEST_CURRENCY:
            self._ignore(Ignored.TEST_PAYMENT)
            return
        self._begin(record.timestamp // self._schedule.interval_ms)
        taken = self._joins[message.partition].add_scored(record, self._now.closed)
        if taken is Admission.ADDED:
            self._metrics.scores.inc()
        elif taken is Admission.TOO_MANY:
            self._metrics.unlearned.inc()
        self._event_times[message.partition] = max(self._event_times.get(message.partition, 0), record.timestamp)
        self._advance_watermark(record.timestamp // self._schedule.interval_ms)

    def _begin(self, interval: int) -> None:
        """Begin with the oldest transaction before the first close: a history may follow a first payment of today."""
        if self._now.closed < 0:
            self._keep(LearnerState.starting_at(interval))
        elif not self._has_closed and interval < self._now.closed:
            log.info("schedule_begins_earlier", boundary=interval, before=self._now.closed)
            self._keep(LearnerState.starting_at(interval))
            # Partitions are read in any order, so a newer transaction of the same history keeps the watermark.
            if self._schedule.is_forgotten(interval * self._schedule.interval_ms, self._passed):
                self._event_times.clear()
                self._barrier = None
                self._set_watermark(interval)

    @property
    def _has_closed(self) -> bool:
        """Whether a boundary was closed. Until then, the label join keeps every payment."""
        return self._now.closed > self._now.start

    def _check_clock(self, record: ScoreRecord) -> None:
        """Reject a score from the future: no scorer writes one, and it would move all later boundaries.

        The clock of this process decides, because a forged message can have any timestamp.
        """
        if record.timestamp > time.time() * 1000 + self._tolerance_ms + MAX_CLOCK_DIFFERENCE_MS:
            raise InvalidEvent(DeadLetterReason.FUTURE_TIMESTAMP, "`timestamp` is days ahead of the learner's clock")

    def _add_label(self, message: Received) -> None:
        label = decode_label(message.value)
        check_key(message.key, label.card_id)
        check_time(label.labelled_at, message.timestamp + self._tolerance_ms, "labelled_at")
        check_partition(message, len(self._joins))
        self._check_age(label.labelled_at)
        self._rate_limiters[message.partition].check(label, message.timestamp)
        self._metrics.labels.labels(str(label.is_fraud).lower(), label.source).inc()
        if not self._joins[message.partition].add_label(label, self._now.closed):
            self._metrics.early.inc()

    def _check_age(self, labelled_at: int) -> None:
        """Reject a label older than the label retention: the learner no longer keeps its transaction."""
        if self._has_closed and self._schedule.is_forgotten(labelled_at, self._now.closed):
            raise InvalidEvent(
                DeadLetterReason.LABEL_TOO_OLD,
                f"`labelled_at` is more than {self._schedule.label_retention_ms / DAY:g} days before the newest "
                "boundary: the learner no longer keeps transactions that old",
            )

    @property
    def _now(self) -> LearnerState:
        if self._state is None:
            self._state = decode_learner_state(self._examples.get(STATE_KEY))
        return self._state

    def _keep(self, state: LearnerState) -> None:
        self._state = state
        self._examples.put(STATE_KEY, encode_learner_state(state))

    @property
    def _passed(self) -> int:
        """The newest interval that event time has reached, -1 before the first score. Labels do not move event time."""
        if self._newest is None:
            self._newest = int(self._examples.get(WATERMARK_KEY) or b"-1")
        return self._newest

    def _advance_watermark(self, interval: int) -> None:
        """Store the number of the newest interval, so that a restarted learner has it before the next score."""
        if interval > self._passed:
            self._set_watermark(interval)

    def _set_watermark(self, interval: int) -> None:
        self._newest = interval
        self._examples.put(WATERMARK_KEY, b"%d" % interval)

    def tick(self) -> None:
        """Close the boundaries that event time has passed, after reading everything before them."""
        self._models.update(False)  # noqa: FBT003 - the attribute explains it
        self._ignored_log.flush()
        newest = self._passed
        if newest < 0 or newest <= self._now.closed:
            return
        state = self._now.towards(newest, self._schedule.interval_ms)
        if state is not self._now:
            log.warning("schedule_begins_later", boundary=newest - 1, before=self._now.closed)
            for join in self._joins:
                join.restart(self._now.closed, state.closed)
            self._keep(state)
        if self._barrier is None:
            ends = self._inputs.unread()
            if ends is None:
                return
            self._barrier = EndOffsetBarrier(newest, ends)
        if not self._has_passed(self._barrier):
            return
        self._models.update(True)  # noqa: FBT003 - a model promoted before the boundary trains it
        deadline = Deadline(MAX_TICK_S)
        while self._now.closed < self._barrier.until and not deadline.has_passed():
            if self._sweep(self._now.closed + 1):
                self._close(self._now.closed + 1)
        if self._now.closed >= self._barrier.until:
            self._barrier = None
        self._stream.commit()  # scorers wait for it

    def _has_passed(self, barrier: EndOffsetBarrier) -> bool:
        """Whether each input is read up to the barrier. For scores, a score past the boundary is enough."""
        boundary = barrier.until * self._schedule.interval_ms
        waiting = [
            (topic, number)
            for topic, number in barrier.ends
            if topic != self._scores or self._event_times.get(number, 0) < boundary
        ]
        positions = self._stream.positions(waiting) if waiting else {}
        return all(positions[place] >= barrier.ends[place] for place in waiting)

    def _sweep(self, boundary: int) -> bool:
        """Remove and commit a part of the expired entries; return whether few enough are left to close the boundary."""
        for number, join in enumerate(self._joins):
            start = self._swept.get(number, 0)
            if join.count(boundary) - start > SWEEP_BATCH:
                self._swept[number] = join.sweep(boundary, start, SWEEP_BATCH)
                self._stream.commit()
                self._heartbeat()
                return False
        return True

    def _close(self, boundary: int) -> None:
        start = time.perf_counter()
        pretrained = self._models.registry.active
        if pretrained is not self._trainer.pretrained:
            self._trainer.promote(pretrained)
            self._restore = self._models.restore(pretrained)
        learner = self._restore(self._now.model)
        examples = self._with_heartbeats(examples_due(self._joins, boundary, self._heartbeat))
        result = self._trainer.close(boundary, self._now, examples, learner)
        self._keep(result.progress)
        for output in self._with_heartbeats(_outputs(result, self._keyring)):
            self._stream.produce(output)
        self._swept.clear()
        self._observe(result, start)

    def _with_heartbeats(self, work: Iterable[T]) -> Iterator[T]:
        """Pass items through, with a heartbeat every `ITEMS_PER_HEARTBEAT` items."""
        for number, one in enumerate(work):
            if number % ITEMS_PER_HEARTBEAT == 0:
                self._heartbeat()
            yield one

    def _observe(self, result: BoundaryResult, start: float) -> None:
        for example, _ in result.examples:
            self._metrics.observe(example)
        if result.snapshot is not None:
            self._metrics.show_snapshot(result.snapshot)
            log.info(
                "snapshot_published",
                version=result.snapshot.version,
                examples=result.snapshot.examples,
                learned=len(result.examples),
                risk_rows=result.snapshot.risk_rows,
                online_weight=round(result.snapshot.online_weight, 4),
            )
        self._metrics.closing.observe(time.perf_counter() - start)


def _outputs(result: BoundaryResult, keyring: Keyring) -> Iterator[Output]:
    """Yield examples, then risk, then the snapshot, which depends on both. Scorers check the signatures of these."""

    def signed(role: str, key: bytes, value: bytes | None, headers: Headers) -> Output:
        return Output(role, key, value, keyring.sign_headers(role, key, value, headers))

    for record in result.labelled():
        yield Output("labelled", record.merchant_id.encode(), encode_record(record))
    if result.snapshot is None:
        return
    version = result.snapshot.version.encode()
    for key, row in result.risk.items():
        yield signed("risk", key.encode(), row, [(VERSION_HEADER, version)])
    yield signed("snapshots", version, encode_snapshot(result.snapshot), [])
