"""Test the service as an operator runs it: failing starts, probes, guarantees, labels, logs, resets and models."""

from __future__ import annotations

import json
import math
import urllib.request

import numpy as np
import pytest

pytest.importorskip("sklearn")

from confluent_kafka import TopicPartition
from support.processes import Service, Tail, fresh_settings, read_all, run_here

from fraud_service.admin import reset
from fraud_service.admin.refit import champion, report
from fraud_service.config import factories
from fraud_service.domain.errors import ConfigurationError, PreflightError
from fraud_service.domain.events import Transaction, encode
from fraud_service.domain.features import NAMES
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.records import RefitRecord, decode_labelled, decode_score
from fraud_service.domain.snapshot import Snapshot, decode_snapshot, untrained
from fraud_service.domain.time import DAY, HOUR, rfc3339
from fraud_service.kafka import clients, consumer_groups, model_topic, topics
from fraud_service.models import artifact
from fraud_service.training.dataset import Examples, TrainingWindow
from fraud_service.training.fit import CANDIDATE_PARAMETERS, FittedForest, fit_forest
from fraud_service.training.pipeline import export

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

START = 1_700_000_000_000 - 1_700_000_000_000 % DAY
CARD = "card-7f3a0c9d55e1"


def payments(count: int, first: int = 0, step: int = HOUR) -> list[Transaction]:
    return [
        Transaction(
            transaction_id=f"t-{number}",
            timestamp=START + number * step,
            card_id=f"{CARD}-{number % 7}",
            merchant_id=f"m-{number % 3}",
            amount=25.0 + number % 5,
            currency="EUR",
        )
        for number in range(first, first + count)
    ]


def send(settings, transactions) -> None:
    producer = clients.producer(settings)
    for transaction in transactions:
        producer.produce(settings.topics.transactions, key=transaction.card_id.encode(), value=encode(transaction))
    assert producer.flush(30) == 0


@pytest.fixture
def settings(apache_kafka, tmp_path):
    return fresh_settings(apache_kafka.bootstrap, tmp_path)


def test_a_missing_topic_stops_the_start_and_names_the_command(settings):
    missing = settings.model_copy(update={"topics": settings.topics.model_copy(update={"risk": "not.there"})})
    done = run_here(missing, "score")
    assert done.returncode == 1
    assert "topic not.there is missing: run `fraud-service topics create`" in done.stderr
    assert "Traceback" not in done.stderr


def test_topics_are_created_once_and_checked(settings):
    assert run_here(settings, "topics", "check").stdout == "all topics are as they should be\n"
    assert run_here(settings, "topics", "create").stdout == "nothing to create\n"
    other = run_here(settings.model_copy(update={"partitions": 9}), "topics", "check")
    assert other.returncode == 0
    assert f"note: inputs, scores and changelogs have {settings.partitions} partitions, and FRAUD_PARTITIONS is 9" in (
        other.stdout
    )
    odd = settings.model_copy(update={"topics": settings.topics.model_copy(update={"labels": "odd.labels"})})
    specs = [spec for spec in topics.topic_specs(odd.model_copy(update={"partitions": 3})) if spec.role == "labels"]
    topics.create(clients.admin(odd), specs, 1)
    done = run_here(odd, "topics", "check")
    assert done.returncode == 1
    assert "odd.labels has 3" in done.stdout


def scored(settings, folder) -> Tail:
    """Score twenty payments and stop; returns a reader of their scores."""
    send(settings, payments(20))
    scorer = Service(settings, "score", folder / "scorer")
    scores = Tail(settings, settings.topics.scores)
    with scorer:
        scorer.wait_until(lambda: len(scores.read()) == 20, 60)
        assert scorer.stop() == 0
    return scores


def test_a_scorer_restarts_from_its_state_and_does_not_start_without_committed_offsets(settings, tmp_path):
    scores = scored(settings, tmp_path)
    consumer_groups.delete_group(settings, settings.scorer_group)
    done = run_here(settings, "score")
    assert done.returncode == 1
    assert f"fraud-service reset {settings.scorer_group}" in done.stderr
    assert "nothing was done" in run_here(settings, "reset", settings.scorer_group).stdout
    assert run_here(settings, "reset", settings.scorer_group, "--yes").stdout.endswith("done\n")
    again = Service(settings, "score", tmp_path / "again")
    with again:
        again.wait_until(lambda: len(scores.read()) == 40, 60)
    first, second = ([decode_score(m.value()) for m in part] for part in (scores.messages[:20], scores.messages[20:]))
    assert {s.transaction_id: s for s in first} == {s.transaction_id: s for s in second}
    scores.close()


def test_a_running_group_is_not_reset(settings, tmp_path):
    scorer = Service(settings, "score", tmp_path / "scorer")
    with scorer:
        scorer.await_ready()
        with pytest.raises(PreflightError, match="still runs: stop its processes"):
            list(reset.reset(settings, settings.scorer_group, really=True))
    with pytest.raises(ConfigurationError, match="not a group of this service"):
        list(reset.reset(settings, "another-service", really=True))


def test_a_scorer_does_not_start_when_unread_records_were_deleted(settings, tmp_path):
    scored(settings, tmp_path).close()
    send(settings, payments(20, first=20))
    partitions = [TopicPartition(settings.topics.transactions, number, -1) for number in range(settings.partitions)]
    topics.delete_records(settings, partitions)
    done = run_here(settings, "score")
    assert done.returncode == 1
    assert "were deleted before they were processed" in done.stderr


def test_a_scorer_does_not_start_when_its_offset_is_beyond_the_end_of_the_topic(settings):
    consumer = clients.reader(settings, settings.scorer_group)
    consumer.commit(offsets=[TopicPartition(settings.topics.transactions, 0, 1000)], asynchronous=False)
    consumer.close()
    done = run_here(settings, "score")
    assert done.returncode == 1
    assert "the topic was deleted and created again" in done.stderr


def test_a_second_learner_is_reported(settings, tmp_path):
    first = Service(settings, "learn", tmp_path / "first")
    second = Service(settings.model_copy(update={"instance_id": "test-1"}), "learn", tmp_path / "second")
    with first:
        first.await_ready()
        with second:
            second.wait_until(lambda: "a second learner runs" in first.log() + second.log(), 90)


def test_a_ready_process_answers_its_probes_and_ends_with_0(settings, tmp_path):
    scorer = Service(settings, "score", tmp_path / "scorer", is_forked=False)
    with scorer:
        scorer.await_ready()
        assert [scorer.status(path) for path in ("/livez", "/readyz", "/startupz", "/metrics", "/x")] == [
            200,
            200,
            200,
            200,
            404,
        ]
        assert scorer.stop() == 0


def test_at_least_once_scores_every_transaction(settings, tmp_path):
    send(settings, payments(50))
    scorer = Service(settings, "score", tmp_path / "scorer", {"FRAUD_PROCESSING_GUARANTEE": "at-least-once"})
    scores = Tail(settings, settings.topics.scores)
    with scorer:
        scorer.wait_until(lambda: len(scores.read()) == 50, 60)
        assert scorer.stop() == 0
    scores.close()


def test_a_label_sent_by_hand_is_learned_and_reaches_the_scorer(settings, tmp_path):
    scorer, learner = Service(settings, "score", tmp_path / "scorer"), Service(settings, "learn", tmp_path / "learner")
    scores = Tail(settings, settings.topics.scores)
    snapshots = Tail(settings, settings.topics.snapshots)
    with scorer, learner:
        send(settings, payments(10))
        scorer.wait_until(lambda: len(scores.read()) == 10, 60)
        moment = rfc3339(START + 12 * HOUR)
        done = run_here(
            settings, "label", "t-3", "--card", f"{CARD}-3", "--fraud", "--source", "chargeback", "--at", moment
        )
        assert done.returncode == 0, done.stderr
        send(settings, payments(1, first=24))
        learner.wait_until(lambda: newest_of(snapshots).as_of == START + 24 * HOUR, 60)
        newest = newest_of(snapshots)
        scorer.wait_until(lambda: gauge(scorer, "fraud_snapshot_as_of_seconds") == newest.as_of / 1000, 30)
        send(settings, payments(1, first=30))
        scorer.wait_until(lambda: len(scores.read()) == 12, 60)
    last = max((decode_score(m.value()) for m in scores.messages), key=lambda score: score.timestamp)
    assert last.snapshot == newest.version
    assert last.features.merchant_fraud_share_30d > 0
    (example,) = [decode_labelled(m.value()) for m in read_all(settings, settings.topics.labelled)]
    assert (example.transaction_id, example.is_fraud, example.source) == ("t-3", True, "chargeback")
    scores.close()
    snapshots.close()


def newest_of(snapshots: Tail) -> Snapshot:
    read = snapshots.read()
    return decode_snapshot(read[-1].value()) if read else untrained("none", OnlineModel.untrained())


def gauge(running: Service, name: str) -> float:
    (line,) = [line for line in metrics(running).splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def metrics(running: Service) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def published_snapshots(settings, folder) -> Tail:
    """Run the whole service over two hundred payments and stop it; returns a reader of its snapshots."""
    scorer, learner = Service(settings, "score", folder / "scorer"), Service(settings, "learn", folder / "learner")
    snapshots = Tail(settings, settings.topics.snapshots)
    with scorer, learner:
        send(settings, payments(200))
        learner.wait_until(lambda: newest_of(snapshots).as_of == START + 199 * HOUR, 90)
        assert scorer.stop() == 0
        assert learner.stop() == 0
    return snapshots


def test_a_new_scorer_reads_the_newest_snapshot_before_its_first_score(settings, tmp_path):
    snapshots = published_snapshots(settings, tmp_path)
    newest = decode_snapshot(snapshots.read()[-1].value())
    send(settings, payments(1, first=201))
    scores = Tail(settings, settings.topics.scores)
    again = Service(settings, "score", tmp_path / "elsewhere")
    with again:
        again.wait_until(lambda: len(scores.read()) == 201, 60)
    last = max((decode_score(m.value()) for m in scores.messages), key=lambda score: score.timestamp)
    assert last.snapshot == newest.version
    assert last.features.count_30d > 20  # the profile came back from the changelog
    assert newest.examples > 0
    scores.close()
    snapshots.close()


def test_logs_are_json_and_contain_no_card_id(settings, tmp_path):
    scorer, learner = Service(settings, "score", tmp_path / "scorer"), Service(settings, "learn", tmp_path / "learner")
    scores = Tail(settings, settings.topics.scores)
    with scorer, learner:
        producer = clients.producer(settings)
        producer.produce(settings.topics.transactions, key=CARD.encode(), value=f'{{"card_id": "{CARD}"'.encode())
        assert producer.flush(30) == 0
        send(settings, payments(50))
        scorer.wait_until(lambda: len(scores.read()) == 50, 60)
        learner.await_ready()
        assert scorer.stop() == 0
        assert learner.stop() == 0
    lines = [line for process in (scorer, learner) for line in process.log().splitlines() if line.startswith("{")]
    assert len(lines) > 4
    for line in lines:
        assert json.loads(line)["level"]
    assert not any(
        "Warning" in line for process in (scorer, learner) for line in process.log().splitlines() if line[:1] != "{"
    )
    assert CARD not in scorer.log() + learner.log()
    scores.close()


def test_a_learner_restarts_when_its_state_has_only_labels(settings, tmp_path):
    learner = Service(settings, "learn", tmp_path / "learner")
    with learner:
        learner.await_ready()
        for number in range(7):
            done = run_here(settings, "label", f"t-{number}", "--card", f"{CARD}-{number}", "--fraud")
            assert done.returncode == 0, done.stderr
        learner.wait_until(lambda: "fraud_labels_early_total 7.0" in metrics(learner), 30)
        assert learner.stop() == 0
        learner.start()
        learner.await_ready()
        assert learner.stop() == 0


def test_an_emptied_topic_of_labels_does_not_delay_snapshots(settings, tmp_path):
    for number in range(7):
        done = run_here(settings, "label", f"t-{number}", "--card", f"{CARD}-{number}", "--fraud")
        assert done.returncode == 0, done.stderr
    partitions = [TopicPartition(settings.topics.labels, number, -1) for number in range(settings.partitions)]
    topics.delete_records(settings, partitions)
    scorer, learner = Service(settings, "score", tmp_path / "scorer"), Service(settings, "learn", tmp_path / "learner")
    snapshots = Tail(settings, settings.topics.snapshots)
    with scorer, learner:
        send(settings, payments(200))
        learner.wait_until(lambda: len(snapshots.read()) > 0, 90)
    snapshots.close()


def test_new_scorers_use_the_snapshots_of_a_reset_learner(settings, tmp_path):
    published_snapshots(settings, tmp_path).close()
    done = run_here(settings, "reset", settings.learner_group, "--yes")
    assert "restart the scorers" in done.stdout, done.stderr
    scorer, learner = Service(settings, "score", tmp_path / "scorer"), Service(settings, "learn", tmp_path / "reset")
    with scorer, learner:
        scorer.await_ready()
        scorer.wait_until(lambda: gauge(scorer, "fraud_snapshot_as_of_seconds") > 0, 90)
        assert gauge(scorer, "fraud_incomplete_snapshots") == 0


@pytest.fixture(scope="module")
def challenger(tmp_path_factory):
    """Fit a small forest that no pod has, as a re-fit would."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(1500, len(NAMES))) * 100
    examples = Examples(rows, rows[:, 0] > 100, np.arange(1500) * HOUR)
    model = fit_forest(examples, CANDIDATE_PARAMETERS[0] | {"n_estimators": 31})
    folder = tmp_path_factory.mktemp("challenger")
    found = {"champion_average_precision": 0.5, "challenger_average_precision": 0.625, "margin": 0.01}
    manifest = export(FittedForest(model, examples, {}, found, DAY), TrainingWindow(0, DAY, DAY), "noise", folder)
    return folder, manifest.version


def test_running_and_new_scorers_use_a_promoted_model_from_its_snapshot_on(settings, tmp_path, challenger):
    folder, version = challenger
    scorer, learner = Service(settings, "score", tmp_path / "scorer"), Service(settings, "learn", tmp_path / "learner")
    scores, snapshots = Tail(settings, settings.topics.scores), Tail(settings, settings.topics.snapshots)
    with scorer, learner:
        send(settings, payments(200))
        learner.wait_until(lambda: len(snapshots.read()) > 20, 90)
        done = run_here(settings, "models", "promote", str(folder))
        assert done.stdout == f"promoted: {version}\n", done.stderr
        learner.wait_until(lambda: f'fraud_learner_model_info{{pretrained="{version}"}} 1.0' in metrics(learner), 30)
        assert math.isnan(gauge(learner, "fraud_refit_challenger_average_precision"))  # nothing was judged
        send(settings, payments(100, first=200))
        scorer.wait_until(lambda: len(scores.read()) == 300, 60)
        learner.wait_until(lambda: decode_snapshot(snapshots.read()[-1].value()).model == version, 60)
        send(settings, payments(30, first=300))
        scorer.wait_until(lambda: len(scores.read()) == 330, 60)
        last = decode_score(scores.messages[-1].value())
        assert last.model == version
        assert gauge(scorer, "fraud_incomplete_snapshots") == 0
        scorer.kill()
    again = Service(settings, "score", tmp_path / "elsewhere")
    with again:
        send(settings, payments(10, first=330))
        again.wait_until(lambda: len(scores.read()) == 340, 60)
    decided = sorted((decode_score(m.value()) for m in scores.messages), key=lambda score: score.timestamp)
    used = [score.model for score in decided]
    assert used == sorted(used, key=lambda model: model == version)  # first the old model, then only the new one
    assert used[-1] == version
    for score in decided:
        if score.snapshot != "untrained":
            named = {decode_snapshot(m.value()).version: decode_snapshot(m.value()).model for m in snapshots.read()}
            assert score.model == named[score.snapshot]
    scores.close()
    snapshots.close()


def test_an_altered_model_is_rejected_and_the_model_before_stays_active(settings, tmp_path, challenger):
    folder, version = challenger
    data = bytearray(artifact.pack(artifact.read(folder)))
    data[len(data) // 2] ^= 1
    model_topic.publish(settings, version, bytes(data))
    learner = Service(settings, "learn", tmp_path / "learner")
    with learner:
        learner.await_ready()
        learner.wait_until(lambda: gauge(learner, 'fraud_rejected_models_total{rejection="invalid"}') == 1, 60)
        assert version not in metrics(learner)


def test_metrics_of_running_and_new_learners_show_a_refit_that_lost(settings, tmp_path):
    def shows_it(learner: Service) -> None:
        learner.wait_until(lambda: gauge(learner, "fraud_refit_seconds") == START / 1000, 30)
        assert gauge(learner, "fraud_refit_champion_average_precision") == 0.75
        assert gauge(learner, "fraud_refit_challenger_average_precision") == 0.625
        assert gauge(learner, 'fraud_rejected_models_total{rejection="invalid"}') == 0

    with Service(settings, "learn", tmp_path / "first") as running:
        running.await_ready()
        report(settings, RefitRecord(START, "forest-1", 0.75, 0.625, 0.01, 14.0, 5000, 50, None))
        shows_it(running)
    with Service(settings, "learn", tmp_path / "second") as later:
        later.await_ready()
        shows_it(later)
    assert champion(settings).version == factories.pretrained(settings).version  # the report of a refit is not a model


def test_a_refit_with_too_few_examples_promotes_nothing(settings, tmp_path):
    published_snapshots(settings, tmp_path).close()
    done = run_here(settings, "refit", "--dry-run")
    found = json.loads(done.stdout)
    assert (found["promoted"], found["challenger"], found["dry_run"]) == (None, None, True)
    assert found["rows"] > 20
    assert read_all(settings, settings.topics.models) == []
