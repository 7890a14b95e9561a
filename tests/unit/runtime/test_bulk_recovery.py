"""Rows that are recovered together leave the state that Quix would leave, whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import time
from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_BEGINNING
from quixstreams.state.recovery import RecoveryPartition
from quixstreams.state.rocksdb import RocksDBOptions
from quixstreams.state.rocksdb import RocksDBStorePartition as StorePartition
from support.loop import looped

from fraud_service.runtime import bulk_recovery
from fraud_service.runtime.bulk_recovery import BulkRecovery
from fraud_service.runtime.changelogs import PROCESSED


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
    """Stands for Quix's, and for its consumer: gives rows, with None where nothing has arrived."""

    def __init__(self, rows):
        self._rows = list(rows)
        self._position_cache = {"changelog:0": "old"}
        self._read = -1001
        self.partitions: dict = {}
        self.looked: list[int | None] = []  # what is written whenever Quix looks whether it is done
        self.paused: list[tuple[str, int]] = []
        self.sought: list[tuple[str, int]] = []
        self.resumed: list[str] = []
        self.consume = self._arrived
        BulkRecovery(self, SimpleNamespace(_recovery_manager=self), lambda _: self.store, {"in"})

    def poll(self, _timeout):
        row = self._rows.pop(0)
        if isinstance(row, Row):
            self._read = row.offset() + 1
        return row() if callable(row) else row

    def _arrived(self, most, timeout):
        if timeout:
            row = self.poll(timeout)
            return [] if row is None else [row]
        arrived = []
        while self._rows and isinstance(self._rows[0], Row) and len(arrived) < most:
            arrived.append(self.poll(0))
        return arrived

    def position(self, asked):
        return [SimpleNamespace(topic=one.topic, partition=one.partition, offset=self._read) for one in asked]

    def pause(self, places):
        self.paused += [(place.topic, place.offset) for place in places]

    def seek(self, place):
        self.sought.append((place.topic, place.offset))

    def resume(self, places):
        self.resumed += [place.topic for place in places]

    @property
    def recovering(self):
        return bool(self._rows)

    def _update_recovery_status(self):
        assert self._position_cache == {}
        self.looked.append(self.store.get_changelog_offset())

    def recover(self, store, committed=10, end=100):
        self.store = store
        part = RecoveryPartition("changelog", 0, store, {"in": committed}, 0, end)
        self.partitions[0] = {"changelog": part}
        self._recovery_loop()
        return dict(store.get_or_create_column_family("default").items()), store.get_changelog_offset()


@pytest.fixture
def store(tmp_path):
    with looped(tmp_path) as loop:
        yield loop.scorer.app.batches._stream.partition_store(0)


def test_rows_are_recovered_with_their_changelog_offset(store, monkeypatch):
    monkeypatch.setattr(bulk_recovery, "STATUS_POLL_S", 0.0)
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


def test_recovery_ends_when_all_rows_are_read_and_is_checked_regularly_before(store):
    manager = Manager([None, Row(0, b"a", b"1"), None, Row(1, b"a", b"2"), None])
    assert manager.recover(store, end=2) == ({b"a": b"2"}, 1)
    assert manager.looked == [1]  # and not at the two pauses on the way


def test_rows_up_to_the_stored_offset_survive_a_kill(store, monkeypatch, tmp_path):
    """Rows have no log of their own: at a kill, those in memory are lost."""
    monkeypatch.setattr(bulk_recovery, "MAX_ROWS_PER_WRITE", 2)
    monkeypatch.setattr(bulk_recovery, "MAX_ROWS_PER_FLUSH", 3)
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


def test_compaction_starts_after_the_last_row(store, monkeypatch):
    monkeypatch.setattr(bulk_recovery, "MAX_ROWS_PER_WRITE", 1)
    monkeypatch.setattr(bulk_recovery, "MAX_ROWS_PER_FLUSH", 1)
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


def test_a_row_whose_input_was_never_committed_is_skipped(store):
    rows = [Row(0, b"a", b"1", processed=9), Row(1, b"a", b"2", processed=10), None]
    assert Manager(rows).recover(store, committed=10) == ({b"a": b"1"}, 1)


@pytest.mark.parametrize("foreign", [{"__ttl_stamped__": b"\x01"}, {"more": b""}])
def test_quix_handles_a_row_of_another_format_in_order(store, monkeypatch, foreign):
    met = []
    monkeypatch.setattr(
        RecoveryPartition,
        "recover_from_changelog_message",
        lambda _self, changelog_message: met.append((changelog_message.offset(), store.get_changelog_offset())),
    )
    rows = [Row(0, b"a", b"1"), Row(1, b"b", b"2", **foreign), Row(2, b"c", b"3"), None]
    assert Manager(rows).recover(store) == ({b"a": b"1", b"c": b"3"}, 2)
    assert met == [(1, 0)]


def test_rows_of_a_partition_revoked_during_recovery_are_dropped(store):
    rows = [Row(0, b"a", b"1"), lambda: manager.partitions.clear(), Row(1, b"b", b"2"), None]  # noqa: PLW0108 - made below
    manager = Manager(rows)
    assert manager.recover(store) == ({}, None)


def test_rows_read_before_a_rebalance_reassigned_their_partition_are_read_again(store, monkeypatch):
    """The new beginning may lie before it: an offset behind it would pass over rows."""
    monkeypatch.setattr(bulk_recovery, "STATUS_POLL_S", 0.0)

    def give_anew(most, timeout):
        if timeout:
            return manager._arrived(most, timeout)
        manager.partitions[0] = {"changelog": RecoveryPartition("changelog", 0, store, {"in": 10}, 0, 100)}
        manager.consume = manager._arrived
        return [Row(7, b"a", b"7")]

    manager = Manager([Row(6, b"a", b"6"), None, Row(0, b"a", b"1"), None])
    manager.consume = give_anew
    assert manager.recover(store) == ({b"a": b"1"}, 0)
    assert manager.looked == [None, 0]
    assert (manager.sought, manager.resumed) == ([("changelog", OFFSET_BEGINNING)], ["changelog"])


def test_an_event_during_recovery_is_read_again_later_and_another_changelog_is_skipped(store):
    rows = [Row(5, b"k", b"v", topic="in"), Row(0, b"k", b"v", topic="other"), Row(0, b"a", b"1"), None]
    manager = Manager(rows)
    assert manager.recover(store) == ({b"a": b"1"}, 0)
    assert manager.paused == manager.sought == [("in", 5)]


def test_the_client_reads_again_from_the_first_of_several_events(store):
    rows = [Row(0, b"a", b"1"), Row(5, b"k", b"v", topic="in"), Row(6, b"k", b"v", topic="in"), None]
    manager = Manager(rows)
    assert manager.recover(store) == ({b"a": b"1"}, 0)
    assert manager.paused == manager.sought == [("in", 5)]
