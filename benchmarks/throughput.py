"""Throughput and latency side by side in one run: `make bench-quick` ends with one JSON line.

Every rung is a process of its own on the same topic, full before it starts. What it did and what it cost is read
from outside: offsets committed by its group, and processor time of the process, between the first commit seen and the
last one. On Apache Kafka where it can run, otherwise on the embedded broker; the line says which.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from confluent_kafka import Consumer, TopicPartition
from support import apache_kafka
from support.processes import Service, fresh_settings

from fraud_service.domain.records import decode_score
from fraud_service.embedded import EmbeddedBroker
from fraud_service.feed import Feed
from fraud_service.history import History
from fraud_service.simulator import World, write
from fraud_service.stream import clients, topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fraud_service.history import LabelledTransaction
    from fraud_service.settings import Settings

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")
COMMIT = {"FRAUD_COMMIT_INTERVAL": "1.0"}
ONCE = {"FRAUD_GUARANTEE": "exactly-once", "FRAUD_COMMIT_INTERVAL": "0.1"}
LEAST = {"FRAUD_GUARANTEE": "at-least-once", **COMMIT}
PATIENCE = 120.0  # seconds


class Rung(NamedTuple):
    """A process under measurement: its script and arguments, or the scorer with its settings."""

    name: str
    script: str = ""
    words: tuple[str, ...] = ()
    scorer: dict[str, str] | None = None
    messages: int | None = None  # of those on the topic; slow rungs need not do all


RUNGS = (
    Rung("raw client: consume and decode", "rungs.py", ("raw",)),
    Rung("Quix pass-through", "rungs.py", ("passthrough",)),
    Rung("Quix stateful step with output", "rungs.py", ("stateful",)),
    Rung("naive", "naive.py", (), None, 1500),
    Rung("scorer", scorer=LEAST),
    Rung("scorer, exactly-once, commit every 0.1 s", scorer=ONCE),
)


class Cost(NamedTuple):
    """Transactions a second of wall time, and microseconds of processor time for each."""

    rate: float
    cpu: float


@contextmanager
def broker() -> Iterator[tuple[str, str]]:
    """Start a broker; gives its address and its name."""
    if apache_kafka.why_unavailable() is None:
        with apache_kafka.ApacheKafka() as kafka:
            yield kafka.bootstrap, "Apache Kafka"
    else:
        with EmbeddedBroker() as embedded:
            yield embedded.bootstrap, "embedded"


def history(folder: Path, transactions: int) -> list[LabelledTransaction]:
    """Simulate some transactions of many cards."""
    path = folder / "history.parquet"
    write(World(seed=5, cards=5_000, merchants=1_000, days=30), path)
    return [event for _, event in zip(range(transactions), History.open(path), strict=False)]


def measure(rung: Rung, settings: Settings, folder: Path, transactions: int) -> Cost:
    """Run one rung over the topic."""
    wanted, group = rung.messages or transactions, f"{rung.name}-{time.monotonic_ns()}".replace(" ", "-")
    group = "".join(character for character in group if character.isalnum() or character in "-.")
    settings = settings.model_copy(update={"scorer_group": group})  # and with it changelog and state
    with _process(rung, settings, folder / group, group) as process:
        return _watched(process, settings, group, wanted, folder / group / "log")


@contextmanager
def _process(rung: Rung, settings: Settings, folder: Path, group: str) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir(parents=True)
    if rung.scorer is not None:
        topics.create(clients.admin(settings), topics.table(settings), 1)
        with Service(settings, "score", folder, rung.scorer) as service:
            if service.process is None:
                raise AssertionError("a service that was entered runs")
            yield service.process
        return
    names = settings.topics
    words = [
        settings.bootstrap_servers,
        names.transactions,
        f"{names.scores}.{rung.words[0] if rung.words else 'naive'}",
    ]
    command = [sys.executable, str(HERE / rung.script), *rung.words, *words, group, str(folder), "at-least-once"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log)  # noqa: S603 - our own
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _watched(process: subprocess.Popen[bytes], settings: Settings, group: str, wanted: int, log: Path) -> Cost:
    reader = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": group})
    asked = [TopicPartition(settings.topics.transactions, number) for number in range(settings.partitions)]
    began: tuple[int, float, float] | None = None
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done = sum(max(position.offset, 0) for position in reader.committed(asked, timeout=30))
        now = (done, time.monotonic(), _processor_time(process.pid))
        if began is None and done > 0:
            began = now
        if began is not None and done >= wanted:
            reader.close()
            count = done - began[0]
            if count <= 0:
                raise SystemExit(f"{group}: {wanted} messages are too few to measure: all were in one commit")
            return Cost(count / (now[1] - began[1]), (now[2] - began[2]) / count * 1e6)
        if process.poll() is not None:
            raise SystemExit(f"{group} ended with {process.returncode}: {log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(0.02)
    raise SystemExit(f"{group} took longer than {PATIENCE:.0f} s")


def _processor_time(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / TICKS


def latency(settings: Settings, folder: Path, events: list[LabelledTransaction], rate: float) -> list[float]:
    """Return milliseconds from the broker's timestamp to the moment a committed score is read; open loop, paced."""
    options = ONCE if settings.guarantee == "exactly-once" else LEAST
    group = f"latency-{time.monotonic_ns()}"
    settings = fresh_settings(settings.bootstrap_servers, folder).model_copy(update={"scorer_group": group})
    topics.create(clients.admin(settings), topics.table(settings), 1)
    with Service(settings, "score", folder / group, options) as service:
        service.await_ready()
        return _paced(settings, events, rate)


def _paced(settings: Settings, events: list[LabelledTransaction], rate: float) -> list[float]:
    reader = clients.reader(settings, f"bench-{time.monotonic_ns()}")
    numbers = range(settings.partitions)
    reader.assign([TopicPartition(settings.topics.scores, number, 0) for number in numbers])
    found: list[float] = []
    feeder = feeder_of(settings, events, rate)
    deadline = time.monotonic() + PATIENCE
    while len(found) < len(events) and time.monotonic() < deadline:
        for message in reader.consume(100, timeout=0.002):
            found.append(time.time() * 1000 - message.timestamp()[1])
            decode_score(message.value())
    feeder.join()
    reader.close()
    return found[len(found) // 5 :]  # the first fifth warms up


def feeder_of(settings: Settings, events: list[LabelledTransaction], rate: float) -> Any:
    """Feed from a process of its own, so that reading does not delay sending."""
    feeder = get_context("fork").Process(target=_feed, args=(settings, events, rate))
    feeder.start()
    return feeder


def _feed(settings: Settings, events: list[LabelledTransaction], rate: float | None) -> None:
    silent = [msgspec.structs.replace(event, is_fraud=None) for event in events]
    with Feed(settings) as feed:
        feed.play(silent, 0, rate)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main(transactions: int, runs: int, paced_seconds: float, only: str = "") -> None:
    """Measure everything `runs` times, print a table to stderr and the JSON line to stdout."""
    with tempfile.TemporaryDirectory() as name, broker() as (bootstrap, kind):
        folder = Path(name)
        events = history(folder, transactions)
        settings = fresh_settings(bootstrap, folder)
        _feed(settings, events, None)
        costs: dict[str, list[Cost]] = {rung.name: [] for rung in RUNGS}
        for _ in range(runs):
            for rung in [one for one in RUNGS if only in one.name]:
                costs[rung.name].append(measure(rung, settings, folder, transactions))
                print(rung.name, costs[rung.name][-1], file=sys.stderr)  # noqa: T201
        rate = {name: statistics.median(cost.rate for cost in found) for name, found in costs.items()}
        scorer, once = rate["scorer"], rate["scorer, exactly-once, commit every 0.1 s"]
        half = scorer / 2
        paced = events[: int(min(half * paced_seconds, len(events)))]
        least = latency(settings.model_copy(update={"guarantee": "at-least-once"}), folder, paced, half)
        exactly = latency(settings.model_copy(update={"guarantee": "exactly-once"}), folder, paced, once / 2)
        line = {
            "throughput_vs_naive": round(scorer / rate["naive"], 1),
            "throughput_vs_quix_step": round(scorer / rate["Quix stateful step with output"], 2),
            "exactly_once_cost": round(1 - once / scorer, 2),
            "p50_ms": round(percentile(least, 0.5), 1),
            "p99_ms": round(percentile(least, 0.99), 1),
            "exactly_once_p99_ms": round(percentile(exactly, 0.99), 1),
            "broker": kind,
        }
        detail = {
            name: {"per_second": round(rate[name]), "cpu_us": [round(c.cpu, 1) for c in costs[name]]} for name in rate
        }
        print(json.dumps(detail, indent=1), file=sys.stderr)  # noqa: T201
        print(json.dumps(line))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])
