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
    """A cluster with all topics as the table has them, but for some settings, and other numbers of partitions."""

    def __init__(
        self, role: str = "", counts: dict[str, int] | None = None, brokers: int = 1, replicas: int = 1, **other: str
    ) -> None:
        self._configs = {spec.name: spec.config() | (other if spec.role == role else {}) for spec in TABLE}
        self._counts = {spec.name: (counts or {}).get(spec.role, spec.partitions) for spec in TABLE}
        self._brokers, self._replicas = brokers, replicas

    def list_topics(self, timeout: float) -> SimpleNamespace:
        partition = SimpleNamespace(replicas=[*range(self._replicas)], leader=1)
        return SimpleNamespace(
            brokers=dict.fromkeys(range(self._brokers)),
            topics={
                name: SimpleNamespace(partitions=dict.fromkeys(range(count), partition))
                for name, count in self._counts.items()
                if count
            },
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


def test_added_partitions_are_named_with_the_remedy():
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


EQUAL = dict.fromkeys(topics.JOINED, 6)


def test_another_number_of_partitions_than_the_setting_is_a_note_with_the_fix():
    cluster = Admin(counts={**EQUAL, "alerts": 6})
    assert topics.findings(cluster, TABLE, replication=1) == []
    (note,) = topics.notes(cluster, TABLE, 1)
    assert "have 6 partitions, and FRAUD_PARTITIONS is 4: the service uses all 6. Set FRAUD_PARTITIONS=6" in note
    assert topics.notes(Admin(), TABLE, 1) == []


def test_joined_topics_with_different_numbers_of_partitions_stop_the_start():
    (found,) = topics.findings(Admin(counts={"labels": 6}), TABLE)
    assert "topics that are joined by card need equally many partitions" in found
    assert topics.notes(Admin(counts={"labels": 6}), TABLE, 1) == []


def test_a_topic_of_alerts_with_other_partitions_is_found_but_does_not_stop_the_start():
    cluster = Admin(counts={"alerts": 3})
    assert topics.findings(cluster, TABLE) == []
    (found,) = topics.findings(cluster, TABLE, replication=1)
    assert "has 3 partitions, that of transactions 4: `verify` needs equally many" in found


def test_missing_topics_are_not_created_with_other_partitions_than_those_they_are_joined_with():
    cluster = Admin(counts={**EQUAL, "learner_state": 0})
    with pytest.raises(PreflightError, match=r"FRAUD_PARTITIONS is 4, .* set FRAUD_PARTITIONS=6\. Nothing was created"):
        topics.create(cluster, TABLE, 1)


def test_a_topic_that_no_record_can_be_written_to_stops_the_start():
    (found,) = topics.findings(Admin("scores", **{"min.insync.replicas": "2"}), TABLE)
    assert "has 1 replicas and min.insync.replicas=2, so no record can be written" in found
    assert topics.findings(Admin("scores", replicas=3, **{"min.insync.replicas": "2"}), TABLE) == []


def test_single_replicas_on_a_cluster_of_several_brokers_are_a_note():
    (note,) = topics.notes(Admin(brokers=3), TABLE, 1)
    assert "a single replica on a cluster of 3 brokers" in note
    assert "FRAUD_REPLICATION_FACTOR=3" in note
    assert topics.notes(Admin(brokers=3, replicas=3), TABLE, 3) == []
