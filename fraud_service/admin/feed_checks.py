"""What `feed` checks before it sends a history, and the refusals that it counts afterwards."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog
from confluent_kafka import KafkaException

from fraud_service.config.duration import format_duration, to_ms
from fraud_service.domain.errors import (
    ConfigurationError,
    FraudServiceError,
    InvalidEvent,
    InvalidRecord,
    TopicReadError,
)
from fraud_service.domain.events import TEST_CURRENCY, decode_transaction, encode, facts
from fraud_service.domain.records import decode_score
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.domain.time import rfc3339
from fraud_service.kafka import clients, consumer_groups
from fraud_service.kafka.dead_letters import parse_letter
from fraud_service.kafka.waiting import Deadline
from fraud_service.processors.scorer import check_time
from fraud_service.security.card_data import has_no_card_data, reject_card_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import Facts, LabelledTransaction
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.domain.time import LearningSchedule
    from fraud_service.kafka.topic_reader import TopicReader

log = structlog.get_logger(__name__)

TAIL_RECORDS: Final = 100  # read of each partition; markers of transactions count too
MESSAGES_PER_SEARCH: Final = 500
PROGRESS_TIMEOUT_S: Final = 30.0  # without a further record processed
PROGRESS_POLL_S: Final = 0.5

NOT_PROCESSED: Final = 3  # exit code of `feed`

Sent = dict[tuple[str, int], tuple[int, int]]  # topic and partition -> first and last offset


class NotProcessed(FraudServiceError):  # noqa: N818 - the records are sent and kept
    """Records that were sent, but that a consumer group does not process."""

    def __init__(self, problem: str, group: str) -> None:
        super().__init__(
            f"everything was sent, but the service has not processed it: {problem}. The records stay on the topics, "
            f"so do not send them again. Start the processes of group {group}, or read their log. `fraud-service "
            "verify` then says what is pending or refused"
        )


class ServiceTime(NamedTuple):
    """How far the service is in event time, epoch milliseconds; -1 if it has not begun.

    Before the first boundary is closed, the learner forgets nothing. `newest` are the newest payments.
    """

    closed: int
    newest: frozenset[Facts]


def service_time(settings: Settings, reader: TopicReader, schedule: LearningSchedule) -> ServiceTime:
    """Read the newest snapshot and the newest scores. Raises `TopicReadError` if this is not possible or allowed."""
    snapshots = [decode_snapshot(value).as_of for value in _tail(reader, settings.topics.snapshots)]
    scores: list[ScoreRecord] = []
    for value in _tail(reader, settings.topics.scores):
        try:
            scores.append(decode_score(value))
        except InvalidRecord:
            continue  # a foreign record
    times = [score.timestamp for score in scores if score.currency != TEST_CURRENCY]
    passed = max(times, default=-1) // schedule.interval_ms * schedule.interval_ms
    return ServiceTime(max(*snapshots, passed) if snapshots else -1, frozenset(map(facts, scores)))


def _tail(reader: TopicReader, topic: str) -> Iterator[bytes]:
    for number, span in reader.offset_ranges(topic).items():
        for entry in reader.read(topic, number, span.end - TAIL_RECORDS):
            if entry.value is not None:
                yield entry.value


def require_new(history: Iterable[LabelledTransaction], service: ServiceTime) -> None:
    """Raise `ConfigurationError` if a payment of the history is among the newest ones of the service."""
    sent = sum(facts(event.transaction) in service.newest for event in history) if service.newest else 0
    if sent:
        raise ConfigurationError(
            f"the service has scored payments of this file before: {sent:,} are among the newest of its scores. "
            "Sent again, payments count twice in the profiles of cards. Choose others with --from and --to, or send "
            "them in spite of that with --again"
        )


def require_learnable(
    history: Iterable[LabelledTransaction], service: ServiceTime, schedule: LearningSchedule, learner_group: str
) -> None:
    """Raise `ConfigurationError` if the learner would forget payments of the history, which is in event order."""
    oldest = service.closed - schedule.label_retention_ms
    old = sum(1 for _ in takewhile(lambda event: event.transaction.timestamp <= oldest, history))
    if service.closed >= 0 and old:
        raise ConfigurationError(
            f"{old:,} of these payments happened before {rfc3339(oldest)}: the event time of the service is "
            f"{rfc3339(service.closed)}, and the learner forgets payments more than FRAUD_LABEL_RETENTION older. "
            "It would not learn from them, and reject their labels. Nothing was sent. To let the service learn from "
            f"them: stop the learner, run `fraud-service reset {learner_group} --yes`, feed the file without "
            "--event-time, start the learner, and restart the scorers. The learner then learns everything again in the "
            "order of event time. Or send them to topics of their own (FRAUD_TOPICS__…, FRAUD_SCORER_GROUP, "
            "FRAUD_LEARNER_GROUP), train on the file with `fraud-service train`, leave them out with --from, or send "
            "them for their scores alone with --unlearned"
        )


def require_accepted(history: Iterable[LabelledTransaction], settings: Settings) -> None:
    """Raise `ConfigurationError` if scorers would make payments of the history dead letters."""
    latest = int(time.time() * 1000) + to_ms(settings.max_clock_skew)
    refused: Counter[str] = Counter()
    details: dict[str, str] = {}
    total = 0
    following = iter(history)
    while events := list(islice(following, MESSAGES_PER_SEARCH)):
        values = [encode(event.transaction) for event in events]
        is_clean = has_no_card_data(values)
        for event, value in zip(events, values, strict=True):
            total += 1
            try:
                if not is_clean:
                    reject_card_data(value, numbers=settings.reject_pan)
                decode_transaction(value)
                check_time(event.transaction.timestamp, latest, "timestamp")
            except InvalidEvent as error:
                refused[error.reason] += 1
                details.setdefault(error.reason, f"{error.detail}, first at {rfc3339(event.transaction.timestamp)}")
    if refused:
        listed = "; ".join(f"{count:,} {reason} ({details[reason]})" for reason, count in refused.most_common())
        share = refused.total() / total
        raise ConfigurationError(
            f"{refused.total():,} of {total:,} payments ({share:.1%}) would become dead letters: {listed}. Nothing was "
            f"sent. Correct the file, or leave them out with --from and --to. FRAUD_MAX_CLOCK_SKEW is "
            f"{format_duration(settings.max_clock_skew)}, FRAUD_REJECT_PAN is {str(settings.reject_pan).lower()}"
        )


class RefusalCounter:
    """Counts the dead letters of what was sent, from its creation on."""

    def __init__(self, settings: Settings, reader: TopicReader) -> None:
        self._settings = settings
        self._reader = reader
        self._topic = settings.topics.dead_letters
        self._begins = {number: span.end for number, span in reader.offset_ranges(self._topic).items()}

    def count(self, sent: Sent, progress: Callable[[int], None] = lambda _: None) -> Counter[str]:
        """Wait until scorers and learner have processed what was sent; return the refusals by reason.

        Calls `progress` with the number of further offsets that were processed. Raises `NotProcessed` if a process does
        not run, or processes nothing for half a minute, and `TopicReadError`.
        """
        names = self._settings.topics
        groups = {self._settings.scorer_group: names.transactions, self._settings.learner_group: names.labels}
        for group, topic in groups.items():
            spans = {number: (first, last + 1) for (name, number), (first, last) in sent.items() if name == topic}
            if spans:
                self._await(group, topic, spans, progress)
        refused: Counter[str] = Counter()
        for number, begin in self._begins.items():
            for entry in self._reader.read(self._topic, number, begin):
                try:
                    letter = parse_letter(entry)
                except InvalidRecord:
                    continue  # a foreign record
                first, last = sent.get((letter.topic, letter.partition), (0, -1))
                refused[letter.reason] += first <= letter.offset <= last
        return +refused

    def _await(
        self, group: str, topic: str, spans: Mapping[int, tuple[int, int]], progress: Callable[[int], None]
    ) -> None:
        deadline, passed, total = Deadline(PROGRESS_TIMEOUT_S), 0, sum(end - first for first, end in spans.values())
        while True:
            found = consumer_groups.committed_offsets(self._settings, group, self._reader, topic)
            done = sum(min(max(found.get(number) or 0, first), end) - first for number, (first, end) in spans.items())
            progress(done - passed)
            if done == total:
                return
            state = f"group {group} has processed {done:,} of {total:,} records on {topic}"
            if not self._runs(group):
                raise NotProcessed(f"no process runs in it, and {state}", group)
            if done > passed:
                deadline.restart()
            elif deadline.has_passed():
                raise NotProcessed(f"it has processed nothing for {PROGRESS_TIMEOUT_S:.0f} s, and {state}", group)
            passed = done
            time.sleep(PROGRESS_POLL_S)

    def _runs(self, group: str) -> bool:
        try:
            return bool(consumer_groups.members(clients.admin(self._settings), group, clients.REQUEST_TIMEOUT_S))
        except KafkaException as error:
            raise TopicReadError(f"group {group} cannot be read: {error.args[0].str()}") from error


def unknown(what: str, error: FraudServiceError) -> None:
    """Log what a feed could not find out, for lack of rights."""
    log.warning("feed_check_skipped", what=what, reason=str(error))
