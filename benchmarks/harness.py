"""The common tools of all benchmarks: a broker, payments, processes measured from outside, and stored results."""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from support import apache_kafka
from support.processes import Service

from fraud_service.demo.broker import EmbeddedBroker
from fraud_service.demo.simulator import World, write
from fraud_service.domain.events import encode
from fraud_service.kafka import clients
from fraud_service.training.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings

CACHE: Final = Path(".cache/bench")
KAFKA: Final = "Apache Kafka"
TICKS: Final = os.sysconf("SC_CLK_TCK")
PATIENCE: Final = 240.0  # seconds: the default limit of every wait
WARM_UP: Final = 0.2  # share of a rung's messages before the measured window
PAUSE: Final = 0.02  # seconds between two samples of a process
LEAST: Final = {"FRAUD_PROCESSING_GUARANTEE": "at-least-once", "FRAUD_COMMIT_INTERVAL": "1s"}
ONCE: Final = {"FRAUD_PROCESSING_GUARANTEE": "exactly-once", "FRAUD_COMMIT_INTERVAL": "100ms"}
WORLD: Final = World(seed=5, cards=10_000, merchants=1_000, days=30)

Payment = tuple[bytes, bytes]  # key and value of a message


def say(text: str) -> None:
    """Report progress."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)  # noqa: T201


def end_in_good_order() -> None:
    """Turn SIGTERM into an exit that leaves all `with` blocks, so that no started process outlives the benchmark."""

    def leave(*_: object) -> None:
        sys.exit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)


class Results:
    """The results of one part in a JSON file. An interrupted run continues after the last result."""

    def __init__(self, part: str, sizes: dict[str, Any]) -> None:
        self._path, self._part = CACHE / f"{part}.json", part
        self.found: dict[str, Any] = {}
        if self._path.exists():
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            self.found = kept["found"] if kept["sizes"] == sizes else {}
        self._sizes = sizes

    def measured(self, name: str, measure: Callable[[], Any]) -> Any:
        """Return the stored result, or measure and store it."""
        if name not in self.found:
            began = time.monotonic()
            self.found[name] = measure()
            CACHE.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"sizes": self._sizes, "found": self.found}, indent=1)
            partial = self._path.with_suffix(".partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(self._path)
            say(f"{self._part}: {name} ({time.monotonic() - began:.0f} s) {json.dumps(self.found[name])[:160]}")
        return self.found[name]


def kept(part: str) -> dict[str, Any]:
    """Return the stored results of a part, and the sizes of the measurement."""
    path = CACHE / f"{part}.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


class Broker(NamedTuple):
    """A running broker, and a folder for the files of the measured processes."""

    bootstrap: str
    kind: str
    folder: Path
    logs: Path | None  # the broker's folder of topics, if known
    pid: int | None  # the broker's process, if it has one


@contextmanager
def broker() -> Iterator[Broker]:
    """Start a broker: Apache Kafka if it can run here, otherwise the embedded broker."""
    with tempfile.TemporaryDirectory(prefix="fraud-service-bench-") as name:
        if apache_kafka.why_unavailable() is None:
            with apache_kafka.ApacheKafka() as kafka:
                _await_coordinators(kafka.bootstrap)
                yield Broker(kafka.bootstrap, KAFKA, Path(name), kafka.data, kafka.pid)
        else:
            with EmbeddedBroker() as embedded:
                yield Broker(embedded.bootstrap, "embedded", Path(name), None, None)


def _await_coordinators(bootstrap: str) -> None:
    """Wait until groups and transactions have coordinators, which a broker prepares at the first request."""
    deadline = time.monotonic() + 60
    for number in range(16):  # enough names to reach each partition of the broker's offsets and transactions
        options = {"bootstrap.servers": bootstrap, "log_level": 0}
        consumer = Consumer({**options, "group.id": f"warm-up-{number}"})
        producer = Producer({**options, "transactional.id": f"warm-up-{number}"})
        while time.monotonic() < deadline:
            try:
                consumer.committed([TopicPartition("none", 0)], timeout=5)
                producer.init_transactions(10)
                break
            except KafkaException:
                time.sleep(0.1)
        consumer.close()


def history() -> History:
    """Return the simulated payments and labels that all benchmarks share."""
    path = CACHE / "history.parquet"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        write(WORLD, path)
    return History.open(path)


def payments(count: int) -> list[Payment]:
    """Return the first payments of the history as messages."""
    path = CACHE / "payments.msgpack"
    if not path.exists():
        events = (event.transaction for event in history())
        everything = [(event.card_id.encode(), encode(event)) for event in events]
        path.write_bytes(msgspec.msgpack.encode(everything))
    found = msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[bytes, bytes]])
    if len(found) < count:
        raise SystemExit(f"{count} payments are needed, but the simulated history has {len(found)}")
    del found[count:]
    gc.freeze()  # keep hundreds of thousands of objects out of every collection
    return found


def send(settings: Settings, messages: list[Payment]) -> None:
    """Fill the topic of transactions as fast as the broker accepts them."""
    producer = clients.producer(settings)
    for key, value in messages:
        while True:
            try:
                producer.produce(settings.topics.transactions, key=key, value=value)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(PATIENCE):
        raise SystemExit("the broker did not accept all payments in time")


def aside(function: Callable[..., None], *arguments: Any) -> Any:
    """Run a function in a spawned process, because Kafka clients do not survive a fork."""
    process = get_context("spawn").Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the length of the block, with its output in the file `log` of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 - our own
    try:
        yield process
    finally:
        for pid in [*descendants(process.pid)][:0:-1]:
            _end(pid)
        process.kill()
        process.wait()


def _end(pid: int) -> None:
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


@contextmanager
def scorers(settings: Settings, folder: Path, options: dict[str, str], count: int = 1) -> Iterator[list[Service]]:
    """Run some scorers of one group for the length of the block."""
    services = []
    for number in range(count):
        own = settings.model_copy(update={"instance_id": f"bench-{number}"})
        services.append(Service(own, "score", folder / f"scorer-{number}", options, is_forked=False))
    try:
        for service in services:
            service.start()
        yield services
    finally:
        for service in services:
            service.kill()


def pid_of(service: Service) -> int:
    """Return the process id of a service that was started."""
    if service.process is None:
        raise AssertionError("a service that was started has a process")
    return service.process.pid


class Cost(NamedTuple):
    """Transactions a second of wall time, and microseconds of processor time for each."""

    rate: float
    cpu: float


def committed(settings: Settings, group: str) -> Callable[[], int]:
    """Return a function that counts the transactions a group has committed."""
    reader = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": group, "log_level": 0})
    asked = [TopicPartition(settings.topics.transactions, number) for number in range(settings.partitions)]
    last = 0

    def total() -> int:
        nonlocal last
        with suppress(KafkaException):  # the coordinator moves or is busy; the count stays until it answers
            last = sum(max(place.offset, 0) for place in reader.committed(asked, timeout=30))
        return last

    return total


def written(settings: Settings, topic: str) -> Callable[[], int]:
    """Return a function that counts a topic's records, transaction markers included; 0 until the topic exists."""
    group = f"ends-{time.monotonic_ns()}"
    reader = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": group, "log_level": 0})
    asked = [TopicPartition(topic, number) for number in range(settings.partitions)]

    def ends() -> int:
        try:
            return sum(reader.get_watermark_offsets(place, timeout=30)[1] for place in asked)
        except KafkaException:  # no topic or no leader yet; the caller has a deadline
            return 0

    return ends


def watched(pids: list[int], progress: Callable[[], int], wanted: int, log: Path, patience: float = PATIENCE) -> Cost:
    """Measure from the first progress after the warm-up until the count reaches `wanted`.

    The window begins and ends when the count changes, so that it never cuts a commit interval.
    """
    began: tuple[int, float, float] | None = None
    before = progress()
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done = progress()
        if done != before and done >= WARM_UP * wanted:
            now = (done, time.monotonic(), sum(processor_time(pid) for pid in pids))
            if began is None:
                began = now
            elif done >= wanted:
                count = done - began[0]
                return Cost(count / (now[1] - began[1]), (now[2] - began[2]) / count * 1e6)
            elif done < began[0]:
                raise SystemExit(f"the count of processed messages went back; see {log}")
        before = done
        if not all(Path(f"/proc/{pid}/stat").exists() and _state(pid) != "Z" for pid in pids):
            raise SystemExit(f"a measured process ended:\n{log.read_text(encoding='utf-8')[-2000:]}")
        time.sleep(PAUSE)
    raise SystemExit(f"at {before} of {wanted} after {patience:.0f} s:\n{log.read_text(encoding='utf-8')[-2000:]}")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()


def _state(pid: int) -> str:
    return _stat(pid)[0]


def descendants(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants, itself first."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents.setdefault(int(_stat(int(entry.name))[1]), []).append(int(entry.name))
            except OSError:
                continue  # it has just ended
    found = [pid]
    for one in found:
        found.extend(parents.get(one, []))
    return found


def processor_time(pid: int) -> float:
    """Return the processor time (s) of a process and all its descendants, including those that have ended."""
    total = 0
    for one in descendants(pid):
        try:
            total += sum(map(int, _stat(one)[11:15]))
        except OSError:
            continue
    return total / TICKS


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def size(folder: Path, pattern: str = "*") -> int:
    """Return the total size (bytes) of the files in a folder and its subfolders."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob(pattern) if path.is_file())


def percentile(values: list[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def spread(values: list[float]) -> dict[str, float]:
    """Return median, least and largest."""
    return {"median": statistics.median(values), "least": min(values), "largest": max(values)}
