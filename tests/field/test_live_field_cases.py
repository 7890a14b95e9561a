"""Run the cases of ../shared/field that need a broker, on Apache Kafka."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from confluent_kafka import Producer
from support import apache_kafka as kafka
from support.field_cases import case, needs_field
from support.processes import Service, fresh_settings, read_all, run_here
from support.worlds import transaction

from fraud_service.config.settings import Settings
from fraud_service.domain.events import encode

pytestmark = [needs_field, pytest.mark.kafka, pytest.mark.timeout(300)]

POLICY = Path(kafka.__file__).with_name("kafka") / "policy" / "CloudPolicy.java"
CARDS, PAYMENTS = 40, 120


@case("04-equal-labels-crash")
def test_feed_sends_payments_and_labels_of_equal_id_and_time(folder, apache_kafka, tmp_path):
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path)
    rows = {file: len(file.read_text().splitlines()) - 1 for file in folder.glob("*.csv")}
    for file, count in rows.items():
        done = run_here(settings, "feed", str(file))
        assert done.returncode == 3, done.stderr  # no process runs
        assert "everything was sent" in done.stderr
        sent = json.loads(done.stdout)
        assert (sent["transactions"], sent["labels"] + sent["labels_of_the_future"]) == (count, count)
    for topic in (settings.topics.transactions, settings.topics.labels):
        assert len(read_all(settings, topic)) == sum(rows.values())


@pytest.fixture(scope="module", params=[True, False], ids=["rejected", "scored"])
def misplaced(request, apache_kafka, tmp_path_factory):
    """Send payments with librdkafka's default partitioner to a scorer that rejects misplaced ones, or scores them."""
    folder = tmp_path_factory.mktemp("misplaced")
    settings = fresh_settings(apache_kafka.bootstrap, folder)
    options = {"FRAUD_REJECT_WRONG_PARTITION": str(request.param).lower()}
    scorer, learner = (Service.patient(settings, verb, folder / verb, options) for verb in ("score", "learn"))
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        producer, start = Producer({"bootstrap.servers": apache_kafka.bootstrap}), int(time.time() * 1000) - 3_600_000
        for number in range(PAYMENTS):
            paid = transaction(f"t{number}", start + number * 20_000, card_id=f"card-{number % CARDS}")
            producer.produce(settings.topics.transactions, key=paid.card_id, value=encode(paid))
        assert producer.flush(30) == 0
        scorer.wait_until(lambda: sum(len(one) for one in answers(settings)) >= PAYMENTS, 60)
        page = urllib.request.urlopen(f"http://127.0.0.1:{scorer.port}/metrics", timeout=10).read().decode()
        assert [process.stop() for process in (scorer, learner)] == [0, 0]
    (counted,) = [
        line.split()[1] for line in page.splitlines() if line.startswith("fraud_misplaced_transactions_total")
    ]
    return settings, request.param, int(float(counted))


def answers(settings):
    return read_all(settings, settings.topics.scores), read_all(settings, settings.topics.dead_letters)


@case("16-partitioner")
def test_transactions_of_another_partitioner_are_counted_and_named_with_the_remedy(folder, misplaced):
    settings, is_rejected, count = misplaced
    scores, letters = answers(settings)
    assert PAYMENTS / 2 < count < PAYMENTS
    assert (len(scores), len(letters)) == ((PAYMENTS - count, count) if is_rejected else (PAYMENTS, 0))
    options = {"FRAUD_REJECT_WRONG_PARTITION": str(is_rejected).lower()}
    commands = ("verify",), ("replay",), ("explain", "t1", "--card", "card-1")
    verified, replayed, explained = (run_here(settings, *words, **options) for words in commands)
    assert "librdkafka" in explained.stdout + explained.stderr
    assert "set partitioner=murmur2 on its producer" in explained.stdout + explained.stderr
    if is_rejected:
        assert all(dict(one.headers())["fraud-reason"] == b"wrong_partition" for one in letters)
        assert (verified.returncode, replayed.returncode) == (0, 0)
        return
    assert f"wrong: {count} wrong_partition" in verified.stdout
    found = json.loads(replayed.stdout.splitlines()[-1])
    assert (found["wrong_partition"], found["differences"], found["identical"]) == (count, count, PAYMENTS - count)
    assert "score_missing" not in replayed.stdout


@pytest.fixture
def bounded_cluster(kafka_can_run, tmp_path):
    """Give a Kafka that refuses topics whose messages may be larger than 8 MiB."""
    if shutil.which("javac") is None:
        pytest.skip("javac is not installed")
    compiler = ["javac", "-cp", f"{kafka.jars()}/*", "-d", str(tmp_path), str(POLICY)]
    subprocess.run(compiler, check=True, timeout=60)
    policy = "create.topic.policy.class.name=CloudPolicy\nalter.config.policy.class.name=CloudPolicy\n"
    with kafka.ApacheKafka(properties=policy, classes=tmp_path) as broker:
        yield broker


@case("19-cloud-topic-policy")
def test_topics_are_created_on_a_cluster_that_bounds_their_settings(folder, bounded_cluster, tmp_path):
    settings = Settings(bootstrap_servers=bounded_cluster.bootstrap, state_dir=tmp_path, allow_unsigned=True)
    large = settings.model_copy(update={"max_model_bytes": 16 << 20})
    refused = run_here(large, "topics", "create")
    assert refused.returncode == 1
    assert "exceeded max limit of 8388608" in refused.stderr
    assert "set FRAUD_MAX_MODEL_BYTES to the limit, and run `fraud-service topics create` again" in refused.stderr
    assert run_here(settings, "topics", "create").stdout == f"created {settings.topics.models}\n"
    assert run_here(settings, "topics", "check").returncode == 0
    advice = run_here(large, "topics", "check")
    assert advice.returncode == 1
    assert "Set FRAUD_MAX_MODEL_BYTES=8388608 if the cluster allows no more" in advice.stdout
