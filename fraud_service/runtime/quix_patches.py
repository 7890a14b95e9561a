"""What Quix and its client leave open, closed: each guard wraps one method of one of Quix's parts.

The names this rests on are not promised; the canary test (`tests/unit/runtime/test_quix_patches.py`) guards them.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import structlog
from confluent_kafka import TopicPartition

from fraud_service.domain.errors import ClusterUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from quixstreams.internal_consumer import InternalConsumer
    from quixstreams.internal_producer import InternalProducer
    from quixstreams.models import TopicManager
    from quixstreams.processing import ProcessingContext
    from quixstreams.runtracker import RunTracker
    from quixstreams.state import StateStoreManager

log = structlog.get_logger(__name__)

COMMIT_TIMEOUT: Final = 10.0  # seconds: a broker that is away must not look like a loop that hangs
CLOSE_TIMEOUT_S: Final = 1.0  # seconds for a client that gives up by itself to say so


def honour_early_stop(tracker: RunTracker, is_told_to_stop: Callable[[], bool]) -> None:
    """Let a loop that was told to stop before it began end at once: Quix counts it as running all the same."""
    begin = tracker.set_as_running

    def set_as_running() -> None:
        begin()
        if is_told_to_stop():
            tracker.stop()

    tracker.set_as_running = set_as_running


def drop_paused_messages(consumer: InternalConsumer, state: StateStoreManager, topics: TopicManager) -> None:
    """Deliver to the loop only what it may process: no changelog, and nothing before state is recovered.

    Quix pauses the rest as soon as it is assigned. When the client begins to fetch in the same moment, it can discard a
    pause as outdated (librdkafka, issue 5591): then changes of state come in as if they were events, and events meet
    state that lacks what is in the changelog.
    """
    poll = consumer.poll
    changelogs = cache(lambda: {topic.name for topic in topics.changelog_topics_list})

    def poll_allowed(timeout: float | None = None) -> Any:
        message = poll(timeout)
        if message is None:
            return None
        is_changelog = message.topic() in changelogs()
        if not is_changelog and not state.recovery_required:
            return message
        if message.error() is not None or state._recovery_manager.recovering:  # noqa: SLF001
            return message
        place = TopicPartition(message.topic(), message.partition(), message.offset())
        consumer.pause([place])
        if not is_changelog:
            consumer.seek(place)  # it is read when recovery resumes the partition
        log.info("paused_again", topic=place.topic, partition=place.partition, offset=place.offset)
        return None

    consumer.poll = poll_allowed


def bound_commit_time(producer: InternalProducer) -> None:
    """Give up a commit that brokers do not answer: Quix would wait for three times the transaction timeout.

    The client itself waits without end for a group's coordinator that died while offsets were sent to it (librdkafka,
    issues 5456 and 5511). It is left waiting, in a thread that the end of the process does not wait for; a new client
    fences it.
    """
    commit, client = producer.commit_transaction, producer._producer  # noqa: SLF001
    send = client.send_offsets_to_transaction

    def commit_transaction(positions: Any, metadata: Any, timeout: float | None = None) -> None:
        commit(positions, metadata, COMMIT_TIMEOUT if timeout is None else timeout)

    def send_offsets(positions: Any, metadata: Any, timeout: float) -> None:
        answer: Future[None] = Future()

        def ask() -> None:
            try:
                answer.set_result(send(positions, metadata, timeout))
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised by who waits
                answer.set_exception(error)

        Thread(target=ask, daemon=True).start()
        try:
            answer.result(timeout + CLOSE_TIMEOUT_S)
        except TimeoutError as error:
            raise ClusterUnavailable(
                f"the group's coordinator went away in a commit, and the client has not given up after {timeout:.0f} s"
            ) from error

    producer.commit_transaction = commit_transaction
    client.send_offsets_to_transaction = send_offsets


def time_checkpoints(context: ProcessingContext, observe: Callable[[float], None]) -> None:
    """Let an observer see how long each checkpoint takes that has something to commit: Quix calls nobody."""
    commit = context.commit_checkpoint

    def commit_checkpoint(force: bool = False, revoking: bool = False) -> None:
        is_due = (force or context.checkpoint.expired()) and not context.checkpoint.empty()
        began = time.perf_counter()
        commit(force=force, revoking=revoking)
        if is_due:
            observe(time.perf_counter() - began)

    context.commit_checkpoint = commit_checkpoint
