"""Draw the demo: a live screen of at most 100 × 30, plain lines without a terminal, and the summary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from fraud_service.demo.ground_truth import ModelComparison
from fraud_service.domain.decision import Outcome
from fraud_service.domain.text import money, visible
from fraud_service.domain.time import DAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.demo.ground_truth import LabelledDecisions
    from fraud_service.demo.monitor import TopicMonitor
    from fraud_service.demo.setup import Plan, Service
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
    counts: TopicMonitor
    fed: HistoryProducer
    services: Sequence[Service]
    truth: Mapping[str, bool]  # by transaction_id, whether it is a fraud
    kafka: str
    seconds: float = 0.0
    is_over: bool = False

    @property
    def day(self) -> int:
        """Day of event time, from 1 on."""
        return min(max(self.counts.event_time - self.plan.world.start, 0) // DAY + 1, self.plan.days)


def console() -> Console:
    """Return a console as wide as the terminal, or `WIDTH` columns wide without one."""
    found = Console(highlight=False, markup=False)
    return found if found.is_terminal else Console(highlight=False, markup=False, width=WIDTH)


def screen(view: DemoView, width: int, height: int) -> Group:
    """Draw the screen for a terminal of this size."""
    # A terminal echoes ^C on the last line. Without room for it the line would wrap and shift the screen.
    width = min(width - len("^C "), WIDTH)
    columns = Column(ratio=1), Column(ratio=1), Column(width=min(LEARNING_WIDTH, width * 2 // 5))
    panels = _table([(_stream(view), _truth(view), _learning(view))], *columns, expand=True)
    max_alerts = min(max((height - LINES_WITHOUT_ALERTS) // LINES_PER_ALERT, 1), MAX_ALERTS)
    parts = (_headline(view, width), panels, _alerts(view.counts, max_alerts), _footer(view))
    return Group(_table([(part,) for part in parts], Column(width=width)))


def line(view: DemoView) -> str:
    """Return the state as one line."""
    counts, (speed, latency) = view.counts, view.counts.recent()
    return (
        f"{_clock(view.seconds)}  day {view.day:>2}  {counts.scores:>7,} scored  {speed:>4.0f}/s  "
        f"p50 {latency.median:>3.0f} ms  p99 {latency.p99:>4.0f} ms  {counts.alerts:>4,} alerts  "
        f"precision {_share(counts.decisions.precision)}  recall {_share(counts.decisions.recall)}  "
        f"online {_share(_online_weight(counts))}"
    )


def summary(view: DemoView, *, is_complete: bool) -> Group:
    """Return the summary after the run."""
    counts, decisions, snapshot = view.counts, view.counts.decisions, view.counts.newest_snapshot
    fed, latency = view.fed, view.counts.overall()
    speed = fed.transactions / view.seconds if view.seconds else 0.0
    rows = [
        ("transactions", f"{fed.transactions:,}", f"in {view.seconds:.0f} s: {speed:,.0f} a second"),
        ("scores", f"{counts.scores:,}", _scored(view)),
        ("latency", f"{latency.median:.0f} ms", f"median, broker to visible score; 99 % within {latency.p99:.0f} ms"),
        ("alerts", f"{counts.alerts:,}", _alerts_by_truth(counts)),
        ("dead letters", f"{counts.dead_letters:,}", ""),
        ("labels", f"{fed.labels:,}", "sent at their event time"),
        ("labelled examples", f"{counts.examples:,}", "joined with the features that were scored"),
        ("frauds known", f"{decisions.frauds:,}", _frauds(decisions)),
        ("precision", _share(decisions.precision), "of the labelled alerts are fraud"),
        ("recall", _share(decisions.recall), "of the known frauds were caught"),
        ("snapshots", f"{counts.snapshots:,}", visible(f"the last is {snapshot.version}") if snapshot else ""),
    ]
    if snapshot is not None:
        after = f"at most in a score, after {snapshot.examples:,} examples"
        rows.append(("online weight", f"{snapshot.online_weight:.0%}", after))
    table = _table(rows, _name(), _figure(), _name(), padding=(0, 3, 0, 0))
    title = Text("Summary" if is_complete else "Summary (stopped early)", style="bold")
    return Group(title, table, *_comparisons(view))


def _alerts_by_truth(counts: TopicMonitor) -> str:
    """Split the alerts, so that the parts add up to them."""
    decisions = counts.decisions
    false = decisions.flagged - decisions.flagged_frauds
    later = max(counts.alerts - decisions.flagged, 0)
    return f"{decisions.flagged_frauds:,} caught frauds, {false:,} false alerts, {later:,} without a label yet"


def _frauds(decisions: LabelledDecisions) -> str:
    """Split the frauds with a label, so that the parts add up to them."""
    return f"{decisions.flagged_frauds:,} caught, {decisions.frauds - decisions.flagged_frauds:,} missed"


def _comparisons(view: DemoView) -> list[RenderableType]:
    """Compare the two models before the drift, after it, and half-way between the drift and the end."""
    drift, days = view.plan.world.drift // DAY, view.plan.days
    learned = (drift + days) // 2
    rows = [
        row
        for row in (
            _comparison(view, 0, drift, "before the drift"),
            _comparison(view, drift, learned, "fraud has changed"),
            _comparison(view, learned, days, "learned from labels"),
        )
        if row is not None
    ]
    if not rows:
        return []
    headings = [Text(heading, style="dim") for heading in ("", "frauds", "average precision", "log loss")]
    table = _table([headings, *rows], _name(), _figure(), _figure(), _figure(), padding=(0, 3, 0, 0))
    heading = Text.assemble(("Pretrained → online model", "bold"), (", by the simulator's truth", "dim"))
    return [Text(), heading, table]


def _comparison(view: DemoView, first: int, end: int, what: str) -> list[RenderableType] | None:
    start = view.plan.world.start
    compared = ModelComparison.between(view.counts.logits, start + first * DAY, start + end * DAY, view.truth)
    if compared is None:
        return None
    frauds, old, new = compared
    precision_style = "green" if new.average_precision > old.average_precision else ""
    loss_style = "green" if new.log_loss < old.log_loss else ""
    return [
        f"days {first + 1}-{end}, {what}",
        f"{frauds:,}",
        Text.assemble(f"{old.average_precision:.3f} → ", (f"{new.average_precision:.3f}", precision_style)),
        Text.assemble(f"{old.log_loss:.4f} → ", (f"{new.log_loss:.4f}", loss_style)),
    ]


def _scored(view: DemoView) -> str:
    missing = view.fed.transactions - view.counts.scores - view.counts.dead_letters
    if missing > 0:
        return f"{missing:,} were not scored in time"
    stale = view.counts.stale
    return f"{stale:,} with a snapshot that came late" if stale else "none with a late snapshot"


def _table(rows: Iterable[Sequence[RenderableType]], *columns: Column, **options: Any) -> Table:
    table = Table.grid(*columns, **options)
    for row in rows:
        table.add_row(*row)
    return table


def _name() -> Column:
    return Column(style="dim", no_wrap=True)


def _figure() -> Column:
    return Column(justify="right", no_wrap=True)


def _headline(view: DemoView, width: int) -> Group:
    world = view.plan.world
    has_drifted = view.counts.event_time >= world.start + world.drift
    drift = f"  fraud changed on day {world.drift // DAY + 1}" if has_drifted else ""
    state = "finishing" if view.is_over else f"{_clock(view.seconds)} of {_clock(view.plan.seconds)}"
    left = Text.assemble((" fraud-service demo", "bold"), (drift, "yellow"))
    right = Text.assemble(f"day {view.day:>2} of {view.plan.days}", ("  ·  ", "dim"), f"{state} ")
    row = _table([(left, right)], Column(no_wrap=True), Column(no_wrap=True, justify="right"), expand=True)
    total, done = view.plan.seconds, view.seconds
    bar = ProgressBar(total=total, completed=done, width=width - 2, style="grey23", complete_style="cyan")
    return Group(row, Padding(bar, (0, 0, 0, 1)))


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(
        content, title=f"[bold]{title}", title_align="left", box=box.ROUNDED, border_style="grey42", padding=(0, 1)
    )


def _figures(title: str, *rows: tuple[str, str | Text]) -> Panel:
    """Return a panel with a figure in each row. Important figures are highlighted by their style."""
    return _panel(title, _table(rows, _name(), _figure(), expand=True))


def _bold(text: str) -> Text:
    return Text(text, style="bold cyan")


def _stream(view: DemoView) -> Panel:
    speed, latency = view.counts.recent()
    return _figures(
        "Stream",
        ("transactions", f"{view.fed.transactions:,}"),
        ("scored", f"{view.counts.scores:,}"),
        ("per second", _bold(f"{speed:,.0f}")),
        ("latency p50", _bold(f"{latency.median:,.0f} ms")),
        ("latency p99", _bold(f"{latency.p99:,.0f} ms")),
        ("dead letters", f"{view.counts.dead_letters:,}"),
    )


def _truth(view: DemoView) -> Panel:
    decisions = view.counts.decisions
    return _figures(
        "Truth, as labels arrive",
        ("labels sent", f"{view.fed.labels:,}"),
        ("examples learned", f"{view.counts.examples:,}"),
        ("frauds known", f"{decisions.frauds:,}"),
        ("of these flagged", f"{decisions.flagged_frauds:,}"),
        ("precision", _bold(_share(decisions.precision))),
        ("recall", _bold(_share(decisions.recall))),
    )


def _learning(view: DemoView) -> Panel:
    counts, snapshot = view.counts, view.counts.newest_snapshot
    weight = _share(_online_weight(counts))
    stale = counts.stale / counts.scores if counts.scores else 0.0
    return _figures(
        "Online model",
        ("newest", "none yet" if snapshot is None else visible(snapshot.version)),
        ("scoring", visible(counts.active_snapshot)),
        ("snapshots", f"{counts.snapshots:,}"),
        ("examples", "0" if snapshot is None else f"{snapshot.examples:,}"),
        ("weight", Text.assemble((_spark(counts.online_weights), "cyan"), " ", (f"{weight:>4}", "bold cyan"))),
        ("late snapshots", f"{stale:.1%}"),
    )


def _online_weight(counts: TopicMonitor) -> float | None:
    return None if counts.newest_snapshot is None else counts.newest_snapshot.online_weight


def _spark(shares: list[float]) -> str:
    """Draw shares as a sparkline, the newest at the right."""
    step = max(1, -(-len(shares) // SPARK_WIDTH))
    last = shares[::-1][::step][:SPARK_WIDTH][::-1]
    return "".join(SPARK_LEVELS[min(int(share * len(SPARK_LEVELS)), len(SPARK_LEVELS) - 1)] for share in last)


def _alerts(counts: TopicMonitor, max_alerts: int) -> Panel:
    newest_first = list(counts.newest_alerts)[-max_alerts:][::-1]
    lines = [line for alert in newest_first for line in _alert(alert)]
    # Empty lines keep the height of the frame constant.
    lines += [Text()] * (LINES_PER_ALERT * max_alerts - len(lines))
    return _panel(f"Latest alerts[/] [dim]of {counts.alerts:,}[/][bold]", Group(*lines))


def _alert(alert: AlertRecord) -> list[Text]:
    """Return two lines: the payment with its reason codes, and the reasons in words."""
    transaction = alert.transaction
    moment = datetime.fromtimestamp(transaction.timestamp / 1000, UTC)
    codes = visible(", ".join(reason.code.replace("_", " ").lower() for reason in alert.reasons))
    words = visible(" ".join(reason.text for reason in alert.reasons))
    first = Text.assemble(
        (f"{moment:%d %b %H:%M}  ", "dim"),
        visible(f"{transaction.card_id:<8} {money(transaction.amount, transaction.currency):>12}  "),
        (f"{alert.outcome.value:<8} {alert.score:.2f}  ", COLOURS.get(alert.outcome, "")),
        codes,
    )
    lines = [first, Text(f"{'':14}{words}", style="dim")]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _footer(view: DemoView) -> Group:
    addresses = [Text.assemble((f" {service.name:<8}", "dim"), service.metrics) for service in view.services]
    end = Text.assemble((" kafka   ", "dim"), view.kafka, ("   Ctrl-C ends the demo", "dim"))
    return Group(*addresses, end)


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60:02}:{int(seconds) % 60:02}"
