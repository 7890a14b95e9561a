"""Start a process while its predecessor runs or has an open transaction. `make faults-quick` tests other faults."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition
from support.processes import Service, fresh_settings

from fraud_service.kafka import clients
from fraud_service.processors.learner import TRANSACTION_TIMEOUT_MS

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


@pytest.fixture
def settings(apache_kafka, tmp_path):
    return fresh_settings(apache_kafka.bootstrap, tmp_path)


def test_a_process_ends_with_an_error_when_another_takes_its_instance_id(settings, tmp_path):
    first = Service(settings, "score", tmp_path / "first")
    second = Service(settings, "score", tmp_path / "second")
    with first:
        first.await_ready()
        with second:
            assert first.process.wait(60) == 1
            assert "FRAUD_INSTANCE_ID of its own" in first.log()
            second.await_ready()


def test_a_learner_starts_despite_the_open_transaction_of_its_killed_predecessor(settings, tmp_path):
    """Killed between the offsets and the commit: the group's offsets stay unknown until that transaction has ended."""
    name = f"{settings.learner_group}-{settings.instance_id}"
    timeout = {"transactional.id": name, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    predecessor = clients.producer(settings, timeout)
    predecessor.init_transactions(30)
    predecessor.begin_transaction()
    reader = clients.reader(settings, settings.learner_group)
    place = TopicPartition(settings.topics.scores, 0, 0)
    predecessor.send_offsets_to_transaction([place], reader.consumer_group_metadata(), 30)
    reader.close()
    learner = Service(settings, "learn", tmp_path / "learner")
    with learner:
        learner.wait_until(lambda: learner.status("/readyz") == 200, 30)
        assert learner.stop() == 0
