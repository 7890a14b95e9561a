"""A topic reader on Apache Kafka returns committed records in order, up to the end at its start."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from support.processes import fresh_settings

from fraud_service.domain.errors import TopicReadError
from fraud_service.kafka import clients, consumer_groups, waiting
from fraud_service.kafka.topic_reader import OffsetRange, TopicReader
from fraud_service.runtime import changelogs

pytestmark = [pytest.mark.kafka]
TIMES = 40  # with one consumer for all reads, one of four lost records or aborted the process


@pytest.fixture(scope="module")
def settings(apache_kafka, tmp_path_factory):
    """Write, on one partition: records 0 to 9, an aborted transaction, records 14 to 18, an open transaction."""
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path_factory.mktemp("reader"))
    producer = Producer({**clients.connection(settings), "transactional.id": "reader"})
    producer.init_transactions(30)
    for count, end in ((10, producer.commit_transaction), (3, producer.abort_transaction), (5, None)):
        producer.begin_transaction()
        for number in range(count):
            producer.produce(
                settings.topics.scores, key=b"k", value=f"{end}-{number}".encode(), headers=[("h", b"x")], partition=1
            )
        producer.flush(30)
        if end is not None:
            end(30)
    yield settings
    producer.abort_transaction(30)


def test_only_committed_records_are_read_in_order(settings):
    with TopicReader(settings, "test") as reader:
        entries = list(reader.read(settings.topics.scores, 1))
    assert [entry.offset for entry in entries] == list(range(10))
    assert entries[3].value.endswith(b"-3")
    assert entries[0].header("h") == "x"
    assert entries[0].header("none") is None


def test_an_open_transaction_is_beyond_the_end(settings):
    with TopicReader(settings, "test") as reader:
        spans = reader.offset_ranges(settings.topics.scores)
    assert spans[1] == OffsetRange(0, 15)  # ten records, a marker, three aborted ones, a marker
    assert spans[0] == OffsetRange(0, 0)


def test_ranges_of_a_partition_are_read_one_after_another(settings):
    for _ in range(TIMES):
        with TopicReader(settings, "test") as reader:
            first = reader.read(settings.topics.scores, 1, 2, 5)
            assert [entry.offset for entry in first] == [2, 3, 4]
            unfinished = reader.read(settings.topics.scores, 1)  # it has no effect on the next
            assert next(unfinished).offset == 0
            assert [entry.offset for entry in reader.read(settings.topics.scores, 1, 8, 900)] == [8, 9]
            assert next(unfinished).offset == 1
            assert list(reader.read(settings.topics.scores, 0)) == []


def test_the_first_offset_at_or_after_a_time_is_found(settings):
    with TopicReader(settings, "test") as reader:
        moment = next(reader.read(settings.topics.scores, 1)).timestamp
        assert reader.offsets_since(settings.topics.scores, moment)[1] == 0
        assert reader.offsets_since(settings.topics.scores, moment + 86_400_000)[1] == 15


def test_a_missing_topic_is_named(settings):
    with TopicReader(settings, "test") as reader, pytest.raises(TopicReadError, match="no-such-topic"):
        reader.offset_ranges("no-such-topic")


def test_committed_offsets_wait_for_an_open_transaction_of_the_group(settings, monkeypatch):
    group, place = "waited-for", TopicPartition(settings.topics.labels, 1, 7)
    producer = Producer({**clients.connection(settings), "transactional.id": group})
    producer.init_transactions(30)
    producer.begin_transaction()
    consumer = Consumer({**clients.connection(settings), "group.id": group})
    producer.send_offsets_to_transaction([place], consumer.consumer_group_metadata(), 30)

    def end(seconds: float) -> None:
        if not ended:
            producer.commit_transaction(30)
        ended.append(seconds)

    ended: list[float] = []
    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=time.monotonic, sleep=end))
    with TopicReader(settings, "test") as reader:
        found = consumer_groups.committed_offsets(settings, group, reader, settings.topics.labels)
    assert found == dict.fromkeys(found) | {1: 7}
    assert ended
    consumer.close()


def test_changelog_rows_wait_for_an_open_transaction(settings, monkeypatch):
    producer = Producer({**clients.connection(settings), "transactional.id": "rows-waited-for"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(settings.topics.risk, key=b"k", value=b"late", partition=0)
    assert producer.flush(30) == 0
    ended: list[float] = []

    def end(seconds: float) -> None:
        if not ended:
            producer.commit_transaction(30)
        ended.append(seconds)

    monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=time.monotonic, sleep=end))
    with TopicReader(settings, "test") as reader:
        assert list(changelogs.last_rows(settings, reader, settings.topics.risk)) == [(0, b"k", b"late")]
    assert ended
