"""Repairs an operator asks for by name. Nothing here runs by itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from fraud_service.errors import ConfigurationError, PreflightError
from fraud_service.stream import clients, topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.settings import Settings


def reset(settings: Settings, group: str, *, really: bool) -> Iterator[str]:
    """Make a group start over from the beginning of its inputs; yields what is done, a line each.

    Raises
    ------
    ConfigurationError
        When the group is neither the scorers' nor the learner's.
    PreflightError
        When the group is still running.
    """
    roles = {settings.scorer_group: "scorer_state", settings.learner_group: "learner_state"}
    if group not in roles:
        raise ConfigurationError(f"{group} is not a group of this service: choose one of {', '.join(roles)}")
    (changelog,) = (spec for spec in topics.table(settings) if spec.role == roles[group])
    local = settings.state_dir / group
    yield f"offsets of group {group}: delete"
    yield f"records of {changelog.name}: delete"
    yield f"local state {local}: delete"
    if not really:
        yield "nothing was done: add --yes to do it. Outputs produced before will be produced again"
        return
    _delete_offsets(settings, group)
    _empty(settings, changelog.name)
    shutil.rmtree(local, ignore_errors=True)
    yield "done"


def _delete_offsets(settings: Settings, group: str) -> None:
    admin = clients.admin(settings)
    try:
        (future,) = admin.delete_consumer_groups([group], request_timeout=clients.TIMEOUT).values()
        future.result()
    except KafkaException as error:
        if error.args[0].name() != "GROUP_ID_NOT_FOUND":
            reason = error.args[0].str()
            raise PreflightError(
                f"the offsets of {group} cannot be deleted: {reason}. Stop its processes first"
            ) from error


def _empty(settings: Settings, topic: str) -> None:
    admin = clients.admin(settings)
    numbers = admin.list_topics(topic, timeout=clients.TIMEOUT).topics[topic].partitions
    latest = admin.list_offsets({TopicPartition(topic, number): OffsetSpec.latest() for number in numbers})
    ends = [TopicPartition(place.topic, place.partition, future.result().offset) for place, future in latest.items()]
    for future in admin.delete_records(ends).values():
        future.result()
