"""A stand-in for `confluent_kafka.admin.AdminClient`, as far as Quix and our code use it."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from confluent_kafka import IsolationLevel
from simulation.errors import timed_out
from simulation.host import here

if TYPE_CHECKING:
    from simulation.broker import Broker


class AdminClient:
    """List, describe and create topics."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._host = here.get()
        self._broker = self._host.broker

    def poll(self, timeout: float = 0) -> int:
        """Do nothing: this client has no callbacks."""
        return 0

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Return the topics."""
        return self._host.call("list_topics", lambda: metadata(self._broker), [timed_out])

    def describe_configs(self, resources: list[Any], **_: Any) -> dict[Any, Future[Any]]:
        """Return the settings of topics."""
        return {resource: _done(_entries(self._broker.topics[resource.name])) for resource in resources}

    def list_offsets(self, asked: dict[Any, Any], isolation_level: IsolationLevel, **_: Any) -> dict[Any, Future[Any]]:
        """Return the ends of partitions."""
        logs = {one: self._broker.log((one.topic, one.partition)) for one in asked}
        is_committed = isolation_level == IsolationLevel.READ_COMMITTED

        def effect() -> dict[Any, int]:
            return {one: log.stable_end if is_committed else log.end for one, log in logs.items()}

        ends = self._host.call("list_offsets", effect, [timed_out])
        return {one: _done(SimpleNamespace(offset=end)) for one, end in ends.items()}

    def create_topics(self, wanted: list[Any], **_: Any) -> dict[str, Future[Any]]:
        """Create topics."""
        for topic in wanted:
            self._broker.create(topic.topic, topic.num_partitions, topic.config)
        return {topic.topic: _done(None) for topic in wanted}


def metadata(broker: Broker) -> Any:
    """Return the metadata of the cluster as a client sees it."""
    leader = SimpleNamespace(leader=0, replicas=[0])
    return SimpleNamespace(
        brokers={0: SimpleNamespace(id=0, host="localhost", port=9092)},
        topics={
            name: SimpleNamespace(topic=name, error=None, partitions=dict.fromkeys(range(count), leader))
            for name, count in broker.counts.items()
        },
    )


def _entries(config: dict[str, str]) -> dict[str, Any]:
    return {name: SimpleNamespace(name=name, value=value) for name, value in config.items()}


def _done(result: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(result)
    return future
