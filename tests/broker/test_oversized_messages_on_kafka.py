"""Send messages that are small on disk and large in memory, with every codec. Processing continues."""

from __future__ import annotations

import logging
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from support.hostile import BOMB, BOMBS, MB, UNREADABLE, WORST, send_bombs, worst
from support.processes import Service, fresh_settings, read_all
from support.worlds import HOUR, MONDAY, label, transaction

from fraud_service.domain.events import encode
from fraud_service.kafka import clients, partitioner, sender, topics
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.verification.verify import verify

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings

log = logging.getLogger(__name__)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

CARD = "card-1"
BATCH = 256
MIB = 1 << 20
MAX_SECONDS = 5 * 5.0  # the promised time, on a machine that is five times slower


class Watched:
    """One process, the topic that it reads, its memory and its liveness."""

    def __init__(self, settings: Settings, folder: Path, verb: str) -> None:
        names = settings.topics
        self.settings = settings
        self.process = Service(settings, verb, folder / verb)
        self.source, self.group = {
            "score": (names.transactions, settings.scorer_group),
            "learn": (names.labels, settings.learner_group),
            "tokenize": (names.raw_transactions, settings.tokenizer_group),
        }[verb]
        self.sent = 0

    def send(self, *values: bytes) -> None:
        sender.produce_all(
            self.settings, [sender.OutgoingRecord(self.source, CARD.encode(), value, []) for value in values]
        )

    def send_good(self) -> None:
        self.sent += 1
        name, moment = f"t-{self.sent}", MONDAY + self.sent * HOUR
        is_label = self.process.verb == "learn"
        self.send(encode(label(name, moment) if is_label else transaction(name, moment)))

    def bomb(self, *bombs: tuple[str, int]) -> None:
        send_bombs(self.settings, self.source, CARD.encode(), bombs)

    def await_processed(self, timeout: float = 60.0) -> float:
        """Wait until all sent messages are committed, while the process is alive; returns the seconds it took."""
        started = monotonic()
        place = TopicPartition(self.source, partitioner.murmur2_partition(CARD.encode(), self.settings.partitions))
        asker = clients.reader(self.settings, self.group)
        end = asker.get_watermark_offsets(place, timeout=30)[1]

        def is_processed() -> bool:
            assert self.process.status("/livez") == 200
            return asker.committed([place], timeout=30)[0].offset >= end

        try:
            self.process.wait_until(is_processed, timeout)
        finally:
            asker.close()
        return monotonic() - started

    @property
    def peak_memory(self) -> int:
        """The largest resident memory of the process since its start, bytes."""
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    def letters(self) -> list[tuple[bytes | None, dict[str, bytes]]]:
        """Return value and headers of the dead letters of this process, in the order of its topic."""
        found = [
            (letter.value(), dict(letter.headers()))
            for letter in read_all(self.settings, self.settings.topics.dead_letters)
        ]
        own = (one for one in found if one[1]["fraud-source-topic"] == self.source.encode())
        return sorted(own, key=lambda one: int(one[1]["fraud-source-offset"]))


@pytest.fixture(scope="module")
def settings(apache_kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sizes")
    made = fresh_settings(apache_kafka.bootstrap, folder)
    (folder / "keys").mkdir()
    (folder / "keys" / "a").write_text("k" * 64)
    made = made.model_copy(update={"tokenizer_key_dir": folder / "keys"})
    topics.create(clients.admin(made), topics.topic_specs(made), 1)
    return made


@pytest.mark.parametrize("verb", ["score", "learn", "tokenize"])
def test_a_message_that_is_small_on_disk_and_large_in_memory_is_skipped(settings, tmp_path, verb):
    watched = Watched(settings, tmp_path, verb)
    with watched.process as process:
        process.await_ready()
        watched.send_good()
        watched.await_processed()
        before, grown = watched.peak_memory, []
        for bomb in BOMBS[:-1]:
            watched.bomb(bomb)
            watched.send_good()
            watched.await_processed()
            grown.append(watched.peak_memory - before)
        process.kill()  # and the next one meets such a message first
        watched.bomb(BOMBS[-1])
        watched.send_good()
        process.start()
        process.await_ready()
        watched.await_processed()
        assert process.stop() == 0
    log.info("%s grew by %s MiB", verb, [each // MIB for each in grown])
    assert grown[0] <= 100 * MIB  # of fifty, which the client and Python have once each
    assert grown[-1] <= 150 * MIB
    letters = watched.letters()
    assert [value for value, _ in letters] == [None] * len(BOMBS)
    for (_, headers), (_, size) in zip(letters, BOMBS, strict=True):
        assert headers["fraud-reason"] == b"too_large"
        assert headers["fraud-content-length"] == str(size).encode()
        assert headers["fraud-content-sha256"].decode() == sha256(BOMB * (size // 2)).hexdigest()
    sink = {"score": settings.topics.scores, "tokenize": settings.topics.transactions}.get(verb)
    if sink is not None:
        assert len(read_all(settings, sink)) >= watched.sent


def test_a_partition_of_large_messages_does_not_fill_the_memory(settings, tmp_path):
    watched = Watched(settings, tmp_path, "score")
    with watched.process as process:
        process.await_ready()
        watched.send_good()
        watched.await_processed()
        before = watched.peak_memory
        assert process.stop() == 0
        watched.bomb(*[("gzip", 24 * MB)] * 20)
        watched.send_good()
        process.start()
        process.await_ready()
        watched.await_processed()
        grown = watched.peak_memory - before
        assert process.stop() == 0
    log.info("score grew by %d MiB", grown // MIB)
    assert grown <= 300 * MB  # of 480 that they have


@pytest.mark.parametrize("verb", ["score", "learn", "tokenize"])
def test_a_batch_of_the_slowest_content_takes_seconds_and_heartbeats_continue(settings, tmp_path, verb):
    watched = Watched(settings, tmp_path, verb)
    with watched.process as process:
        process.await_ready()
        watched.send(*[worst(name) for name in islice(cycle(WORST), BATCH)])
        watched.send_good()
        took = watched.await_processed()
        log.info("%s took %.1f s", verb, took)
        assert took < MAX_SECONDS
        assert process.stop() == 0


@pytest.mark.parametrize("verb", ["score", "learn", "tokenize"])
def test_a_batch_that_the_client_cannot_unpack_is_skipped(settings, tmp_path, verb):
    watched = Watched(settings, tmp_path, verb)
    before = len(watched.letters())
    with watched.process as process:
        process.await_ready()
        watched.send_good()
        watched.bomb(UNREADABLE, UNREADABLE)
        watched.send_good()
        watched.await_processed()
        process.kill()  # the next process reads such a batch first and last
        watched.bomb(UNREADABLE)
        process.start()
        process.await_ready()
        watched.await_processed()
        assert process.stop() == 0
    letters = watched.letters()[before:]
    assert [headers["fraud-reason"] for _, headers in letters] == [b"unreadable"] * 3
    for value, headers in letters:
        assert value is None
        assert headers["fraud-batch-first-offset"] == headers["fraud-source-offset"]


def test_the_end_of_a_batch_of_many_messages_is_found(settings):
    """A topic reader returns one record for the batch, at its last offset."""
    name = f"{settings.topics.labels}.many"
    topics.create(clients.admin(settings), [topics.TopicSpec("labels", name, "card_id", "labels", 1)], 1)
    codec, size = UNREADABLE
    together = {
        "compression.type": codec,
        "message.max.bytes": 2 * size,
        "batch.size": 2 * size,
        "queue.buffering.max.kbytes": 1 << 20,
        "linger.ms": 5000,
    }
    bomb = [sender.OutgoingRecord(name, b"k", BOMB * (size // 2000), [])] * 1000
    good = [sender.OutgoingRecord(name, b"k", b"good", [])]
    sender.produce_all(settings, good)
    sender.produce_all(settings, bomb, together)
    sender.produce_all(settings, good)
    with TopicReader(settings, "test-many") as reader:
        assert reader.offset_ranges(name) == {0: (0, 1002)}
        started = monotonic()
        assert [(entry.offset, entry.value) for entry in reader.read(name, 0)] == [
            (0, b"good"),
            (1000, None),
            (1001, b"good"),
        ]
        log.info("the end of a batch was found in %.1f s", monotonic() - started)


def test_a_batch_on_the_topic_of_snapshots_that_the_client_cannot_unpack_ends_no_scorer(settings, tmp_path):
    names = settings.topics
    for topic in (names.snapshots, names.risk, names.models):
        send_bombs(settings, topic, CARD.encode(), [UNREADABLE])
    watched = Watched(settings, tmp_path, "score")
    with watched.process as process:
        process.await_ready()
        watched.send_good()
        watched.await_processed()
        assert process.stop() == 0


def test_the_verifier_accepts_the_topics_afterwards(settings):
    report = verify(settings)
    assert {one.topic for one in report.findings} <= {settings.topics.snapshots, settings.topics.risk}
    assert report.counts["dead_letters"] > 20
