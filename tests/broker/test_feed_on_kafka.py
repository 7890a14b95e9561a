"""Feed a history to a service on Apache Kafka: checks before the first record, and the report at the end."""

from __future__ import annotations

import json
import time

import pytest
from support.processes import Service, fresh_settings, read_all, run_here
from support.worlds import transaction

from fraud_service.demo.simulator import World, write
from fraud_service.domain.events import encode, facts
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.time import rfc3339
from fraud_service.kafka import clients
from fraud_service.training.history import History

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

OPTIONS = {"FRAUD_SNAPSHOT_INTERVAL": "4h", "FRAUD_LABEL_MATURITY": "1d"}
FEED = ("feed", "--event-time", "--label-delay=1d")


@pytest.fixture(scope="module")
def played(apache_kafka, tmp_path_factory):
    """Send a payment of today, feed a history of 2024, send two payments of today, and feed another history.

    The service refuses the last one. So start the learning again, as the message says.
    """
    folder = tmp_path_factory.mktemp("fed")
    settings = fresh_settings(apache_kafka.bootstrap, folder)
    files = [folder / f"history-{seed}.parquet" for seed in (3, 4)]
    for seed, file in enumerate(files, 3):
        write(World(seed=seed, cards=100, merchants=40, days=4), file)
    done = {"stopped": run_here(settings, *FEED, str(files[0]), **OPTIONS)}
    scorer, learner = (Service.patient(settings, verb, folder / verb, OPTIONS) for verb in ("score", "learn"))
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        send(settings, scorer, "today-1")
        done["history"] = run_here(settings, *FEED, str(files[0]), **OPTIONS)
        done["labelled"] = read_all(settings, settings.topics.labelled)
        done["again"] = run_here(settings, *FEED, str(files[0]), **OPTIONS)
        send(settings, scorer, "today-2", ago_s=5 * 3600)
        send(settings, scorer, "today-3")
        done["old"] = run_here(settings, *FEED, str(files[1]), **OPTIONS)
        assert learner.stop() == 0
        done["reset"] = run_here(settings, "reset", settings.learner_group, "--yes", **OPTIONS)
        done["waiting"] = run_here(settings, "feed", "--label-delay=1d", str(files[1]), **OPTIONS)
        again = Service.patient(settings, "learn", folder / "again", OPTIONS)
        with again:
            again.await_ready()
            again.wait_until(
                lambda: len(read_all(settings, settings.topics.labelled)) > 2.6 * len(done["labelled"]), 120
            )
            assert [process.stop() for process in (scorer, again)] == [0, 0]
    return settings, files, done


def send(settings, scorer, name: str, ago_s: int = 60) -> None:
    before = len(read_all(settings, settings.topics.scores))
    producer = clients.producer(settings)
    paid = transaction(name, (int(time.time()) - ago_s) * 1000, card_id=f"c-{name}")
    producer.produce(settings.topics.transactions, key=paid.card_id, value=encode(paid))
    assert producer.flush(30) == 0
    scorer.wait_until(lambda: len(read_all(settings, settings.topics.scores)) > before, 60)


def test_pacing_by_event_time_says_at_once_which_process_does_not_run(played):
    settings, _, done = played
    assert done["stopped"].returncode == 1
    assert f"No process runs in group {settings.scorer_group}: start `fraud-service score`" in done["stopped"].stderr


def test_a_history_after_a_payment_of_today_is_accepted_and_learned(played):
    _, _, done = played
    assert done["history"].returncode == 0, done["history"].stderr
    said = json.loads(done["history"].stdout)
    assert said["accepted"] == said["transactions"] + said["labels"]
    assert (said["refused"], said["duplicates"], said["reused_ids"]) == (0, 0, 0)
    assert len(done["labelled"]) > said["transactions"] / 2


def test_a_history_that_was_sent_before_is_refused(played):
    _, _, done = played
    assert done["again"].returncode == 2
    assert "has scored payments of this file before" in done["again"].stderr


def test_a_history_that_the_learner_would_forget_is_refused(played):
    _, _, done = played
    assert done["old"].returncode == 2
    assert "the learner forgets payments more than FRAUD_LABEL_RETENTION older" in done["old"].stderr
    assert "--unlearned" in done["old"].stderr


def test_a_history_that_was_refused_is_learned_after_the_remedy_that_the_message_names(played):
    settings, files, done = played
    assert f"`fraud-service reset {settings.learner_group} --yes`" in done["old"].stderr
    assert done["reset"].returncode == 0, done["reset"].stderr
    assert done["waiting"].returncode == 3, done["waiting"].stderr
    assert f"no process runs in it, and group {settings.learner_group} has processed 0 of" in done["waiting"].stderr
    assert json.loads(done["waiting"].stdout)["accepted"] is None
    examples = {facts(decode_labelled(entry.value())) for entry in read_all(settings, settings.topics.labelled)}
    fed = {facts(event.transaction) for event in History.open(files[1])}
    assert len(fed & examples) > len(fed) / 2


def test_missing_topics_stop_a_feed(apache_kafka, tmp_path):
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path)
    names = {"transactions": "missing.transactions", "labels": "missing.labels"}
    elsewhere = settings.model_copy(update={"topics": settings.topics.model_copy(update=names)})
    file = tmp_path / "one.jsonl"
    row = {"transaction_id": "t", "timestamp": rfc3339(1_700_000_000_000), "card_id": "c", "merchant_id": "m"}
    file.write_text(json.dumps(row | {"amount": "1.00", "currency": "EUR"}))
    done = run_here(elsewhere, "feed", str(file))
    assert done.returncode == 1
    assert "topic missing.labels is missing: run `fraud-service topics create`" in done.stderr
    assert "topic missing.transactions is missing" in done.stderr
