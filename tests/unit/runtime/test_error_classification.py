"""What ended the loop decides what comes next: waiting for the cluster, or the end of the process."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException
from quixstreams.checkpointing.exceptions import CheckpointProducerTimeout
from quixstreams.exceptions import PartitionAssignmentError
from quixstreams.internal_producer import KafkaProducerTransactionCommitFailed
from quixstreams.kafka.exceptions import KafkaConsumerException, KafkaProducerDeliveryError

from fraud_service import service
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ClusterUnavailable, FatalStreamError, PartitionsLost
from fraud_service.kafka import clients
from fraud_service.runtime import error_classification
from fraud_service.runtime.health import Health
from fraud_service.runtime.metrics.stream import Metrics, StreamMetrics


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def meaning(error: Exception, *, rival: bool = False) -> Exception:
    return error_classification.classify_error(error, "fraud-scorer-pod-0", lambda is_joining: rival)


AWAY = [
    KafkaProducerDeliveryError(KafkaError(KafkaError._MSG_TIMED_OUT)),
    KafkaConsumerException(error=KafkaError(KafkaError._MAX_POLL_EXCEEDED)),
    KafkaException(KafkaError(KafkaError.NOT_ENOUGH_REPLICAS)),
    KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION)),
    CheckpointProducerTimeout("'3' messages failed to be produced before the producer flush timeout"),
    caused(KafkaProducerTransactionCommitFailed("all attempts failed"), KafkaException(KafkaError(-185))),
    caused(PartitionAssignmentError("during assignment"), ClusterUnavailable("partitions were given away")),
]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_the_start_waits_for_an_unavailable_cluster(error):
    assert isinstance(meaning(error), ClusterUnavailable)


@pytest.mark.parametrize(
    "error",
    [
        KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)),
        KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)),
        ZeroDivisionError("division by zero"),
    ],
    ids=repr,
)
def test_an_error_that_a_retry_cannot_repair_ends_the_process(error):
    assert isinstance(meaning(error), FatalStreamError)


@pytest.mark.parametrize("code", sorted(error_classification.FENCED))
def test_a_fenced_transaction_ends_the_process_only_when_another_has_its_name(code):
    fenced = KafkaException(KafkaError(code))
    assert isinstance(meaning(fenced, rival=False), ClusterUnavailable)
    with pytest.raises(FatalStreamError, match=r"runs as fraud-scorer-pod-0 .* FRAUD_INSTANCE_ID of its own"):
        raise meaning(fenced, rival=True)


def test_a_member_whose_name_was_taken_ends_the_process():
    assert isinstance(meaning(KafkaException(KafkaError(KafkaError.FENCED_INSTANCE_ID))), FatalStreamError)


@pytest.fixture
def waits(monkeypatch):
    """No pause between starts; note each wait for the cluster."""
    seen: list[dict[str, bool]] = []
    monkeypatch.setattr(service, "RESTART_POLL_S", 0.0)
    monkeypatch.setattr(clients, "await_cluster", lambda _settings, _beat: seen.append(dict(health.conditions)))
    health = Health()
    return health, seen


def test_the_stream_restarts_after_an_outage_and_is_not_ready_meanwhile(waits):
    health, seen = waits
    endings_of_work = iter([ClusterUnavailable("away"), ClusterUnavailable("again"), None])

    def work() -> None:
        health.update(assigned=True, recovered=True, models_loaded=True)
        ending = next(endings_of_work)
        if ending is not None:
            raise ending

    metrics = StreamMetrics(Metrics())
    service.run_with_restarts(Settings(), health, metrics, work)
    assert metrics.interruptions._value.get() == 2
    assert [(now["connected"], now["assigned"]) for now in seen] == [(False, False)] * 2
    assert health.is_live


def test_a_process_that_was_never_ready_ends_in_an_outage(waits):
    health, seen = waits

    def work() -> None:
        raise ClusterUnavailable("away")

    with pytest.raises(ClusterUnavailable):
        service.run_with_restarts(Settings(), health, StreamMetrics(Metrics()), work)
    assert seen == []


class Group:
    """A group that somebody joins under our name after so many seconds; time passes only while it is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, joined_after: float) -> None:
        self.now, self._joined_after = 0.0, joined_after
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)
        monkeypatch.setattr(clients, "admin", lambda _: self)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def describe_consumer_groups(self, groups: list[str], **_: float) -> dict[str, Group]:
        return {groups[0]: self}

    def result(self) -> SimpleNamespace:
        member = "them" if self.now >= self._joined_after else "us"
        return SimpleNamespace(members=[SimpleNamespace(group_instance_id="fraud-scorer-pod-0", member_id=member)])


def test_a_process_with_the_same_name_may_take_one_and_a_half_times_our_join_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beats: list[float] = []
    ours = error_classification.Membership("fraud-scorer", "fraud-scorer-pod-0", "us", joined_after_s=10.0)
    group = Group(monkeypatch, joined_after=15.0)
    assert error_classification.is_instance_id_in_use(
        Settings(), ours, lambda: beats.append(group.now), is_joining=True
    )
    assert group.now == 15.0
    assert len(beats) == 31


def test_without_a_new_member_in_twice_our_join_time_the_name_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = error_classification.Membership("fraud-scorer", "fraud-scorer-pod-0", "us", joined_after_s=0.1)
    group = Group(monkeypatch, joined_after=100.0)
    assert not error_classification.is_instance_id_in_use(Settings(), ours, lambda: None, is_joining=True)
    assert group.now == error_classification.JOIN_TIMEOUT_S


@pytest.mark.parametrize("joined_after", [0.0, 0.1])
def test_after_lost_partitions_the_group_is_checked_once_without_a_wait(
    monkeypatch: pytest.MonkeyPatch, joined_after: float
) -> None:
    ours = error_classification.Membership("fraud-scorer", "fraud-scorer-pod-0", "us", joined_after_s=10.0)
    group = Group(monkeypatch, joined_after)
    assert error_classification.is_instance_id_in_use(Settings(), ours, lambda: None, is_joining=False) == (
        joined_after == 0.0
    )
    assert group.now == 0.0


def test_partitions_lost_to_a_process_of_our_name_end_the_process_and_others_cause_a_restart() -> None:
    lost = caused(PartitionAssignmentError("during assignment"), PartitionsLost("given away"))
    assert isinstance(meaning(lost, rival=True), FatalStreamError)
    assert isinstance(meaning(lost, rival=False), PartitionsLost)
