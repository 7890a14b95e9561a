"""Test that every panel, rule and alert has data, with a real Prometheus that scrapes scorer and learner under load."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("pyarrow")

from support import observed
from support.malformed import MALFORMED
from support.processes import Service, fresh_settings
from support.prometheus import Prometheus

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.admin.refit import report
from fraud_service.demo.simulator import World, write
from fraud_service.domain.events import Label, LabelSource, encode
from fraud_service.domain.records import RefitRecord
from fraud_service.kafka import clients
from fraud_service.training.history import History

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fraud_service.config.settings import Settings
    from fraud_service.domain.events import LabelledTransaction, Transaction

pytestmark = [pytest.mark.embedded, pytest.mark.slow, pytest.mark.timeout(400)]

RATE = 300.0  # transactions a second: three weeks of event time pass within a minute
# Metrics that the load increases, besides those of transactions.
HAPPENED = (
    'fraud_dead_letters_total{job="fraud-service-scorer"}',
    'fraud_dead_letters_total{job="fraud-service-learner"}',
    "fraud_duplicate_transactions_total",
    "fraud_labels_early_total",
    "fraud_corrections_total",
    'fraud_labelled_examples_total{is_fraud="true"}',
    'fraud_labelled_examples_total{is_fraud="false"}',
    'fraud_labelled_fraud_amount_total{outcome="approve"}',
    'fraud_labelled_fraud_amount_total{outcome!="approve"}',
    "fraud_snapshot_examples",
    "fraud_checkpoint_seconds_count",
    "fraud_rebalances_total",
    "fraud_state_bytes",
    "fraud_lag_seconds",
)
PATIENCE = 200.0  # seconds within which every expression must have data


class Load:
    """Sends payments and labels from a thread until `stop`, with duplicates and unreadable messages among them."""

    def __init__(self, settings: Settings, history: list[LabelledTransaction]) -> None:
        self._settings, self._history = settings, history
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="load")
        self.failure: Exception | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with HistoryProducer(self._settings) as feed:
                feed.produce(self._until_stopped(feed), 0, RATE)
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error

    def _until_stopped(self, feed: HistoryProducer) -> Iterator[LabelledTransaction]:
        odd = clients.producer(self._settings)
        for number, event in enumerate(self._history):
            if self._stopping.is_set():
                break
            if number % int(RATE) == 0:
                self._oddities(odd, event.transaction)
                self._labels(feed, event.transaction, is_fraud=number % 2 == 0)
            yield event
        assert odd.flush(30) == 0

    def _oddities(self, producer: Any, transaction: Transaction) -> None:
        """Send unreadable messages and a duplicate transaction."""
        names, card = self._settings.topics, transaction.card_id.encode()
        producer.produce(names.transactions, key=card, value=encode(transaction))
        producer.produce(names.labels, key=card, value=b"{")
        for value, key, _ in MALFORMED:
            producer.produce(names.transactions, key=key, value=value)
        producer.poll(0)

    def _labels(self, feed: HistoryProducer, transaction: Transaction, *, is_fraud: bool) -> None:
        """Label an unknown payment, and one that the history labels differently."""
        for name in ("never-paid", transaction.transaction_id):
            feed.label(
                Label(
                    transaction_id=name,
                    card_id=transaction.card_id,
                    is_fraud=is_fraud,
                    labelled_at=transaction.timestamp + 3_600_000,
                    source=LabelSource.ANALYST,
                )
            )


@dataclass
class Scene:
    """A running service, and the Prometheus that scrapes it."""

    prometheus: Prometheus
    load: Load

    def await_data(self, asked: dict[str, str]) -> dict[str, str]:
        """Wait until each expression has had data once; returns those without data."""
        missing, deadline = dict(asked), time.monotonic() + PATIENCE
        while missing and time.monotonic() < deadline:
            time.sleep(1)
            missing = {name: text for name, text in missing.items() if not has_data(self.prometheus.query(text))}
            assert self.load.failure is None, self.load.failure
        return missing


def has_data(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(one["value"][1])) for one in series)


@pytest.fixture(scope="module")
def scene(embedded_broker, tmp_path_factory) -> Iterator[Scene]:
    folder: Path = tmp_path_factory.mktemp("observed")
    write(World(seed=7, cards=400, merchants=150, days=30), folder / "history.parquet")
    settings = fresh_settings(embedded_broker.bootstrap, folder)
    scorer, learner = Service(settings, "score", folder / "scorer"), Service(settings, "learn", folder / "learner")
    targets = {"scorer": scorer.port, "learner": learner.port}
    history = list(History.open(folder / "history.parquet"))
    with Prometheus(folder / "prometheus", targets, observed.RULES) as prometheus, scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        with loaded(Load(settings, history)) as load:
            report(
                settings, RefitRecord(history[0].transaction.timestamp, "m", 0.75, 0.625, 0.01, 14.0, 5000, 50, None)
            )
            yield Scene(prometheus, load)
        assert scorer.stop() == 0
        assert learner.stop() == 0


@contextmanager
def loaded(load: Load) -> Iterator[Load]:
    load.start()
    try:
        yield load
    finally:
        load.stop()


def test_every_expression_of_every_dashboard_has_data(scene):
    asked = {f"{name}: {text}": text for name, text in observed.expressions() if "fraud_tokenized" not in text}
    assert len(asked) > 60  # no tokenizer runs here
    assert scene.await_data(asked) == {}


def test_metrics_of_the_load_are_above_zero(scene):
    happened = [f"sum({name}) > 0" for name in HAPPENED]
    assert scene.await_data(dict(zip(happened, happened, strict=True))) == {}


def test_every_recording_rule_has_data(scene):
    recorded = {rule["record"]: rule["record"] for rule in observed.rules() if "record" in rule}
    assert len(recorded) > 10
    assert scene.await_data(recorded) == {}


def test_every_metric_of_every_alert_has_data(scene):
    asked = {f"{name}: {text}": text for name, rule in observed.alerts().items() for text in texts(rule["expr"])}
    assert scene.await_data(asked) == {}


def texts(expression: str) -> set[str]:
    return {text for _, text in observed.selectors(expression)}


def test_prometheus_evaluates_every_rule(scene):
    evaluated = [rule for group in scene.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(evaluated) == len(observed.rules())
    assert {rule["name"]: rule.get("lastError") for rule in evaluated if rule["health"] != "ok"} == {}


def test_has_data_rejects_missing_metrics_and_nan(scene):
    assert not has_data(scene.prometheus.query("fraud_no_such_metric"))
    assert not has_data(scene.prometheus.query("vector(0) / 0"))
    assert has_data(scene.prometheus.query("fraud_ready"))
