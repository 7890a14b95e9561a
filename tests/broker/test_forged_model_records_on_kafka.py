"""Scorer and learner start and work despite forged records on the topics of models, snapshots and risk."""

from __future__ import annotations

import urllib.request

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from support import librdkafka
from support.forged import RECORDS
from support.processes import Service, environment, fresh_settings, read_all
from support.worlds import HOUR, MONDAY, transaction
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.domain.events import encode
from fraud_service.kafka import clients, model_topic, sender, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def metric(process, name: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture(params=["unsigned", "signed"])
def settings(request, apache_kafka, tmp_path):
    found = fresh_settings(apache_kafka.bootstrap, tmp_path)
    if request.param == "unsigned":
        return found
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/2026").write_text("k" * 64)
    return found.model_copy(update={"signing_key_dir": tmp_path / "keys", "deployment": "test"})


def test_scorer_and_learner_start_despite_forged_records_and_follow_the_switch(settings, tmp_path):
    producer = clients.producer(settings)
    for role, sent in RECORDS.items():
        model_topic.deliver(settings, [sender.OutgoingRecord(getattr(settings.topics, role), *one) for one in sent])
    with librdkafka.Sender(settings.bootstrap_servers) as client:
        for role in RECORDS:
            client.send(getattr(settings.topics, role), b"forest-4", b"junk", b"fraud-\xff")
    scorer, learner = Service(settings, "score", tmp_path / "s"), Service(settings, "learn", tmp_path / "l")
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        assert metric(scorer, "fraud_rejected_snapshots_total") >= 13
        assert metric(learner, "fraud_rejected_models_total") >= 6
        done = CliRunner().invoke(app, ["online", "off"], env=environment(settings), catch_exceptions=False)
        assert done.stdout.endswith("the online model is off\n")
        scorer.wait_until(lambda: metric(scorer, "fraud_online_switch") == 0, 30)
        paid = transaction("t-1", MONDAY + HOUR, card_id="c-1", merchant_id="m-1")
        producer.produce(settings.topics.transactions, key=b"c-1", value=encode(paid))
        assert producer.flush(30) == 0
        scorer.wait_until(lambda: len(read_all(settings, settings.topics.scores)) == 1, 60)
        assert scorer.stop() == learner.stop() == 0


def test_an_unsigned_record_does_not_change_the_switch_and_a_topic_with_retention_is_reported(apache_kafka, tmp_path):
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/2026").write_text("k" * 64)
    settings = settings.model_copy(update={"signing_key_dir": tmp_path / "keys", "deployment": "test"})
    CliRunner().invoke(app, ["online", "off"], env=environment(settings), catch_exceptions=False)
    producer = clients.producer(settings)
    producer.produce(settings.topics.models, key=model_topic.SWITCH_KEY, value=b'{"online":true,"at":1}')
    assert producer.flush(30) == 0
    scorer = Service(settings, "score", tmp_path / "scorer")
    with scorer:
        scorer.await_ready()
        assert metric(scorer, "fraud_online_switch") == 0
        assert scorer.stop() == 0
    admin = clients.admin(settings)
    expiring = ConfigEntry("retention.ms", "60000", incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, settings.topics.models, incremental_configs=[expiring])
    for done in admin.incremental_alter_configs([topic]).values():
        done.result()
    (found,) = topics.findings(admin, topics.topic_specs(settings))
    assert f"--alter --topic {settings.topics.models} --add-config retention.ms=-1" in found
