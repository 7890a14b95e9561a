"""Run processes one at a time, each until it waits. The seed decides which one continues and which faults happen.

Quix's loop cannot be a coroutine, so every process has a thread. The thread runs only while it has the turn.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from simulation.errors import Crash
from simulation.host import Host, here

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from simulation.broker import Broker
    from simulation.host import Result

YIELDING = 0.1  # share of calls during which other processes run
STUCK = 60.0  # real seconds; a longer turn is a defect of the simulation


class Odds(NamedTuple):
    """The rate of faults in calls, and the weight of each kind."""

    rate: float
    crash: float
    error: float
    delay: float
    freeze: float

    def draw(self, luck: random.Random, *, can_fail: bool) -> str | None:
        """Draw the fault of a call, or None."""
        if luck.random() >= self.rate:
            return None
        names = ["crash", "error", "delay", "freeze"]
        weights = [self.crash, self.error if can_fail else 0.0, self.delay, self.freeze]
        return luck.choices(names, weights)[0]


def long(luck: random.Random) -> float:
    """Draw a long duration (s). Some outlast the timeout of a transaction, a session or a poll."""
    return luck.choices(
        [luck.uniform(0.01, 1), luck.uniform(3, 10), luck.uniform(20, 60), luck.uniform(290, 400)], [8, 6, 3, 1]
    )[0]


class Schedule:
    """Decides which process runs. One generator draws everything, so a seed always gives the same run."""

    def __init__(self, broker: Broker, luck: random.Random, odds: Odds) -> None:
        self.broker = broker
        self.luck = luck
        self.odds = odds
        self.calm = False
        self.tasks: list[Task] = []
        self.events: Counter[str] = Counter()
        self.trace: list[str] = []
        self._back = threading.Semaphore(0)

    def note(self, what: str, kind: str | None = None) -> None:
        """Add an event to the trace of the seed."""
        self.trace.append(f"{self.broker.now - 1_800_000_000:9.3f} {what}")
        if kind is not None:
            self.events[kind] += 1

    def run(self, is_over: Callable[[], bool]) -> None:
        """Give turns until `is_over`, or until no process is left."""
        while not is_over():
            self.tasks = [task for task in self.tasks if not task.is_done]
            if not self.tasks:
                return
            ready = [task for task in self.tasks if task.wake <= self.broker.now]
            if not ready:
                self.broker.advance(min(task.wake for task in self.tasks))
                continue
            self._turn(self.luck.choice(ready))

    def end(self) -> None:
        """Crash every remaining process, so that no thread is left."""
        for task in self.tasks:
            task.is_dead = True
            while not task.is_done:
                self._turn(task)
        self.tasks = []

    def _turn(self, task: Task) -> None:
        task.go.release()
        if not self._back.acquire(timeout=STUCK):
            raise AssertionError(f"{task.name} did not end its turn within {STUCK:.0f} s")

    def give_back(self) -> None:
        """End a turn."""
        self._back.release()


class Task(Host):
    """One process. Each of its broker calls can be late, fail, or crash the process."""

    def __init__(self, schedule: Schedule, name: str, body: Callable[[], None]) -> None:
        super().__init__(schedule.broker, schedule.luck)
        self.name = name
        self.wake = 0.0
        self.is_done = self.is_dead = self.is_frozen = False
        self.is_safe = False  # feeds and controllers have no faults
        self.failure: BaseException | None = None
        self.go = threading.Semaphore(0)
        self._schedule = schedule
        self._body = body
        schedule.tasks.append(self)
        threading.Thread(target=self._live, name=name, daemon=True).start()

    @property
    def calm(self) -> bool:
        """Whether the phase with faults is over."""
        return self._schedule.calm

    def call(self, name: str, effect: Callable[[], Result], answers: Sequence[Callable[[], Exception]] = ()) -> Result:
        """Call the broker, with possible faults before and after."""
        if self.is_dead:
            raise Crash
        schedule = self._schedule
        if self.luck.random() < YIELDING:
            self.pause(self.luck.uniform(0, 0.02))
        what = None if schedule.calm or self.is_safe else schedule.odds.draw(self.luck, can_fail=bool(answers))
        if what is None:
            return effect()
        if self.luck.random() < 0.5:
            self._suffer(what, f"before {name}", answers)
            return effect()
        result = effect()
        self._suffer(what, f"after {name}", answers)  # an error here stands for a lost response
        return result

    def pause(self, seconds: float) -> None:
        """Let other processes run for a while."""
        if self.is_dead:
            raise Crash
        self.wake = max(self.wake, self.broker.now + seconds)
        self._schedule.give_back()
        self.go.acquire()
        if self.is_dead:
            raise Crash

    def is_beating(self) -> bool:
        """Whether the heartbeats of this process reach the broker."""
        return not (self.is_dead or self.is_done or self.is_frozen)

    def crash(self) -> None:
        """Crash the process here."""
        self.is_dead = True
        raise Crash

    def _suffer(self, what: str, when: str, answers: Sequence[Callable[[], Exception]]) -> None:
        self._schedule.note(f"{self.name}: {what} {when}", what)
        if what == "crash":
            self.crash()
        if what == "error":
            answer = self.luck.choice(answers)
            raise answer()
        self.is_frozen = what == "freeze"  # no heartbeats either, as with SIGSTOP
        try:
            self.pause(long(self.luck))
        finally:
            self.is_frozen = False

    def _live(self) -> None:
        here.set(self)
        self.go.acquire()
        try:
            if not self.is_dead:
                self._body()
        except Crash:
            self.failure = Crash()
        except BaseException as error:  # noqa: BLE001 - the world judges how a process may end
            self.failure = error
        finally:
            self.is_done = True
            self._schedule.give_back()
