"""Repairs an operator asks for by name. Nothing here runs by itself."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import msgspec
from confluent_kafka import KafkaException

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
    yield f"topic {changelog.name}: delete and create anew"
    yield f"local state {local}: delete"
    if not really:
        yield "nothing was done: add --yes to do it. Outputs produced before will be produced again"
        return
    _delete_offsets(settings, group)
    _create_anew(settings, changelog)
    shutil.rmtree(local, ignore_errors=True)
    yield "done"


def _delete_offsets(settings: Settings, group: str) -> None:
    """Delete the group; a member that was stopped stays in it until its session ends, so that is waited for."""
    admin = clients.admin(settings)
    deadline = time.monotonic() + settings.session_timeout + 5
    while True:
        try:
            (future,) = admin.delete_consumer_groups([group], request_timeout=clients.TIMEOUT).values()
            future.result(clients.TIMEOUT)
        except KafkaException as error:
            name, reason = error.args[0].name(), error.args[0].str()
            if name == "GROUP_ID_NOT_FOUND":
                return
            if name != "NON_EMPTY_GROUP" or time.monotonic() > deadline:
                raise PreflightError(f"group {group} cannot be deleted: {reason}. Stop its processes first") from error
            time.sleep(0.5)
        else:
            return


def _create_anew(settings: Settings, changelog: topics.TopicSpec) -> None:
    """Delete a topic and create it again as it was: records of a compacted topic cannot be deleted otherwise."""
    admin = clients.admin(settings)
    there = admin.list_topics(timeout=clients.TIMEOUT).topics.get(changelog.name)
    if there is None:
        return
    replication = len(there.partitions[0].replicas)
    try:
        admin.delete_topics([changelog.name], request_timeout=clients.TIMEOUT)[changelog.name].result(clients.TIMEOUT)
    except KafkaException as error:
        raise PreflightError(f"topic {changelog.name} cannot be deleted: {error.args[0].str()}") from error
    deadline = time.monotonic() + clients.TIMEOUT
    while changelog.name in admin.list_topics(timeout=clients.TIMEOUT).topics and time.monotonic() < deadline:
        time.sleep(0.1)
    spec = msgspec.structs.replace(changelog, partitions=len(there.partitions))
    topics.create(admin, [spec], replication)
