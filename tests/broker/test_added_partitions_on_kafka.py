"""Add partitions to topics of a running service on Apache Kafka: it ends, and says why and what to do."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.admin import NewPartitions
from support.processes import STOP_TIMEOUT, Service, fresh_settings, run_here

from fraud_service.kafka import clients

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(200)]

# By default, clients look for new partitions every five minutes.
REFRESHED_OFTEN = {"FRAUD_KAFKA_CONFIG": json.dumps({"topic.metadata.refresh.interval.ms": "500"})}


@pytest.mark.parametrize(("verb", "role"), [("score", "transactions"), ("learn", "labels")])
def test_a_process_ends_with_the_remedy_when_its_input_gets_partitions(apache_kafka, tmp_path, verb, role):
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path, partitions=2)
    topic = getattr(settings.topics, role)
    with Service.patient(settings, verb, tmp_path / verb, REFRESHED_OFTEN) as running:
        running.await_ready()
        admin = clients.admin(settings)
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
        assert running.process.wait(STOP_TIMEOUT) == 1
        last = json.loads(running.log().splitlines()[-1])["reason"]
    assert last.startswith(f"topic {topic} got partition 2 while the service ran; it had 2 partitions")
    assert "`fraud-service recover`" in last
    again = run_here(settings, verb)
    assert again.returncode == 1
    assert "equally many partitions, but" in again.stderr
    assert f"{topic} has 3" in again.stderr
