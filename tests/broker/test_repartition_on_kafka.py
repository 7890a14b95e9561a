"""Move a service to more partitions on Apache Kafka. Its scores are those of a service that was not moved."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.processes import Service, environment, fresh_settings, read_all, run_here
from typer.testing import CliRunner

from fraud_service.admin.repartition import require_all_read
from fraud_service.cli import app
from fraud_service.config import factories
from fraud_service.demo.simulator import World, write
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import PreflightError
from fraud_service.domain.in_memory import InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.records import decode_score, encode_record, score_record
from fraud_service.domain.time import DAY
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.training.history import History
from fraud_service.verification import replay
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.verify import verify

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

MOVED = "2024-01-03"  # the day of the history on which it moves


def play(settings, file, folder, *options: str) -> None:
    """Run a service while feeding a part of the history, paced by event time."""
    scorer, learner = (Service.patient(settings, verb, folder / verb) for verb in ("score", "learn"))
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        fed = run_here(settings, "feed", str(file), "--event-time", "--label-delay=1d", *options)
        assert fed.returncode == 0, fed.stderr
        inputs = len(read_all(settings, settings.topics.transactions))
        scorer.wait_until(lambda: len(read_all(settings, settings.topics.scores)) >= inputs, 60)
        learner.wait_until(lambda: is_read(settings), 60)
        assert scorer.stop() == learner.stop() == 0


def is_read(settings) -> bool:
    with TopicReader(settings, "test-read") as reader:
        try:
            require_all_read(settings, reader)
        except PreflightError:
            return False
    return True


def command(settings, *words: str):
    return CliRunner().invoke(app, ["repartition", "--partitions=5", *words], env=environment(settings))


@pytest.fixture(scope="module")
def moved(apache_kafka, tmp_path_factory):
    """Feed two days with two partitions, move to five partitions, and feed two more days."""
    folder = tmp_path_factory.mktemp("repartition")
    file = folder / "history.parquet"
    write(World(seed=3, cards=700, merchants=120, days=4), file)
    old = fresh_settings(apache_kafka.bootstrap, folder, partitions=2).model_copy(
        update={
            "snapshot_interval": timedelta(hours=4),
            "snapshot_activation_delay": timedelta(hours=1),
            "label_maturity": timedelta(days=1),
            "label_rate_limit_per_card": 1000,
        }
    )
    play(old, file, folder / "before", f"--to={MOVED}")

    names = {role: f"{getattr(old.topics, role)}.moved" for role in ("transactions", "labels", "scores")}
    asked = [f"--{role}={name}" for role, name in names.items()]
    assert "nothing was done" in command(old, *asked).stdout
    done = command(old, *asked, "--yes")
    assert done.exit_code == 0, done.output
    assert "done: start with FRAUD_PARTITIONS=5" in done.stdout

    new = old.model_copy(update={"partitions": 5, "topics": old.topics.model_copy(update=names)})
    play(new, file, folder / "after", f"--from={MOVED}")
    return old, new, list(History.open(file))


def test_every_score_equals_that_of_a_service_that_was_not_repartitioned(moved):
    old, new, history = moved
    model = factories.pretrained(new)
    backtest = InMemoryService(
        Detector(model, factories.policy(new)),
        factories.first_snapshot(model),
        factories.learner_factory(model),
        factories.learning_schedule(new),
        NegativeSampler(new.negative_sample_rate),
        DAY,
    )
    expected = {v.transaction.transaction_id: encode_record(score_record(v)) for v in backtest.run(history)}
    found = {
        decode_score(message.value()).transaction_id: message.value()
        for settings in (old, new)
        for message in read_all(settings, settings.topics.scores)
        if message.value() is not None
    }
    assert found == expected


def test_a_repartitioned_service_verifies_and_replays(moved):
    _, new, history = moved
    assert verify(new).is_clean
    found = replay.verify(new, replay.plan(new, TimeRange()))
    assert not found.findings
    assert 0 < found.counts["identical"] + found.counts["from_features"] < len(history)


def test_a_second_repartition_to_the_same_topics_is_rejected(moved):
    old, new, _ = moved
    names = [f"--{role}={getattr(new.topics, role)}" for role in ("transactions", "labels", "scores")]
    assert "already exist" in str(command(old, *names, "--yes").exception)
    same = [f"--{role}={getattr(old.topics, role)}" for role in ("transactions", "labels", "scores")]
    assert "is the present topic" in str(command(old, *same).exception)
