"""Reset a consumer group: delete its offsets, its state and the topics that depend on them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from fraud_service.domain.errors import ConfigurationError, PreflightError
from fraud_service.kafka import clients, consumer_groups, topics
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.config.settings import Settings


def reset(settings: Settings, group: str, *, really: bool) -> Iterator[str]:
    """Make a stopped group start again at the beginning of its inputs. Yields one line for each step."""
    roles = {
        settings.scorer_group: {"scorer_state"},
        # The snapshots of a new learner do not match the risk rows of the old one, so scorers would reject them.
        settings.learner_group: {"learner_state", "risk", "snapshots"},
    }
    if group not in roles:
        raise ConfigurationError(f"{group} is not a group of this service: choose one of {', '.join(roles)}")
    renewed = [spec for spec in topics.topic_specs(settings) if spec.role in roles[group]]
    local = settings.state_dir / group
    yield f"offsets of group {group}: delete"
    for spec in renewed:
        yield f"topic {spec.name}: delete and create again"
    yield f"local state {local}: delete"
    if not really:
        yield "nothing was done: add --yes to do it. The service will produce all its outputs again"
        return
    consumer_groups.delete_group(settings, group)
    for spec in renewed:
        _recreate(settings, spec)
    shutil.rmtree(local, ignore_errors=True)
    if group == settings.learner_group:
        yield "restart the scorers: they hold the snapshots of the old learner in memory"
    yield "done"


def _recreate(settings: Settings, spec: topics.TopicSpec) -> None:
    """Delete a topic and create it again, because records of a compacted topic cannot be deleted."""
    admin = clients.admin(settings)
    topic = admin.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics.get(spec.name)
    if topic is None:
        return
    with clients.kafka_errors_as(PreflightError, f"topic {spec.name} cannot be deleted"):
        (answer,) = admin.delete_topics([spec.name], request_timeout=clients.REQUEST_TIMEOUT_S).values()
        answer.result(clients.REQUEST_TIMEOUT_S)

    def is_gone() -> bool:
        return spec.name not in admin.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics

    if not wait_until(is_gone, clients.REQUEST_TIMEOUT_S):
        raise PreflightError(
            f"topic {spec.name} is still there {clients.REQUEST_TIMEOUT_S:.0f} s after its deletion: run reset again"
        )
    again = msgspec.structs.replace(spec, partitions=len(topic.partitions))
    topics.create(admin, [again], len(topic.partitions[0].replicas))
