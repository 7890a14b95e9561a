"""Test that the simulated broker behaves like Apache Kafka for transactional clients: same assertions for both."""

from __future__ import annotations

import time
from contextlib import contextmanager
from uuid import uuid4

import confluent_kafka
import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewTopic, OffsetSpec
from simulation import admin, consumer, producer
from simulation.broker import Broker
from simulation.host import Host, here

from fraud_service.kafka.partitioner import PARTITIONER


class Simulated:
    """Clients of the simulated broker; waiting moves its clock."""

    Consumer, Producer = consumer.Consumer, producer.Producer

    def __init__(self, _: object) -> None:
        self.broker = Broker()
        here.set(Host(self.broker))
        self.admin = admin.AdminClient({})
        self.options: dict[str, str] = {}

    def now(self) -> float:
        return self.broker.now


class Real:
    """Clients of Apache Kafka."""

    Consumer, Producer = confluent_kafka.Consumer, confluent_kafka.Producer

    def __init__(self, bootstrap: str) -> None:
        self.options = {"bootstrap.servers": bootstrap}
        self.admin = confluent_kafka.admin.AdminClient(self.options)

    def now(self) -> float:
        return time.monotonic()


class Cluster:
    """A topic with two partitions on one of the brokers, and clients that the test closes at the end."""

    def __init__(self, kind: Simulated | Real) -> None:
        self._kind = kind
        self._consumers: list[object] = []
        self.topic, self.group = f"topic-{uuid4().hex[:8]}", f"group-{uuid4().hex[:8]}"
        for future in kind.admin.create_topics([NewTopic(self.topic, num_partitions=2, replication_factor=1)]).values():
            future.result()

    def producer(self, name: str | None = "p", timeout_ms: int = 10_000):
        options = {**self._kind.options, "partitioner": PARTITIONER, "linger.ms": 0}
        if name is not None:
            options |= {"transactional.id": f"{self.topic}-{name}", "transaction.timeout.ms": timeout_ms}
        made = self._kind.Producer(options)
        if name is not None:
            made.init_transactions(30)
        return made

    def consumer(self, isolation: str = "read_committed", **options):
        made = self._kind.Consumer(
            {
                **self._kind.options,
                "group.id": self.group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": isolation,
                "session.timeout.ms": 6000,
                "partition.assignment.strategy": "range",
                **options,
            }
        )
        self._consumers.append(made)
        return made

    def write(self, made, *values: bytes, partition: int = 0) -> None:
        for value in values:
            made.produce(self.topic, value, b"k", partition=partition)
        assert made.flush(30) == 0

    def ends(self) -> tuple[int, int]:
        """Return the last stable offset and the high watermark of partition 0 from the admin client."""
        place = TopicPartition(self.topic, 0)

        def end(isolation: IsolationLevel) -> int:
            (future,) = self._kind.admin.list_offsets({place: OffsetSpec.latest()}, isolation_level=isolation).values()
            return future.result().offset

        return end(IsolationLevel.READ_COMMITTED), end(IsolationLevel.READ_UNCOMMITTED)

    def wait(self, happened, *polled, timeout: float = 40.0) -> None:
        """Poll these clients until `happened`."""
        deadline = self._kind.now() + timeout
        while not happened():
            assert self._kind.now() < deadline, "it did not happen"
            for one in polled:
                one.poll(0.1)
            if not polled:
                time.sleep(0 if isinstance(self._kind, Simulated) else 0.1)
                if isinstance(self._kind, Simulated):
                    here.get().pause(0.1)

    def close(self) -> None:
        for one in self._consumers:
            one.close()


@pytest.fixture(params=["simulated", pytest.param("kafka", marks=pytest.mark.kafka)])
def cluster(request):
    is_simulated = request.param == "simulated"
    kind = Simulated(None) if is_simulated else Real(request.getfixturevalue("apache_kafka").bootstrap)
    made = Cluster(kind)
    yield made
    made.close()


def read(made, topic: str, count: int) -> list[tuple[int, bytes]]:
    """Read `count` records of partition 0, check that there are no more, and return offsets and values."""
    made.assign([TopicPartition(topic, 0, 0)])
    found, empty = [], 0
    while empty < (10 if len(found) >= count else 200):
        message = made.poll(0.1)
        if message is None:
            empty += 1
            continue
        assert message.error() is None
        found.append((message.offset(), message.value()))
    return found


@contextmanager
def raises_code(*codes: int):
    with pytest.raises(KafkaException) as caught:
        yield
    assert caught.value.args[0].code() in codes


def offsets(cluster, value: int) -> list[TopicPartition]:
    return [TopicPartition(cluster.topic, 0, value)]


def committed(made, cluster) -> int:
    (found,) = made.committed([TopicPartition(cluster.topic, 0)], 10)
    return found.offset


def test_an_aborted_transaction_is_invisible_and_markers_use_offsets(cluster):
    made = cluster.producer()
    for values, end in (((b"a", b"b"), made.commit_transaction), ((b"x",), made.abort_transaction), ((b"c",), None)):
        made.begin_transaction()
        cluster.write(made, *values)
        (end or made.commit_transaction)(30)
    reader = cluster.consumer()
    assert read(reader, cluster.topic, 3) == [(0, b"a"), (1, b"b"), (5, b"c")]
    # The position moves past the last marker without a message. On a busy machine, this needs one fetch more.
    cluster.wait(lambda: reader.position([TopicPartition(cluster.topic, 0)])[0].offset == 7, reader)
    assert reader.get_watermark_offsets(TopicPartition(cluster.topic, 0), 10) == (0, 7)
    assert len(read(cluster.consumer("read_uncommitted"), cluster.topic, 4)) == 4


def test_an_open_transaction_holds_back_later_commits(cluster):
    open_one, other = cluster.producer("open"), cluster.producer(None)
    open_one.begin_transaction()
    cluster.write(open_one, b"a")
    cluster.write(other, b"b")
    reader = cluster.consumer()
    assert reader.get_watermark_offsets(TopicPartition(cluster.topic, 0), 10) == (0, 0)
    assert cluster.ends() == (0, 2)
    open_one.commit_transaction(30)
    assert read(reader, cluster.topic, 2) == [(0, b"a"), (1, b"b")]
    cluster.wait(lambda: cluster.ends() == (3, 3))


def test_an_empty_transaction_writes_nothing(cluster):
    made = cluster.producer()
    for end in (made.commit_transaction, made.abort_transaction):
        made.begin_transaction()
        end(30)
    assert cluster.ends() == (0, 0)


def test_a_second_begin_raises_an_error(cluster):
    made = cluster.producer()
    made.begin_transaction()
    with raises_code(KafkaError._STATE):
        made.begin_transaction()


def test_a_successor_aborts_the_open_transaction_and_fences(cluster):
    zombie = cluster.producer("same")
    zombie.begin_transaction()
    cluster.write(zombie, b"zombie")
    heir = cluster.producer("same")
    assert cluster.ends() == (2, 2)  # its record and the abort marker, which comes before the successor begins
    heir.begin_transaction()
    cluster.write(heir, b"heir")
    heir.commit_transaction(30)
    with raises_code(KafkaError._FENCED):
        zombie.commit_transaction(30)
    assert read(cluster.consumer(), cluster.topic, 1) == [(2, b"heir")]


def test_a_transaction_timeout_aborts_and_fences_the_producer(cluster):
    slow = cluster.producer(timeout_ms=1000)
    slow.begin_transaction()
    cluster.write(slow, b"slow")
    cluster.wait(lambda: cluster.ends() == (2, 2))
    with raises_code(KafkaError._FENCED):
        slow.commit_transaction(30)
    assert read(cluster.consumer(), cluster.topic, 0) == []


def joined(cluster, **options):
    """Return a consumer that has joined the group, and the list of its callbacks' calls."""
    calls: list[tuple[str, list[int]]] = []

    def note(what: str):
        return lambda _, places: calls.append((what, sorted(place.partition for place in places)))

    made = cluster.consumer(**options)
    made.subscribe([cluster.topic], on_assign=note("assigned"), on_revoke=note("revoked"), on_lost=note("lost"))
    cluster.wait(lambda: calls, made)
    return made, calls


def test_offsets_are_committed_with_the_transaction_or_not_at_all(cluster):
    member, _ = joined(cluster)
    made = cluster.producer()
    for value, end in ((5, made.abort_transaction), (7, made.commit_transaction)):
        made.begin_transaction()
        cluster.write(made, b"a")
        made.send_offsets_to_transaction(offsets(cluster, value), member.consumer_group_metadata(), 30)
        end(30)
    assert committed(member, cluster) == 7


def test_a_consumer_waits_for_offsets_in_an_open_transaction(cluster):
    member, _ = joined(cluster)
    made = cluster.producer()
    made.begin_transaction()
    cluster.write(made, b"a")
    made.send_offsets_to_transaction(offsets(cluster, 7), member.consumer_group_metadata(), 30)
    with raises_code(KafkaError._TIMED_OUT, KafkaError.UNSTABLE_OFFSET_COMMIT):
        member.committed([TopicPartition(cluster.topic, 0)], 1)
    made.commit_transaction(30)
    assert committed(member, cluster) == 7


def test_a_returning_static_member_keeps_its_partitions_and_fences(cluster):
    member, calls = joined(cluster, **{"group.instance.id": "pod-0"})
    old = member.consumer_group_metadata()
    heir, heirs = joined(cluster, **{"group.instance.id": "pod-0"})
    assert calls == heirs == [("assigned", [0, 1])]
    made = cluster.producer()
    made.begin_transaction()
    cluster.write(made, b"a")
    with raises_code(KafkaError.FENCED_INSTANCE_ID, KafkaError.UNKNOWN_MEMBER_ID):
        made.send_offsets_to_transaction(offsets(cluster, 1), old, 30)
    made.abort_transaction(30)
    made.begin_transaction()
    made.send_offsets_to_transaction(offsets(cluster, 1), heir.consumer_group_metadata(), 30)
    made.commit_transaction(30)


def test_a_new_member_takes_half_and_an_old_generation_cannot_commit(cluster):
    first, calls = joined(cluster, **{"group.instance.id": "pod-0"})
    old = first.consumer_group_metadata()
    second = cluster.consumer(**{"group.instance.id": "pod-1"})
    seen: list[list[int]] = []
    second.subscribe([cluster.topic], on_assign=lambda _, places: seen.append([place.partition for place in places]))
    cluster.wait(lambda: seen and len(calls) == 3, first, second)
    assert calls == [("assigned", [0, 1]), ("revoked", [0, 1]), ("assigned", [0])]
    assert seen == [[1]]
    made = cluster.producer()
    made.begin_transaction()
    cluster.write(made, b"a")
    with raises_code(KafkaError.ILLEGAL_GENERATION):
        made.send_offsets_to_transaction(offsets(cluster, 1), old, 30)
