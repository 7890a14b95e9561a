"""Feed a history through Apache Kafka, paced by event time. The scores equal those of the backtest, byte for byte."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from support.processes import Service, environment, fresh_settings, read_all, run_here
from support.replayed import other_model
from support.worlds import transaction
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.config import factories
from fraud_service.demo.simulator import World, write
from fraud_service.domain.detector import Detector
from fraud_service.domain.events import encode
from fraud_service.domain.in_memory import InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.records import decode_score, encode_record, score_record
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.domain.time import DAY, HOUR, instant
from fraud_service.kafka import clients, model_topic, topics
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.registry import ModelRegistry
from fraud_service.training.history import History
from fraud_service.verification import replay
from fraud_service.verification.decisions import TimeRange

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

# A delay of an hour: a payment must close each boundary before, and at night there is not one every quarter of an hour.
INTERVAL = 4 * HOUR
OPTIONS = {"FRAUD_SNAPSHOT_INTERVAL": "4h", "FRAUD_SNAPSHOT_ACTIVATION_DELAY": "1h", "FRAUD_LABEL_MATURITY": "1d"}


PROMOTION = "2024-01-03"  # the day of the history before which another model is promoted


@pytest.fixture(scope="module")
def outcome(apache_kafka, tmp_path_factory):
    """Feed a service with two scorers, paced by event time. Promote another model in the middle of the history."""
    folder = tmp_path_factory.mktemp("paced")
    file = folder / "history.parquet"
    write(World(seed=3, cards=700, merchants=120, days=4), file)
    settings = fresh_settings(apache_kafka.bootstrap, folder).model_copy(
        update={
            "snapshot_interval": timedelta(hours=4),
            "snapshot_activation_delay": timedelta(hours=1),
            "label_maturity": timedelta(days=1),
        }
    )
    second = settings.model_copy(update={"instance_id": "test-1"})
    scorers = [Service.patient(one, "score", folder / one.instance_id, OPTIONS) for one in (settings, second)]
    learner = Service(settings, "learn", folder / "learner", OPTIONS)
    with scorers[0], scorers[1], learner:
        for process in (*scorers, learner):
            process.await_ready()
        feed = ["feed", str(file), "--event-time", "--label-delay=1d"]
        fed = command(settings, *feed, f"--to={PROMOTION}")["transactions"]
        learner.wait_until(lambda: newest_boundary(settings) >= last_boundary(file, PROMOTION), 60)
        model_topic.publish(settings, other_model().manifest.version, artifact.pack(other_model()))
        fed += command(settings, *feed, f"--from={PROMOTION}")["transactions"]
        count = len(History.open(file))
        scorers[0].wait_until(lambda: len(read_all(settings, settings.topics.scores)) >= count, 60)
        assert [process.stop() for process in (*scorers, learner)] == [0, 0, 0]
    assert fed == count
    return settings, list(History.open(file))


def command(settings, *words: str) -> dict:
    done = run_here(settings, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def last_boundary(file, end: str) -> int:
    """Return the last boundary that the history passes before a day, epoch milliseconds."""
    last = max(event.transaction.timestamp for event in History.open(file, end=instant(f"{end}T00:00:00Z", "end")))
    return last - last % INTERVAL


def newest_boundary(settings) -> int:
    return max((decode_snapshot(m.value()).as_of for m in read_all(settings, settings.topics.snapshots)), default=-1)


def test_a_fast_paced_replay_gives_the_scores_of_the_backtest(outcome):
    settings, history = outcome
    model = factories.pretrained(settings)
    detector = Detector(model, factories.policy(settings))
    backtest = InMemoryService(
        detector,
        factories.first_snapshot(model),
        factories.learner_factory(model),
        factories.learning_schedule(settings),
        NegativeSampler(settings.negative_sample_rate),
        DAY,
    )
    promoted = OnnxForest(other_model())
    models = ModelRegistry(
        model,
        on_activated=lambda active: backtest.promote(active, factories.learner_factory(active)),
        detector=detector,
        snapshots=backtest.snapshots,
    )

    def promote(result) -> None:
        if result.as_of + INTERVAL == instant(f"{PROMOTION}T00:00:00Z", "promotion"):
            models.activate(promoted)

    assessments = backtest.run(history, promote)
    expected = {one.transaction.transaction_id: encode_record(score_record(one)) for one in assessments}
    scores = {decode_score(m.value()).transaction_id: m.value() for m in read_all(settings, settings.topics.scores)}
    snapshots = {decode_score(value).snapshot for value in scores.values()}
    assert len(snapshots) > 15
    assert any(decode_score(value).online_logit != decode_score(value).pretrained_logit for value in scores.values())
    assert {name: scores.get(name) for name in expected} == expected
    assert {decode_score(value).model for value in scores.values()} == {model.version, promoted.version}


def test_no_score_of_a_paced_replay_is_stale(outcome):
    settings, _ = outcome
    assert not any(decode_score(m.value()).is_stale for m in read_all(settings, settings.topics.scores))


@pytest.fixture(scope="module")
def recovered(apache_kafka, tmp_path_factory, outcome):
    """Rebuild the service with five partitions instead of four, from its input topics alone."""
    lost, _ = outcome
    producer = clients.producer(lost)
    future = transaction("t-future", 4_000_000_000_000, card_id="c-future")
    for key, value in ((b"c-broken", b"no payment"), (b"c-future", encode(future))):
        producer.produce(lost.topics.transactions, key=key, value=value)
    assert producer.flush(30) == 0
    folder = tmp_path_factory.mktemp("recovered")
    settings = fresh_settings(apache_kafka.bootstrap, folder, partitions=5).model_copy(
        update={
            "snapshot_interval": timedelta(hours=4),
            "snapshot_activation_delay": timedelta(hours=1),
            "label_maturity": timedelta(days=1),
        }
    )
    scorer, learner = (Service.patient(settings, verb, folder / verb, OPTIONS) for verb in ("score", "learn"))
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        sources = [f"--from-transactions={lost.topics.transactions}", f"--from-labels={lost.topics.labels}"]
        recover = ["recover", f"--from-models={lost.topics.models}"]
        done = command(settings, *recover, *sources)
        wanted = len(read_all(lost, lost.topics.snapshots))
        learner.wait_until(lambda: len(read_all(settings, settings.topics.snapshots)) >= wanted, 60)
        assert scorer.stop() == learner.stop() == 0
    return settings, done


def test_a_rebuilt_service_gives_the_same_scores(outcome, recovered):
    (lost, history), (again, counts) = outcome, recovered
    assert counts == {
        "transactions": len(history) + 1,
        "labels": len(history),
        "models": 1,
        "future": 1,
        "too_large": 0,
    }
    scores = [by_transaction(settings) for settings in (lost, again)]
    assert len(scores[0]) == len(history)
    assert scores[0] == scores[1]
    (letter,) = read_all(again, again.topics.dead_letters)
    assert letter.value() == b"no payment"


def by_transaction(settings) -> dict[str, bytes]:
    scores = read_all(settings, settings.topics.scores)
    return {decode_score(message.value()).transaction_id: message.value() for message in scores}


@pytest.mark.parametrize("role", ["snapshots", "risk", "scorer_state"])
def test_a_rebuilt_service_has_the_same_state(outcome, recovered, role):
    def newest(settings) -> dict[bytes, bytes]:
        (name,) = (spec.name for spec in topics.topic_specs(settings) if spec.role == role)
        return {message.key(): message.value() for message in read_all(settings, name)}

    lost, again = newest(outcome[0]), newest(recovered[0])
    assert len(lost) > 20
    assert lost == again


def test_an_erased_card_starts_without_a_profile_and_replay_reports_it(outcome):
    settings, history = outcome
    last = history[-1].transaction.timestamp
    erased, kept = sorted({event.transaction.card_id for event in history})[:2]

    def erase(*options: str) -> str:
        done = CliRunner().invoke(app, ["erase", "--card", erased, *options], env=environment(settings))
        return done.stdout

    assert "nothing was done" in erase()
    assert erase("--yes").startswith("profiles: 1, rows of the learner: ")
    assert erase().startswith("profiles: 0, rows of the learner: 0\nno row of ")
    with Service.patient(settings, "score", settings.state_dir / settings.instance_id, OPTIONS) as scorer:
        scorer.await_ready()
        producer = clients.producer(settings)
        for card in (erased, kept):
            paid = transaction(f"after-{card}", last + 60_000, card_id=card)
            producer.produce(settings.topics.transactions, key=card, value=encode(paid))
        assert producer.flush(30) == 0
        scorer.wait_until(lambda: len(by_transaction(settings)) == len(history) + 2, 60)
        assert scorer.stop() == 0
    ages = [decode_score(by_transaction(settings)[f"after-{card}"]).features.card_age_days for card in (erased, kept)]
    assert ages[0] == 0 < ages[1]
    found = replay.verify(settings, replay.plan(settings, TimeRange()))
    assert not found.findings
    assert found.counts["cards_forgotten"] == 1
    assert found.counts["identical"] == len(history) + 2
