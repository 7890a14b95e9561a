"""Run the demo: start the service, feed it, draw it, and stop it in order, also after an error or a signal."""

from __future__ import annotations

import shlex
import signal
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Final, Self

from rich.live import Live

from fraud_service.admin.history_producer import HistoryProducer
from fraud_service.demo import screen, setup
from fraud_service.demo.broker import EmbeddedBroker
from fraud_service.demo.monitor import TopicMonitor
from fraud_service.demo.simulator import write
from fraud_service.domain.time import DAY
from fraud_service.kafka import clients, topics
from fraud_service.kafka.waiting import Deadline, wait_until
from fraud_service.training.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    from fraud_service.config.settings import Settings
    from fraud_service.demo.setup import Plan
    from fraud_service.domain.events import LabelledTransaction

FRAME_S: Final = 0.25
PLAIN_FRAME_S: Final = 5.0
KEEP_POLL_S: Final = 1.0
READ_TIMEOUT_S: Final = 0.05
ASSIGN_TIMEOUT_S: Final = 30.0
DRAIN_TIMEOUT_S: Final = 15.0  # until the service has scored every transaction
QUIET_S: Final = 1.5  # the learner has finished after this time without a record
LABEL_DELAY_MS: Final = 7 * DAY  # for a history without label times; the simulator always has them


class StopFeeding(Exception):  # noqa: N818 - nothing is wrong
    """Ends the feed without sending the labels that are still in the future."""


class HistoryFeeder:
    """Feed a history in a thread, at the pace that takes the planned time. A context manager."""

    def __init__(self, settings: Settings, history: History, seconds: float) -> None:
        self._history = history
        self._rate = len(history) / seconds
        self._stop = Event()
        self._thread = Thread(target=self._run, name="feed", daemon=True)
        self.producer = HistoryProducer(settings)
        self.failure: Exception | None = None  # ended the feed early

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop feeding and wait until the broker has acknowledged all records."""
        self._stop.set()
        self._thread.join()

    @property
    def is_over(self) -> bool:
        """Whether the feed has ended, complete or failed."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            with self.producer, suppress(StopFeeding):
                self.producer.produce(self._events(), LABEL_DELAY_MS, self._rate)
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error

    def _events(self) -> Iterator[LabelledTransaction]:
        for event in self._history:
            if self._stop.is_set():
                break
            yield event
        raise StopFeeding


class DemoRun:
    """One run of the demo. Everything it starts goes on the exit stack, which stops it in reverse order."""

    def __init__(self, base: Settings, plan: Plan, console: Console, stop: Event, stack: ExitStack) -> None:
        self._base, self._plan, self._console, self._stop, self._stack = base, plan, console, stop, stack
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fraud-service-demo-")))

    def run(self, *, own_kafka: bool) -> screen.DemoView | None:
        """Start everything, feed and watch. Return the last view, or None when stopped before the first transaction."""
        settings = self._reach_kafka() if own_kafka else self._start_broker()
        if self._stop.is_set():
            return None
        created = topics.create(clients.admin(settings), topics.topic_specs(settings), settings.replication_factor)
        self._say(f"{len(created)} topics on {settings.bootstrap_servers}")
        history = self._simulate()
        counts = self._stack.enter_context(TopicMonitor(settings))
        services = self._start_services(settings)
        if not wait_until(lambda: self._stop.is_set() or counts.is_assigned(), ASSIGN_TIMEOUT_S, poll_s=0.0):
            raise setup.DemoError(f"no partitions of the output topics were assigned within {ASSIGN_TIMEOUT_S:.0f} s")
        if self._stop.is_set():
            return None
        self._say("scorer and learner are ready\n")
        truth = {event.transaction.transaction_id: bool(event.is_fraud) for event in history}
        with HistoryFeeder(settings, history, self._plan.seconds) as feeder:
            view = screen.DemoView(self._plan, counts, feeder.producer, services, truth, settings.bootstrap_servers)
            Display(view, feeder, self._stop).show(self._console)
        self._console.print(screen.summary(view, is_complete=not self._stop.is_set()))
        if self._plan.keep and not self._stop.is_set():
            self._keep(settings, services)
        return view

    def _keep(self, settings: Settings, services: Iterable[setup.Service]) -> None:
        """Leave everything running until the demo is stopped, and say how to look at it."""
        file = self._folder / "demo.env"
        lines = (f"export {name}={shlex.quote(value)}" for name, value in setup.variables(settings).items())
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self._console.print("\nKept running until Ctrl-C. In another shell:")
        self._say(
            f"  . {file}; fraud-service verify; fraud-service explain TRANSACTION_ID; fraud-service snapshots list"
        )
        self._say("".join(f"  {service.name} metrics: {service.metrics}\n" for service in services))
        while not self._stop.wait(KEEP_POLL_S):
            for service in services:
                service.require_alive()

    def _say(self, text: str) -> None:
        self._console.print(text, style="dim", soft_wrap=True)

    def _start_broker(self) -> Settings:
        broker = self._stack.enter_context(EmbeddedBroker())
        self._say(f"embedded broker on {broker.bootstrap}")
        return setup.services_settings(self._base, self._plan, self._folder, broker.bootstrap)

    def _reach_kafka(self) -> Settings:
        settings = setup.services_settings(self._base, self._plan, self._folder, None)
        clients.require_connection(settings)
        if not self._stop.is_set():
            # Registered before the first topic exists: a creation that fails half-way leaves some.
            self._stack.callback(setup.delete_topics, settings, self._say)
            suffix = settings.scorer_group.rpartition(".")[2]
            self._say(f"names of topics and groups end in .{suffix}; the topics are deleted at the end")
        return settings

    def _simulate(self) -> History:
        world, file = self._plan.world, self._folder / "history.parquet"
        write(world, file)
        history = History.open(file)
        self._say(
            f"simulated {len(history):,} payments of {world.cards:,} cards in {world.days} days; "
            f"fraud changes on day {world.drift // DAY + 1}"
        )
        return history

    def _start_services(self, settings: Settings) -> list[setup.Service]:
        commands = ("score", "learn")
        services = [self._stack.enter_context(setup.Service(name, settings, self._folder)) for name in commands]
        for service in services:
            # The exit stack runs this before it waits for either process, so both stop at the same time.
            self._stack.callback(service.request_stop)
        for service in services:
            service.await_ready(self._stop)
        return services


class Display:
    """Read the output topics and draw them until every fed record is scored and learned."""

    def __init__(self, view: screen.DemoView, feeder: HistoryFeeder, stop: Event) -> None:
        self._view, self._feeder, self._stop = view, feeder, stop

    def show(self, console: Console) -> None:
        """Draw a live screen, or print lines where the console is no terminal."""
        view = self._view
        if not console.is_terminal:
            self._follow(PLAIN_FRAME_S, lambda: console.print(screen.line(view), soft_wrap=True))
            return
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            self._follow(FRAME_S, lambda: live.update(screen.screen(view, console.width, console.height), refresh=True))

    def _follow(self, frame_s: float, draw: Callable[[], None]) -> None:
        """Draw while the feed runs, then drain and draw a last time."""
        view, started, due = self._view, time.monotonic(), 0.0
        while not (self._stop.is_set() or self._feeder.is_over):
            view.seconds = time.monotonic() - started
            self._read()
            if view.seconds >= due:
                draw()
                due = view.seconds + frame_s
        self._feeder.stop()
        view.is_over = True
        self._read()
        draw()
        self._drain()
        draw()

    def _read(self) -> None:
        self._view.counts.read(READ_TIMEOUT_S)
        if self._feeder.failure is not None:
            raise self._feeder.failure
        for service in self._view.services:
            service.require_alive()

    def _drain(self) -> None:
        """Read until every transaction has a decision and the learner has sent nothing for a while, within a limit."""
        counts = self._view.counts
        seen, quiet = counts.records, Deadline(QUIET_S)

        def is_drained() -> bool:
            nonlocal seen
            self._read()
            if counts.records != seen:
                seen = counts.records
                quiet.restart()
            return quiet.has_passed() and counts.scores + counts.dead_letters >= self._view.fed.transactions

        wait_until(is_drained, DRAIN_TIMEOUT_S, poll_s=0.0)


def run(base: Settings, plan: Plan, *, own_kafka: bool) -> None:
    """Run the demo until its planned end, some ten seconds later, or until Ctrl-C or SIGTERM.

    Uses the user's Kafka on topics of its own (`own_kafka`), or the embedded broker.
    """
    console = screen.console()
    with _stop_on_signals() as stop:
        with ExitStack() as stack:
            view = DemoRun(base, plan, console, stop, stack).run(own_kafka=own_kafka)
        if view is None:
            console.print("stopped before the first transaction")
        console.print("\nEverything was stopped and removed.", style="dim")


@contextmanager
def _stop_on_signals() -> Iterator[Event]:
    """Turn SIGINT, SIGTERM and SIGHUP into an event, so that the demo stops in order."""
    stop = Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
