"""Batches give what single messages give, whatever the bounds, and nothing collected is lost to a rebalance."""

from __future__ import annotations

import pytest
from quixstreams import Application
from support.driver import MemoryTopics
from support.loop import looped
from support.malformed import BROKER_TIME, MALFORMED
from support.payments import payment
from support.polled import Client, Polled

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.events import encode
from fraud_service.domain.profile import SCHEMA, Profile, encode_profile
from fraud_service.domain.records import decode_score
from fraud_service.kafka.messages import Output, Received
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.runtime import batching
from fraud_service.runtime.application import FraudApplication
from fraud_service.runtime.batching import MAX_BATCH, TXN_MARKER_DELAY_S, Batches
from fraud_service.runtime.health import Health
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
from fraud_service.runtime.stream import Processing, StreamAccess, StreamSpec


def play(folder, batch: int):
    """Payments of few cards, some twice, with malformed messages between them; returns everything that came out."""
    with looped(folder) as loop:
        loop.scorer.batch = batch
        for number in range(120):
            loop.transaction(payment(number, f"c-{number % 3}"))
            if number % 10 == 0:
                loop.transaction(payment(max(number - 3, 0), f"c-{max(number - 3, 0) % 3}"))
            loop.raw(*MALFORMED[number % len(MALFORMED)][:2])
            if number % 50 == 49:
                loop.tick()
        loop.tick()
        return {topic: loop.on(topic) for topic in ("scores", "alerts", "dead_letters")}


@pytest.mark.parametrize("batch", [2, 7, 64, 1000])
def test_the_bounds_of_batches_change_no_bit_of_what_comes_out(tmp_path, batch):
    assert play(tmp_path / "batches", batch) == play(tmp_path / "single", 1)


def test_a_card_on_two_partitions_keeps_two_profiles_within_one_batch(tmp_path):
    def scores(batch: int):
        with looped(tmp_path / str(batch), reject_wrong_partition=False) as loop:
            loop.scorer.batch = batch
            for number in range(12):
                one = payment(number)
                loop.scorer.send(
                    loop.settings.topics.transactions, b"c-1", encode(one), BROKER_TIME, partition=number % 2
                )
            loop.tick()
            return [decode_score(record.value) for record in loop.on("scores")]

    found = scores(12)
    assert found == scores(1)
    assert found[-1].features.count_30d == 5  # not 11: the other six lie on the other partition


def test_state_of_another_version_stops_the_scorer_before_anything_is_written_beside_it(tmp_path):
    """An upgrade that was a mistake: with a few new cards in the new form, the old version could not go on either."""
    names = [f"c-{number}" for number in range(40)]
    old, new = [name for name in names if murmur2_partition(name.encode(), 4) == 0][:2]
    with looped(tmp_path) as loop:
        (stream_id,) = loop.scorer.app._state_manager.stores
        state = loop.scorer._context.checkpoint.get_store_transaction(stream_id, 0).as_state(prefix=old.encode())
        state.set_bytes("profile", encode_profile(Profile(schema=SCHEMA + 1)))
        loop.scorer.commit()
    with looped(tmp_path) as loop:
        with pytest.raises(InvalidRecord, match=f"schema {SCHEMA + 1}; this version reads {SCHEMA}"):
            loop.transaction(payment(0, new))
        loop.scorer._batch.clear()
        loop.scorer.commit()
        assert loop.on("scores") == []


OUTPUTS = {"scores": "out"}


def echo(batch, state_of):
    return [[Output("scores", message.key, b"%d" % message.offset)] for message in batch]


def test_a_batch_takes_all_arrived_messages_and_waits_only_for_the_first():
    client = Client(5)
    batched = Batches(StreamAccess(client, "in", OUTPUTS), echo)
    assert batched.tick(0.2)
    assert [record["value"] for record in client.produced] == [b"0", b"1", b"2", b"3", b"4"]
    assert {(record["topic"], record["timestamp"]) for record in client.produced} == {("out", 5)}
    assert client.stored == [("in", 0, 4)]
    assert client.timeouts == [0.2, 0, 0, 0, 0, 0]
    assert not batched.tick(0.2)


def test_the_size_of_a_batch_is_limited():
    client = Client(MAX_BATCH + 10)
    batched = Batches(StreamAccess(client, "in", OUTPUTS), echo)
    batched.tick(0.2)
    assert len(client.produced) == MAX_BATCH


@pytest.fixture
def once(monkeypatch):
    """A client of a service that is exactly-once, with three messages waiting, and its batches."""
    client = Client(3)
    client.exactly_once = True
    monkeypatch.setattr(batching.time, "monotonic", client.monotonic)
    monkeypatch.setattr(batching.time, "sleep", client.sleep)
    return client, Batches(StreamAccess(client, "in", OUTPUTS), echo, checkpoint_started=lambda: client._created_at)


def test_exactly_once_an_idle_stream_commits_at_once(once):
    client, batched = once
    assert batched.tick(0.05)
    assert client.commits == []
    assert not batched.tick(0.05)
    assert client.timeouts[-1] == 0  # the readers of three scores wait
    assert client.commits == [[("in", 0, 2)]]
    assert not batched.tick(0.05)
    assert client.timeouts[-1] == 0.05
    assert len(client.commits) == 1


def test_no_more_than_half_of_the_time_goes_into_early_commits(once):
    client, batched = once
    batched.tick(0.05)
    batched.tick(0.05)
    client.waiting = [Polled(3)]
    batched.tick(0.05)
    client.clock += 0.015 - TXN_MARKER_DELAY_S  # which it waited for already
    assert not batched.tick(0.05)
    assert len(client.commits) == 1
    assert client.timeouts[-1] == pytest.approx(0.005)
    client.clock += 0.005
    assert not batched.tick(0.05)
    assert len(client.commits) == 2


@pytest.mark.parametrize(
    ("worked", "waits"), [(0.0, TXN_MARKER_DELAY_S), (0.001, TXN_MARKER_DELAY_S - 0.001), (0.1, 0.0)]
)
def test_a_transaction_begins_only_when_the_last_one_has_had_the_time_to_end(once, worked, waits):
    client, batched = once
    batched.tick(0.05)
    batched.tick(0.05)
    client.waiting = [Polled(3)]
    client.clock += worked
    before = client.clock
    batched.tick(0.05)
    assert len(client.produced) == 4
    assert client.clock - before == pytest.approx(waits)


def test_at_least_once_a_batch_does_not_wait_for_the_last_transaction(once):
    client, batched = once
    client.exactly_once, client._created_at = False, client.clock
    batched.tick(0.05)
    assert client.clock == client._created_at


def test_at_least_once_an_idle_stream_does_not_commit_early():
    client = Client(3)
    batched = Batches(StreamAccess(client, "in", OUTPUTS), echo)
    assert [batched.tick(0.2), batched.tick(0.2)] == [True, False]
    assert (client.commits, client.timeouts[-1]) == ([], 0.2)


STUB = {"topic_manager": MemoryTopics(1, "fraud-scorer")}


@pytest.fixture
def app(tmp_path):
    """An application whose processor echoes; it reads from the client that a test gives it."""
    spec = StreamSpec("fraud-scorer", ("in",), {}, "at-least-once", 1.0)
    settings = Settings(state_dir=tmp_path)
    return FraudApplication(settings, spec, lambda _: Processing(echo), Health(), ScorerMetrics(Metrics()), **STUB)


def test_a_collected_batch_is_processed_before_its_partition_is_revoked(app, monkeypatch):
    order = []
    client = Client(3, {3: lambda: app._on_revoke(None, [])})  # before the third message
    monkeypatch.setattr(Application, "_on_revoke", lambda *_: order.append(list(client.stored)))
    monkeypatch.setattr(app, "batches", Batches(StreamAccess(client, "in", OUTPUTS), echo))
    app.batches.tick(0.2)
    assert order == [[("in", 0, 1)]]
    assert client.stored == [("in", 0, 1), ("in", 0, 2)]


def test_after_a_failure_the_next_owner_processes_the_collected_batch(app, monkeypatch):
    client = Client(1)
    monkeypatch.setattr(Application, "_on_revoke", lambda *_: None)
    monkeypatch.setattr(app, "batches", Batches(StreamAccess(client, "in", OUTPUTS), echo))
    app.batches._collected.append(Received("in", 0, 0, b"k", b"v", 5))
    app.stop(fail=True)
    app._on_revoke(None, [])
    assert client.stored == []
