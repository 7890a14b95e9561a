"""What a start does when the cluster is not ready itself: it waits a while, and then says why it gives up."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ClusterUnavailable, PreflightError
from fraud_service.kafka import clients, topics, waiting
from fraud_service.runtime import preflight


class Cluster:
    """Stands in for a reader: refuses the committed offsets as long as there are refusals left."""

    def __init__(self, *refusals: int) -> None:
        self.refusals = list(refusals)
        self.opened = self.closed = 0

    def reader(self, settings: Settings, name: str) -> Cluster:
        self.opened += 1
        return self

    def list_topics(self, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(topics={"in": SimpleNamespace(partitions={0: None})})

    def committed(self, asked: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        if self.refusals:
            raise KafkaException(KafkaError(self.refusals.pop(0)))
        return [TopicPartition("in", 0, 5)]

    def get_watermark_offsets(self, partition: TopicPartition, timeout: float) -> tuple[int, int]:
        return 0, 10

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def start(monkeypatch):
    def run(cluster: Cluster) -> None:
        monkeypatch.setattr(clients, "reader", cluster.reader)
        settings = Settings(instance_id="test")
        (changelog,) = (spec for spec in topics.topic_specs(settings) if spec.role == "scorer_state")
        preflight.require_consistent(settings, "group", ["in"], changelog)

    monkeypatch.setattr(waiting, "RETRY_POLL_S", 0.001)
    return run


@pytest.mark.parametrize("code", sorted(waiting.TRANSIENT_CODES))
def test_the_start_waits_for_a_missing_coordinator_or_leader(start, code):
    cluster = Cluster(code, code)
    with capture_logs() as logged:
        start(cluster)
    assert [line["event"] for line in logged] == ["waiting_for_the_cluster"] * 2
    assert cluster.opened == cluster.closed == 3


def test_a_retry_ends_with_an_error_that_names_the_reason(start, monkeypatch):
    monkeypatch.setattr(waiting, "RETRY_TIMEOUT_S", 0.02)
    cluster = Cluster(*[KafkaError.NOT_COORDINATOR] * 1000)
    with pytest.raises(
        ClusterUnavailable, match=r"group .* cannot be checked, for 0 s: .*coordinator.*check the brokers"
    ):
        start(cluster)
    assert cluster.refusals
    assert cluster.opened == cluster.closed > 1


def test_an_error_that_is_not_transient_is_raised_at_once(start):
    cluster = Cluster(KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(PreflightError, match=r"cannot be checked: .*[Aa]uthorization"):
        start(cluster)
    assert cluster.opened == cluster.closed == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(KafkaError._TRANSPORT, ClusterUnavailable), (KafkaError._AUTHENTICATION, PreflightError)]
)
def test_topics_that_cannot_be_listed_cause_no_finding(code, kind):
    def refuse(timeout: float) -> None:
        raise KafkaException(KafkaError(code))

    with pytest.raises(kind, match="no broker listed its topics"):
        topics.require(SimpleNamespace(list_topics=refuse), topics.topic_specs(Settings()))
