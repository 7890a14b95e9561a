"""The faults. Each acts on a running trial under load, and ends when the service has decided all messages so far."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, TopicPartition
from faults import attacks
from faults.crash import STEPS
from faults.load import elapsed
from faults.trial import ASK, PATIENCE, last_words
from support.processes import read_all

from fraud_service.kafka import clients, consumer_groups, topics

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from faults.trial import Trial
    from support.apache_kafka import ApacheKafka, Cluster
    from support.processes import Service
    from support.proxy import Proxy

SESSION = 6.0  # seconds; as in `fresh_settings`
FROZEN = 15.0  # seconds: longer than session and transaction timeout


@dataclass(frozen=True)
class Ground:
    """The broker and proxy of a trial."""

    broker: ApacheKafka | Cluster
    proxy: Proxy | None
    is_quick: bool


@dataclass(frozen=True)
class Fault:
    """A fault: its function, its runs in each suite, and the number of brokers it needs.

    `do` returns the number of runs if it made more than one.
    """

    name: str
    do: Callable[[Trial, random.Random, Ground], int | None]
    quick: int
    full: int
    brokers: int = 1
    is_direct: bool = False  # without the proxy, which is slower than the service
    loses_input: bool = False  # on purpose, so there is no verification and no later fault


FAULTS: list[Fault] = []


def fault(name: str, quick: int, full: int, **needs: Any) -> Callable[[Any], Any]:
    """Add a function to the list of faults. Each call causes the fault once."""

    def enter(do: Callable[[Trial, random.Random, Ground], int | None]) -> Any:
        FAULTS.append(Fault(name, do, quick, full, **needs))
        return do

    return enter


def _crash(trial: Trial, process: Service, rng: random.Random, most: int, progress: Callable[[], int]) -> int:
    """Let a process kill itself at each step of a checkpoint. Each successor dies at the next step.

    It dies at a checkpoint from the second to the `most`-th, so that each has done something before.
    """
    process.stop()
    down: float | None = None
    for step in rng.sample(STEPS, len(STEPS)):
        before = progress()
        trial.crash(process, f"{step}:{rng.randint(2, most)}", progress, before, down)
        down = time.monotonic()
    before = progress()
    process.start()
    trial.await_(lambda: progress() > before, "progress after the last crash")
    trial.recoveries.append(elapsed(down))
    return len(STEPS)


@fault("scorer killed at a step of its checkpoint", quick=1, full=20)
def scorer_crash(trial: Trial, rng: random.Random, ground: Ground) -> int:
    return _crash(trial, trial.scorer, rng, 20, trial.decided.read)


@fault("learner killed at a step of its checkpoint", quick=1, full=20)
def learner_crash(trial: Trial, rng: random.Random, ground: Ground) -> int:
    return _crash(trial, trial.learner, rng, 4, trial.published.read)


@fault("rolling restart by SIGTERM", quick=1, full=5)
def rolling_restart(trial: Trial, rng: random.Random, ground: Ground) -> None:
    for process in (trial.scorer, trial.learner):
        started = time.monotonic()
        assert process.stop() == 0
        process.start()
        trial.await_(lambda process=process: process.status("/readyz") == 200, "a restart")
        trial.settle(started)


@fault("upgrade to another state schema, and back", quick=1, full=5)
def upgraded(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The new release must reject the state before it writes anything, so that the old release can continue."""
    process = trial.scorer
    assert process.stop() == 0
    started = time.monotonic()
    process.module = "faults.upgraded"
    process.start()
    assert process.process.wait(PATIENCE) == 1
    assert "go back to the version that wrote it" in last_words(process), last_words(process)
    process.module = "fraud_service"
    process.start()
    trial.settle(started)


@fault("SIGSTOP beyond session and transaction timeout", quick=1, full=5)
def stopped(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """Another scorer takes over the partitions during the stop, so the stopped one wakes up as a zombie."""
    with trial.another("scorer-1"):
        trial.scorer.process.send_signal(signal.SIGSTOP)
        trial.pass_time(FROZEN)
        trial.settle()
        trial.scorer.process.send_signal(signal.SIGCONT)
        woke = time.monotonic()
        trial.await_(lambda: trial.scorer.status("/readyz") == 200, "a zombie that is a member again")
        trial.settle(woke)
    trial.settle()


@fault("learner SIGSTOP beyond its session", quick=0, full=3)
def learner_stopped(trial: Trial, rng: random.Random, ground: Ground) -> None:
    trial.learner.process.send_signal(signal.SIGSTOP)
    trial.pass_time(FROZEN)
    trial.learner.process.send_signal(signal.SIGCONT)
    before = trial.published.read()
    trial.recoveries.append(trial.await_(lambda: trial.published.read() > before, "the next snapshot"))


@fault("scale 1 → 3 → 2 → 1", quick=1, full=5)
def scale(trial: Trial, rng: random.Random, ground: Ground) -> None:
    with trial.another("scorer-1"):
        with trial.another("scorer-2"):
            trial.settle()
        trial.settle()
    trial.settle()


@fault("two processes with one identity", quick=1, full=5)
def one_identity(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The second takes over, and the first must end with the reason in its log. Then only one of them runs."""
    started = time.monotonic()
    twin = trial.service("score", "scorer-0")
    twin.folder = trial.folder / "twin"
    with twin:
        while trial.scorer.process.poll() is None:
            assert elapsed(started) < PATIENCE, "no process was fenced"
            time.sleep(ASK)
        assert trial.scorer.process.returncode == 1
        assert "FRAUD_INSTANCE_ID of its own" in trial.scorer.log()
        twin.kill()
    trial.scorer.start()
    trial.settle(started)


@fault("all brokers down", quick=1, full=3)
def outage(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The same processes must survive the outage, report not ready, and continue afterwards."""
    ended = len(trial.endings)
    ground.broker.kill()
    down = time.monotonic()
    trial.pass_time(25 if ground.is_quick else 90, lambda: all(p.status("/livez") == 200 for p in trial.running))
    assert all(process.status("/readyz") == 503 for process in trial.running)
    ground.broker.start()
    back = time.monotonic()
    trial.settle(back)
    trial.await_(lambda: all(p.status("/readyz") == 200 for p in trial.running), "being ready again")
    assert len(trial.endings) == ended, f"a process ended in an outage of {elapsed(down)} s"


@fault("broker killed with kill -9", quick=1, full=5)
def broker_killed(trial: Trial, rng: random.Random, ground: Ground) -> None:
    trial.pass_time(rng.random())
    ground.broker.kill()
    killed = time.monotonic()
    ground.broker.start()
    trial.settle(killed)


@fault("leader and coordinator killed, one of three", quick=1, full=9, brokers=3)
def node_killed(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """Kill one broker after the other, so that the partitions and groups of each lose their leader."""
    broker = ground.broker.brokers[len(trial.recoveries) % len(ground.broker.brokers)]
    broker.kill()
    killed = time.monotonic()
    trial.pass_time(1 + 3 * rng.random())
    trial.settle(killed)
    broker.start()


@fault("state volume lost", quick=1, full=5)
def volume_lost(trial: Trial, rng: random.Random, ground: Ground) -> None:
    process = rng.choice([trial.scorer, trial.learner])
    process.kill()
    lost = time.monotonic()
    shutil.rmtree(process.folder / "state")
    process.start()
    trial.await_(lambda: process.status("/readyz") == 200, "state from the changelog")
    trial.settle(lost)


@fault("SST files corrupted", quick=1, full=5)
def corrupted(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The scorer must rebuild the state from the changelog or reject it. Then remove the volume, as in the runbook."""
    process = trial.scorer
    process.stop()
    process.start()  # RocksDB moves its log into tables when it opens the state
    trial.await_(lambda: process.status("/readyz") == 200, "a restart")
    process.kill()
    started = time.monotonic()
    for path in sorted(process.folder.rglob("*.sst")):
        content = bytearray(path.read_bytes())
        for place in rng.sample(range(len(content)), min(200, len(content))):
            content[place] ^= 0xFF
        path.write_bytes(content)
    process.start()
    while process.status("/readyz") != 200:
        assert elapsed(started) < PATIENCE, "neither ready nor ended"
        if process.process.poll() is not None:
            trial.remarks.append("the process rejected its corrupted state at the start")
            shutil.rmtree(process.folder / "state")
            process.start()
        time.sleep(ASK)
    _lose_state_when_it_ends(trial, process)
    trial.settle(started)


def _lose_state_when_it_ends(trial: Trial, process: Service) -> None:
    """If the process ends from the corruption within five seconds, remove its volume and start it."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if process.process.poll() is not None:
            trial.remarks.append("corrupted state ended the process when it was read")
            shutil.rmtree(process.folder / "state")
            process.start()
            return
        trial.decided.read()
        time.sleep(ASK)


@fault("disk full, then read-only", quick=1, full=3)
def disk_full(trial: Trial, rng: random.Random, ground: Ground) -> None:
    process, state = trial.scorer, trial.scorer.folder / "state"
    process.kill()
    started = time.monotonic()
    shutil.rmtree(state)
    state.mkdir()
    if not _mount(state):
        trial.remarks.append("skipped: no file system could be mounted here")
        process.start()
        trial.settle(started)
        return
    try:
        process.start()
        trial.await_(lambda: process.status("/readyz") == 200, "state on a small disk")
        filler = state / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while file.write(bytes(1 << 20)):
                file.flush()
        trial.pass_time(8)
        trial.remarks.append(f"full disk: {_state_of(process)}")
        filler.unlink()
        trial.settle()
        process.kill()  # a file system with files open for writing cannot become read-only
        subprocess.run(["mount", "-o", "remount,ro", str(state)], check=True)
        process.start()
        assert process.process.wait(60) == 1
        subprocess.run(["mount", "-o", "remount,rw", str(state)], check=True)
        process.start()
        trial.settle()
    finally:
        process.kill()
        subprocess.run(["umount", "-l", str(state)], check=True)
        process.start()
    trial.settle()


def _mount(folder: Path) -> bool:
    if os.geteuid() != 0:
        return False
    # Room for RocksDB's log and compaction during the recovery: 48 MB are too small for 60,000 payments.
    command = ["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _state_of(process: Service) -> str:
    code = process.process.poll()
    return "went on" if code is None else f"ended with {code}"


@fault("rebalance during recovery", quick=1, full=5)
def rebalance_in_recovery(trial: Trial, rng: random.Random, ground: Ground) -> None:
    trial.scorer.kill()
    lost = time.monotonic()
    shutil.rmtree(trial.scorer.folder / "state")
    trial.scorer.start()
    other = trial.service("score", "scorer-1")
    with other:
        trial.await_(lambda: other.status("/livez") == 200, "the other scorer")
        trial.pass_time(2 * rng.random())
        other.kill()
        other.start()
        trial.await_(lambda: other.status("/readyz") == 200, "the other scorer again")
        trial.settle(lost)
        assert other.stop() == 0
    trial.settle()


@fault("committed offsets deleted", quick=1, full=3)
def offsets_deleted(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The scorer must end at its start, and start again after the offsets are restored."""
    trial.scorer.stop()
    topic, group = trial.settings.topics.transactions, trial.settings.scorer_group
    consumer = Consumer({"bootstrap.servers": trial.bootstrap, "group.id": group, "enable.auto.commit": False})
    try:
        saved = consumer.committed([TopicPartition(topic, number) for number in range(trial.settings.partitions)], 30)
        consumer_groups.delete_group(trial.settings, group)
        trial.scorer.start()
        assert trial.scorer.process.wait(60) == 1
        assert "no committed offset" in trial.scorer.log()
        consumer.commit(offsets=[place for place in saved if place.offset >= 0], asynchronous=False)
    finally:
        consumer.close()
    restored = time.monotonic()
    trial.scorer.start()
    trial.settle(restored)


@fault("network slow, cut, and half-open", quick=1, full=5)
def network(trial: Trial, rng: random.Random, ground: Ground) -> None:
    proxy = ground.proxy
    proxy.delay = 0.05
    trial.pass_time(5)
    trial.settle()
    proxy.mend()
    proxy.cut()
    trial.pass_time(SESSION + 6 * rng.random(), lambda: all(p.status("/livez") == 200 for p in trial.running))
    proxy.mend()
    trial.settle()
    proxy.is_deaf = True
    trial.pass_time(SESSION + 9 * rng.random(), lambda: all(p.status("/livez") == 200 for p in trial.running))
    proxy.mend()
    trial.settle()


@fault("snapshots cut, tampered with, of another version, stale", quick=1, full=5)
def snapshots(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The scorer must reject and count them, keep the active snapshot, and activate the next valid one."""
    topic = trial.settings.topics.snapshots
    good = [message.value() for message in read_all(trial.settings, topic)]
    flipped = bytearray(good[-1])
    flipped[rng.randrange(len(flipped))] ^= 0x01
    producer = clients.producer(trial.settings)
    for value in (b"", b"no snapshot", good[-1][: len(good[-1]) // 2], bytes(flipped), good[0]):
        producer.produce(topic, key=b"forged", value=value, on_delivery=trial.forge)
    producer.produce(trial.settings.topics.risk, key=b"card:forged", value=b"forged", on_delivery=trial.forge)
    assert producer.flush(30) == 0
    trial.await_(lambda: "snapshot_record_rejected" in trial.scorer.log(), "a rejected snapshot")
    trial.settle()
    before = trial.published.read()
    trial.await_(lambda: trial.published.read() > before + 1, "the next snapshots")
    trial.settle()


@fault("poison of every kind in any mix", quick=1, full=5)
def poison(trial: Trial, rng: random.Random, ground: Ground) -> None:
    for _ in range(5):
        trial.load.poison(rng.randint(20, 200))
        trial.pass_time(0.5)
    trial.settle()


@fault("hostile sizes", quick=1, full=5)
def hostile_sizes(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """No process may end or fail its liveness probe, even a scorer that starts with such messages."""
    ended = len(trial.endings)
    trial.load.bomb()
    trial.pass_time(2, lambda: all(process.status("/livez") == 200 for process in trial.running))
    trial.settle()
    assert len(trial.endings) == ended, "a message ended a process"
    trial.scorer.kill()
    killed = time.monotonic()
    trial.load.bomb()
    trial.scorer.start()
    trial.settle(killed)
    assert len(trial.endings) == ended, "a message ended a process that had just started"


@fault("hostile records", quick=1, full=5)
def hostile_records(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """No process may end, accept a forged record or lose a genuine one, even after a restart on these topics."""
    ended, since = len(trial.endings), attacks.now_ms()
    attacks.send_events(trial, rng)
    attacks.send_unbelieved(trial)
    trial.pass_time(2, lambda: all(process.status("/livez") == 200 for process in trial.running))
    trial.settle()
    attacks.forge_letters(trial, since)
    trial.settle()
    for process in (trial.scorer, trial.learner):
        process.kill()
    killed, before = time.monotonic(), trial.published.read()
    for process in (trial.scorer, trial.learner):
        process.start()
    trial.settle(killed)
    trial.await_(lambda: trial.published.read() > before, "the next snapshot")
    assert len(trial.endings) == ended, "a record ended a process"
    assert "snapshot_record_rejected" in trial.scorer.log()
    assert all("model_record_rejected" in process.log() for process in (trial.scorer, trial.learner))
    assert "online_model_switched" not in trial.scorer.log()


@fault("clock an hour back, an hour ahead, right", quick=1, full=3)
def clock_steps(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """Move the clock of the scorer and of the learner, as a broken time server does."""
    clock = trial.folder / "clock"
    for process in (trial.scorer, trial.learner):
        _set(clock, 0)
        assert process.stop() == 0
        process.options["FRAUD_TEST_CLOCK"] = str(clock)
        process.module = "faults.clock"
        process.start()
        trial.settle()
        for step in (-3600, 3600, 0):
            _set(clock, step)
            stepped, before = time.monotonic(), trial.published.read()
            trial.pass_time(2)
            trial.await_(lambda before=before: trial.published.read() > before, "the next snapshot")
            trial.settle(stepped)
        assert process.stop() == 0
        process.module = "fraud_service"
        del process.options["FRAUD_TEST_CLOCK"]
        process.start()
        trial.settle()


def _set(clock: Path, seconds: int) -> None:
    """Move a clock. Replaces the whole file, because the process can read it at any time."""
    fresh = clock.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.replace(clock)


@fault("backlog", quick=1, full=1, is_direct=True)
def backlog(trial: Trial, rng: random.Random, ground: Ground) -> None:
    trial.scorer.stop()
    size = 20_000 if ground.is_quick else 1_000_000
    trial.load.burst(size)
    started = time.monotonic()
    trial.scorer.start()
    trial.settle(started)
    trial.remarks.append(f"{size:,} transactions decided in {trial.recoveries[-1]} s, start included")


@fault("log start beyond the committed offset", quick=1, full=1, loses_input=True)
def log_start_beyond(trial: Trial, rng: random.Random, ground: Ground) -> None:
    """The scorer ends at its start, because unprocessed messages were deleted. Last, because it ends the trial."""
    trial.finish()
    trial.load.burst(500)
    ends = [
        TopicPartition(trial.settings.topics.transactions, number, -1) for number in range(trial.settings.partitions)
    ]
    topics.delete_records(trial.settings, ends)
    trial.scorer.start()
    assert trial.scorer.process.wait(60) == 1
    assert "messages were deleted before they were processed" in trial.scorer.log()
    trial.recoveries.append(0.0)
