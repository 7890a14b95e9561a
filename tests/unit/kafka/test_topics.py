"""What the table of topics asks of a cluster before anything starts."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from fraud_service.config.settings import Settings
from fraud_service.kafka import topics
from fraud_service.models import artifact

TABLE = topics.topic_specs(Settings())


class Admin:
    """A cluster with all topics as the table has them, but for some settings."""

    def __init__(self, role: str = "", **other: str) -> None:
        self._configs = {spec.name: spec.config() | (other if spec.role == role else {}) for spec in TABLE}

    def list_topics(self, timeout: float) -> SimpleNamespace:
        partition = SimpleNamespace(replicas=[1], leader=1)
        return SimpleNamespace(
            topics={
                spec.name: SimpleNamespace(partitions=dict.fromkeys(range(spec.partitions), partition))
                for spec in TABLE
            }
        )

    def describe_configs(self, resources, request_timeout: float) -> dict:
        found = {}
        for resource in resources:
            found[resource] = Future()
            config = self._configs[resource.name]
            found[resource].set_result({name: SimpleNamespace(value=value) for name, value in config.items()})
        return found


def test_a_cluster_like_the_table_has_no_findings():
    assert topics.findings(Admin(), TABLE) == topics.findings(Admin(), TABLE, replication=1) == []


@pytest.mark.parametrize(
    "other",
    [
        {"retention.ms": "34560000000"},
        {"retention.bytes": "1073741824"},
        {"cleanup.policy": "compact"},
        {"message.timestamp.type": "CreateTime"},
    ],
    ids=str,
)
def test_a_model_topic_from_which_records_expire_stops_the_start_and_names_the_fix(other):
    (name,) = other
    (found,) = topics.findings(Admin("models", **other), TABLE)
    assert f"--alter --topic fraud.models.v1 --add-config {name}=" in found


def test_a_longer_retention_of_other_topics_does_not_stop_the_start():
    other = Admin("scores", **{"retention.ms": "99999999999"})
    assert topics.findings(other, TABLE) == []
    assert len(topics.findings(other, TABLE, replication=1)) == 1


def test_a_backdated_risk_row_cannot_remove_another_at_once():
    (found,) = topics.findings(Admin("risk", **{"message.timestamp.type": "CreateTime"}), TABLE)
    assert "LogAppendTime" in found


def test_the_largest_model_fits_into_a_record_of_its_topic():
    assert artifact.MAX_BYTES == topics.MAX_MODEL_BYTES
