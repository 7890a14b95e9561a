"""Run the verifier on Apache Kafka, after malformed messages and a kill, and on an altered volume."""

from __future__ import annotations

import shutil
import urllib.request
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rocksdict import Options, Rdict
from support.malformed import MALFORMED
from support.processes import Service, Tail, fresh_settings, read_all
from support.worlds import HOUR, MONDAY, transaction

from fraud_service.domain.errors import TopicReadError
from fraud_service.domain.events import Label, LabelSource, encode
from fraud_service.domain.records import decode_score
from fraud_service.kafka import clients
from fraud_service.verification.report import FindingKind
from fraud_service.verification.verify import VerifyOptions, verify

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PAYMENTS = 400
CARDS = 11


def send(settings: Settings) -> None:
    producer = clients.producer(settings)
    for number in range(PAYMENTS):
        card = f"card-{number % CARDS}"
        payment = transaction(
            f"t-{number - number % 50 // 49}",
            MONDAY + number * HOUR,
            card_id=card,
            amount=5.0 + 900 * (number % 9 == 0),
        )
        producer.produce(settings.topics.transactions, key=card.encode(), value=encode(payment))
        if number % 12 == 0:
            value, key, _ = MALFORMED[number // 12 % len(MALFORMED)]
            producer.produce(settings.topics.transactions, key=key, value=value)
            producer.produce(settings.topics.labels, key=key, value=value)
            label = Label(
                transaction_id=payment.transaction_id,
                card_id=card,
                is_fraud=number % 36 == 0,
                labelled_at=payment.timestamp + HOUR,
                source=LabelSource.ANALYST,
            )
            producer.produce(settings.topics.labels, key=card.encode(), value=encode(label))
    assert producer.flush(30) == 0


@pytest.fixture(scope="module")
def ran(apache_kafka, tmp_path_factory) -> Settings:
    """Run scorer and learner over payments, labels and malformed messages; kill the scorer once."""
    folder = tmp_path_factory.mktemp("verify")
    settings = fresh_settings(apache_kafka.bootstrap, folder)
    scorer, learner = Service(settings, "score", folder / "scorer"), Service(settings, "learn", folder / "learner")
    scores, snapshots = Tail(settings, settings.topics.scores), Tail(settings, settings.topics.snapshots)
    with scorer, learner:
        scorer.await_ready()
        send(settings)
        scorer.wait_until(lambda: len(scores.read()) > 0, 60)
        scorer.kill()
        scorer.start()
        scorer.await_ready()  # all may be scored before the kill; a loading process would end before the stop below
        scorer.wait_until(lambda: len(scores.read()) == PAYMENTS, 90)
        learner.wait_until(lambda: len(snapshots.read()) > 100, 90)
        assert scorer.stop() == 0
        assert learner.stop() == 0
    scores.close()
    snapshots.close()
    return settings.model_copy(update={"state_dir": scorer.folder / "state"})


def test_the_verifier_has_no_findings_after_malformed_messages_and_a_kill(ran):
    report = verify(ran, VerifyOptions(state=True, volume=ran.state_dir, replay=True))
    assert report.findings == ()
    assert report.notes == ()
    assert report.counts["scores"] == PAYMENTS
    assert report.counts["profiles"] == report.counts["profiles_on_volume"] == CARDS
    assert report.counts["decisions_recomputed"] == PAYMENTS
    assert report.counts["snapshots_rebuilt"] == report.counts["snapshots"]


def sums(process: Service, name: str, label: str | None = None) -> Counter[str]:
    """Return a counter of a process by the values of a label."""
    with urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    found: Counter[str] = Counter()
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == name:
            found[sample.labels.get(label, "")] += int(sample.value)
    return +found


def test_metrics_equal_the_counts_of_the_records_on_the_topics(apache_kafka, tmp_path):
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path)
    scorer, learner = Service(settings, "score", tmp_path / "scorer"), Service(settings, "learn", tmp_path / "learner")
    names = settings.topics
    scores, letters, snapshots = (Tail(settings, name) for name in (names.scores, names.dead_letters, names.snapshots))
    with scorer, learner:
        send(settings)
        again = transaction("t-395", MONDAY + 395 * HOUR, card_id="card-10", amount=5.0)
        producer = clients.producer(settings)
        producer.produce(names.transactions, key=again.card_id.encode(), value=encode(again))
        assert producer.flush(30) == 0
        malformed = sum(number % 12 == 0 for number in range(PAYMENTS))
        scorer.wait_until(lambda: len(scores.read()) == PAYMENTS + 1, 90)
        scorer.wait_until(lambda: len(letters.read()) == 2 * malformed, 90)
        learner.wait_until(lambda: sums(learner, "fraud_scores_received_total").total() == PAYMENTS, 90)
        learner.wait_until(lambda: sums(learner, "fraud_labels_received_total").total() == malformed, 90)
        outcomes = sums(scorer, "fraud_transactions_total", "outcome")
        repeated = sums(scorer, "fraud_duplicate_transactions_total").total()
        dead_letters = sum((sums(one, "fraud_dead_letters_total", "reason") for one in (scorer, learner)), Counter())
        assert scorer.stop() == 0
        learner.wait_until(
            lambda: sums(learner, "fraud_snapshots_published_total").total() == len(snapshots.read()), 90
        )
        examples = sums(learner, "fraud_labelled_examples_total")
        assert learner.stop() == 0
    records = [decode_score(message.value()) for message in scores.messages]
    assert outcomes == Counter(str(record.outcome) for record in records)
    assert repeated == sum(record.is_duplicate for record in records) == 1
    reasons = Counter(dict(message.headers())["fraud-reason"].decode() for message in letters.messages)
    assert dead_letters == reasons
    assert examples.total() == len(read_all(settings, settings.topics.labelled)) > 0
    for tail in (scores, letters, snapshots):
        tail.close()


def test_progress_counts_every_record_that_is_read(ran):
    sizes, read = [], []
    for depth in (VerifyOptions(), VerifyOptions(state=True)):
        entries = []
        verify(ran, depth, sizes.append, entries.append)
        read.append(sum(entries))
    assert read[0] >= 2 * PAYMENTS  # transactions and scores
    assert read[1] >= read[0] + CARDS  # with the state also the changelog; transactions and scores are not read again
    assert all(count <= size for count, size in zip(read, sizes, strict=True))  # transaction markers are not counted


def test_an_altered_volume_is_found_and_a_missing_volume_is_an_error(ran, tmp_path):
    volume = tmp_path / "state"
    shutil.copytree(ran.state_dir, volume)
    (place,) = (volume / ran.scorer_group / "default" / ran.topics.transactions).glob("0")
    store = Rdict(str(place), Options(raw_mode=True), dict.fromkeys(Rdict.list_cf(str(place)), Options(raw_mode=True)))
    key = next(store.keys())
    store[key] = b"altered"
    store.close()
    (finding,) = verify(ran, VerifyOptions(volume=volume)).findings
    assert (finding.kind, finding.partition) == (FindingKind.STATE, 0)
    with pytest.raises(TopicReadError, match="there is no state of group"):
        verify(ran, VerifyOptions(volume=tmp_path / "elsewhere"))
