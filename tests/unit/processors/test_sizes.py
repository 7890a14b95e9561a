"""However large a message is: nothing looks into it, nothing of it is kept, and what follows it is processed."""

from __future__ import annotations

import random
import time
import weakref
from hashlib import sha256
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError
from hypothesis import given, settings
from hypothesis import strategies as st
from quixstreams.kafka.exceptions import KafkaConsumerException
from support.hostile import WORST, worst
from support.loop import looped
from support.malformed import BROKER_TIME, text
from support.payments import payment
from support.polled import Client, Polled
from support.steps import TOPICS, Steps
from support.steps import message as made_of

from fraud_service.config.log_rate_limit import RateLimitedLog
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.events import MAX_EVENT_BYTES, MAX_KEY_BYTES
from fraud_service.kafka import dead_letters, unreadable_batches
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Received, bounded, require_content
from fraud_service.processors import learner, scorer
from fraud_service.processors.snapshot_reader import MAX_RECORD_BYTES, SnapshotReader
from fraud_service.processors.tokenizer import TokenizerProcessor
from fraud_service.runtime.batching import MAX_BATCH, MAX_BATCH_BYTES, Batches
from fraud_service.runtime.metrics.stream import Metrics, TokenizerMetrics
from fraud_service.runtime.stream import StreamAccess
from fraud_service.security.tokens import Tokenizer

pytestmark = pytest.mark.attack

MOST_OF_A_BROKER = 1_000_000  # bytes of a message, by default
BIG = b"4 " * 4_000_000


@pytest.fixture
def loop(tmp_path):
    with looped(tmp_path) as made:
        yield made


def explode(*_, **__):
    raise AssertionError("something looked into a message that is too large")


def received(value: bytes | None, key: bytes | None = b"c-1", topic: str = "payments.transactions.v1") -> Received:
    return Received(topic, 0, 7, key, value, BROKER_TIME)


@pytest.mark.parametrize("field", ["value", "key"])
def test_of_content_that_is_too_large_a_dead_letter_keeps_length_and_hash(loop, field):
    good = {"value": text(), "key": b"c-1"}
    loop.raw(**{**good, field: BIG})
    loop.transaction(payment(1))
    loop.tick()
    (letter,) = loop.on("dead_letters")
    named = "content" if field == "value" else "key"
    assert getattr(letter, field) is None
    assert letter.header["fraud-reason"] == DeadLetterReason.TOO_LARGE
    assert letter.header[f"fraud-{named}-length"] == "8000000"
    assert letter.header[f"fraud-{named}-sha256"] == sha256(BIG).hexdigest()
    assert len(loop.on("scores")) == 1


def test_nothing_parses_a_message_that_is_too_large(loop, monkeypatch):
    for module in (scorer, learner):
        monkeypatch.setattr(module, "reject_card_data", explode)
    monkeypatch.setattr(scorer, "decode_transaction", explode)
    monkeypatch.setattr(learner, "decode_label", explode)
    monkeypatch.setattr(learner, "decode_score", explode)
    names = loop.settings.topics
    loop.raw(BIG, b"c-1")
    loop.raw(text(), b"4 " * 1_000)
    for topic in (names.labels, names.scores):
        loop.learner.send(topic, b"c-1", BIG, BROKER_TIME)
    loop.tick()
    letters = loop.on("dead_letters")
    assert [letter.header["fraud-reason"] for letter in letters] == [DeadLetterReason.TOO_LARGE] * 4
    assert {letter.header["fraud-source-topic"] for letter in letters} == {
        names.transactions,
        names.labels,
        names.scores,
    }


def test_the_tokenizer_does_not_parse_a_message_that_is_too_large():
    step = TokenizerProcessor(
        Settings(),
        SimpleNamespace(tokenize=explode, card_token=lambda *_: b"tok_a_x", active="a", keys={}),
        TokenizerMetrics(Metrics()),
    )
    names = Settings().topics
    batch = [received(BIG, topic=topic) for topic in (names.raw_transactions, names.raw_labels)]
    for (output,) in step(batch, explode):
        assert (output.role, output.value) == ("dead_letters", None)


def test_a_message_of_the_largest_size_is_read():
    value, key = b"x" * MAX_EVENT_BYTES, b"k" * MAX_KEY_BYTES
    for message in (received(value, key), received(None, None), received(b"", b"")):
        assert bounded(message) is message
        require_content(message)
    for message in (received(value + b"x", key), received(value, key + b"k")):
        with pytest.raises(InvalidEvent, match="at most 65536 bytes, and a key 512"):
            require_content(message)
        with pytest.raises(InvalidEvent):
            require_content(bounded(message))
        assert bounded(bounded(message)) == bounded(message)


CONTENTS = {
    "no text": b"\xff" * MAX_EVENT_BYTES,
    "card numbers": b"4242424242424242," * (MAX_EVENT_BYTES // 17),
    "short card numbers": b"4222222222222," * (MAX_EVENT_BYTES // 14),
    "security codes": b"cvv:123 " * (MAX_EVENT_BYTES // 8),
    "both and no text": b"\xffcvv:123\xff" * (MAX_EVENT_BYTES // 9),
    "noise": random.Random(1).randbytes(MAX_EVENT_BYTES),
    "NULs and escapes": b"\\u0034\0" * (MAX_EVENT_BYTES // 7),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_a_dead_letter_fits_its_topic_whatever_was_masked_in_it(content):
    error = InvalidEvent(DeadLetterReason.NOT_JSON, "4242424242424242 " * 100_000)
    letter = dead_letter(received(CONTENTS[content], CONTENTS[content][:MAX_KEY_BYTES]), error)
    size = len(letter.value or b"") + len(letter.key or b"") + sum(len(part) for _, part in letter.headers)
    assert size < MOST_OF_A_BROKER / 3


def test_a_value_that_masking_makes_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(dead_letters, "mask_bytes", lambda data, **_: data * 5)
    letter = dead_letter(received(b"x" * MAX_EVENT_BYTES), InvalidEvent(DeadLetterReason.NOT_JSON, "no JSON"))
    assert letter.value is None
    assert dict(letter.headers)["fraud-content-length"] == b"65536"


class Large(Polled):
    def value(self):
        return b"v" * 50_000


class Huge(Polled):
    """A message that memory should hold only one of."""

    def value(self):
        return bytes(5_000_000)


def sizes(client, topics=("in",)) -> list[int]:
    """Return how many messages each batch had."""
    found = []

    def step(batch, _):
        found.append(len(batch))
        assert sum(len(message.value or b"") for message in batch) < 1 << 20
        return [[] for _ in batch]

    batches = Batches(StreamAccess(client, topics[0], {}), step)
    while batches.tick(0):
        pass
    return found


def test_a_batch_is_bounded_by_its_bytes_and_ordinary_traffic_never_meets_the_bound():
    client = Client(0)
    client.waiting = [Large(offset) for offset in range(40)]
    assert sizes(client) == [18, 18, 4]
    ordinary = Client(2 * MAX_BATCH)
    assert sizes(ordinary) == [MAX_BATCH, MAX_BATCH]
    assert MAX_BATCH * 3_000 < MAX_BATCH_BYTES  # ten times what a payment has


def test_a_message_that_is_too_large_is_freed_before_the_next_one_is_read():
    given, kept = [], []

    def poll(_):
        kept.append(sum(one() is not None for one in given))
        message = Huge(len(given)) if len(given) < 4 else None
        given.extend([weakref.ref(message)] if message else [])
        return message

    client = Client(0)
    client.poll = poll
    assert sizes(client) == [1, 1, 1, 1]
    assert kept == [0] * 5


def test_every_message_with_a_full_check_sends_a_heartbeat():
    beats = []
    tokenizer = Tokenizer({"a": b"k" * 32}, "a")
    step = TokenizerProcessor(Settings(), tokenizer, TokenizerMetrics(Metrics()), lambda: beats.append(1))
    step([received(text(), topic=Settings().topics.raw_transactions)] * 3, explode)
    assert len(beats) == 3


def test_a_scorer_sends_heartbeats_within_a_batch_of_full_checks(loop):
    loop.scorer.batch = 3
    for _ in range(3):
        loop.raw(text(note="4242424242424242"), b"c-1")
    assert len(loop.beats) == 3


def test_a_snapshot_that_no_learner_can_have_written_is_refused_before_it_is_hashed():
    reader = SnapshotReader.__new__(SnapshotReader)
    refused = []
    reader._on_rejected = refused.append
    reader._rejected = reader._unreadable = reader._skipped = RateLimitedLog(lambda *_, **__: None, "refused")
    reader._keyring = SimpleNamespace(require=explode)

    class Snapshot(Polled):
        def value(self):
            return bytes(MAX_RECORD_BYTES)

    assert reader._take([Snapshot(0)])
    assert refused == ["invalid"]


STEPS = Steps()
PIECES = st.sampled_from([text(), *WORST.values(), b'"card_id":"4242424242424242"', b"\xff", b"\0", b"{", b'"'])


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=2, max_size=2), st.integers(0, 20), st.lists(st.binary(max_size=12) | PIECES, max_size=6))
def test_a_message_of_any_size_gives_what_fits_a_topic_and_ends_no_step(head, power, pieces):
    received = made_of(head + bytes([power]) + b"".join(pieces))
    outputs = STEPS.take(received)
    for output in outputs:
        if output.role == "dead_letters":
            assert len(output.value or b"") <= 4 * MAX_EVENT_BYTES


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("name", WORST)
def test_a_batch_of_the_worst_content_takes_no_longer_than_its_share_of_five_seconds(name, topic):
    value = worst(name)
    began = time.process_time()
    for _ in range(16):
        STEPS.take(received(value, topic=topic))
    assert time.process_time() - began < 5 * 5 * 16 / 256  # of a machine that is five times slower


class Broken(Polled):
    """A batch that the client cannot unpack, as it tells of it: by an error at the first offset."""

    def error(self):
        return KafkaError(KafkaError._BAD_COMPRESSION)


def test_one_message_at_the_last_offset_replaces_an_unreadable_batch():
    client = Client(0)
    client.waiting = [Polled(6), Broken(7), Polled(17)]
    client.consumer, sought, taken = client, [], []
    client.seek = sought.append

    def step(batch, _):
        taken.extend(batch)
        return [[] for _ in batch]

    stream = StreamAccess(client, "in", {})
    batches = Batches(stream, step, end_of=lambda _: 17)
    assert batches.tick(0)
    assert [(place.topic, place.partition, place.offset) for place in sought] == [("in", 0, 17)]
    assert [(message.offset, message.value) for message in taken] == [(6, b"v"), (16, None), (17, b"v")]
    assert client.stored == [("in", 0, 17)]
    assert stream.skipped == {("in", 0): 17}
    with pytest.raises(InvalidEvent, match="cannot be unpacked") as refused:
        require_content(taken[1])
    letter = dead_letter(taken[1], refused.value)
    assert dict(letter.headers)["fraud-batch-first-offset"] == b"7"
    assert dict(letter.headers)["fraud-source-offset"] == b"16"


def test_a_batch_that_was_damaged_on_its_way_is_fetched_again():
    client = Client(0)
    client.waiting = [Broken(7), Polled(7)]
    batches = Batches(StreamAccess(client, "in", {}), lambda batch, _: [[] for _ in batch], end_of=lambda _: 7)
    assert batches.tick(0)
    assert client.stored == [("in", 0, 7)]


def test_an_unreadable_batch_is_an_error_without_a_search_for_its_end():
    client = Client(0)
    client.waiting = [Broken(7)]
    with pytest.raises(KafkaConsumerException):
        Batches(StreamAccess(client, "in", {}), lambda batch, _: [[] for _ in batch]).tick(0)


@pytest.mark.parametrize("last", [7, 8, 9, 14, 63, 1_000_006])
def test_the_end_of_an_unreadable_batch_is_found_in_few_fetches(monkeypatch, last):
    looked = []

    class Topic:
        """A batch from 7 to the last offset, and messages behind it."""

        def __init__(self, _):
            pass

        def get_watermark_offsets(self, *_, **__):
            return 0, last + 3

        def assign(self, places):
            self.offset = places[0].offset
            looked.append(self.offset)

        def poll(self, _):
            return Broken(7) if self.offset <= last else Polled(self.offset)

        def close(self):
            pass

    monkeypatch.setattr(unreadable_batches, "Consumer", Topic)
    assert unreadable_batches.find_batch_end({}, Broken(7)) == last + 1
    assert len(looked) <= 45
