"""Fuzz targets for records, models, HTTP and terminal output. Each takes any bytes and asserts what must hold.

`python -m fuzz` drives them with atheris, `test_targets.py` with Hypothesis.
"""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from io import StringIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Self
from unittest.mock import patch

import msgspec
import structlog
from support.audited import Store
from support.malformed import BROKER_TIME, GOOD, text
from support.worlds import DAY, MONDAY, LinearModel, features, online_model, snapshot

from fraud_service import service
from fraud_service.admin import redrive
from fraud_service.admin.redrive import RedriveOptions
from fraud_service.cli import logging
from fraud_service.config.settings import Settings
from fraud_service.domain.codec import UNREADABLE
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import InvalidEvent, ModelError, RejectedRecord
from fraud_service.domain.events import card_id_of, fields_of
from fraud_service.domain.records import (
    RefitRecord,
    SwitchRecord,
    decode_refit,
    decode_score,
    encode_record,
)
from fraud_service.domain.risk import NO_RISK, encode_risk
from fraud_service.domain.snapshot import Snapshot, SnapshotStore, encode_snapshot, untrained
from fraud_service.domain.text import visible, visible_json
from fraud_service.kafka import clients, dead_letters, topic_reader
from fraud_service.kafka.dead_letters import DeadLetterFilter
from fraud_service.kafka.messages import Received
from fraud_service.kafka.model_topic import REFIT_KEY, SEQUENCE_HEADER, SWITCH_KEY, ModelTopicReader
from fraud_service.kafka.topic_reader import OffsetRange, Record
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.onnx_graph import onnx_bytes
from fraud_service.models.registry import ModelRegistry
from fraud_service.models.trees import Trees, require_consistent, truncate
from fraud_service.processors.scorer import ScorerProcessor
from fraud_service.processors.snapshot_reader import VERSION_HEADER, SnapshotReader
from fraud_service.runtime import health
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
from fraud_service.security.card_data import find_card_data
from fraud_service.security.signatures import KEY_HEADER, SIGNATURE_HEADER, Keyring, RejectReason
from fraud_service.security.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SETTINGS = Settings(kafka_config={"log_level": "0"}, partitions=1)
NAMES = SETTINGS.topics
RING = Keyring({"2026": b"k" * 32}, "2026", "test")
NONE = 255  # the length of a part that is not there


class Cut:
    """Cuts bytes into numbers and parts. At their end, numbers are 0 and parts empty."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def number(self, below: int) -> int:
        first, self.rest = self.rest[:1], self.rest[1:]
        return int.from_bytes(first, "big") % below

    def part(self) -> bytes | None:
        length = self.number(256)
        if length == NONE:
            return None
        found, self.rest = self.rest[:length], self.rest[length:]
        return found

    def one_of(self, known: Sequence[bytes | None]) -> bytes | None:
        """Choose a known value, or take the next part."""
        place = self.number(len(known) + 1)
        return known[place] if place < len(known) else self.part()

    def headers(self, names: Sequence[str], contents: Sequence[bytes | None] = ()) -> list[tuple[str, bytes | None]]:
        return [(names[self.number(len(names))], self.one_of(contents)) for _ in range(self.number(9))]


class _Reader:
    """A Kafka consumer of added records."""

    def __init__(self) -> None:
        self.waiting: list[SimpleNamespace] = []

    def assign(self, _: object) -> None:
        pass

    def add(self, topic: str, key: bytes | None, value: bytes | None, headers: list) -> None:
        known = {"topic": topic, "key": key, "value": value, "headers": headers, "error": None, "offset": 7}
        self.waiting.append(SimpleNamespace(**{name: (lambda it=it: it) for name, it in known.items()}))

    def consume(self, most: int, timeout: float) -> list[SimpleNamespace]:
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        return taken


SCORER, LEARNER = ScorerMetrics(Metrics()), LearnerMetrics(Metrics())

# Redrive

INPUTS = (NAMES.transactions, NAMES.labels, NAMES.raw_transactions, NAMES.raw_labels)
TOPICS = [*INPUTS, NAMES.models, NAMES.scores, NAMES.dead_letters, NAMES.snapshots]
LETTER_HEADERS = [
    "fraud-reason", "fraud-source-topic", "fraud-source-partition", "fraud-source-offset", "fraud-redriven-offset",
    "fraud-masked", "fraud-content-length", "fraud-content-sha256", "fraud-key-length", "fraud-key-sha256", "other",
]  # fmt: skip
ORDERLY, REFUSED = text(), b"no json"
VALUES = [None, b"", ORDERLY, REFUSED]
KEYS = [None, GOOD["card_id"].encode(), b"c-2"]
KNOWN = [*(topic.encode() for topic in TOPICS), b"0", b"1", b"2", b"9", b"7", sha256(REFUSED).hexdigest().encode()]


class InMemory:
    """Topics in memory."""

    def __init__(self, logs: dict[str, list[Record]], begin: int) -> None:
        self._logs, self._begin = logs, begin

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def offset_ranges(self, topic: str) -> dict[int, OffsetRange]:
        return {0: OffsetRange(self._begin, len(self._logs.get(topic, [])))}

    def read(self, topic: str, partition: int, begin: int = 0, end: int | None = None) -> Iterator[Record]:
        assert partition == 0
        return iter(self._logs.get(topic, [])[max(begin, self._begin) : end])


class _Producer:
    """Remembers what is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes | None, list | None]] = []
        self.init_transactions = self.begin_transaction = self.commit_transaction = lambda *_: None

    def produce(self, topic: str, key=None, value=None, partition=None, headers=None) -> None:
        self.sent.append((topic, value, headers))


def redrive_dead_letters(data: bytes) -> int:
    """A redrive writes only records that the input topics hold, only to these topics, and one mark for each."""
    given = Cut(data)
    begin, unproved = given.number(4), bool(given.number(2))
    topics = {
        topic: [
            Record(topic, 0, at, given.one_of(KEYS), given.one_of(VALUES), BROKER_TIME, [])
            for at in range(given.number(9))
        ]
        for topic in TOPICS[:2]
    }
    topics[NAMES.dead_letters] = [
        Record(NAMES.dead_letters, 0, at, given.one_of(KEYS), given.one_of(VALUES), 0, _named(given))
        for at in range(given.number(9))
    ]
    producer = _Producer()
    with (
        patch.object(dead_letters, "TopicReader", lambda *_: InMemory(topics, 0)),
        patch.object(redrive, "TopicReader", lambda *_: InMemory(topics, begin)),
        patch.object(clients, "producer", lambda *_: producer),
    ):
        verdicts = list(redrive.redrive(SETTINGS, DeadLetterFilter(), RedriveOptions(unproved=unproved)))
    sources = [verdict.found.letter for verdict in verdicts if verdict.hindrance is None]
    marks = [topic for topic, _, headers in producer.sent if headers is not None]
    assert marks == [NAMES.dead_letters] * len(sources)
    assert len(set(sources)) == len(sources)
    sent = [(topic, value) for topic, value, headers in producer.sent if headers is None]
    for (topic, value), source in zip(sent, sources, strict=True):
        assert topic == source.topic
        assert topic in INPUTS
        here = topics.get(topic, [])[begin:]
        present = {entry.offset: entry for entry in here}
        found = present.get(source.offset)
        assert source.partition == 0
        assert found.value == value if found else unproved
        assert unproved or topic != NAMES.transactions or (found.key, value) != (KEYS[1], ORDERLY)
    return len(sent)


def _named(given: Cut) -> list[tuple[str, bytes | None]]:
    """Make complete or arbitrary headers of a dead letter."""
    if given.number(2):
        return given.headers(LETTER_HEADERS, KNOWN)
    texts = [b"not_json", given.one_of(KNOWN), b"0", str(given.number(12)).encode()]
    return [*zip(LETTER_HEADERS, texts, strict=False), *given.headers(LETTER_HEADERS[4:], KNOWN)]


# Signed records


def check_signature(data: bytes) -> bool:
    """Only a signed record passes, with any other headers. Every other record is rejected with a known reason."""
    given = Cut(data)
    role, key, value = ("models", "risk")[given.number(2)], given.part(), given.part()
    signed = RING.sign_headers(role, key, value, given.headers(["fraud-snapshot", "other"]))
    own = [header for header in signed if header[0].startswith("fraud-")]
    contents = [content for _, content in signed]
    pieces = [*signed, (KEY_HEADER, b"2026"), *Cut(given.part() or b"").headers([KEY_HEADER, SIGNATURE_HEADER, "x"])]
    headers = [pieces[given.number(len(pieces))] for _ in range(given.number(9))]
    headers += given.headers([KEY_HEADER, SIGNATURE_HEADER, "fraud-snapshot", "x"], contents)
    offered = ("models", "risk")[given.number(2)], given.one_of([key, value]), given.one_of([value, key])
    ours = [(name, content or b"") for name, content in headers if name.startswith("fraud-")]
    try:
        RING.require_signature(*offered, headers)
    except RejectedRecord as error:
        assert error.reason in [*RejectReason]  # noqa: PT017 - it need not be raised
        return False
    assert offered == (role, key, value)
    covered = [[header for header in found if header[0] != SIGNATURE_HEADER] for found in (ours, own)]
    assert covered[0] == covered[1]
    return True


# Promoted models, re-fits, switches

SHIPPED = artifact.read(artifact.shipped_folder())
STUMP = Trees([0], [0, 0, 0], [1.0, 0.0, 0.0], [1, -1, -1], [2, -1, -1], [0.1, 0.0, 0.5])
PAYMENTS = [features(), features(amount=1e14, speed_kmh=-1e30)]


def _sealed(trees: Trees, leaves: int) -> bytes:
    """Make a message with valid digests, as an attacker can."""
    files = {artifact.MODEL: onnx_bytes(trees), artifact.TREES: msgspec.msgpack.encode(trees)}
    digests = {name: sha256(content).hexdigest() for name, content in files.items()}
    manifest = msgspec.structs.replace(SHIPPED.manifest, version="forest-9", leaves=leaves, sha256=digests)
    return msgspec.msgpack.encode({artifact.MANIFEST: msgspec.json.encode(manifest)} | files)


STUMPS = _sealed(STUMP, 2)
REFIT = encode_record(RefitRecord(1, "m", 0.5, 0.6, 0.01, 14.0, 5, 1, None))
SWITCH = encode_record(SwitchRecord(online=False, at=1))
KINDS = [SWITCH_KEY.encode(), REFIT_KEY.encode(), b"forest-9"]


def read_model_records(data: bytes) -> int:
    """Scorer and learner accept any records on the topic of models. With keys, an unsigned one has no effect."""
    given = Cut(data)
    ring = (Keyring(), RING)[given.number(2)]
    reader, snapshots, rejected = _Reader(), SnapshotStore(untrained("forest-1", online_model())), []
    handlers = {
        SWITCH_KEY: partial(service.switch_online_model, snapshots, SCORER),
        REFIT_KEY: lambda data: LEARNER.show_refit(decode_refit(data)),
    }
    with (
        patch.object(clients, "reader", lambda *_: reader),
        patch("fraud_service.kafka.model_topic.load_keyring", lambda _: ring),
    ):
        topic = ModelTopicReader(SETTINGS, "fuzz", handlers, rejected.append)
    sent = given.number(9)
    for _ in range(sent):
        key, headers = given.one_of(KINDS), given.headers([SEQUENCE_HEADER, KEY_HEADER, "x"], [b"1", b"2", b"3"])
        reader.add(NAMES.models, key, given.one_of([SWITCH, REFIT, STUMPS, None]), headers)
    reader.add(NAMES.models, given.one_of(KINDS), given.rest, [(SEQUENCE_HEADER, b"5")])
    received = topic.read_available()
    assert not reader.waiting
    if ring.requires_signatures:
        assert received == []
        assert len(rejected) == sent + 1
        assert snapshots.at(MONDAY).snapshot.version == "untrained"
    models = []
    ModelRegistry(LinearModel(), rejected.append, models.append, snapshots=snapshots).activate_newest(received)
    return len(models)


def load_model(data: bytes) -> bool:
    """Arbitrary trees in a message with valid digests are rejected, or every payment gets a score."""
    given = Cut(data)
    excess_leaves = given.number(9)
    try:
        trees = msgspec.msgpack.decode(given.rest, type=Trees)
        require_consistent(trees)
    except (ValueError, *UNREADABLE):
        return False
    leaves = sum(node < 0 for node in truncate(trees).left)
    with suppress(ModelError):
        model = OnnxForest.from_message(_sealed(trees, leaves + excess_leaves))
        assert not excess_leaves
        for row, encoded in zip(PAYMENTS, model.encode(PAYMENTS), strict=True):
            assert -50 < encoded.logit < 50
            assert all(0 <= leaf < leaves for leaf in encoded.leaves)
            model.contributions(row)
        return True
    return False


# Snapshots and risk rows

TABLE: dict[str, bytes] = {}
ROW = encode_risk(NO_RISK.with_label(MONDAY, MONDAY, is_fraud=True, amount_is_anomalous=False))
SNAPSHOT = snapshot(MONDAY, {"card:c-1": ROW}, TABLE)
GOOD_SNAPSHOT = encode_snapshot(SNAPSHOT)
VERSIONS = [SNAPSHOT.version.encode(), b"20240101T0000-0123abcd", None]


def read_snapshots(data: bytes) -> bool:
    """With any records on the topics of snapshots and risk, the next payment gets a score."""
    given = Cut(data)
    final, is_sealed = bool(given.number(2)), given.number(2)
    reader, model = _Reader(), LinearModel()
    snapshots = SnapshotStore(untrained(model.version, online_model()))
    with (
        patch.object(clients, "reader", lambda *_: reader),
        patch("fraud_service.processors.snapshot_reader.load_keyring", lambda _: Keyring()),
    ):
        snapshot_reader = SnapshotReader(SETTINGS, snapshots, lambda reason: None)
    for _ in range(given.number(9)):
        headers = given.headers([VERSION_HEADER, "x"], VERSIONS)
        reader.add(NAMES.risk, given.one_of([b"card:c-1", b"merchant:m-1"]), given.one_of([ROW, None]), headers)
    reader.add(NAMES.risk, b"card:c-1", ROW, [(VERSION_HEADER, VERSIONS[given.number(2)])])
    reader.add(NAMES.snapshots, given.one_of(VERSIONS), _with_valid_digest(given.rest) if is_sealed else given.rest, [])
    snapshot_reader._take(topic_reader.poll_available(reader, 100, 0))
    snapshot_reader._activate(final=final)
    step = ScorerProcessor(SETTINGS, Detector(model, Policy()), snapshots, SCORER)
    payment = text(timestamp=MONDAY + DAY)
    ((score, *_),) = step([Received(NAMES.transactions, 0, 0, b"c-1", payment, BROKER_TIME)], lambda _: Store())
    assert 0 <= decode_score(score.value).score <= 1
    return not snapshots.newest.is_untrained


def _with_valid_digest(value: bytes) -> bytes:
    """Return a snapshot with a valid digest, as an attacker can make it."""
    with suppress(*UNREADABLE, ValueError, OverflowError, OSError):
        return encode_snapshot(msgspec.json.decode(value, type=Snapshot).with_digest())
    return value


# Tokenizer

TOKENIZER = Tokenizer({"a": b"a" * 32, "b": b"b" * 32}, "b")


def tokenize_message(data: bytes) -> bool:
    """An accepted message has no card data. Its card id and its key are tokens of a known key."""
    given = Cut(data)
    key = given.part()
    with suppress(InvalidEvent):
        value, new_key = TOKENIZER.tokenize(given.rest, key)
        assert find_card_data(value) is None
        assert (new_key is None) == (key is None)
        tokens = [card_id_of(fields_of(value)).encode(), *([] if key is None else [new_key])]
        assert all(TOKENIZER._is_token(token) for token in tokens), tokens
        assert TOKENIZER.tokenize(value, new_key) == (value, new_key)
        return True
    return False


# HTTP

LOOPBACK = "127.0.0.1"
PROBE = b"GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n"


@cache
def _endpoint() -> health.HttpEndpoint:
    alive = health.Health()
    alive.heartbeat(1e9)
    return health.HttpEndpoint(LOOPBACK, 0, Metrics(), alive).__enter__()


def answer_http(data: bytes) -> bool:
    """Any bytes, in two pieces, get a short answer, and the next request gets an answer."""
    given = Cut(data)
    first, answer = given.part() or b"", b""
    port = _endpoint().port
    with suppress(ConnectionError), socket.create_connection((LOOPBACK, port), timeout=4) as hostile:
        hostile.sendall(first)
        hostile.sendall(given.rest)
        with suppress(OSError):  # the server may have closed it already
            hostile.shutdown(socket.SHUT_WR)
        for part in iter(lambda: hostile.recv(1 << 16), b""):
            answer += part
            assert len(answer) < 1 << 20
    with socket.create_connection((LOOPBACK, port), timeout=4) as probe:
        probe.sendall(PROBE)
        assert probe.recv(1 << 16).startswith(b"HTTP/1.1 200")
    return bool(answer)


# Terminal


def escape_text(data: bytes) -> bool:
    """Any text becomes one printable line, and escaped JSON decodes to the same document."""
    hostile = data.decode("utf-8", "surrogateescape")
    assert visible(hostile).isprintable()
    document = {hostile: [hostile, {"n": 1}]}
    for written in (json.dumps(document, ensure_ascii=False, indent=1), json.dumps(document)):
        shown = visible_json(written)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert json.loads(shown) == document
    event = logging._visible(
        None, "", logging._scrubbed(None, "", {hostile: hostile, "deep": [hostile], "bytes": data})
    )
    written = StringIO()
    structlog.PrintLogger(written).msg(
        structlog.dev.ConsoleRenderer(colors=False)(None, "info", {"event": "e", **event})
    )
    assert all(line.isprintable() for line in written.getvalue().split("\n"))
    return True


# Each target with a valid input, for which it returns a true value.
TARGETS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "redrive_dead_letters": (redrive_dead_letters, bytes([0, 0, 2, 1, 3, 1, 3, 0, 1, 1, 3, 0, 0, 0, 0])),
    "check_signature": (check_signature, b"\0\1k\1v\1\0\0\1x\0\3\0\1\2\0\0\0\0"),
    "read_model_records": (read_model_records, bytes([0, 1, 2, 1, 0, 0, 2, 2]) + STUMPS),
    "load_model": (load_model, b"\0" + msgspec.msgpack.encode(STUMP)),
    "read_snapshots": (read_snapshots, bytes([0, 1, 0, 0, 0]) + GOOD_SNAPSHOT),
    "tokenize_message": (tokenize_message, b"\3c-1" + ORDERLY),
    "answer_http": (answer_http, bytes([len(PROBE)]) + PROBE),
    "escape_text": (escape_text, "\x1b]0;owned\x07\u202e\U000e0041".encode()),
}
