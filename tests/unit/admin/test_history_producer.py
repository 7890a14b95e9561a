"""A history is sent in the order of event time, labels among the transactions."""

from __future__ import annotations

import json
import time

from support.worlds import DAY, HOUR, MONDAY, transaction

from fraud_service.admin import history_producer
from fraud_service.config.settings import Settings
from fraud_service.domain.events import LabelledTransaction
from fraud_service.kafka import clients


class Producer:
    """Notes what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def produce(self, topic, value, *_, **__):
        self.sent.append((topic, value))

    def poll(self, _):
        return 0

    def flush(self, *_):
        return 0


def test_contradicting_labels_of_one_id_and_time_are_all_sent(monkeypatch):
    producer = Producer()
    monkeypatch.setattr(clients, "producer", lambda *_: producer)
    history = [
        LabelledTransaction(transaction("t", MONDAY + n, card_id=card), is_fraud=n == 1, labelled_at=MONDAY + HOUR)
        for n, card in enumerate(["a", "a", "b"])
    ]
    with history_producer.HistoryProducer(Settings(instance_id="test")) as sending:
        sending.produce(history, DAY)
    labels = [json.loads(value) for _, value in producer.sent if b"labelled_at" in value]
    assert [(one["card_id"], one["is_fraud"]) for one in labels] == [("a", False), ("a", True), ("b", False)]


def test_a_label_that_becomes_known_in_the_future_is_not_sent_but_counted(monkeypatch):
    producer = Producer()
    monkeypatch.setattr(clients, "producer", lambda *_: producer)
    now = int(time.time() * 1000)
    history = [
        LabelledTransaction(transaction(f"t{n}", now - n * DAY), is_fraud=True, labelled_at=None) for n in (9, 8, 2)
    ]
    with history_producer.HistoryProducer(Settings(instance_id="test")) as sending:
        sending.produce(history, 7 * DAY)
    assert (sending.labels, sending.later_labels) == (2, 1)
