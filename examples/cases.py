"""Manage fraud cases: alerts open cases, people close them, and their verdicts go back as labels.

    python cases.py run --bootstrap localhost:9092     the service
    python cases.py list                               the open cases
    python cases.py close 17 --fraud                   close case 17 as fraud; or --legitimate

The example uses the contract of the alerts and labels topics (docs/asyncapi.json) and imports nothing of the fraud
service. It needs only confluent-kafka.

One SQLite file holds the cases, their alerts, the offsets of the alerts read so far and the labels still to send.
Each change is one SQLite transaction, so the service continues from the file after any crash. An alert that comes again
with the same `ce_id` changes nothing. The service skips and counts invalid alerts, and reports their offsets on stderr.
"""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
from datetime import UTC, datetime
from operator import methodcaller
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

TIMEOUT = 30.0  # seconds
LARGEST = 262_144  # bytes of an alert; ten times what the service writes
MOST = 1e15  # absolute value of any number
TABLES = """
CREATE TABLE IF NOT EXISTS cases (
    id INTEGER PRIMARY KEY, card_id TEXT NOT NULL, opened_at TEXT NOT NULL, closed_at TEXT, is_fraud INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS one_open_case_a_card ON cases (card_id) WHERE closed_at IS NULL;
CREATE TABLE IF NOT EXISTS alerts (
    id TEXT PRIMARY KEY, case_id INTEGER NOT NULL REFERENCES cases (id), transaction_id TEXT NOT NULL,
    amount REAL NOT NULL, currency TEXT NOT NULL, score REAL NOT NULL, outcome TEXT NOT NULL, reasons TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS offsets (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (id INTEGER PRIMARY KEY, card_id TEXT NOT NULL, label TEXT NOT NULL);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("cases.sqlite"), help="SQLite file of the cases")
    verbs = parser.add_subparsers(dest="verb", required=True)
    run = verbs.add_parser("run")
    run.add_argument("--bootstrap", default="localhost:9092")
    run.add_argument("--alerts", default="fraud.alerts.v1", help="topic to read")
    run.add_argument("--labels", default="payments.fraud-labels.v1", help="topic to write")
    verbs.add_parser("list")
    close = verbs.add_parser("close")
    close.add_argument("case", type=int)
    verdict = close.add_mutually_exclusive_group(required=True)
    verdict.add_argument("--fraud", action="store_true", dest="is_fraud")
    verdict.add_argument("--legitimate", action="store_false", dest="is_fraud")
    options = parser.parse_args()
    cases = Cases(options.file)
    if options.verb == "run":
        Service(cases, options.bootstrap, options.alerts, options.labels).run()
    elif options.verb == "list":
        for row in cases.open():
            print(*map(shown, row), sep="\t")
    elif not cases.close(options.case, is_fraud=options.is_fraud):
        sys.exit(f"there is no open case {options.case}")


class AlertError(Exception):
    """Why a record is not a valid alert. The message never quotes the content."""


def loaded(message: Message) -> dict[str, Any]:
    """Read the value of an alert as JSON."""
    value = message.value()
    if value is None or len(value) > LARGEST:
        raise AlertError("it has no value" if value is None else f"it has {len(value)} bytes")
    try:
        alert = json.loads(value)
    except (ValueError, RecursionError):
        raise AlertError("it is not JSON") from None
    if not isinstance(alert, dict) or not isinstance(alert.get("transaction"), dict):
        raise AlertError("it has no transaction")
    return alert


def text(value: object, name: str, longest: int = 1024) -> str:
    """Check a text before it is stored or sent. It may have control characters: escape it for display."""
    if not isinstance(value, str) or not 0 < len(value) <= longest or any("\ud800" <= one <= "\udfff" for one in value):
        raise AlertError(f"its {name} is not a text of at most {longest} characters")
    return value


def number(value: object, name: str) -> float:
    """Check that a value is a finite number, and return it."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not -MOST < value < MOST:
        raise AlertError(f"its {name} is not a number")
    return float(value)


def reasons(alert: dict[str, Any]) -> list[str]:
    """Return the texts of the reasons."""
    found = alert.get("reasons")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise AlertError("its reasons are not a list of objects")
    return [text(one.get("text"), "reason") for one in found]


# If a name is not UTF-8, the client returns with an exception set, and a plain call in a warm loop overlooks it.
headers = methodcaller("headers")


def header(message: Message, name: str) -> str:
    """Return a header as text."""
    try:
        found = dict(headers(message) or []).get(name)
        return text((found or b"").decode(), name)
    except (SystemError, UnicodeDecodeError):
        raise AlertError(f"its {name} is not a text") from None


def read(message: Message) -> tuple[str, str, tuple[object, ...]]:
    """Return the id of an alert, its card, and the columns to store. Raises `AlertError`."""
    alert = loaded(message)
    payment = alert["transaction"]
    facts = (
        text(payment.get("transaction_id"), "transaction_id", 128),
        number(payment.get("amount"), "amount"),
        text(payment.get("currency"), "currency", 3),
        number(alert.get("score"), "score"),
        text(alert.get("outcome"), "outcome", 16),
        json.dumps(reasons(alert)),
    )
    return header(message, "ce_id"), text(payment.get("card_id"), "card_id", 128), facts


def shown(cell: object) -> str:
    """Escape control and bidirectional characters."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in str(cell))


class Skipped:
    """Counts invalid alerts, and reports only the 1st, 2nd, 4th, 8th …, so that a flood does not fill the log."""

    count = 0

    def add(self, message: Message, why: AlertError) -> None:
        self.count += 1
        if self.count & (self.count - 1) == 0:
            place = f"partition {message.partition()} offset {message.offset()}"
            print(f"skipped {self.count} so far; the last is {place}: {why}", file=sys.stderr, flush=True)


class Cases:
    """The cases in a SQLite file, which the service and the commands share."""

    def __init__(self, file: Path) -> None:
        self._db = sqlite3.connect(file, timeout=TIMEOUT)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.executescript(TABLES)
        self.skipped = Skipped()

    def take(self, message: Message) -> None:
        """Add an alert to the open case of its card, or open one, and store the offset in the same transaction."""
        with self._db:
            try:
                self._open(*read(message))
            except AlertError as error:
                self.skipped.add(message, error)
            place = message.partition(), message.offset() + 1
            self._db.execute("INSERT OR REPLACE INTO offsets VALUES (?, ?)", place)

    def _open(self, identity: str, card: str, facts: tuple[object, ...]) -> None:
        if self._db.execute("SELECT 1 FROM alerts WHERE id = ?", [identity]).fetchone() is None:
            row = identity, self._case(card), *facts
            self._db.execute("INSERT INTO alerts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _case(self, card: str) -> int | None:
        found = self._db.execute("SELECT id FROM cases WHERE card_id = ? AND closed_at IS NULL", [card]).fetchone()
        if found is not None:
            return int(found[0])
        return self._db.execute("INSERT INTO cases (card_id, opened_at) VALUES (?, ?)", [card, now()]).lastrowid

    def close(self, case: int, *, is_fraud: bool) -> bool:
        """Close a case and store a label to send for each of its payments. Returns whether the case was open."""
        with self._db:
            closed = self._db.execute(
                "UPDATE cases SET closed_at = ?, is_fraud = ? WHERE id = ? AND closed_at IS NULL RETURNING card_id",
                [now(), is_fraud, case],
            ).fetchone()
            if closed is None:
                return False
            payments = self._db.execute("SELECT transaction_id FROM alerts WHERE case_id = ?", [case]).fetchall()
            for (payment,) in payments:
                label = {"transaction_id": payment, "card_id": closed[0], "is_fraud": is_fraud}
                text = json.dumps({**label, "labelled_at": now(), "source": "analyst"})
                self._db.execute("INSERT INTO outbox (card_id, label) VALUES (?, ?)", [closed[0], text])
        return True

    def open(self) -> list[tuple[object, ...]]:
        """Return the open cases, the most suspicious first: number, card, alerts, largest score, amount."""
        return self._db.execute(
            "SELECT cases.id, card_id, count(*), round(max(score), 3), round(sum(amount), 2) FROM cases JOIN alerts ON"
            " case_id = cases.id WHERE closed_at IS NULL GROUP BY cases.id ORDER BY max(score) DESC"
        ).fetchall()

    def offsets(self) -> dict[int, int]:
        """Return the next offset to read of each partition."""
        return dict(self._db.execute("SELECT partition, next FROM offsets").fetchall())

    def unsent(self) -> list[tuple[int, str, str]]:
        """Return the labels still to send: number, card, content."""
        return self._db.execute("SELECT id, card_id, label FROM outbox ORDER BY id LIMIT 10000").fetchall()

    def sent(self, last: int) -> None:
        """Delete the labels up to this one."""
        with self._db:
            self._db.execute("DELETE FROM outbox WHERE id <= ?", [last])


class Service:
    """Consume alerts and produce labels. A crash can send a label twice, with the same content."""

    def __init__(self, cases: Cases, bootstrap: str, alerts: str, labels: str) -> None:
        self._cases, self._labels = cases, labels
        connection = {"bootstrap.servers": bootstrap}
        # The file stores the offsets, so the consumer commits none to the broker.
        options = {"group.id": "cases", "enable.auto.commit": False, "isolation.level": "read_committed"}
        self._consumer = Consumer({**connection, **options})
        known = cases.offsets()
        numbers = self._consumer.list_topics(alerts, TIMEOUT).topics[alerts].partitions
        self._consumer.assign([TopicPartition(alerts, n, known.get(n, OFFSET_BEGINNING)) for n in numbers])
        # A label must go to its card's partition, by the default partitioner of Java clients.
        self._producer = Producer({**connection, "enable.idempotence": True, "partitioner": "murmur2"})
        self._is_running = True
        signal.signal(signal.SIGTERM, lambda *_: self._stop())

    def _stop(self) -> None:
        self._is_running = False

    def run(self) -> None:
        while self._is_running:
            for message in self._consumer.consume(500, timeout=0.5):
                if message.error() is None:
                    self._cases.take(message)
            self._send(self._cases.unsent())
        self._consumer.close()

    def _send(self, unsent: list[tuple[int, str, str]]) -> None:
        refused: list[object] = []

        def on_delivery(error: object, _: Message) -> None:
            if error is not None:
                refused.append(error)

        for _, card, label in unsent:
            self._producer.produce(self._labels, key=card, value=label, on_delivery=on_delivery)
        if unsent and self._producer.flush(TIMEOUT) == 0 and not refused:
            self._cases.sent(unsent[-1][0])


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


if __name__ == "__main__":
    main()
