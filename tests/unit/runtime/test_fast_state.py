"""The short ways through Quix lead where the long ones do: the same state, the same messages, the same errors."""

from __future__ import annotations

import json
import shutil
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError
from quixstreams.internal_producer import InternalProducer
from quixstreams.kafka.exceptions import KafkaProducerDeliveryError
from quixstreams.state.recovery import RecoveryPartition
from quixstreams.state.rocksdb import RocksDBOptions
from quixstreams.state.rocksdb import RocksDBStorePartition as StorePartition
from support.loop import looped

from fraud_service.runtime import fast_state
from fraud_service.runtime.changelogs import PROCESSED
from fraud_service.runtime.fast_state import KeyState, produce_directly, recover_in_batches


@pytest.fixture
def transaction(tmp_path):
    """Give what opens the state's transaction of a partition, and what commits it."""
    with looped(tmp_path) as loop:
        (stream_id,) = loop.scorer.app._state_manager.stores
        context = loop.scorer._context
        yield lambda: context.checkpoint.get_store_transaction(stream_id, 0), loop.scorer.commit


def test_a_value_is_read_and_written_as_by_quix_before_and_after_it_is_committed(transaction):
    begin, commit = transaction
    assert not begin()._partition.uses_ttl_stamps  # or Quix would cut a stamp off what it reads

    def both(key: bytes) -> tuple[bytes | None, bytes | None]:
        return KeyState(begin(), key).get_bytes("profile"), begin().as_state(prefix=key).get_bytes("profile")

    assert both(b"c-1") == (None, None)
    KeyState(begin(), b"c-1").set_bytes("profile", b"one")
    begin().as_state(prefix=b"c-2").set_bytes("profile", b"two")
    assert (both(b"c-1"), both(b"c-2")) == ((b"one", b"one"), (b"two", b"two"))
    commit()
    assert (both(b"c-1"), both(b"c-2")) == ((b"one", b"one"), (b"two", b"two"))
    begin().as_state(prefix=b"c-1").delete("profile")
    assert (both(b"c-1"), both(b"")) == ((None, None), (None, None))
    commit()
    assert both(b"c-1") == (None, None)


class Client:
    """Stands for the client's producer: keeps what it is given until it is served."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict]] = []
        self.polled = 0
        self.is_full = False

    def produce(self, topic, value=None, key=None, **options):
        if self.is_full:
            self.is_full = False
            raise BufferError("full")
        self.given.append((topic, {"value": value, "key": key, **options}))

    def poll(self, timeout=0):
        self.polled += 1

    def serve(self, error=None):
        for offset, (topic, message) in enumerate(self.given):
            place = SimpleNamespace(
                topic=lambda topic=topic: topic,
                partition=lambda message=message: message.get("partition", 5),
                offset=lambda offset=offset: offset,
            )
            message["on_delivery"](error, place)


@pytest.fixture
def client():
    return Client()


@pytest.fixture
def producer(client):
    made = InternalProducer("none:1")
    made._producer._inner_producer = client
    produce_directly(made)
    return made


def test_a_message_goes_to_the_client_at_once_with_what_is_said_of_it_and_no_more(producer, client):
    producer.produce(topic="scores", value=b"v", key=b"k", headers=None, timestamp=7)
    producer.produce(topic="changelog", value=None, key=b"k", headers={"a": "b"}, partition=0, on_delivery=None)
    (first, output), (second, change) = client.given
    assert (first, set(output), output["timestamp"]) == ("scores", {"value", "key", "timestamp", "on_delivery"}, 7)
    assert (second, change["value"], change["partition"], change["headers"]) == ("changelog", None, 0, {"a": "b"})
    assert client.polled == 0


def test_quix_is_told_where_changes_of_state_lie_and_of_outputs_nothing(producer, client):
    producer.produce(topic="scores", value=b"v", key=b"k")
    producer.produce(topic="changelog", value=b"v", key=b"k", partition=3)
    client.serve()
    assert producer.offsets == {("changelog", 3): 1}


@pytest.mark.parametrize("place", [{}, {"partition": 0}])
def test_a_message_that_was_not_delivered_fails_the_next_one(producer, client, place):
    producer.produce(topic="any", value=b"v", key=b"k", **place)
    client.serve(KafkaError(KafkaError._MSG_TIMED_OUT))
    with pytest.raises(KafkaProducerDeliveryError):
        producer.produce(topic="any", value=b"v", key=b"k", **place)


def test_what_was_dropped_with_its_transaction_fails_nothing(producer, client):
    producer.produce(topic="any", value=b"v", key=b"k")
    client.serve(KafkaError(KafkaError._PURGE_QUEUE))
    producer.produce(topic="any", value=b"v", key=b"k")


def test_a_full_queue_is_waited_for_as_quix_does(producer, client):
    client.is_full = True
    producer.produce(topic="scores", value=b"v", key=b"k", timestamp=7)
    producer.produce(topic="changelog", value=b"v", key=b"k", partition=2)
    assert [(topic, message["value"]) for topic, message in client.given] == [("scores", b"v"), ("changelog", b"v")]
    assert client.polled == 1


class Row:
    """A record of a changelog as the client gives it."""

    def __init__(self, offset, key, value, processed=0, family=b"default", topic="changelog", **headers):
        self._offset, self._key, self._value, self._topic = offset, key, value, topic
        said = json.dumps({"in": processed}).encode()
        self._headers = {"__column_family__": family, PROCESSED: said, **headers}

    def error(self):
        return None

    def topic(self):
        return self._topic

    def partition(self):
        return 0

    def offset(self):
        return self._offset

    def key(self):
        return self._key

    def value(self):
        return self._value

    def headers(self):
        return list(self._headers.items())


class Manager:
    """Stands for Quix's: gives rows, with None where nothing has arrived, until there are no more."""

    def __init__(self, rows):
        self._rows = list(rows)
        client = SimpleNamespace(consume=self._arrived)
        self._consumer = SimpleNamespace(poll=lambda _: self._next(), position=self._positions, _consumer=client)
        self._position_cache = {"changelog:0": "old"}
        self._read = -1001
        self._topic_manager = SimpleNamespace(non_changelog_topics={"in": None})
        self.partitions: dict = {}
        self.looked: list[int | None] = []  # what is written whenever Quix looks whether it is done
        self.rewound: list[int] = []
        recover_in_batches(self)

    def _next(self):
        row = self._rows.pop(0)
        if isinstance(row, Row):
            self._read = row.offset() + 1
        return row() if callable(row) else row

    def _arrived(self, most, timeout):
        assert timeout == 0
        arrived = []
        while self._rows and isinstance(self._rows[0], Row) and len(arrived) < most:
            arrived.append(self._next())
        return arrived

    def _positions(self, asked):
        return [SimpleNamespace(offset=self._read) for _ in asked]

    @property
    def recovering(self):
        return bool(self._rows)

    def _log_recovery_progress(self):
        return

    def _update_recovery_status(self):
        assert self._position_cache == {}
        self.looked.append(self.part._store_partition.get_changelog_offset())

    def _rewind_data_partition(self, message):
        self.rewound.append(message.offset())

    def recover(self, store, committed=10, end=100):
        self.part = RecoveryPartition("changelog", 0, store, {"in": committed}, 0, end)
        self.partitions[0] = {"changelog": self.part}
        self._recovery_loop()
        return dict(store.get_or_create_column_family("default").items()), store.get_changelog_offset()


@pytest.fixture
def store(transaction):
    begin, _ = transaction
    return begin()._partition


def test_rows_are_recovered_with_the_offset_they_reach_up_to(store, monkeypatch):
    monkeypatch.setattr(fast_state, "LOOK", 0.0)
    rows = [
        Row(3, b"a", b"1"),
        Row(4, b"b", b"2"),
        Row(6, b"a", b"3"),
        None,
        Row(7, b"b", None),
        Row(9, b"c", b"4"),
        None,
    ]
    manager = Manager(rows)
    assert manager.recover(store) == ({b"a": b"3", b"c": b"4"}, 9)
    assert manager.looked == [6, 9]


def test_recovery_is_over_as_soon_as_all_is_read_and_otherwise_looked_at_now_and_then(store):
    manager = Manager([None, Row(0, b"a", b"1"), None, Row(1, b"a", b"2"), None])
    assert manager.recover(store, end=2) == ({b"a": b"2"}, 1)
    assert manager.looked == [1]  # and not at the two pauses on the way


def test_what_the_offset_reaches_up_to_survives_a_kill(store, monkeypatch, tmp_path):
    """Rows have no log of their own: at a kill, those in memory are lost."""
    monkeypatch.setattr(fast_state, "ROWS_AT_ONCE", 2)
    monkeypatch.setattr(fast_state, "ROWS_UNTIL_SETTLED", 3)
    left = []

    def kill():
        killed = tmp_path / f"killed-{len(left)}"
        shutil.copytree(store.path, killed, ignore=shutil.ignore_patterns("LOCK"))
        opened = StorePartition(str(killed), RocksDBOptions())
        left.append((dict(opened.get_or_create_column_family("default").items()), opened.get_changelog_offset()))
        opened.close()

    rows = [Row(0, b"a", b"1"), Row(1, b"b", b"2"), kill, Row(2, b"c", b"3"), kill, Row(3, b"a", None), kill, None]
    assert Manager(rows).recover(store) == ({b"b": b"2", b"c": b"3"}, 3)
    settled = {b"a": b"1", b"b": b"2", b"c": b"3"}, 2
    assert left == [({}, None), settled, settled]


def test_files_are_merged_when_the_last_row_is_there_and_not_before(store, monkeypatch):
    monkeypatch.setattr(fast_state, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(fast_state, "ROWS_UNTIL_SETTLED", 1)
    unmerged = []

    def files():
        return store._db.property_int_value("rocksdb.num-files-at-level0")

    rows = [Row(number, b"a", b"%d" % number) for number in range(20)]
    Manager([*rows, lambda: unmerged.append(files()), None]).recover(store)
    assert unmerged == [20]
    deadline = time.monotonic() + 20
    while files() > 1:
        assert time.monotonic() < deadline, "nothing is merged after a recovery"
        time.sleep(0.01)


def test_a_row_of_what_was_never_committed_is_passed_over(store):
    rows = [Row(0, b"a", b"1", processed=9), Row(1, b"a", b"2", processed=10), None]
    assert Manager(rows).recover(store, committed=10) == ({b"a": b"1"}, 1)


@pytest.mark.parametrize("foreign", [{"__ttl_stamped__": b"\x01"}, {"more": b""}])
def test_a_row_that_is_not_of_our_make_is_left_to_quix_in_its_turn(store, monkeypatch, foreign):
    met = []
    monkeypatch.setattr(
        RecoveryPartition,
        "recover_from_changelog_message",
        lambda _self, changelog_message: met.append((changelog_message.offset(), store.get_changelog_offset())),
    )
    rows = [Row(0, b"a", b"1"), Row(1, b"b", b"2", **foreign), Row(2, b"c", b"3"), None]
    assert Manager(rows).recover(store) == ({b"a": b"1", b"c": b"3"}, 2)
    assert met == [(1, 0)]


def test_rows_of_a_partition_that_was_given_away_meanwhile_are_dropped(store):
    rows = [Row(0, b"a", b"1"), lambda: manager.partitions.clear(), Row(1, b"b", b"2"), None]  # noqa: PLW0108 - made below
    manager = Manager(rows)
    assert manager.recover(store) == ({}, None)


def test_what_was_read_before_a_rebalance_gave_its_partition_back_is_read_again(store, monkeypatch):
    """The new beginning may lie before it: an offset behind it would pass over rows."""
    monkeypatch.setattr(fast_state, "LOOK", 0.0)
    primed = []

    def give_anew(most, timeout):
        manager.partitions[0] = {"changelog": RecoveryPartition("changelog", 0, store, {"in": 10}, 0, 100)}
        return [Row(7, b"a", b"7")]

    manager = Manager([Row(6, b"a", b"6"), None, Row(0, b"a", b"1"), None])
    manager._prime_changelog_partition = primed.append
    arrived, manager._consumer._consumer.consume = manager._consumer._consumer.consume, give_anew
    manager._log_recovery_progress = lambda: primed and setattr(manager._consumer._consumer, "consume", arrived)
    assert manager.recover(store) == ({b"a": b"1"}, 0)
    assert manager.looked == [None, 0]
    assert primed == [manager.partitions[0]["changelog"]]


def test_an_event_that_comes_during_recovery_is_read_again_later_and_another_changelog_is_passed_over(store):
    rows = [Row(5, b"k", b"v", topic="in"), Row(0, b"k", b"v", topic="other"), Row(0, b"a", b"1"), None]
    manager = Manager(rows)
    assert manager.recover(store) == ({b"a": b"1"}, 0)
    assert manager.rewound == [5]
