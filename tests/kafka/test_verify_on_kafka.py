"""The verifier on Apache Kafka: nothing is wrong after a run with poison and a kill, and every tampering is found."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from rocksdict import Options, Rdict
from support.malformed import MALFORMED
from support.processes import Service, Tail, fresh_settings
from support.worlds import HOUR, MONDAY, transaction

from fraud_service.audit.findings import Kind
from fraud_service.audit.verify import Depth, verify
from fraud_service.domain.events import Label, LabelSource, encode
from fraud_service.errors import ArchiveError
from fraud_service.stream import clients

if TYPE_CHECKING:
    from fraud_service.settings import Settings

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
    """Run scorer and learner over payments, labels and poison; kill the scorer once."""
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
        scorer.wait_until(lambda: len(scores.read()) == PAYMENTS, 90)
        learner.wait_until(lambda: len(snapshots.read()) > 100, 90)
        assert scorer.stop() == 0
        assert learner.stop() == 0
    scores.close()
    snapshots.close()
    return settings.model_copy(update={"state_dir": scorer.folder / "state"})


def test_nothing_is_wrong_after_a_run_with_poison_and_a_kill_neither_on_topics_nor_in_the_state(ran):
    report = verify(ran, Depth(state=True, volume=ran.state_dir, replay=True))
    assert report.anomalies == ()
    assert report.notes == ()
    assert report.counts["scores"] == PAYMENTS
    assert report.counts["profiles"] == report.counts["profiles_on_volume"] == CARDS
    assert report.counts["decisions_again"] == PAYMENTS
    assert report.counts["snapshots_again"] == report.counts["snapshots"]


def test_progress_counts_twice_what_is_read_twice(ran):
    sizes, read = [], []
    for depth in (Depth(), Depth(state=True)):
        entries = []
        verify(ran, depth, sizes.append, entries.append)
        read.append(sum(entries))
    assert read[1] >= read[0] + 2 * PAYMENTS  # transactions and scores again, and the changelog
    assert all(count <= size for count, size in zip(read, sizes, strict=True))  # markers of transactions are not told


def test_a_volume_that_was_altered_is_found_and_one_that_is_not_there_is_said(ran, tmp_path):
    volume = tmp_path / "state"
    shutil.copytree(ran.state_dir, volume)
    (place,) = (volume / ran.scorer_group / "default" / ran.topics.transactions).glob("0")
    store = Rdict(str(place), Options(raw_mode=True), dict.fromkeys(Rdict.list_cf(str(place)), Options(raw_mode=True)))
    key = next(store.keys())
    store[key] = b"altered"
    store.close()
    (anomaly,) = verify(ran, Depth(volume=volume)).anomalies
    assert (anomaly.kind, anomaly.partition) == (Kind.STATE, 0)
    with pytest.raises(ArchiveError, match="there is no state of group"):
        verify(ran, Depth(volume=tmp_path / "elsewhere"))
