"""The world of one seed: a cluster, a feed, one to three scorers, and their faults."""

from __future__ import annotations

import random
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from quixstreams.exceptions import QuixException
from simulation.broker import Broker
from simulation.errors import Crash
from simulation.feed import feed
from simulation.host import here
from simulation.process import score, simulated
from simulation.schedule import Odds, Schedule, Task

from fraud_service.config.settings import Settings
from fraud_service.domain.errors import FraudServiceError
from fraud_service.kafka import topics

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.runtime.application import FraudApplication

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of each seed's own is made in it
LONGEST = 1_000.0  # seconds of virtual time from the last fault until everything must be done
QUIET = 3.0  # seconds without a change after that


@dataclass
class Pod:
    """A scorer that restarts after each end, on its volume, an older copy, or an empty one."""

    settings: Settings
    is_wanted: bool = True
    life: Task | None = None
    app: FraudApplication | None = None
    starts_at: float = 0.0
    zombies: list[Task] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.life is not None and not self.life.is_done

    @property
    def is_at_work(self) -> bool:
        return self.is_running and self.app is not None and not self.app._state_manager.recovery_required


class World:
    """The world of one seed, with scorers. `learner_world` has one with a learner."""

    ROLE = "scorer"
    PODS = (1, 1, 2, 2, 3)

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.luck = random.Random(seed)
        odds = Odds(
            rate=self.luck.choice([0.0, 0.002, 0.005, 0.01, 0.02]),
            crash=self.luck.choice([0, 1, 3]),
            error=self.luck.choice([0, 1, 3]),
            delay=self.luck.choice([0.5, 1, 3]),
            freeze=self.luck.choice([0, 1, 2]),
        )
        self.broker = Broker(self._marker_delay)
        self.schedule = Schedule(self.broker, self.luck, odds)
        self.is_slow_to_mark = self.luck.random() < 0.5
        self._folder = folder
        self.settings = Settings(
            partitions=self.luck.choice([1, 2, 3]),
            session_timeout=timedelta(seconds=6),
            commit_interval=timedelta(seconds=self.luck.choice([0.0, 0.1, 1.0])),
            state_dir=folder / "state",
            instance_id=self.ROLE,
            allow_unsigned=True,
            **self.options(),
        )
        for spec in topics.topic_specs(self.settings):
            self.broker.create(spec.name, spec.partitions, spec.config())
        self.pods = [self._pod(number) for number in range(self.luck.choice(self.PODS))]
        self.anomalies: list[str] = []
        self.fed = Task(self.schedule, "feed", self.feed)
        self.fed.is_safe = True
        Task(self.schedule, "control", self._control).is_safe = True

    def options(self) -> dict[str, object]:
        """Return the settings specific to this kind of world."""
        return {}

    def feed(self) -> None:
        """Send the input messages."""
        feed(self.settings, self.luck)

    def live(self, settings: Settings, started: Callable[[FraudApplication], None]) -> None:
        """Run a process of the service."""
        score(settings, started, commits_early=self.seed % 2 == 0)

    def check(self) -> list[str]:
        """Return the anomalies, one sentence each."""
        from simulation.check import check  # noqa: PLC0415 - it looks at worlds

        return check(self)

    @property
    def read(self) -> tuple[str, list[str]]:
        """Return the group and its input topics."""
        return self.settings.scorer_group, [self.settings.topics.transactions]

    def run(self) -> None:
        """Feed with faults, then wait without faults until everything is processed."""
        self.schedule.run(lambda: self.fed.is_done)
        if self.fed.failure is not None:
            raise self.fed.failure
        self.schedule.calm = True
        self.schedule.note("calm")
        for pod in self.pods:
            pod.is_wanted = True
        limit, quiet_since = self.broker.now + LONGEST, None
        while quiet_since is None or self.broker.now < quiet_since + QUIET:
            self.schedule.run(lambda until=self.broker.now + 1.0: self.broker.now >= until)
            quiet_since = (quiet_since or self.broker.now) if self.is_settled else None
            if self.broker.now > limit:
                self.anomalies.append(f"stuck: not done {LONGEST:.0f} s after the last fault")
                return

    @property
    def is_settled(self) -> bool:
        """Whether all inputs are processed and all wanted processes run."""
        name, inputs = self.read
        group = self.broker.groups.of(name)
        ends = {
            (topic, number): records[-1][0] + 1
            for topic in inputs
            for number, records in self.broker.committed(topic).items()
            if records
        }
        return (
            all(group.offsets.get(place, 0) == end for place, end in ends.items())
            and self.broker.transactions.are_settled
            and not group.is_rebalancing
            and all(pod.is_at_work and pod.life.wake <= self.broker.now + QUIET for pod in self.pods)
            and len(group.members) == len(self.pods)
            and all(len(self.stored(number)) == 1 for number in range(self.settings.partitions))
        )

    def stored(self, number: int) -> list[tuple[str, dict[bytes, bytes]]]:
        """Return the state of a partition on each volume that serves it: the instance, and its rows."""
        return [
            (pod.settings.instance_id, {k: v for k, v in store.partitions[number]._db.items() if isinstance(k, bytes)})
            for pod in self.pods
            if pod.app is not None
            for stores in pod.app._state_manager.stores.values()
            for store in stores.values()
            if number in store.partitions
        ]

    def _pod(self, number: int) -> Pod:
        changes = {"instance_id": f"{self.ROLE}-{number}", "state_dir": self._folder / f"state-{number}"}
        is_late = number > 0 and self.luck.random() < 0.5
        return Pod(self.settings.model_copy(update=changes), is_wanted=not is_late)

    def _marker_delay(self) -> float:
        if self.schedule.calm or not self.is_slow_to_mark:
            return 0.0
        return self.luck.choice([0.0, 0.0, self.luck.uniform(0, 0.5), self.luck.uniform(0, 5)])

    def _control(self) -> None:
        """Start stopped processes; stop, scale and replace some at random."""
        while True:
            here.get().pause(self.luck.uniform(0.1, 3))
            for pod in self.pods:
                self._tend(pod)

    def _tend(self, pod: Pod) -> None:
        if pod.life is not None and pod.life.is_done:
            self._judge(pod.life)
            pod.life, pod.app = None, None
            pod.starts_at = self.broker.now + (0 if self.schedule.calm else self.luck.choice([0, 1, 5, 12]))
            self._shake_volume(pod)
        if pod.life is None and pod.is_wanted and self.broker.now >= pod.starts_at:
            self._start(pod)
        elif not self.schedule.calm:
            self._meddle(pod)
        for zombie in [one for one in pod.zombies if one.is_done]:
            self._judge(zombie)
            pod.zombies.remove(zombie)

    def _meddle(self, pod: Pod) -> None:
        """Apply a random action of an operator or scheduler to a pod."""
        if self.luck.random() < 0.04:
            pod.is_wanted = not pod.is_wanted if len(self.pods) > 1 else True
            self.schedule.note(f"{pod.settings.instance_id} scaled: {'in' if pod.is_wanted else 'out'}", "scale")
        if pod.app is not None and (not pod.is_wanted or self.luck.random() < 0.02):
            self.schedule.note(f"{pod.settings.instance_id} SIGTERM", "stop")
            pod.app.stop()
        elif pod.is_running and self.luck.random() < 0.02:
            self.schedule.note(f"{pod.settings.instance_id} replaced while it lives", "twin")
            pod.zombies.append(pod.life)
            volume = pod.settings.state_dir.with_name(f"state-{self.luck.getrandbits(32):x}")
            pod.settings = pod.settings.model_copy(update={"state_dir": volume})
            pod.life, pod.app = None, None

    def _start(self, pod: Pod) -> None:
        def started(app: FraudApplication) -> None:
            if pod.life is life:  # a process that was replaced during its start is not the pod's
                pod.app = app

        name = f"{pod.settings.instance_id}/{self.schedule.events['start']}"
        self.schedule.note(f"{name} starts", "start")
        pod.life = life = Task(self.schedule, name, lambda settings=pod.settings: self.live(settings, started))

    def _shake_volume(self, pod: Pod) -> None:
        """Sometimes lose a volume, or put an older copy back."""
        volume, older = pod.settings.state_dir, pod.settings.state_dir.with_suffix(".older")
        what = self.luck.random()
        if self.schedule.calm or not volume.exists():
            return
        if what < 0.1:
            shutil.rmtree(volume)
            self.schedule.note(f"{volume.name} lost", "volume")
        elif what < 0.2 and older.exists():
            shutil.rmtree(volume)
            shutil.copytree(older, volume)
            self.schedule.note(f"{volume.name} as it was", "volume")
        elif what < 0.4 and not older.exists():
            shutil.copytree(volume, older)

    def _judge(self, life: Task) -> None:
        """Record how a process ended. Any unexpected error is an anomaly."""
        error = life.failure
        self.schedule.note(f"{life.name} ended: {error!r}", "end")
        if error is not None and not isinstance(error, Crash | KafkaException | QuixException | FraudServiceError):
            self.anomalies.append(f"{life.name} ended by {type(error).__name__}: {error}")


@dataclass
class Run:
    """The result of a seed."""

    seed: int
    role: str
    anomalies: list[str]
    events: dict[str, int]
    trace: list[str]


def run(seed: int, kind: type[World] = World) -> Run:
    """Run a seed from an empty cluster to its check."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder, simulated():
        world = kind(seed, Path(folder))
        try:
            world.run()
            if not world.anomalies:
                world.anomalies += world.check()
        finally:
            world.schedule.end()
        return Run(seed, world.ROLE, world.anomalies, dict(world.schedule.events), world.schedule.trace)
