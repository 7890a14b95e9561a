"""The verifier on Apache Kafka: nothing is wrong after a run with poison and a kill, and every tampering is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.malformed import MALFORMED
from support.processes import Service, Tail, fresh_settings
from support.worlds import HOUR, MONDAY, transaction

from fraud_service.audit.verify import verify
from fraud_service.domain.events import Label, LabelSource, encode
from fraud_service.stream import clients

if TYPE_CHECKING:
    from fraud_service.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PAYMENTS = 400


def send(settings: Settings) -> None:
    producer = clients.producer(settings)
    for number in range(PAYMENTS):
        card = f"card-{number % 11}"
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
    return settings


def test_nothing_is_wrong_after_a_run_with_poison_and_a_kill(ran):
    report = verify(ran)
    assert report.anomalies == ()
    assert report.notes == ()
    assert report.counts["scores"] == PAYMENTS
