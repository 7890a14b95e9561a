"""Run the example services that react to alerts, beside the whole service. A killed example catches up."""

from __future__ import annotations

import ast
import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from support.bad_alerts import BAD_ALERTS, KEY
from support.processes import Service, Tail, fresh_settings, read_all

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.demo.simulator import World, write
from fraud_service.domain.events import LabelledTransaction
from fraud_service.domain.records import decode_labelled
from fraud_service.kafka.sender import OutgoingRecord, produce_all
from fraud_service.training.history import History

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"
PAYMENTS = 3_000
FRAUDS = 3  # cases that are closed as fraud


@dataclass
class Example:
    """One of the scripts as a process."""

    words: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, *self.words], stdout=log, stderr=log)

    def end(self, *, is_graceful: bool = False) -> int:
        if self.process.poll() is None:
            (self.process.terminate if is_graceful else self.process.kill)()
        return self.process.wait(30)


@dataclass
class Outcome:
    settings: object
    cases: Path
    frozen: str
    closed: dict[str, bool]
    exits: list[int]
    logs: dict[str, str]


def send_invalid_alerts(settings) -> None:
    """Send invalid records to the topic of alerts."""
    records = [OutgoingRecord(settings.topics.alerts, KEY, value, headers) for value, headers in BAD_ALERTS.values()]
    produce_all(settings, records)


def real(alerts: list) -> list:
    return [message for message in alerts if message.key() != KEY]


def feed(settings, events) -> None:
    with HistoryProducer(settings) as sender:
        sender.produce(events, 0)


def payments(folder: Path) -> list:
    """Simulated payments whose last one is of this minute: verdicts of today are not of the future."""
    write(World(seed=11, cards=250, merchants=60, days=6), folder / "history.parquet")
    events = list(History.open(folder / "history.parquet"))[-PAYMENTS:]
    shift = int(time.time() * 1000) - 30_000 - events[-1].transaction.timestamp
    moved = []
    for event in events:
        transaction = msgspec.structs.replace(event.transaction, timestamp=event.transaction.timestamp + shift)
        moved.append(LabelledTransaction(transaction, None, None))
    return moved


@pytest.fixture(scope="module")
def outcome(apache_kafka, tmp_path_factory):
    """Half of the payments; case management is killed; the other half; it comes back, and cases are closed."""
    folder = tmp_path_factory.mktemp("examples")
    settings = fresh_settings(apache_kafka.bootstrap, folder)
    names, events = settings.topics, payments(folder)
    options = {"FRAUD_REVIEW_THRESHOLD": "0.005", "FRAUD_DECLINE_THRESHOLD": "0.3"}
    scorer = Service(settings, "score", folder / "scorer", options)
    learner = Service(settings, "learn", folder / "learner", {"FRAUD_SNAPSHOT_INTERVAL": "1m"})
    frozen, cases = f"frozen-{settings.scorer_group}", folder / "cases.sqlite"
    broker = ["--bootstrap", settings.bootstrap_servers, "--alerts", names.alerts]
    run = [str(EXAMPLES / "cases.py"), "--file", str(cases), "run", *broker, "--labels", names.labels]
    freezer = Example([str(EXAMPLES / "freeze_cards.py"), *broker, "--frozen", frozen], folder / "freezer.log")
    manager = Example(run, folder / "cases.log")
    scores, alerts = Tail(settings, names.scores), Tail(settings, names.alerts)
    with scorer, learner:
        freezer.start()
        manager.start()
        try:
            scorer.await_ready()
            learner.await_ready()
            feed(settings, events[: PAYMENTS // 2])
            scorer.wait_until(lambda: count_alerts(cases) > 20, 90)
            manager.end()
            send_invalid_alerts(settings)
            feed(settings, events[PAYMENTS // 2 :])
            scorer.wait_until(lambda: len(scores.read()) == PAYMENTS, 90)
            missed = len(real(alerts.read())) - count_alerts(cases)
            assert missed > 20
            manager.start()
            scorer.wait_until(lambda: count_alerts(cases) == len(real(alerts.read())), 60)
            closed = close_some(cases)
            labels = Tail(settings, names.labels)
            scorer.wait_until(lambda: len(labels.read()) >= len(closed), 60)
            labels.close()
            await_learned(settings, learner, events[-1], {name for name, is_fraud in closed.items() if is_fraud})
            exits = [freezer.end(is_graceful=True), manager.end(is_graceful=True)]
        finally:
            freezer.end()
            manager.end()
    scores.close()
    alerts.close()
    logs = {one.log.stem: one.log.read_text() for one in (freezer, manager)}
    return Outcome(settings, cases, frozen, closed, exits, logs)


def count_alerts(cases: Path) -> int:
    return query(cases, "SELECT count(*) FROM alerts")[0][0] if cases.exists() else 0


def query(cases: Path, sql: str) -> list:
    try:
        with sqlite3.connect(f"file:{cases}?mode=ro", uri=True, timeout=30) as db:
            return db.execute(sql).fetchall()
    except sqlite3.OperationalError:  # its tables are not there yet
        return [(0,)]


def close_some(cases: Path) -> dict[str, bool]:
    """Close the three most suspicious cases as fraud and one as legitimate; returns the verdicts by payment."""
    command = [sys.executable, str(EXAMPLES / "cases.py"), "--file", str(cases)]
    listed = subprocess.run([*command, "list"], check=True, capture_output=True, text=True, timeout=60).stdout
    numbers = [line.split("\t")[0] for line in listed.splitlines()]
    for place, number in enumerate(numbers[: FRAUDS + 1]):
        verdict = "--fraud" if place < FRAUDS else "--legitimate"
        subprocess.run([*command, "close", number, verdict], check=True, timeout=60)
    again = subprocess.run([*command, "close", numbers[0], "--fraud"], check=False, capture_output=True, timeout=60)
    assert again.returncode == 1
    rows = query(cases, "SELECT transaction_id, is_fraud FROM alerts JOIN cases ON case_id = cases.id WHERE closed_at")
    return {payment: bool(is_fraud) for payment, is_fraud in rows}


def await_learned(settings, learner, last, wanted: set[str]) -> None:
    """Let event time pass, a minute a payment, until the learner has learned the verdicts of fraud."""
    labelled, minute = Tail(settings, settings.topics.labelled), 0

    def is_learned() -> bool:
        nonlocal minute
        minute = min(minute + 1, 4)  # the service rejects times five minutes after the broker's clock
        moved = msgspec.structs.replace(
            last.transaction, transaction_id=f"later-{minute}", timestamp=int(time.time() * 1000) + minute * 60_000
        )
        feed(settings, [LabelledTransaction(moved, None, None)])
        return wanted <= {decode_labelled(message.value()).transaction_id for message in labelled.read()}

    learner.wait_until(is_learned, 90)
    labelled.close()


def test_every_alert_is_in_exactly_one_case(outcome):
    alerts = real(read_all(outcome.settings, outcome.settings.topics.alerts))
    published = {dict(message.headers())["ce_id"].decode() for message in alerts}
    rows = query(outcome.cases, "SELECT alerts.id, card_id FROM alerts JOIN cases ON case_id = cases.id")
    assert len(rows) == len({identity for identity, _ in rows})
    assert published == {identity for identity, _ in rows}
    open_ones = query(outcome.cases, "SELECT card_id FROM cases WHERE closed_at IS NULL")
    assert max(Counter(open_ones).values()) == 1


def test_every_declined_card_is_frozen_once_by_its_first_alert(outcome):
    first = {}
    alerts = real(read_all(outcome.settings, outcome.settings.topics.alerts))
    for message in sorted(alerts, key=lambda one: one.offset()):
        alert = json.loads(message.value())
        if alert["outcome"] == "decline":
            first.setdefault(alert["transaction"]["card_id"], alert["transaction"]["transaction_id"])
    events = [json.loads(message.value()) for message in read_all(outcome.settings, outcome.frozen)]
    assert len(first) > 3
    assert len(events) == len(first)
    assert {event["card_id"]: event["transaction_id"] for event in events} == first


def test_verdicts_come_back_as_labels_and_are_learned(outcome):
    labels = [json.loads(message.value()) for message in read_all(outcome.settings, outcome.settings.topics.labels)]
    assert {label["transaction_id"]: label["is_fraud"] for label in labels} == outcome.closed
    learned = defaultdict(list)
    for message in read_all(outcome.settings, outcome.settings.topics.labelled):
        record = decode_labelled(message.value())
        learned[record.transaction_id].append((record.is_fraud, record.source))
    for payment, is_fraud in outcome.closed.items():
        if is_fraud:
            assert learned[payment] == [(True, "analyst")]


@pytest.mark.parametrize("example", ["freezer", "cases"])
def test_both_examples_survive_an_invalid_alert_and_report_it_without_its_content(outcome, example):
    output = outcome.logs[example]
    assert "skipped 16 so far" in output
    assert output.replace("\n", "").isprintable()


def test_both_examples_end_with_0(outcome):
    assert outcome.exits == [0, 0]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_an_example_imports_only_the_standard_library_and_the_client(file):
    tree = ast.parse(file.read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"confluent_kafka"}
