"""Run the demo: start the service, feed it, draw it, and stop it in order whatever ends it."""

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
from fraud_service.demo.monitor import Observer, TopicCounts
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

FRAME_S: Final = 0.25  # seconds
PLAIN_FRAME_S: Final = 5.0
READ_TIMEOUT_S: Final = 0.05
ASSIGN_TIMEOUT_S: Final = 30.0
DRAIN_TIMEOUT_S: Final = 15.0  # until the service has scored every transaction
QUIET_S: Final = 1.5  # without a record for so long, the learner has finished
LABEL_DELAY_MS: Final = 7 * DAY  # for a history without label times; the simulator always has them


class StopFeeding(Exception):  # noqa: N818 - nothing is wrong
    """Ends the feed without sending the labels that are still in the future."""


class HistoryFeeder:
    """Feed a history in a thread, at the pace that takes the planned time. A context manager.

    Attributes
    ----------
    failure : Exception or None
        The error that ended the feed early.
    """

    def __init__(self, settings: Settings, history: History, seconds: float) -> None:
        self._settings, self._history = settings, history
        self._rate = len(history) / seconds
        self._stop = Event()
        self._thread = Thread(target=self._run, name="feed", daemon=True)
        self._feed: HistoryProducer | None = None
        self.failure: Exception | None = None

    def __enter__(self) -> HistoryFeeder:  # noqa: PYI034 - never subclassed
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

    @property
    def sent(self) -> tuple[int, int]:
        """Transactions and labels sent so far."""
        return (0, 0) if self._feed is None else (self._feed.transactions, self._feed.labels)

    def _run(self) -> None:
        try:
            with HistoryProducer(self._settings) as self._feed:
                self._feed_until_stopped(self._feed)
        except Exception as error:  # noqa: BLE001 - the main thread raises it
            self.failure = error

    def _feed_until_stopped(self, feed: HistoryProducer) -> None:
        try:
            feed.produce(self._events(), LABEL_DELAY_MS, self._rate)
        except StopFeeding:
            return

    def _events(self) -> Iterator[LabelledTransaction]:
        for event in self._history:
            if self._stop.is_set():
                break
            yield event
        raise StopFeeding


class DemoRun:
    """One run of the demo. Everything it starts goes on the exit stack, which stops it in reverse order."""

    def __init__(self, base: Settings, plan: Plan, console: Console, stop: Event, stack: ExitStack) -> None:
        self._plan, self._console, self._stop, self._stack = plan, console, stop, stack
        self._base = base
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fraud-service-demo-")))
        self._tally = TopicCounts()
        self._services: list[setup.Service] = []

    def run(self, *, own_kafka: bool) -> screen.DemoView | None:
        """Start everything, feed and watch. Return the last view, or None when stopped before the first transaction."""
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
        view = screen.DemoView(self._plan, self._tally, truth, metrics, settings.bootstrap_servers)
        with HistoryFeeder(ours, history, self._plan.seconds) as feeding:
            Monitor(view, feeding, observer, self._services, self._stop).until_over(self._console)
        return view

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
            # Registered before the first topic exists: a creation that fails half-way leaves some.
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
            # The exit stack runs this before it waits for either process, so both stop at the same time.
            self._stack.callback(service.ask_to_end)
        for service in self._services:
            service.await_ready(self._stop)

    def _await_assignment(self, observer: Observer) -> None:
        is_over = wait_until(lambda: self._stop.is_set() or observer.is_assigned(), ASSIGN_TIMEOUT_S, poll_s=0.0)
        if not is_over:
            raise setup.DemoError(f"no partitions of the output topics were assigned within {ASSIGN_TIMEOUT_S:.0f} s")


class Monitor:
    """Read the output topics and draw them until every fed record is scored and learned."""

    def __init__(
        self,
        view: screen.DemoView,
        feeding: HistoryFeeder,
        observer: Observer,
        services: list[setup.Service],
        stop: Event,
    ) -> None:
        self._view, self._feeding, self._observer = view, feeding, observer
        self._services, self._stop = services, stop

    def until_over(self, console: Console) -> None:
        """Watch on a live screen, or print lines where the console is no terminal."""
        if not console.is_terminal:
            self._follow(PLAIN_FRAME_S, lambda: console.print(screen.line(self._view), soft_wrap=True))
            return
        with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
            self._follow(
                FRAME_S, lambda: live.update(screen.screen(self._view, console.width, console.height), refresh=True)
            )

    def _follow(self, frame: float, draw: Callable[[], None]) -> None:
        """Draw while the feed runs, then drain and draw a last time."""
        began, due = time.monotonic(), 0.0
        while not (self._stop.is_set() or self._feeding.is_over):
            self._tick(time.monotonic() - began)
            if self._view.seconds >= due:
                draw()
                due = self._view.seconds + frame
        self._feeding.stop()
        self._view.is_over = True
        self._tick(self._view.seconds)
        draw()
        self._drain()
        draw()

    def _tick(self, seconds: float) -> None:
        view = self._view
        self._observer.read(READ_TIMEOUT_S)
        view.seconds = seconds
        view.transactions, view.labels = self._feeding.sent
        if self._feeding.failure is not None:
            raise self._feeding.failure
        for service in self._services:
            service.require_alive()

    def _drain(self) -> None:
        """Read until every transaction has a decision and the learner has sent nothing for a while, within a limit."""
        view, tally = self._view, self._view.tally
        seen, quiet = tally.records, Deadline(QUIET_S)

        def is_drained() -> bool:
            nonlocal seen
            self._tick(view.seconds)
            if tally.records != seen:
                seen = tally.records
                quiet.restart()
            return quiet.has_passed() and tally.scores + tally.dead_letters >= view.transactions

        wait_until(is_drained, DRAIN_TIMEOUT_S, poll_s=0.0)


def run(base: Settings, plan: Plan, *, own_kafka: bool) -> None:
    """Run the demo until its planned end, some ten seconds later, or until Ctrl-C or SIGTERM.

    Parameters
    ----------
    base
        The user's settings.
    own_kafka
        Whether to use the user's Kafka, on topics of the demo's own, instead of the embedded broker.

    Raises
    ------
    FraudServiceError
        When a process cannot start, or ends. The message has the end of its log.
    """
    console = screen.console()
    with _stop_on_signals() as stop:
        with ExitStack() as stack:
            view = DemoRun(base, plan, console, stop, stack).run(own_kafka=own_kafka)
        if view is None:
            console.print("stopped before the first transaction")
        else:
            console.print(screen.summary(view, is_complete=not stop.is_set()))
        console.print("\nEverything was stopped and removed.", style="dim")


@contextmanager
def _stop_on_signals() -> Iterator[Event]:
    """Turn SIGINT, SIGTERM and SIGHUP into an event, so that the demo stops in order."""
    stop = Event()
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), lambda *_: stop.set()) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
