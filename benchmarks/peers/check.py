"""Check that a peer does the same job: compare its scores with those of our detector, transaction by transaction.

`PYTHONPATH=tests:benchmarks python benchmarks/peers/check.py [TRANSACTIONS [GUARANTEE [PEER…]]]` sends simulated
payments to Apache Kafka, with duplicates and unreadable messages among them. It processes the log with
`fraud_service.domain.detector` in this process, runs each peer on the same topic, and fails if they differ.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from support import apache_kafka
from support.processes import fresh_settings, read_all

from fraud_service.demo.simulator import World, write
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import decode_transaction, encode
from fraud_service.domain.features import NAMES
from fraud_service.domain.online_model import OnlineModel
from fraud_service.domain.records import ScoreRecord, alert_id, decode_score, score_record
from fraud_service.domain.risk import RiskTable
from fraud_service.domain.snapshot import UNTRAINED, Snapshot, SnapshotStore, encode_snapshot, untrained
from fraud_service.domain.time import DAY
from fraud_service.kafka import clients
from fraud_service.models.artifact import shipped_folder
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training.history import History
from peers import EXACTLY_ONCE, PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import Message

    from fraud_service.config.settings import Settings
    from fraud_service.domain.profile import Profile

TOLERANCE: Final = 1e-9
PATIENCE: Final = 120.0  # seconds
REPEATED: Final = 97  # every 97th transaction comes again a few messages later
LATER: Final = 7
UNREADABLE: Final = (
    (b"c-1", b""),
    (b"c-1", b'{"transaction_id":"\xff","timestamp":1}'),
    (b"c-1", b"{"),
    (b"c-1", b"[]"),
    (b"c-1", b'{"transaction_id": "t"}'),
    (
        b"c-2",
        b'{"transaction_id":"t","timestamp":1706600000000,"card_id":"c-1","merchant_id":"m","amount":1,"currency":"EUR"}',
    ),
    (
        b"c-1",
        b'{"transaction_id":"t","timestamp":1706600000000,"card_id":"c-1","merchant_id":"m","amount":-1,"currency":"EUR"}',
    ),
    (b"c-1", b'{"transaction_id":"t","timestamp":"x","card_id":"c-1","merchant_id":"m","amount":1,"currency":"EUR"}'),
    (
        b"c-1",
        b'{"transaction_id":"t","timestamp":1706600000000,"card_id":"c-1","merchant_id":"m","amount":1,"currency":"eur"}',
    ),
)
# The same facts in the other spellings of the contract. The last two are late, and from a new place.
SPELLED: Final = (
    (
        b'{"transaction_id":"s-1","timestamp":"2024-02-01T00:00:00.5Z","card_id":"s","merchant_id":"m","amount":"12.30",'
        b'"currency":"EUR","country":"DE","device_id":"d","latitude":51,"longitude":9,"new_field":{"a":[1]}}'
    ),
    (
        b'{"transaction_id":"s-2","timestamp":"2024-02-01T03:00:00+02:00","card_id":"s","merchant_id":"m\xc3\xbcller",'
        b'"amount":9e2,"currency":"EUR","country":"FR","device_id":"e","entry_mode":"keyed","latitude":null}'
    ),
    b'{"transaction_id":"s-3","timestamp":1706600000000,"card_id":"s","merchant_id":"m","amount":0,"currency":"EUR"}',
    (
        b'{"transaction_id":"s-4","timestamp":1703000000000,"card_id":"s","merchant_id":"m","amount":1.5,'
        b'"currency":"EUR","latitude":-33.9,"longitude":151.2}'
    ),
)


def lesson(pretrained: OnnxForest, middle: int) -> Snapshot:
    """Create a snapshot at the middle of the log, with some weight on every input of the online model."""
    leaves = pretrained.manifest.leaves
    online = OnlineModel(
        tuple(math.sin(number) / 10 for number in range(len(NAMES))),
        tuple(math.cos(number) / 10 for number in range(leaves)),
        0.9,
        -0.1,
    )
    interval = 5 * DAY  # shorter than the rest of the log, so that the snapshot becomes stale
    empty = RiskTable().digest()
    return Snapshot("", middle, middle, interval, pretrained.version, online, 0.4, 100, middle, 0, empty).with_digest()


class Expected(NamedTuple):
    """The expected results: score records and dead letter reasons by partition and offset, and alerts."""

    scores: dict[tuple[int, int], ScoreRecord]
    reasons: dict[tuple[int, int], str]
    alerts: set[str]


def feed(settings: Settings, folder: Path, transactions: int) -> int:
    """Fill the topic with simulated payments, duplicates, other spellings, and unreadable messages.

    Returns
    -------
    int
        Event time in the middle of the payments.
    """
    path = folder / "history.parquet"
    # Few cards, so that a few thousand transactions give each a history of weeks, and their lists overflow.
    write(World(seed=11, cards=60, merchants=100, days=40), path)
    payments = [event.transaction for event in History.open(path)][:transactions]
    events = [(payment.card_id.encode(), encode(payment)) for payment in payments]
    for place in range(len(events) - LATER - 1, 0, -REPEATED):
        events.insert(place + LATER, events[place])
    producer = clients.producer(settings)
    for key, value in [*events, *((b"s", value) for value in SPELLED), *UNREADABLE, (None, SPELLED[0])]:
        producer.produce(settings.topics.transactions, key=key, value=value)
        producer.poll(0)
    if producer.flush(PATIENCE):
        raise SystemExit("the broker did not accept all transactions in time")
    return payments[len(payments) // 2].timestamp


def fold(log: list[Message], pretrained: OnnxForest, taught: Snapshot) -> Expected:
    """Process the log with our detector, partition by partition."""
    knowledge = SnapshotStore(untrained(pretrained.version, pretrained.untrained_online_model()))
    knowledge.receive_snapshot(taught)
    knowledge.apply_received()
    detector = Detector(pretrained, Policy())
    profiles: dict[int, dict[str, Profile]] = defaultdict(dict)
    expected = Expected({}, {}, set())
    for message in log:
        place = message.partition(), message.offset()
        try:
            transaction = decode_transaction(message.value())
        except InvalidEvent as error:
            expected.reasons[place] = str(error.reason)
            continue
        if message.key() != transaction.card_id.encode():
            expected.reasons[place] = "missing_key" if message.key() is None else "key_mismatch"
            continue
        (verdict,) = detector.assess([transaction], profiles[message.partition()], knowledge)
        expected.scores[place] = score_record(verdict)
        if verdict.decision.is_flagged and not verdict.is_duplicate:
            expected.alerts.add(alert_id(transaction))
    return expected


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a peer for the length of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - our own
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


def records(settings: Settings, topic: str) -> list[Message]:
    """Return the committed records of a topic, or none before the topic exists."""
    if topic not in clients.admin(settings).list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics:
        return []
    return read_all(settings, topic)


def finished(settings: Settings, topic: str, wanted: int, process: subprocess.Popen[bytes], log: Path) -> list[Message]:
    """Wait until a topic holds `wanted` committed records, then a little longer for extra ones; returns them all."""
    deadline = time.monotonic() + PATIENCE
    found: list[Message] = []
    while len(found) < wanted:
        if process.poll() is not None or time.monotonic() > deadline:
            tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise SystemExit(f"{len(found)} of {wanted} records on {topic}; exit code {process.poll()}:\n{tail}")
        time.sleep(0.5)
        with suppress(KafkaException):  # a new topic needs a moment until all clients find its leaders
            found = records(settings, topic)
    time.sleep(2.5)  # longer than two commits
    return records(settings, topic)


def relative(one: float | None, other: float | None) -> float:
    """Return the difference of two numbers relative to the larger one, which counts as at least a millionth."""
    if one is None or other is None:
        return 0.0 if one is other else math.inf
    return abs(one - other) / max(abs(one), abs(other), 1e-6)


def compare(expected: Expected, found: list[Message]) -> dict[str, float]:
    """Compare the score records of each card in their order; returns the largest difference of each kind.

    Bytewax groups a batch by card, so only the records of one card keep their order. A card's decisions depend on no
    other order.
    """
    answers, asked = defaultdict(list), defaultdict(list)
    for message in found:
        record = decode_score(message.value())
        answers[record.card_id].append(record)
        if message.key() != record.card_id.encode():
            raise SystemExit(f"{record.transaction_id}: the key is {message.key()!r}")
    for _, record in sorted(expected.scores.items(), key=lambda one: one[0]):
        asked[record.card_id].append(record)
    if {card: len(many) for card, many in asked.items()} != {card: len(many) for card, many in answers.items()}:
        raise SystemExit(f"{len(expected.scores)} scores expected, one for each transaction; found {len(found)}")
    largest = {"feature": 0.0, "score": 0.0, "logit": 0.0}
    for card, many in asked.items():
        for ours, theirs in zip(many, answers[card], strict=True):
            same(ours, theirs)
            for kind, difference in differences(ours, theirs):
                largest[kind] = max(largest[kind], difference)
    return largest


def same(ours: ScoreRecord, theirs: ScoreRecord) -> None:
    """Fail unless everything except the numbers is equal."""
    names = ("transaction_id", "timestamp", "card_id", "merchant_id", "amount", "currency", "outcome", "model")
    for name in (*names, "snapshot", "online_weight", "is_stale", "is_duplicate"):
        if getattr(ours, name) != getattr(theirs, name):
            raise SystemExit(f"{ours.transaction_id}: {name} is {getattr(theirs, name)!r}, not {getattr(ours, name)!r}")


def differences(ours: ScoreRecord, theirs: ScoreRecord) -> Iterator[tuple[str, float]]:
    """Yield every difference between the numbers of two records."""
    yield "score", abs(ours.score - theirs.score)
    for name in ("pretrained", "online"):
        yield "score", relative(getattr(ours, name), getattr(theirs, name))
    for name in ("pretrained_logit", "online_logit"):
        yield "logit", relative(getattr(ours, name), getattr(theirs, name))
    if ours.features is None or theirs.features is None:
        yield "feature", 0.0 if ours.features is theirs.features else math.inf
        return
    for one, other in zip(ours.features.vector(), theirs.features.vector(), strict=True):
        yield "feature", relative(one, other)


def dead_letters(expected: Expected, found: list[Message]) -> None:
    """Fail unless every unreadable message is a dead letter with the same reason."""
    reasons = {}
    for message in found:
        headers = {name: value.decode() for name, value in message.headers() or []}
        place = int(headers["fraud-source-partition"]), int(headers["fraud-source-offset"])
        reasons[place] = headers["fraud-reason"]
    if reasons != expected.reasons or len(found) != len(reasons):
        raise SystemExit(f"dead letters are {reasons}, not {expected.reasons}")


def alerts(expected: Expected, found: list[Message]) -> None:
    """Fail unless every flagged transaction has exactly one alert, with the same id as ours."""
    ids = [dict(message.headers() or [])["ce_id"].decode() for message in found]
    if set(ids) != expected.alerts or len(ids) != len(expected.alerts):
        raise SystemExit(f"{len(ids)} alerts, not the {len(expected.alerts)} expected")


def check(name: str, settings: Settings, expected: Expected, folder: Path, guarantee: str) -> dict[str, Any]:
    """Run a peer over the topic and compare; returns the figures."""
    group = f"check-{time.monotonic_ns()}"
    scores = f"{settings.topics.scores}.{group}"
    folder = folder / group
    folder.mkdir()
    words = [settings.bootstrap_servers, settings.topics.transactions, scores, group, str(folder / "state"), guarantee]
    words += ["500", str(folder.parent / "snapshot.json")]
    with running([*PEERS[name](), *words], folder / "log") as process:
        found = finished(settings, scores, len(expected.scores), process, folder / "log")
        largest = compare(expected, found)
        dead_letters(expected, records(settings, f"{scores}.dead-letters"))
        alerts(expected, records(settings, f"{scores}.alerts"))
    if max(largest.values()) > TOLERANCE:
        raise SystemExit(f"{name} differs: {largest}")
    return {
        "peer": name,
        "guarantee": guarantee,
        "scores": len(found),
        "repeated": sum(record.is_duplicate for record in expected.scores.values()),
        "taught": sum(record.snapshot != UNTRAINED for record in expected.scores.values()),
        "stale": sum(record.is_stale for record in expected.scores.values()),
        "dead_letters": len(expected.reasons),
        "alerts": len(expected.alerts),
        "largest_difference": largest,
    }


def log_of(settings: Settings) -> list[Message]:
    """Return the messages of the topic, with each partition in its order."""
    topic = settings.topics.transactions
    reader: Consumer = clients.reader(settings, f"log-{time.monotonic_ns()}")
    places = [TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(settings.partitions)]
    wanted = sum(reader.get_watermark_offsets(place, timeout=clients.REQUEST_TIMEOUT_S)[1] for place in places)
    reader.assign(places)
    found: list[Message] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < wanted and time.monotonic() < deadline:
        found.extend(reader.consume(10_000, timeout=0.2))
    reader.close()
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def main(transactions: str = "5000", guarantee: str = "at-least-once", *names: str) -> None:
    """Check the peers and print one JSON line for each."""
    reason = apache_kafka.why_unavailable()
    if reason is not None:
        raise SystemExit(f"the check needs Apache Kafka: {reason}")
    with tempfile.TemporaryDirectory() as scratch, apache_kafka.ApacheKafka() as kafka:
        folder = Path(scratch)
        settings = fresh_settings(kafka.bootstrap, folder)
        middle = feed(settings, folder, int(transactions))
        pretrained = OnnxForest.load(shipped_folder())
        taught = lesson(pretrained, middle)
        (folder / "snapshot.json").write_bytes(encode_snapshot(taught))
        expected = fold(log_of(settings), pretrained, taught)
        for name in names or (EXACTLY_ONCE if guarantee == "exactly-once" else PEERS):
            print(json.dumps(check(name, settings, expected, folder, guarantee)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
