"""What the table of topics asks of a cluster before anything starts."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import PreflightError
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


def test_a_larger_message_limit_of_the_models_topic_is_fine_and_a_smaller_one_names_the_setting():
    assert topics.findings(Admin("models", **{"max.message.bytes": "16777216"}), TABLE, replication=1) == []
    (found,) = topics.findings(Admin("models", **{"max.message.bytes": "1048588"}), TABLE, replication=1)
    assert "Set FRAUD_MAX_MODEL_BYTES=1048588 if the cluster allows no more" in found


class Refusing(Admin):
    """An empty cluster that refuses the topic of models, and has no leaders to wait for."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.error = KafkaError(code, "message size exceeded max limit of 8388608")
        self.made: set[str] = set()

    def list_topics(self, timeout: float) -> SimpleNamespace:
        found = super().list_topics(timeout)
        return SimpleNamespace(topics={name: one for name, one in found.topics.items() if name in self.made})

    def create_topics(self, wanted, request_timeout: float) -> dict:
        answers = {one.topic: Future() for one in wanted}
        for name, answer in answers.items():
            if name == "fraud.models.v1":
                answer.set_exception(KafkaException(self.error))
            else:
                self.made.add(name)
                answer.set_result(None)
        return answers


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (
            KafkaError.POLICY_VIOLATION,
            "max.message.bytes=8388608. If that is above the limit of the cluster, set FRAUD_MAX",
        ),
        (KafkaError.INVALID_CONFIG, "set FRAUD_MAX_MODEL_BYTES to the limit"),
        (KafkaError.INVALID_REPLICATION_FACTOR, "set FRAUD_REPLICATION_FACTOR"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "the right to create topics"),
    ],
)
def test_a_refused_topic_names_cause_and_remedy_after_the_others_are_created(code, remedy):
    admin = Refusing(code)
    with pytest.raises(
        PreflightError, match=r"topic fraud\.models\.v1 cannot be created: .*limit of 8388608"
    ) as raised:
        topics.create(admin, TABLE, 1)
    assert remedy in str(raised.value)
    assert admin.made == {spec.name for spec in TABLE} - {"fraud.models.v1"}


def test_added_partitions_are_named_with_the_way_out():
    admin = Admin()
    changed = [msgspec.structs.replace(spec, partitions=6) if spec.role == "labels" else spec for spec in TABLE]
    listed = SimpleNamespace(
        topics={
            spec.name: SimpleNamespace(
                partitions=dict.fromkeys(range(spec.partitions), SimpleNamespace(replicas=[1], leader=1))
            )
            for spec in changed
        }
    )
    admin.list_topics = lambda timeout: listed
    (found,) = topics.findings(admin, TABLE)
    assert "payments.fraud-labels.v1 has 6" in found
    assert "fraud-service recover" in found
