"""The performance: feed, watch, draw, and end in order, whatever ends it."""

from __future__ import annotations

import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from rich.live import Live

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.demo import screen, setup
from fraud_service.demo.broker import EmbeddedBroker
from fraud_service.demo.monitor import Observer, Tally
from fraud_service.demo.simulator import write
from fraud_service.domain.time import DAY
from fraud_service.kafka.waiting import Deadline, wait_until
from fraud_service.training.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from fraud_service.config.settings import Settings
    from fraud_service.demo.setup import Plan
    from fraud_service.domain.events import LabelledTransaction

FRAME: Final = 0.25  # seconds
PLAIN_FRAME: Final = 5.0
READ_TIMEOUT: Final = 0.05
ASSIGN_TIMEOUT: Final = 30.0
DRAIN_TIMEOUT: Final = 15.0  # until everything fed is scored
QUIET_S: Final = 1.5  # seconds without a record, after which the learner is thought to have said everything
LABEL_DELAY: Final = 7 * DAY  # only where a history does not say; the simulator always does


class Enough(Exception):  # noqa: N818 - nothing is wrong
    """The feed is to stop where it is: a label of the future is not known at the end."""


class Feeding:
    """A thread that feeds a history, paced so that it takes the time of the plan. A context.

    Attributes
    ----------
    failure : Exception or None
        What ended it early.
    """

    def __init__(self, settings: Settings, history: History, seconds: float) -> None:
        self._settings, self._history = settings, history
        self._rate = len(history) / seconds
        self._stop = Event()
        self._thread = Thread(target=self._play, name="feed", daemon=True)
        self._feed: HistoryProducer | None = None
        self.failure: Exception | None = None

    def __enter__(self) -> Feeding:  # noqa: PYI034 - never subclassed
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop feeding and wait until the broker has everything."""
        self._stop.set()
        self._thread.join()

    @property
    def is_over(self) -> bool:
        """Whether everything was fed, or it failed."""
        return not self._thread.is_alive()

    @property
    def sent(self) -> tuple[int, int]:
        """Transactions and labels sent so far."""
        return (0, 0) if self._feed is None else (self._feed.transactions, self._feed.labels)

    def _play(self) -> None:
        try:
            with HistoryProducer(self._settings) as self._feed:
                self._feed_until_enough(self._feed)
        except Exception as error:  # noqa: BLE001 - handed to the main thread
            self.failure = error

    def _feed_until_enough(self, feed: HistoryProducer) -> None:
        try:
            feed.produce(self._events(), LABEL_DELAY, self._rate)
        except Enough:
            return

    def _events(self) -> Iterator[LabelledTransaction]:
        for event in self._history:
            if self._stop.is_set():
                break
            yield event
        raise Enough


class DemoRun:
    """One performance. Whatever it sets up goes on the stack, and is taken down when the stack is left."""

    def __init__(self, base: Settings, plan: Plan, console: Console, stop: Event, stack: ExitStack) -> None:
        self._plan, self._console, self._stop, self._stack = plan, console, stop, stack
        self._base = base
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fraud-service-demo-")))
        self._tally = Tally()
        self._services: list[setup.Service] = []

    def run(self, *, own_kafka: bool) -> screen.View | None:
        """Set up, feed and watch; returns what there was to see, None when stopped before it began."""
        settings = self._reach_kafka() if own_kafka else self._start_broker()
        ours = setup.quiet(settings)
        if self._stop.is_set():
            return None
        self._create_topics(ours)
        history = self._simulate()
        observer = self._stack.enter_context(Observer(ours, self._tally))
        self._start_services(settings)
        self._await_assignment(observer)
        if self._stop.is_set():
            return None
        self._say("scorer and learner are ready\n")
        metrics = {service.name: service.metrics for service in self._services}
        truth = {event.transaction.transaction_id: bool(event.is_fraud) for event in history}
        scene = screen.View(self._plan, self._tally, truth, metrics, settings.bootstrap_servers)
        with Feeding(ours, history, self._plan.seconds) as feeding:
            Monitor(scene, feeding, observer, self._services, self._stop).until_over(self._console)
        return scene

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", soft_wrap=True)

    def _start_broker(self) -> Settings:
        broker = self._stack.enter_context(EmbeddedBroker())
        self._say(f"embedded broker on {broker.bootstrap}")
        return setup.services_settings(self._base, self._plan, self._folder, broker.bootstrap)

    def _reach_kafka(self) -> Settings:
        settings = setup.services_settings(self._base, self._plan, self._folder, None)
        setup.require_reachable(setup.quiet(settings), self._stop)
        if not self._stop.is_set():
            # Before the first topic is made: a creation that fails half-way leaves some.
            self._stack.callback(setup.delete_topics, setup.quiet(settings), self._say)
            self._say(
                f"names of topics and groups end in .{setup.suffix_of(settings)}; the topics are deleted at the end"
            )
        return settings

    def _create_topics(self, settings: Settings) -> None:
        made = setup.create_topics(settings)
        self._say(f"{len(made)} topics on {settings.bootstrap_servers}")

    def _simulate(self) -> History:
        world, file = self._plan.world, self._folder / "history.parquet"
        write(world, file)
        history = History.open(file)
        self._say(
            f"simulated {len(history):,} payments of {world.cards:,} cards in {world.days} days; "
            f"fraud changes on day {world.drift // DAY + 1}"
        )
        return history

    def _start_services(self, settings: Settings) -> None:
        for command in ("score", "learn"):
            self._services.append(self._stack.enter_context(setup.Service(command, settings, self._folder)))
        for service in self._services:
            # Runs before the first of them is waited for: both leave at the same time.
            self._stack.callback(service.ask_to_end)
        for service in self._services:
            service.await_ready(self._stop)

    def _await_assignment(self, observer: Observer) -> None:
        is_over = wait_until(lambda: self._stop.is_set() or observer.is_assigned(), ASSIGN_TIMEOUT, poll_s=0.0)
        if not is_over:
            raise setup.DemoError(f"no partitions of the output topics were assigned within {ASSIGN_TIMEOUT:.0f} s")


class Monitor:
    """Read what the services write and draw it, until everything fed was scored and learned."""

    def __init__(
        self, scene: screen.View, feeding: Feeding, observer: Observer, services: list[setup.Service], stop: Event
    ) -> None:
        self._scene, self._feeding, self._observer = scene, feeding, observer
        self._services, self._stop = services, stop

    def until_over(self, console: Console) -> None:
        """Watch, on a live screen if the console has one."""
        if not console.is_terminal:
            self._follow(PLAIN_FRAME, lambda: console.print(screen.line(self._scene), soft_wrap=True))
            return
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            self._follow(
                FRAME, lambda: live.update(screen.screen(self._scene, console.width, console.height), refresh=True)
            )

    def _follow(self, frame: float, draw: Callable[[], None]) -> None:
        """Feed and drain, then draw for the last time."""
        began, due = time.monotonic(), 0.0
        while not (self._stop.is_set() or self._feeding.is_over):
            self._turn(time.monotonic() - began)
            if self._scene.seconds >= due:
                draw()
                due = self._scene.seconds + frame
        self._feeding.stop()
        self._scene.is_over = True
        self._turn(self._scene.seconds)
        draw()
        self._drain()
        draw()

    def _turn(self, seconds: float) -> None:
        scene = self._scene
        self._observer.read(READ_TIMEOUT)
        scene.seconds = seconds
        scene.transactions, scene.labels = self._feeding.sent
        if self._feeding.failure is not None:
            raise self._feeding.failure
        for service in self._services:
            service.require_alive()

    def _drain(self) -> None:
        """Read until every transaction has a decision and the learner has sent nothing for a while, within a limit."""
        scene, tally = self._scene, self._scene.tally
        seen, quiet = tally.records, Deadline(QUIET_S)

        def is_drained() -> bool:
            nonlocal seen
            self._turn(scene.seconds)
            if tally.records != seen:
                seen = tally.records
                quiet.restart()
            return quiet.has_passed() and tally.scores + tally.dead_letters >= scene.transactions

        wait_until(is_drained, DRAIN_TIMEOUT, poll_s=0.0)


def run(base: Settings, plan: Plan, *, own_kafka: bool) -> None:
    """Perform the demo: some ten seconds longer than planned, or until Ctrl-C or SIGTERM.

    Parameters
    ----------
    base
        The user's settings.
    own_kafka
        Use the Kafka of the settings, on topics of the demo's own; otherwise the embedded broker.

    Raises
    ------
    FraudServiceError
        When something cannot start, or a service died: with the end of its log.
    """
    console = screen.console()
    with _ended_by_signals() as stop:
        with ExitStack() as stack:
            scene = DemoRun(base, plan, console, stop, stack).run(own_kafka=own_kafka)
        if scene is None:
            console.print("stopped before the first transaction")
        else:
            console.print(screen.summary(scene, is_complete=not stop.is_set()))
        console.print("\nEverything was stopped and removed.", style="dim")


@contextmanager
def _ended_by_signals() -> Iterator[Event]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into an event: what is under way is ended in order, not torn."""
    stop = Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), lambda *_: stop.set()) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
