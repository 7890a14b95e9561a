"""Pace a history that is sent faster than real time, so that its scores equal those of real time.

In real time the learner publishes a snapshot minutes before it is activated. In a fast replay it may be late. Scorers
would then use an older snapshot, and labels would count for a later boundary. The pacer waits at these two points.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import structlog
from confluent_kafka import KafkaException, TopicPartition

from fraud_service.domain.errors import FatalStreamError
from fraud_service.domain.online_training import MAX_SILENCE_MS
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.domain.time import rfc3339
from fraud_service.kafka import clients, consumer_groups
from fraud_service.kafka.topic_reader import end_to_read, read_to_end
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.config.settings import Settings
    from fraud_service.domain.time import LearningSchedule
    from fraud_service.kafka.unreadable_batches import SkippingConsumer

log = structlog.get_logger(__name__)

WAIT_TIMEOUT_S: Final = 120.0
WAIT_POLL_S: Final = 0.01


class EventTimePacer:
    """Waits before a transaction is sent until the service is ready for its event time. A context manager.

    * Before the first transaction behind a snapshot boundary: until everything sent so far is scored. The learner then
      closes the boundary with all of it.
    * Before the first transaction that needs the boundary's snapshot: until the snapshot is published. Scorers read
      what is published before they score (`SnapshotReader.refresh`).

    A transaction can be both the first behind a boundary and the first to need its snapshot. It finds no snapshot in
    real time either, so the pacer does not wait for one.
    """

    def __init__(self, settings: Settings, schedule: LearningSchedule) -> None:
        self._schedule = schedule
        names = settings.topics
        self._settings = settings
        self._group = clients.reader(settings, settings.scorer_group)  # reads committed offsets, and never joins
        self._snapshots = clients.reader(settings, f"{settings.scorer_group}-pacing")
        self._snapshot_log = TopicPartition(names.snapshots, 0, 0)
        self._snapshots.assign([self._snapshot_log])
        self._learner = clients.reader(settings, settings.learner_group)
        self._inputs, self._learned = self._places(names.transactions), self._places(names.scores, names.labels)
        self._examples, self._trained = -1, -1  # of the newest snapshot, and the boundary that trained the last one
        self._newest = -1  # boundary of the newest snapshot, epoch milliseconds
        # Numbers of boundaries: the last one that a transaction has passed, and the learner's first one.
        self._passed: int | None = None
        self._first = 0

    def __enter__(self) -> Self:
        """Raise `FatalStreamError` at once when scorers or learner do not run."""
        stopped = self._stopped()
        if stopped is not None:
            self.__exit__()
            raise FatalStreamError(f"--event-time waits for scorers and learner. {stopped}")
        return self

    def __exit__(self, *_: object) -> None:
        self._group.close()
        self._learner.close()
        self._snapshots.close()

    def before(self, timestamp: int, flush: Callable[[], None]) -> None:
        """Wait until a transaction of this event time (epoch milliseconds) can be sent. Calls `flush` before waiting.

        Raises `FatalStreamError` when the service makes no progress for two minutes.
        """
        number = timestamp // self._schedule.interval_ms
        needed = (timestamp - self._schedule.activation_delay_ms) // self._schedule.interval_ms
        if self._passed is None:
            self._passed = number
            self._read_snapshots()
            self._first = number if self._newest < 0 else self._newest // self._schedule.interval_ms
            return
        if self._first < needed <= self._passed and needed * self._schedule.interval_ms > self._newest:
            flush()
            self._await(lambda: self._has_snapshot(needed), "the learner has not published the next snapshot")
        if number > self._passed:
            flush()
            self._await(self._is_scored, "the scorers have not scored what was sent")
            self._passed = number

    def before_model(self, flush: Callable[[], None]) -> None:
        """Wait until the learner has closed all boundaries before a promotion. Raises as `before` does."""
        passed = self._passed
        if passed is None or passed <= self._first:
            return
        flush()
        self._await(lambda: self._has_snapshot(passed), "the learner has not closed the boundary before a promotion")

    def _places(self, *topics: str) -> list[TopicPartition]:
        there = self._group.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics
        return [TopicPartition(topic, number) for topic in topics for number in there[topic].partitions]

    def _has_snapshot(self, boundary: int) -> bool:
        """Whether the snapshot is published, or none will be: without examples the learner publishes none."""
        self._read_snapshots()
        as_of = boundary * self._schedule.interval_ms
        is_silent = self._trained >= 0 and as_of - self._trained > MAX_SILENCE_MS
        return self._newest >= as_of or (is_silent and _has_read(self._learner, self._learned))

    def _read_snapshots(self) -> None:
        """Read the topic of snapshots to its present end."""
        marks = self._snapshots.get_watermark_offsets(self._snapshot_log, timeout=clients.REQUEST_TIMEOUT_S)
        ends = {(self._snapshot_log.topic, 0): end_to_read(*marks)}
        for batch in read_to_end(self._snapshots, ends, WAIT_TIMEOUT_S, poll_s=WAIT_POLL_S):
            for message in batch:
                if message.error() is None and message.value() is not None:
                    snapshot = decode_snapshot(message.value())
                    self._newest = max(self._newest, snapshot.as_of)
                    if snapshot.examples != self._examples:
                        self._examples, self._trained = snapshot.examples, snapshot.as_of

    def _is_scored(self) -> bool:
        return _has_read(self._group, self._inputs)

    def _await(self, condition: Callable[[], bool], problem: str) -> None:
        """Wait for a condition. Each new snapshot is progress, so the time-out starts again: a long gap has many."""
        newest = None
        while newest != self._newest:
            if newest is not None:
                log.warning("waiting_for_snapshots", newest=rfc3339(self._newest))
            newest = self._newest
            if wait_until(condition, WAIT_TIMEOUT_S, WAIT_POLL_S):
                return
        raise FatalStreamError(f"{problem} for {WAIT_TIMEOUT_S:.0f} s. {self._cause()}")

    def _cause(self) -> str:
        stopped = self._stopped()
        if stopped is not None:
            return stopped
        if not self._is_scored():
            return "Scorers run, but have not processed all transactions: their log says why they are slow"
        if not _has_read(self._learner, self._learned):
            return "The learner runs, but has not processed all scores and labels: its log says why it is slow"
        newest = "none" if self._newest < 0 else rfc3339(self._newest)
        return (
            "Scorers and learner run and have processed everything. The newest snapshot is: "
            f"{newest}. Compare FRAUD_SNAPSHOT_INTERVAL here with that of the learner, and read its log"
        )

    def _stopped(self) -> str | None:
        """Say which process does not run; None if both do, or the groups cannot be read."""
        admin = clients.admin(self._settings)
        groups = {self._settings.scorer_group: "score", self._settings.learner_group: "learn"}
        for group, command in groups.items():
            try:
                if not consumer_groups.members(admin, group, clients.REQUEST_TIMEOUT_S):
                    return (
                        f"No process runs in group {group}: start `fraud-service {command}`, or wait until it is ready"
                        " if you have just started it"
                    )
            except KafkaException:
                return None
        return None


def _has_read(group: SkippingConsumer, places: list[TopicPartition]) -> bool:
    """Whether a consumer group has committed the ends of these partitions."""
    for committed in group.committed(places, clients.REQUEST_TIMEOUT_S):
        low, high = group.get_watermark_offsets(committed, timeout=clients.REQUEST_TIMEOUT_S)
        if high > low and committed.offset < high:
            return False
    return True
