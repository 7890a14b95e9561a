"""Draw the demo: a live screen of at most 100 × 30, plain lines without a terminal, and the summary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fraud_service.demo.ground_truth import ModelComparison
from fraud_service.domain.decision import Outcome
from fraud_service.domain.text import visible
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from fraud_service.demo.monitor import TopicCounts
    from fraud_service.demo.setup import Plan
    from fraud_service.demo.simulator import World
    from fraud_service.domain.records import AlertRecord

WIDTH: Final = 100
LEARNING_WIDTH: Final = 40  # room for the name of a snapshot
NONE: Final = "-"
LINES_WITHOUT_ALERTS: Final = 16  # lines of the screen besides the alerts
MAX_ALERTS: Final = 6
LINES_PER_ALERT: Final = 2
SPARK_LEVELS: Final = "▁▂▃▄▅▆▇█"
SPARK_WIDTH: Final = 11
COLOURS: Final = {Outcome.DECLINE: "red", Outcome.REVIEW: "yellow"}


@dataclass
class DemoView:
    """Everything that the screen shows."""

    plan: Plan
    tally: TopicCounts
    truth: Mapping[str, bool]
    metrics: dict[str, str]
    kafka: str
    seconds: float = 0.0
    transactions: int = 0
    labels: int = 0
    is_over: bool = False

    @property
    def day(self) -> int:
        """Day of event time, from 1 on."""
        return min(max(self.tally.event_time - self.plan.world.start, 0) // DAY + 1, self.plan.days)

    @property
    def has_drifted(self) -> bool:
        """Whether the fraud has changed."""
        return self.tally.event_time >= self.plan.world.start + self.plan.world.drift


def console() -> Console:
    """Return a console as wide as the terminal, or `WIDTH` columns wide without one."""
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=WIDTH)


def screen(view: DemoView, width: int, height: int) -> Group:
    """Draw the screen for a terminal of this size."""
    # A terminal echoes ^C on the last line. Without room for it the line would wrap and shift the screen.
    width = min(width - len("^C "), WIDTH)
    panels = Table.grid(expand=True, padding=0)
    panels.add_column(ratio=1)
    panels.add_column(ratio=1)
    panels.add_column(width=min(LEARNING_WIDTH, width * 2 // 5))
    panels.add_row(_stream(view), _truth(view), _learning(view))
    frame = Table.grid(padding=0)
    frame.add_column(width=width)
    most = min(max((height - LINES_WITHOUT_ALERTS) // LINES_PER_ALERT, 1), MAX_ALERTS)
    for part in (_headline(view, width), panels, _alerts(view.tally, most), _footer(view)):
        frame.add_row(part)
    return Group(frame)


def line(view: DemoView) -> str:
    """Return the state as one line."""
    tally, (speed, latency) = view.tally, view.tally.now()
    weight = NONE if tally.newest is None else f"{tally.newest.online_weight:.0%}"
    return (
        f"{_clock(view.seconds)}  day {view.day:>2}  {tally.scores:>7,} scored  {speed:>4.0f}/s  "
        f"p50 {latency.median:>3.0f} ms  p99 {latency.p99:>4.0f} ms  {tally.alerts:>4,} alerts  "
        f"precision {_share(tally.truth.precision)}  recall {_share(tally.truth.recall)}  online {weight}"
    )


def summary(view: DemoView, *, is_complete: bool) -> Group:
    """Return the summary after the run."""
    tally, overall, snapshot = view.tally, view.tally.overall(), view.tally.newest
    table = _facts()
    speed = view.transactions / view.seconds if view.seconds else 0.0
    table.add_row("transactions", f"{view.transactions:,}", f"in {view.seconds:.0f} s: {speed:,.0f} a second")
    table.add_row("scores", f"{tally.scores:,}", _scored(view))
    table.add_row(
        "latency", f"{overall.median:.0f} ms", f"median, broker to visible score; 99 % within {overall.p99:.0f} ms"
    )
    table.add_row("alerts", f"{tally.alerts:,}", "")
    table.add_row("dead letters", f"{tally.dead_letters:,}", "")
    table.add_row("labels", f"{view.labels:,}", "sent at their event time")
    table.add_row("labelled examples", f"{tally.labelled:,}", "joined with the features that were scored")
    truth = tally.truth
    table.add_row(
        "precision", _share(truth.precision), f"{truth.flagged_frauds:,.0f} frauds among {truth.flagged:,.0f} flagged"
    )
    table.add_row("recall", _share(truth.recall), f"{truth.flagged_frauds:,.0f} of {truth.frauds:,.0f} frauds flagged")
    table.add_row(
        "snapshots", f"{tally.snapshots:,}", "" if snapshot is None else visible(f"the last is {snapshot.version}")
    )
    if snapshot is not None:
        table.add_row("online weight", f"{snapshot.online_weight:.0%}", f"after {snapshot.examples:,} examples")
    title = Text("Summary" if is_complete else "Summary (stopped early)", style="bold")
    return Group(title, table, *_comparisons(view))


def _comparisons(view: DemoView) -> list[RenderableType]:
    rows = [
        row
        for first, end, what in _periods(view.plan.world)
        if (row := _comparison(view, first, end, what)) is not None
    ]
    if not rows:
        return []
    table = _facts(3)
    table.add_row("", *(Text(heading, style="dim") for heading in ("frauds", "average precision", "log loss")))
    for row in rows:
        table.add_row(*row)
    heading = Text.assemble(("Pretrained → online model", "bold"), (", by the simulator's truth", "dim"))
    return [Text(), heading, table]


def _periods(world: World) -> list[tuple[int, int, str]]:
    """Split the days at the drift and half-way after it: first day, end and name of each period."""
    drift = world.drift // DAY
    learned = (drift + world.days) // 2
    return [
        (0, drift, "before the drift"),
        (drift, learned, "fraud has changed"),
        (learned, world.days, "learned from labels"),
    ]


def _comparison(view: DemoView, first: int, end: int, what: str) -> list[RenderableType] | None:
    start = view.plan.world.start
    duel = ModelComparison.between(view.tally.scored, start + first * DAY, start + end * DAY, view.truth)
    if duel is None:
        return None
    old, new = duel.pretrained, duel.online
    return [
        f"days {first + 1}-{end}, {what}",
        f"{duel.frauds:,}",
        _difference(
            f"{old.average_precision:.3f}",
            f"{new.average_precision:.3f}",
            new.average_precision > old.average_precision,
        ),
        _difference(f"{old.log_loss:.4f}", f"{new.log_loss:.4f}", new.log_loss < old.log_loss),
    ]


def _difference(old: str, new: str, is_better: bool) -> Text:
    return Text.assemble((f"{old} → ", ""), (new, "green" if is_better else ""))


def _scored(view: DemoView) -> str:
    missing = view.transactions - view.tally.scores - view.tally.dead_letters
    late = f"{view.tally.stale:,} with a snapshot that came late" if view.tally.stale else "none with a late snapshot"
    return f"{missing:,} were not scored in time" if missing > 0 else late


def _headline(view: DemoView, width: int) -> Group:
    row = Table.grid(expand=True, padding=0)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_column(no_wrap=True, justify="right")
    drift = f"  fraud changed on day {view.plan.world.drift // DAY + 1}" if view.has_drifted else ""
    state = "finishing" if view.is_over else f"{_clock(view.seconds)} of {_clock(view.plan.seconds)}"
    row.add_row(
        Text.assemble((" fraud-service demo", "bold"), (drift, "yellow")),
        Text.assemble(f"day {view.day:>2} of {view.plan.days}", ("  ·  ", "dim"), f"{state} "),
    )
    done = ProgressBar(
        total=view.plan.seconds, completed=view.seconds, width=width - 2, style="grey23", complete_style="cyan"
    )
    bar = Table.grid(padding=(0, 0, 0, 1))
    bar.add_row(done)
    return Group(row, bar)


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=f"[bold]{title}", title_align="left", box=box.ROUNDED, border_style="grey42", padding=(0, 1)
    )


def _facts(figures: int = 1) -> Table:
    """Return a table with a name, right-aligned figures, and a remark if there is one figure."""
    table = Table.grid(padding=(0, 3, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    for _ in range(figures):
        table.add_column(justify="right", no_wrap=True)
    if figures == 1:
        table.add_column(style="dim", no_wrap=True)
    return table


def _pairs(*rows: tuple[str, str | Text]) -> Table:
    table = Table.grid(expand=True, padding=0)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _stream(view: DemoView) -> Panel:
    speed, latency = view.tally.now()
    rows = _pairs(
        ("transactions", f"{view.transactions:,}"),
        ("scored", f"{view.tally.scores:,}"),
        ("per second", Text(f"{speed:,.0f}", style="bold cyan")),
        ("latency p50", Text(f"{latency.median:,.0f} ms", style="bold cyan")),
        ("latency p99", Text(f"{latency.p99:,.0f} ms", style="bold cyan")),
        ("dead letters", f"{view.tally.dead_letters:,}"),
    )
    return _panel("Stream", rows)


def _truth(view: DemoView) -> Panel:
    truth = view.tally.truth
    rows = _pairs(
        ("labels sent", f"{view.labels:,}"),
        ("examples learned", f"{view.tally.labelled:,}"),
        ("frauds known", f"{truth.frauds:,.0f}"),
        ("of these flagged", f"{truth.flagged_frauds:,.0f}"),
        ("precision", Text(_share(truth.precision), style="bold cyan")),
        ("recall", Text(_share(truth.recall), style="bold cyan")),
    )
    return _panel("Truth, as labels arrive", rows)


def _learning(view: DemoView) -> Panel:
    tally, snapshot = view.tally, view.tally.newest
    weight = NONE if snapshot is None else f"{snapshot.online_weight:.0%}"
    stale = tally.stale / tally.scores if tally.scores else 0.0
    rows = _pairs(
        ("newest", "none yet" if snapshot is None else visible(snapshot.version)),
        ("scoring", visible(tally.in_force)),
        ("snapshots", f"{tally.snapshots:,}"),
        ("examples", "0" if snapshot is None else f"{snapshot.examples:,}"),
        ("weight", Text.assemble((_spark(tally.weights), "cyan"), " ", (f"{weight:>4}", "bold cyan"))),
        ("late snapshots", f"{stale:.1%}"),
    )
    return _panel("Online model", rows)


def _spark(shares: list[float]) -> str:
    """Draw shares as a sparkline, the newest at the right."""
    step = max(1, -(-len(shares) // SPARK_WIDTH))
    last = shares[::-1][::step][:SPARK_WIDTH][::-1]
    return "".join(SPARK_LEVELS[min(int(share * len(SPARK_LEVELS)), len(SPARK_LEVELS) - 1)] for share in last)


def _alerts(tally: TopicCounts, most: int) -> Panel:
    lines = [line for alert in list(tally.latest)[-most:][::-1] for line in _alert(alert)]
    # Empty lines keep the height of the frame constant.
    lines += [Text()] * (LINES_PER_ALERT * most - len(lines))
    return _panel(f"Latest alerts[/] [dim]of {tally.alerts:,}[/][bold]", Group(*lines))


def _alert(alert: AlertRecord) -> list[Text]:
    """Return two lines: the payment with its reason codes, and the reasons in words."""
    transaction = alert.transaction
    moment = datetime.fromtimestamp(transaction.timestamp / 1000, UTC)
    codes = visible(", ".join(reason.code.replace("_", " ").lower() for reason in alert.reasons))
    words = visible("; ".join(reason.text for reason in alert.reasons))
    first = Text.assemble(
        (f"{moment:%d %b %H:%M}  ", "dim"),
        visible(f"{transaction.card_id:<8} {transaction.amount:>8,.2f} {transaction.currency}  "),
        (f"{alert.outcome.value:<8} {alert.score:.2f}  ", COLOURS.get(alert.outcome, "")),
        codes,
    )
    lines = [first, Text(f"{'':14}{words}", style="dim")]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _footer(view: DemoView) -> Group:
    addresses = [Text.assemble((f" {name:<8}", "dim"), address) for name, address in view.metrics.items()]
    end = Text.assemble((" kafka   ", "dim"), view.kafka, ("   Ctrl-C ends the demo", "dim"))
    return Group(*addresses, end)


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
