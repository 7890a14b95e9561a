"""How the demo looks: a live screen of at most 100 × 30, plain lines where there is no terminal, and the summary."""

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

    from fraud_service.demo.monitor import Tally
    from fraud_service.demo.setup import Plan
    from fraud_service.demo.simulator import World
    from fraud_service.domain.records import AlertRecord

WIDTH: Final = 100
LEARNING_WIDTH: Final = 40  # room for the name of a snapshot
NONE: Final = "-"
AROUND_THE_ALERTS: Final = 16  # lines of the screen that are not alerts
MAX_ALERTS: Final = 6
LINES_PER_ALERT: Final = 2
SPARKS: Final = "▁▂▃▄▅▆▇█"
SPARK_WIDTH: Final = 11
COLOURS: Final = {Outcome.DECLINE: "red", Outcome.REVIEW: "yellow"}


@dataclass
class View:
    """What there is to show."""

    plan: Plan
    tally: Tally
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
        """Whether the fraudsters have changed their ways."""
        return self.tally.event_time >= self.plan.world.start + self.plan.world.drift


def console() -> Console:
    """Give the console: as wide as the terminal, or wide enough where there is none."""
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=WIDTH)


def screen(scene: View, width: int, height: int) -> Group:
    """Draw everything for a terminal of a size."""
    # Room beside the last line for the ^C that a terminal echoes: one that wrapped would shift the screen.
    width = min(width - len("^C "), WIDTH)
    panels = Table.grid(expand=True, padding=0)
    panels.add_column(ratio=1)
    panels.add_column(ratio=1)
    panels.add_column(width=min(LEARNING_WIDTH, width * 2 // 5))
    panels.add_row(_stream(scene), _truth(scene), _learning(scene))
    frame = Table.grid(padding=0)
    frame.add_column(width=width)
    most = min(max((height - AROUND_THE_ALERTS) // LINES_PER_ALERT, 1), MAX_ALERTS)
    for part in (_headline(scene, width), panels, _alerts(scene.tally, most), _footer(scene)):
        frame.add_row(part)
    return Group(frame)


def line(scene: View) -> str:
    """Say it in one line."""
    tally, (speed, latency) = scene.tally, scene.tally.now()
    weight = NONE if tally.newest is None else f"{tally.newest.online_weight:.0%}"
    return (
        f"{_clock(scene.seconds)}  day {scene.day:>2}  {tally.scores:>7,} scored  {speed:>4.0f}/s  "
        f"p50 {latency.median:>3.0f} ms  p99 {latency.p99:>4.0f} ms  {tally.alerts:>4,} alerts  "
        f"precision {_share(tally.truth.precision)}  recall {_share(tally.truth.recall)}  online {weight}"
    )


def summary(scene: View, *, is_complete: bool) -> Group:
    """Say how it went."""
    tally, overall, snapshot = scene.tally, scene.tally.overall(), scene.tally.newest
    table = _facts()
    speed = scene.transactions / scene.seconds if scene.seconds else 0.0
    table.add_row("transactions", f"{scene.transactions:,}", f"in {scene.seconds:.0f} s: {speed:,.0f} a second")
    table.add_row("scores", f"{tally.scores:,}", _scored(scene))
    table.add_row(
        "latency", f"{overall.median:.0f} ms", f"median, broker to visible score; 99 % within {overall.p99:.0f} ms"
    )
    table.add_row("alerts", f"{tally.alerts:,}", "")
    table.add_row("dead letters", f"{tally.dead_letters:,}", "")
    table.add_row("labels", f"{scene.labels:,}", "sent when event time had come to them")
    table.add_row("labelled examples", f"{tally.labelled:,}", "matched with the features that had been scored")
    truth = tally.truth
    table.add_row("precision", _share(truth.precision), f"{truth.found:,.0f} frauds among {truth.flagged:,.0f} flagged")
    table.add_row("recall", _share(truth.recall), f"{truth.found:,.0f} of {truth.frauds:,.0f} frauds flagged")
    table.add_row(
        "snapshots", f"{tally.snapshots:,}", "" if snapshot is None else visible(f"the last is {snapshot.version}")
    )
    if snapshot is not None:
        table.add_row("online weight", f"{snapshot.online_weight:.0%}", f"after {snapshot.examples:,} examples")
    title = Text("Summary" if is_complete else "Summary (stopped early)", style="bold")
    return Group(title, table, *_duels(scene))


def _duels(scene: View) -> list[RenderableType]:
    rows = [row for first, end, what in _ages(scene.plan.world) if (row := _duel(scene, first, end, what)) is not None]
    if not rows:
        return []
    table = _facts(3)
    table.add_row("", *(Text(heading, style="dim") for heading in ("frauds", "average precision", "log loss")))
    for row in rows:
        table.add_row(*row)
    heading = Text.assemble(("Pretrained → online model", "bold"), (", by the truth of the simulation", "dim"))
    return [Text(), heading, table]


def _ages(world: World) -> list[tuple[int, int, str]]:
    """Cut the days in three: first day, end, and what they are."""
    drift = world.drift // DAY
    learned = (drift + world.days) // 2
    return [(0, drift, "before the drift"), (drift, learned, "fraud has changed"), (learned, world.days, "labels tell")]


def _duel(scene: View, first: int, end: int, what: str) -> list[RenderableType] | None:
    start = scene.plan.world.start
    duel = ModelComparison.between(scene.tally.scored, start + first * DAY, start + end * DAY, scene.truth)
    if duel is None:
        return None
    old, new = duel.pretrained, duel.online
    return [
        f"days {first + 1}-{end}, {what}",
        f"{duel.frauds:,}",
        _change(
            f"{old.average_precision:.3f}",
            f"{new.average_precision:.3f}",
            new.average_precision > old.average_precision,
        ),
        _change(f"{old.log_loss:.4f}", f"{new.log_loss:.4f}", new.log_loss < old.log_loss),
    ]


def _change(old: str, new: str, is_better: bool) -> Text:
    return Text.assemble((f"{old} → ", ""), (new, "green" if is_better else ""))


def _scored(scene: View) -> str:
    missing = scene.transactions - scene.tally.scores - scene.tally.dead_letters
    late = f"{scene.tally.stale:,} with a snapshot that came late" if scene.tally.stale else "none with a late snapshot"
    return f"{missing:,} were not scored in time" if missing > 0 else late


def _headline(scene: View, width: int) -> Group:
    row = Table.grid(expand=True, padding=0)
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_column(no_wrap=True, justify="right")
    drift = f"  fraud changed on day {scene.plan.world.drift // DAY + 1}" if scene.has_drifted else ""
    state = "finishing" if scene.is_over else f"{_clock(scene.seconds)} of {_clock(scene.plan.seconds)}"
    row.add_row(
        Text.assemble((" fraud-service demo", "bold"), (drift, "yellow")),
        Text.assemble(f"day {scene.day:>2} of {scene.plan.days}", ("  ·  ", "dim"), f"{state} "),
    )
    done = ProgressBar(
        total=scene.plan.seconds, completed=scene.seconds, width=width - 2, style="grey23", complete_style="cyan"
    )
    bar = Table.grid(padding=(0, 0, 0, 1))
    bar.add_row(done)
    return Group(row, bar)


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=f"[bold]{title}", title_align="left", box=box.ROUNDED, border_style="grey42", padding=(0, 1)
    )


def _facts(figures: int = 1) -> Table:
    """Make a table of a name, right-aligned figures, and a remark where there is one figure."""
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


def _stream(scene: View) -> Panel:
    speed, latency = scene.tally.now()
    rows = _pairs(
        ("transactions", f"{scene.transactions:,}"),
        ("scored", f"{scene.tally.scores:,}"),
        ("per second", Text(f"{speed:,.0f}", style="bold cyan")),
        ("latency p50", Text(f"{latency.median:,.0f} ms", style="bold cyan")),
        ("latency p99", Text(f"{latency.p99:,.0f} ms", style="bold cyan")),
        ("dead letters", f"{scene.tally.dead_letters:,}"),
    )
    return _panel("Stream", rows)


def _truth(scene: View) -> Panel:
    truth = scene.tally.truth
    rows = _pairs(
        ("labels sent", f"{scene.labels:,}"),
        ("examples learned", f"{scene.tally.labelled:,}"),
        ("frauds known", f"{truth.frauds:,.0f}"),
        ("of these flagged", f"{truth.found:,.0f}"),
        ("precision", Text(_share(truth.precision), style="bold cyan")),
        ("recall", Text(_share(truth.recall), style="bold cyan")),
    )
    return _panel("Truth, as labels arrive", rows)


def _learning(scene: View) -> Panel:
    tally, snapshot = scene.tally, scene.tally.newest
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
    """Draw a history of shares, its end at the right."""
    step = max(1, -(-len(shares) // SPARK_WIDTH))
    last = shares[::-1][::step][:SPARK_WIDTH][::-1]
    return "".join(SPARKS[min(int(share * len(SPARKS)), len(SPARKS) - 1)] for share in last)


def _alerts(tally: Tally, most: int) -> Panel:
    lines = [line for alert in list(tally.latest)[-most:][::-1] for line in _alert(alert)]
    # The frame keeps its height from the first moment on.
    lines += [Text()] * (LINES_PER_ALERT * most - len(lines))
    return _panel(f"Latest alerts[/] [dim]of {tally.alerts:,}[/][bold]", Group(*lines))


def _alert(alert: AlertRecord) -> list[Text]:
    """Write an alert: what it is about and the codes of its reasons; below it, the strongest reasons in words."""
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


def _footer(scene: View) -> Group:
    addresses = [Text.assemble((f" {name:<8}", "dim"), address) for name, address in scene.metrics.items()]
    end = Text.assemble((" kafka   ", "dim"), scene.kafka, ("   Ctrl-C ends the demo", "dim"))
    return Group(*addresses, end)


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
