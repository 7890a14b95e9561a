"""Kill scorer and learner on Apache Kafka. Each record is processed once, and a replay gives identical scores."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from support.malformed import MALFORMED
from support.processes import Service, Tail, fresh_settings, read_all, run_here

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.config import factories
from fraud_service.demo.simulator import World, write
from fraud_service.domain.records import decode_labelled, decode_score
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.kafka import clients
from fraud_service.training.history import History

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import LabelledTransaction

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

TRANSACTIONS = 50_000
PART = 2_500
HOUR = 3_600_000


@dataclass
class Outcome:
    """What the topics hold after the run."""

    settings: Settings
    history: list[LabelledTransaction]


@pytest.fixture(scope="module")
def outcome(apache_kafka, tmp_path_factory):
    """Feed 50,000 transactions with labels; kill scorer and learner in the middle; wait until all is scored.

    The fixture feeds parts, each after the learner has published a snapshot of the part before. So the scores use many
    snapshots, however fast the scorer is. The fixture kills a process during a part. It feeds the transactions that
    close the last boundary when everything before is scored, because no later boundary would learn late records.
    """
    folder = tmp_path_factory.mktemp("loop")
    write(World(seed=7, cards=800, merchants=300, days=30), folder / "history.parquet")
    history = [event for _, event in zip(range(TRANSACTIONS), History.open(folder / "history.parquet"), strict=False)]
    settings = fresh_settings(apache_kafka.bootstrap, folder)
    scorer = Service(settings, "score", folder / "scorer", {"FRAUD_COMMIT_INTERVAL": "500ms"})
    learner = Service(settings, "learn", folder / "learner")
    scores = Tail(settings, settings.topics.scores)
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        killed = {4: scorer, 7: learner, 10: scorer, 14: learner}
        last = history[-1].transaction.timestamp // HOUR * HOUR
        closing = next(number for number, event in enumerate(history) if event.transaction.timestamp >= last)
        begins = [*range(0, closing, PART), closing]
        for number, (begin, end) in enumerate(zip(begins, [*begins[1:], len(history)], strict=True)):
            part = history[begin:end]
            if begin == closing:
                scorer.wait_until(lambda: len(scores.read()) >= closing, 300)
            with HistoryProducer(settings) as feed:
                feed.produce(part, 0)
            if number in killed:
                scorer.wait_until(lambda begin=begin: len(scores.read()) > begin, 300)
                killed[number].kill()
                killed[number].start()
            settle(settings, learner, part[0].transaction.timestamp)
        send_malformed(settings)
        scorer.wait_until(lambda: len(scores.read()) >= len(history), 600)
        settle(settings, learner, last)
        assert scorer.stop() == 0
        assert learner.stop() == 0
    scores.close()
    return Outcome(settings, history)


def send_malformed(settings) -> None:
    producer = clients.producer(settings)
    for value, key, _ in MALFORMED:
        producer.produce(settings.topics.transactions, value=value, key=key)
    assert producer.flush(30) == 0


def settle(settings, learner, timestamp: int) -> None:
    """Wait until the learner has published the snapshot that is due at an event time."""
    wanted = timestamp // HOUR * HOUR
    snapshots = Tail(settings, settings.topics.snapshots)

    def is_published() -> bool:
        read = snapshots.read()
        return bool(read) and decode_snapshot(read[-1].value()).as_of >= wanted

    learner.wait_until(is_published, 300)
    snapshots.close()


def test_every_transaction_has_one_score_or_one_dead_letter(outcome):
    names = outcome.settings.topics
    sent = read_all(outcome.settings, names.transactions)
    scores = [decode_score(m.value()) for m in read_all(outcome.settings, names.scores)]
    letters = [dict(m.headers()) for m in read_all(outcome.settings, names.dead_letters)]
    assert len(sent) == len(outcome.history) + len(MALFORMED)
    assert len(scores) == len(outcome.history)
    assert len({(s.card_id, s.transaction_id) for s in scores}) == len(scores)
    places = {(h["fraud-source-partition"], h["fraud-source-offset"]) for h in letters}
    assert len(places) == len(letters) == len(MALFORMED)
    assert Counter(h["fraud-reason"].decode() for h in letters) == Counter(reason for _, _, reason in MALFORMED)


def test_every_flagged_transaction_has_one_alert(outcome):
    names = outcome.settings.topics
    flagged = {
        s.transaction_id
        for s in (decode_score(m.value()) for m in read_all(outcome.settings, names.scores))
        if s.outcome != "approve"
    }
    alerts = [dict(m.headers()) for m in read_all(outcome.settings, names.alerts)]
    assert len(flagged) > 50
    assert Counter(a["ce_subject"].decode() for a in alerts) == Counter(flagged)
    assert len({a["ce_id"] for a in alerts}) == len(alerts)


def command(settings, *arguments) -> str:
    """Run one command of the command line; returns what it prints."""
    done = run_here(settings, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_replay_computes_identical_scores_with_the_snapshots_they_name(outcome):
    settings = outcome.settings
    found = json.loads(command(settings, "replay"))
    assert found == {"differences": 0, "identical": len(outcome.history), "incomplete_snapshots": 0}
    scores = [decode_score(m.value()) for m in read_all(settings, settings.topics.scores)]
    assert len({score.snapshot for score in scores}) > 10


def test_snapshots_of_a_twice_killed_learner_match_the_labelled_topic(outcome):
    settings = outcome.settings
    proof = json.loads(command(settings, "snapshots", "rebuild"))
    snapshots = [decode_snapshot(m.value()) for m in read_all(settings, settings.topics.snapshots)]
    assert proof == {"rebuilt": len(snapshots), "differing": {}, "not_rebuilt": [], "rejected": []}
    assert snapshots[-1].examples > 20_000


def test_a_flagged_decision_is_explained_from_the_log(outcome):
    settings = outcome.settings
    scores = [decode_score(m.value()) for m in read_all(settings, settings.topics.scores)]
    flagged = [score for score in scores if score.outcome != "approve"][-1]
    case = json.loads(command(settings, "explain", flagged.transaction_id, "--card", flagged.card_id, "--json"))
    assert case["proof"] == "identical"
    assert case["profile"]["payments"] == sum(
        score.card_id == flagged.card_id and score.timestamp < flagged.timestamp for score in scores
    )


def test_every_example_is_learned_once(outcome):
    settings = outcome.settings
    records = [decode_labelled(m.value()) for m in read_all(settings, settings.topics.labelled)]
    first = Counter((r.card_id, r.transaction_id) for r in records if not r.corrects)
    assert max(first.values()) == 1
    scores = [decode_score(m.value()) for m in read_all(settings, settings.topics.scores)]
    newest = max(score.timestamp for score in scores)
    matured = newest // HOUR * HOUR - factories.learning_schedule(settings).label_maturity_ms
    due = {(s.card_id, s.transaction_id) for s in scores if s.timestamp <= matured}
    assert due <= first.keys()


def test_every_label_is_learned_unchanged(outcome):
    settings = outcome.settings
    records = [decode_labelled(m.value()) for m in read_all(settings, settings.topics.labelled)]
    last = decode_snapshot(read_all(settings, settings.topics.snapshots)[-1].value()).as_of
    learned = {r.transaction_id: r.is_fraud for r in sorted(records, key=lambda record: record.known_at)}
    truth = {e.transaction.transaction_id: e.is_fraud for e in outcome.history if e.labelled_at <= last}
    assert sum(truth.values()) > 100
    assert {name: learned.get(name) for name in truth} == truth
