"""`label --file` sends chargebacks in bulk, and the learner takes them."""

from __future__ import annotations

import json
import time

import pytest

pytest.importorskip("pyarrow")

from support.processes import Service, fresh_settings, read_all, run_here

from fraud_service.domain.events import Transaction, encode
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.time import rfc3339
from fraud_service.kafka import clients

pytestmark = pytest.mark.timeout(240)
NOW = int(time.time() * 1000)
HOUR = 3_600_000


def send(settings, transactions):
    producer = clients.producer(settings)
    for one in transactions:
        producer.produce(settings.topics.transactions, key=one.card_id.encode(), value=encode(one))
    assert producer.flush(30) == 0


def payments(count, hours_ago=48):
    return [
        Transaction(
            transaction_id=f"t-{number}-{hours_ago}",
            timestamp=NOW - hours_ago * HOUR + number * 60_000,
            card_id=f"c-{number % 5}",
            merchant_id="m-1",
            amount=20.0 + number,
            currency="EUR",
        )
        for number in range(count)
    ]


def test_the_learner_takes_labels_from_a_file_and_refusals_are_counted(embedded_broker, tmp_path):
    settings = fresh_settings(embedded_broker.bootstrap, tmp_path)
    file = tmp_path / "chargebacks.csv"
    at = rfc3339(NOW - 40 * HOUR)
    rows = [f"{one.transaction_id},{one.card_id},1,{at}" for one in payments(40)]
    file.write_text("txn,card_id,is_fraud,labelled_at\n" + "\n".join([*rows, rows[0]]) + "\n", encoding="utf-8")
    command = ("label", "--file", str(file), "--map", "txn=transaction_id")
    with (
        Service.patient(settings, "score", tmp_path / "scorer") as scorer,
        Service.patient(settings, "learn", tmp_path / "learner") as learner,
    ):
        for service in (scorer, learner):
            service.await_ready()
        send(settings, payments(40))
        done = run_here(settings, *command)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {
            "labels": 40, "accepted": 40, "refused": 0, "reasons": {}, "repeated_rows": 1, "skipped_rows": 0,
        }  # fmt: skip
        send(settings, payments(20, hours_ago=1))  # event time passes the boundary of the labels
        learner.wait_until(lambda: len(read_all(settings, settings.topics.labelled)) == 40, 60)
    found = [decode_labelled(message.value()) for message in read_all(settings, settings.topics.labelled)]
    assert all(one.is_fraud for one in found)
    stopped = run_here(settings, *command)
    assert stopped.returncode == 3  # no learner runs
    assert "everything was sent, but the service has not processed it" in stopped.stderr
