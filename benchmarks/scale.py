"""Measure recovery, throughput, memory, disk and changelog by the number of cards in state.

Filling ten million cards through the scorer would take too long. So the benchmark writes profiles straight into the
changelog, under the wanted number of card ids and with the headers of Quix. The profiles are copies of simulated cards
that the detector processed for thirty days, in the real encoding. The scorer then recovers from the changelog, as on an
empty volume. It scores payments of cards drawn evenly from all, so caches do not help.
"""

from __future__ import annotations

import itertools
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, TopicPartition
from harness import (
    CACHE,
    ONCE,
    PATIENCE,
    Broker,
    Cost,
    Payment,
    Results,
    aside,
    broker,
    committed,
    history,
    memory,
    payments,
    pid_of,
    processor_time,
    say,
    send,
    size,
    watched,
)
from stages import bench
from support.processes import Service, fresh_settings

from fraud_service.domain.events import decode_transaction, encode
from fraud_service.domain.profile import SCHEMA
from fraud_service.domain.records import decode_score
from fraud_service.kafka import clients, topics
from fraud_service.processors.scorer import PROFILE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from fraud_service.config.settings import Settings

TEMPLATES: Final = 1_000  # cards of the simulated history whose profiles are copied
WRITERS: Final = 2
DIGITS: Final = 9
BYTES_A_CARD: Final = 5_000  # of disk, for changelog and state together
MOST_KILLED: Final = 1_000_000  # with more cards, a lost volume repeats the result of the first start
FIRST: Final = 2_000  # payments on the topic when the scorer starts
BEHIND: Final = 20_000  # payments right after a recovery, while RocksDB compacts its files
LOOK: Final = 2.0  # seconds
CLEANING: Final = 20.0  # seconds: longer than the pause of a broker's log cleaner
RESTING: Final = 0.15  # share of a core: polling without compaction
MOMENT: Final = 2_592_000_000  # thirty days, milliseconds: payments come after the history


class Sizes(msgspec.Struct, frozen=True):
    """The numbers of cards, and the number of payments to score with each."""

    cards: tuple[int, ...] = (10_000, 1_000_000)
    payments: int = 60_000


def card_ids(numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Write card numbers as ids of ten bytes, shape (cards, 10)."""
    rows = np.empty((len(numbers), DIGITS + 1), dtype=np.uint8)
    rows[:, 0] = ord("c")
    left = numbers.copy()
    for column in range(DIGITS, 0, -1):
        rows[:, column] = left % 10 + ord("0")
        left //= 10
    return rows


def partitions_of(rows: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the `murmur2_partition` of each row, computed for all rows at once."""
    multiplier = np.uint32(0x5BD1E995)
    width = rows.shape[1]
    state = np.full(len(rows), 0x9747B28C ^ width, dtype=np.uint32)
    with np.errstate(over="ignore"):
        for place in range(0, width & ~3, 4):
            word = np.ascontiguousarray(rows[:, place : place + 4]).view("<u4")[:, 0] * multiplier
            word = (word ^ (word >> np.uint32(24))) * multiplier
            state = state * multiplier ^ word
        for place in range(width - 1, (width & ~3) - 1, -1):
            state ^= rows[:, place].astype(np.uint32) << np.uint32(8 * (place - (width & ~3)))
        if width % 4:
            state *= multiplier
        state = (state ^ (state >> np.uint32(13))) * multiplier
    return ((state ^ (state >> np.uint32(15))) & np.uint32(0x7FFFFFFF)).astype(np.int64) % count


def templates() -> list[bytes]:
    """Return the encoded profiles of some simulated cards after thirty days, with their decisions."""
    path = CACHE / f"templates-{SCHEMA}.msgpack"
    if not path.exists():
        chosen = {f"c-{number:05d}".encode() for number in range(TEMPLATES)}
        whole = [(event.transaction.card_id.encode(), encode(event.transaction)) for event in history()]
        filled = bench([payment for payment in whole if payment[0] in chosen])
        path.write_bytes(msgspec.msgpack.encode([*filled.profiles.values()]))
    return msgspec.msgpack.decode(path.read_bytes(), type=list[bytes])


def write_changelog(settings: Settings, changelog: str, first: int, end: int) -> None:
    """Write the profiles of the cards with these numbers, as the scorer's checkpoints would."""
    known = templates()
    # Faster than the service's producer: no transactions, larger batches. The records are the same.
    options = {"bootstrap.servers": settings.bootstrap_servers, "compression.type": "lz4", "linger.ms": 20}
    producer = clients.producer(settings, {**options, "queue.buffering.max.kbytes": 262_144})
    offsets = msgspec.json.encode({settings.topics.transactions: 0})
    headers = [("__column_family__", b"default"), ("__processed_tp_offsets__", offsets)]
    suffix = b'|"' + PROFILE.encode() + b'"'
    for start in range(first, end, 100_000):
        numbers = np.arange(start, min(start + 100_000, end), dtype=np.int64)
        rows = card_ids(numbers)
        ids = rows.tobytes()
        for place, partition in enumerate(partitions_of(rows, settings.partitions).tolist()):
            card_id = ids[place * (DIGITS + 1) : (place + 1) * (DIGITS + 1)]
            value = known[(start + place) % len(known)]
            while True:
                try:
                    producer.produce(changelog, value, card_id + suffix, partition, headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
            if not place % 1000:
                producer.poll(0)
    if producer.flush(PATIENCE):
        raise SystemExit("the broker did not accept all profiles in time")


def fill(settings: Settings, changelog: str, cards: int) -> float:
    """Fill the changelog from several processes and commit the matching offsets; returns the seconds."""
    templates()
    began = time.monotonic()
    bounds = [cards * number // WRITERS for number in range(WRITERS + 1)]
    writers = [aside(write_changelog, settings, changelog, first, end) for first, end in itertools.pairwise(bounds)]
    for writer in writers:
        writer.join(1200)
        if writer.exitcode != 0:
            writer.kill()
            raise SystemExit(f"a writer of the changelog did not end well; exit code {writer.exitcode}")
    _begin_after_the_first(settings)
    return time.monotonic() - began


def _begin_after_the_first(settings: Settings) -> None:
    """Send a payment to each partition and commit its offset, so that the headers of the changelog are true."""
    (payment,) = payments(1)
    producer = clients.producer(settings)
    for number in range(settings.partitions):
        producer.produce(settings.topics.transactions, payment[1], payment[0], number)
    producer.flush(30)
    group = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.scorer_group})
    places = [TopicPartition(settings.topics.transactions, number, 1) for number in range(settings.partitions)]
    group.commit(offsets=places, asynchronous=False)
    group.close()


def of_all_cards(count: int, cards: int) -> list[Payment]:
    """Return payments of evenly drawn cards, later than every payment in their profiles."""
    numbers = np.random.default_rng(11).integers(0, cards, count)
    ids = card_ids(numbers)
    found = []
    for place, (_, value) in enumerate(payments(count)):
        payment, card_id = decode_transaction(value), ids[place].tobytes().decode()
        later = msgspec.structs.replace(payment, card_id=card_id, timestamp=payment.timestamp + MOMENT)
        found.append((card_id.encode(), encode(later)))
    return found


class Scores:
    """Wait for the first score that becomes visible after the construction."""

    def __init__(self, settings: Settings) -> None:
        self._consumer = clients.reader(settings, f"bench-{time.monotonic_ns()}")
        places = [TopicPartition(settings.topics.scores, number) for number in range(settings.partitions)]
        ends = [self._consumer.get_watermark_offsets(place, timeout=30)[1] for place in places]
        self._consumer.assign(
            [TopicPartition(place.topic, place.partition, end) for place, end in zip(places, ends, strict=True)]
        )

    def wait(self, patience: float) -> tuple[float, float]:
        """Wait for the score; returns its time (monotonic seconds), and the card's number of earlier payments."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                now, record = time.monotonic(), decode_score(message.value())
                self._consumer.close()
                return now, 0.0 if record.features is None else record.features.count_30d
        raise SystemExit(f"no score within {patience:.0f} s")


def start(settings: Settings, service: Service, patience: float) -> dict[str, float]:
    """Start a scorer on a topic with payments; returns the seconds to ready and to the first score."""
    scores, began = Scores(settings), time.monotonic()
    service.start()
    service.wait_until(lambda: service.status("/readyz") == 200, patience)  # noqa: PLR2004
    ready = time.monotonic() - began
    first, known = scores.wait(patience)
    return {"ready": ready, "first_score": first - began, "known": known}


def kill_and_start(settings: Settings, service: Service, volume: Path | None, patience: float) -> dict[str, float]:
    """Kill the scorer as `kill -9` does, remove its volume if given, and start it; returns seconds from the kill."""
    began = time.monotonic()
    service.kill()
    if volume is not None:
        shutil.rmtree(volume)
    lost = time.monotonic() - began
    found = start(settings, service, patience)
    return {name: found[name] + lost for name in ("ready", "first_score")}


def rest(pid: int, patience: float, look: float = LOOK) -> float:
    """Wait until a process is idle for `look` seconds; returns how many seconds it was busy before.

    RocksDB compacts its files after a recovery, and a broker cleans a compacted topic after it was filled.
    """
    began = time.monotonic()
    while time.monotonic() < began + patience:
        before = processor_time(pid)
        time.sleep(look)
        if processor_time(pid) - before < RESTING * look:
            return time.monotonic() - began - look
    raise SystemExit(f"process {pid} was still busy after {patience:.0f} s")


def measure(place: Broker, cards: int, count: int) -> dict[str, Any]:
    """Measure a cold recovery, the rates right after it and at rest, and restarts on a warm and on an empty volume."""
    settings = fresh_settings(place.bootstrap, place.folder)
    changelog = next(spec.name for spec in topics.topic_specs(settings) if spec.role == "scorer_state")
    folder = place.folder / f"cards-{cards}"
    filled = fill(settings, changelog, cards)
    payments_of_all = of_all_cards(FIRST + BEHIND + count, cards)
    first, behind, rested = payments_of_all[:FIRST], payments_of_all[FIRST:][:BEHIND], payments_of_all[FIRST + BEHIND :]
    send(settings, first)
    patience = PATIENCE + cards / 10_000
    if place.pid is not None:
        rest(place.pid, patience, CLEANING)
    before = _on_disk(place, changelog)
    service = Service(settings, "score", folder, ONCE, is_forked=False)
    try:
        found = {"filled_s": filled, "cold": start(settings, service, patience)}
        if found["cold"]["known"] < 1:
            raise SystemExit("the first scored card had no earlier payments: the scorer did not recover its profile")
        pid, progress, ready = pid_of(service), committed(settings, settings.scorer_group), time.monotonic()
        found["rate_behind"] = _scored(settings, service, behind).rate
        waited = time.monotonic() - ready
        found["rests_s"] = waited + rest(pid, patience)
        cost = _scored(settings, service, rested)
        found |= {"rate": cost.rate, "cpu": cost.cpu, "memory": memory(pid), "disk": size(service.folder / "state")}
        # Zero if the broker does not show its files.
        found["changelog_bytes"] = (_on_disk(place, changelog) - before) / max(progress() - settings.partitions, 1)
        found["profile_bytes"] = before / cards
        found["warm"] = _killed_at_work(settings, service, None, patience, count)
        if cards <= MOST_KILLED:
            found["lost"] = _killed_at_work(settings, service, folder / "state", patience, count)
    finally:
        service.kill()
        shutil.rmtree(folder, ignore_errors=True)
    return found


def _scored(settings: Settings, service: Service, given: list[Payment]) -> Cost:
    """Send payments to the scorer, and measure how it scores them."""
    progress = committed(settings, settings.scorer_group)
    done = progress()
    send(settings, given)
    return watched([pid_of(service)], lambda: progress() - done, int(len(given) * 0.8), service.folder / "log")


def _killed_at_work(
    settings: Settings, service: Service, volume: Path | None, patience: float, count: int
) -> dict[str, float]:
    """Send payments to the scorer, and kill it while it scores them."""
    send(settings, payments(count))
    time.sleep(1)
    return kill_and_start(settings, service, volume, patience)


def _on_disk(place: Broker, topic: str) -> int:
    if place.logs is None:
        return 0
    return sum(size(folder, "*.log") for folder in place.logs.glob(f"{topic}-*"))


def run(sizes: Sizes) -> dict[str, Any]:
    """Measure each number of cards."""
    found = Results("scale", {"payments": sizes.payments})
    for cards in sizes.cards:
        if str(cards) not in found.found:
            free = shutil.disk_usage(CACHE.parent).free
            if free < cards * BYTES_A_CARD:
                say(f"scale: skips {cards} cards, {cards * BYTES_A_CARD / 1e9:.0f} GB needed, {free / 1e9:.0f} free")
                continue
            with broker() as place:
                found.measured(str(cards), lambda cards=cards: measure(place, cards, sizes.payments))
    return found.found
