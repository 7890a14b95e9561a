"""Readers that catch up before the first message wait for a leader that is missing, and then say what is missing."""

from __future__ import annotations

import time
from types import SimpleNamespace

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.testing import capture_logs
from support.worlds import online_model

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ClusterUnavailable
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.kafka import clients, waiting
from fraud_service.kafka.model_topic import ModelTopicReader
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors import snapshot_reader as snapshot_reader_module
from fraud_service.processors.snapshot_reader import REFRESH_TIMEOUT_S, SnapshotReader


class Leaderless:
    """Stands in for a reader of empty topics whose leaders come after so many questions."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.timeouts: list[float] = []

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = places

    def assignment(self) -> list[TopicPartition]:
        return self.assigned

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return places

    def list_topics(self, topic: str, timeout: float) -> SimpleNamespace:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={0: None}, error=None)})

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        self.timeouts.append(timeout)
        if self.refusals > 0:
            self.refusals -= 1
            raise KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE))
        return 0, 0

    def consume(self, count: int, timeout: float) -> list[object]:
        return []

    def close(self) -> None:
        """Nothing is open."""


def promotions() -> None:
    assert list(ModelTopicReader(Settings(), "test").catch_up()) == []


def broadcast() -> None:
    snapshot_reader()._catch_up()


def whole_topic() -> None:
    assert list(TopicReader(Settings(), "test").read("topic", 0)) == []


READERS = [promotions, broadcast, whole_topic]


@pytest.fixture
def cluster(monkeypatch):
    stands = Leaderless(3)
    monkeypatch.setattr(clients, "reader", lambda _settings, _name: stands)
    monkeypatch.setattr(waiting, "RETRY_POLL_S", 0.001)
    return stands


@pytest.mark.parametrize("catch_up", READERS)
def test_the_reader_waits_for_a_new_leader(cluster, catch_up):
    catch_up()
    assert cluster.refusals == 0


@pytest.mark.parametrize("catch_up", READERS)
def test_a_leader_that_does_not_come_is_named_by_its_partition(cluster, catch_up, monkeypatch):
    monkeypatch.setattr(waiting, "RETRY_TIMEOUT_S", 0.02)
    cluster.refusals = 1_000_000
    with pytest.raises(ClusterUnavailable, match=r"\[0\] cannot be read, for 0 s: .*[Ll]eader"):
        catch_up()


def snapshot_reader() -> SnapshotReader:
    return SnapshotReader(Settings(), SnapshotStore(untrained("model-1", online_model())), lambda _: None)


def test_every_batch_that_needs_a_newer_snapshot_asks_for_it(cluster):
    cluster.refusals = 0
    reader = snapshot_reader()
    reader._applied = {(topic, 0): 0 for topic in ("fraud.snapshots", "fraud.risk")}
    for _ in range(3):
        reader.refresh()
    assert len(cluster.timeouts) == 3 * 2  # both topics each time


def test_a_refresh_waits_for_the_risk_rows_of_a_snapshot_that_has_arrived(cluster, monkeypatch):
    monkeypatch.setattr(snapshot_reader_module, "REFRESH_TIMEOUT_S", 0.02)
    cluster.refusals = 0
    reader = snapshot_reader()
    reader._applied = {(topic, 0): 0 for topic in ("fraud.snapshots", "fraud.risk")}
    initial = untrained("model-1", online_model())
    reader._store.receive_snapshot(
        msgspec.structs.replace(initial, as_of=1, effective_from=1, version="1", risk_rows=1)
    )
    with capture_logs() as lines:
        reader.refresh()
        reader.refresh()  # a pause follows, or each batch would wait as long
    assert [line["event"] for line in lines] == ["snapshots_not_refreshed"]


def test_a_scorer_that_needs_a_newer_snapshot_continues_during_an_outage(cluster):
    cluster.refusals = 1_000_000
    followed = snapshot_reader()
    began = time.monotonic()
    for _ in range(100):
        followed.refresh()
    assert cluster.timeouts == [REFRESH_TIMEOUT_S]  # asked once, and not again for a while
    assert time.monotonic() - began < REFRESH_TIMEOUT_S
