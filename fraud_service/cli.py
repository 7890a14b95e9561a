"""The command line: one verb a command, data on stdout, logs on stderr, exit 0, 1 (failed) or 2 (wrong usage)."""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fraud_service import logs, settings
from fraud_service.domain.events import Label, LabelSource, decode_label, encode, instant
from fraud_service.errors import ConfigurationError, FraudServiceError, InvalidEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from fraud_service.history import History

DAY: Final = 86_400_000
SUMMARY: Final = ("average_precision", "auc_roc", "card_precision_100")

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Real-time fraud detection on Kafka.")
topics_app = typer.Typer(no_args_is_help=True, help="Print, create and check the topics of the service.")
app.add_typer(topics_app, name="topics")

Bootstrap = Annotated[str | None, typer.Option("--bootstrap", help="Kafka brokers; overrides FRAUD_BOOTSTRAP_SERVERS.")]
Maps = Annotated[list[str], typer.Option("--map", metavar="COLUMN=FIELD", help="Read a foreign column as a field.")]
Sets = Annotated[list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Set a field the file does not have.")]
DATES: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
From = Annotated[datetime | None, typer.Option("--from", formats=DATES, help="First event time, UTC.")]
To = Annotated[datetime | None, typer.Option("--to", formats=DATES, help="End of event time, exclusive, UTC.")]
TrainFrom = Annotated[
    datetime | None, typer.Option("--train-from", formats=DATES, help="First event time fitted, UTC.")
]
TrainTo = Annotated[datetime | None, typer.Option("--train-to", formats=DATES, help="End of what is fitted, UTC.")]
Delay = Annotated[
    str, typer.Option("--label-delay", help="From transaction to label where the file does not say: 7d, 12h, 30m.")
]


@app.command()
def score(bootstrap: Bootstrap = None) -> None:
    """Score transactions: the scorer. Runs until SIGTERM."""
    chosen = settings.load(bootstrap_servers=bootstrap)
    logs.configure(chosen.log_level)  # before Quix is imported: what its libraries warn of is JSON too
    from fraud_service import service

    _end_quietly_on_sigterm()
    service.run_scorer(chosen)


@app.command()
def learn(bootstrap: Bootstrap = None) -> None:
    """Learn from labels: the learner, one process for all partitions. Runs until SIGTERM."""
    chosen = settings.load(bootstrap_servers=bootstrap)
    logs.configure(chosen.log_level)  # before Quix is imported: what its libraries warn of is JSON too
    from fraud_service import service

    _end_quietly_on_sigterm()
    service.run_learner(chosen)


@topics_app.command("list")
def topics_list(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Print the table of topics."""
    from fraud_service.stream import topics

    chosen = settings.load()
    specs = topics.table(chosen)
    if as_json:
        rows = [
            {
                "role": spec.role,
                "name": spec.name,
                "key": spec.key,
                "partitions": spec.partitions,
                "replication": chosen.replication,
                **spec.config(),
            }
            for spec in specs
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    for spec in specs:
        kept = "for ever" if spec.retention < 0 else f"{spec.retention // DAY} days"
        shape = f"{spec.partitions:4} × {chosen.replication}  {spec.cleanup:8} {kept:9}"
        typer.echo(f"{spec.role:14} {spec.name:58} {shape} {spec.key:24} {spec.content}")


@topics_app.command("create")
def topics_create(bootstrap: Bootstrap = None) -> None:
    """Create the topics that are missing, the changelogs included."""
    from fraud_service.stream import clients, topics

    chosen = settings.load(bootstrap_servers=bootstrap)
    created = topics.create(clients.admin(chosen), topics.table(chosen), chosen.replication)
    typer.echo("\n".join(f"created {name}" for name in created) or "nothing to create")


@topics_app.command("check")
def topics_check(bootstrap: Bootstrap = None) -> None:
    """Compare the cluster with the table; exits 1 when something is wrong."""
    from fraud_service.stream import clients, topics

    chosen = settings.load(bootstrap_servers=bootstrap)
    found = topics.findings(clients.admin(chosen), topics.table(chosen), chosen.replication)
    typer.echo("\n".join(found) or "all topics are as they should be")
    if found:
        raise typer.Exit(1)


@app.command()
def label(
    transaction_id: str,
    card: Annotated[str, typer.Option(help="card_id of the transaction.")],
    fraud: Annotated[bool, typer.Option("--fraud/--legitimate", help="What became known.", show_default=False)],
    source: Annotated[LabelSource, typer.Option(help="Who says so.")] = LabelSource.ANALYST,
    at: Annotated[str | None, typer.Option(help="When it became known, RFC 3339; now by default.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Send one label."""
    from fraud_service.feed import Feed

    moment = at or datetime.now().astimezone().isoformat()
    try:
        verdict = Label(
            transaction_id=transaction_id,
            card_id=card,
            is_fraud=fraud,
            labelled_at=instant(moment, "--at"),
            source=source,
        )
        decode_label(encode(verdict))  # what nobody could read is not sent
    except InvalidEvent as error:
        raise ConfigurationError(error.detail) from None
    with Feed(settings.load(bootstrap_servers=bootstrap)) as feed:
        feed.label(verdict)
    typer.echo(f"sent: {transaction_id} is {'fraud' if fraud else 'legitimate'}")


@app.command()
def feed(
    file: Path,
    maps: Maps = [],
    sets: Sets = [],
    start: From = None,
    end: To = None,
    label_delay: Delay = "7d",
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Transactions a second; as fast as possible if absent.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Stream a file (Parquet, CSV, JSON Lines) into the input topics, each label when it becomes known."""
    from fraud_service.feed import Feed

    delay = duration(label_delay)
    history = _history(file, maps, sets, start, end)
    with _progress() as bar, Feed(settings.load(bootstrap_servers=bootstrap)) as sender:
        task = bar.add_task("transactions", total=len(history))
        sender.play(history, delay, rate, lambda: bar.advance(task))
    typer.echo(json.dumps({"transactions": sender.transactions, "labels": sender.labels}))


@app.command()
def simulate(
    file: Path,
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 1,
    cards: int = 2_000,
    merchants: int = 1_000,
    days: int = 60,
    drift_day: Annotated[int | None, typer.Option(help="Day on which the fraudsters change their behaviour.")] = None,
) -> None:
    """Write simulated transactions with labels (Parquet, CSV, JSON Lines)."""
    from fraud_service.simulator import World, write

    world = World(seed=seed, cards=cards, merchants=merchants, days=days, drift_day=drift_day)
    typer.echo(json.dumps({"transactions": write(world, file), "file": str(file)}))


@app.command()
def train(
    file: Path,
    out: Annotated[Path, typer.Option(help="Folder of the artefact.")],
    maps: Maps = [],
    sets: Sets = [],
    train_from: TrainFrom = None,
    train_to: TrainTo = None,
    label_delay: Delay = "7d",
    source: Annotated[
        str | None, typer.Option(help="What the model card calls the data; the file name by default.")
    ] = None,
) -> None:
    """Fit the pretrained model on a file and write its artefact.

    What lies before --train-from warms the profiles; labels known after --train-to plus the delay are not used.
    """
    from fraud_service.training import run

    history = _history(file, maps, sets, None, train_to)
    with _progress() as bar:
        manifest = run.train(
            history,
            out,
            start=None if train_from is None else _milliseconds(train_from),
            label_delay=duration(label_delay),
            source=source or file.name,
            progress=_ticks(bar, len(history)),
        )
    typer.echo(json.dumps({"version": manifest.version, "out": str(out), "metrics": manifest.metrics}))


@app.command()
def backtest(
    file: Path,
    models: Annotated[Path, typer.Option(help="Folder of the pretrained model, as `train --out` wrote it.")],
    maps: Maps = [],
    sets: Sets = [],
    label_delay: Delay = "7d",
    start: From = None,
    end: To = None,
    no_online: Annotated[bool, typer.Option("--no-online", help="The pretrained model alone.")] = False,
    refit_every: Annotated[
        str | None, typer.Option(help="Re-fit the pretrained model so often, as in 7d; promoted if better.")
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Write one row a transaction here, as Parquet.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all figures here, as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a page with pictures here, as HTML.")] = None,
    compare: Annotated[Path | None, typer.Option(help="The --json of another run, to compare with.")] = None,
) -> None:
    """Score a file as the live service would have, labels applied when they became known, and say how good that was.

    What lies before --from warms profiles, risk and the online model, and is not reported.
    """
    from fraud_service import backtest as run
    from fraud_service.evaluation import report as page
    from fraud_service.evaluation import result

    other = None if compare is None else result.decode_result(_read(compare), str(compare))
    for path in (scores, json_out, report):
        _require_folder(path)
    history = _history(file, maps, sets, None, end)
    plan = run.Plan(
        source=file.name,
        models=models,
        label_delay=duration(label_delay),
        start=None if start is None else _milliseconds(start),
        online=not no_online,
        refit_every=None if refit_every is None else duration(refit_every),
    )
    with _progress() as bar:
        table, found = run.backtest(history, plan, settings.load(), _ticks(bar, len(history)))
    if scores is not None:
        run.write_scores(table, scores)
    if json_out is not None:
        json_out.write_bytes(result.encode_result(found))
    if report is not None:
        report.write_text(page.report(found, other), encoding="utf-8")
    figures = {
        name: {figure: getattr(one, figure) for figure in SUMMARY} for name, one in found.figures.components.items()
    }
    typer.echo(json.dumps({**found.run, "frauds": found.figures.frauds, "figures": figures}))


@app.command()
def refit(
    file: Annotated[Path | None, typer.Argument(help="Labelled transactions; the labelled topic if absent.")] = None,
    maps: Maps = [],
    sets: Sets = [],
    label_delay: Delay = "7d",
    margin: Annotated[float, typer.Option(min=0, help="Average precision by which it must be better.")] = 0.01,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the comparison.")] = False,
    artefact: Annotated[
        Path | None, typer.Option(help="Promote this artefact as it is, to roll back or to roll out.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Fit a new pretrained model on what is labelled by now, and promote it to all pods if it is better.

    Champion and challenger are judged on the last seven labelled days, which the challenger has not seen.
    """
    from fraud_service import refit as run
    from fraud_service.models.artefact import find, read
    from fraud_service.training.refit import challenge

    chosen = settings.load(bootstrap_servers=bootstrap)
    if artefact is not None:
        given = read(find(artefact))
        if not dry_run:
            run.promote(chosen, given)
        typer.echo(json.dumps({"promoted": None if dry_run else given.manifest.version}))
        return
    champion = run.champion(chosen)
    with _progress() as bar:
        if file is None:
            task = bar.add_task("labelled examples", total=None)
            examples = run.labelled_on_topic(chosen, lambda count: bar.advance(task, count))
        else:
            history = _history(file, maps, sets, None, None)
            examples = run.labelled_in_file(history, duration(label_delay), _ticks(bar, len(history)))
    at = 0 if examples is None else int(examples.timestamps.max())
    source = f"topic {chosen.topics.labelled}" if file is None else file.name
    outcome, challenger = challenge(examples, champion, at, source, margin)
    if challenger is not None and not dry_run:
        run.promote(chosen, challenger)
    typer.echo(json.dumps({**msgspec.structs.asdict(outcome), "dry_run": dry_run}))


@app.command()
def demo(
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Your Kafka; an embedded broker if absent.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=5, help="How long transactions are fed.")] = 60,
    rate: Annotated[float, typer.Option(min=10, help="Transactions a second, about.")] = 400,
    days: Annotated[int, typer.Option(min=10, help="Days of event time that pass meanwhile.")] = 30,
) -> None:
    """Show everything at work for a minute, on simulated transactions; nothing is left behind."""
    from fraud_service.demo import Plan, run

    run(
        settings.load(bootstrap_servers=bootstrap),
        Plan(seconds=seconds, rate=rate, days=days),
        own_kafka=bootstrap is not None,
    )


@app.command()
def config() -> None:
    """Print every setting with its value; secrets in FRAUD_KAFKA stay hidden."""
    chosen = settings.load().model_dump(mode="json")
    chosen["kafka"] = dict.fromkeys(chosen["kafka"], "***")
    typer.echo(json.dumps(chosen, indent=2))


@app.command()
def reset(
    group: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Make a group start over: its offsets, changelog and local state are removed. Its output topics are kept."""
    from fraud_service.stream import repair

    for line in repair.reset(settings.load(bootstrap_servers=bootstrap), group, really=yes):
        typer.echo(line)


def _end_quietly_on_sigterm() -> None:
    """End with 0 when told to stop while starting; Quix takes the signal over once it runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def duration(text: str) -> int:
    """Read `7d`, `12h`, `30m` or `45s` as milliseconds.

    Raises
    ------
    ConfigurationError
        Names the text and the form it should have.
    """
    units = {"d": DAY, "h": 3_600_000, "m": 60_000, "s": 1000}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.replace(".", "", 1).isdecimal():
        raise ConfigurationError(f"{text!r} is not a duration: write a number and d, h, m or s, as in 7d")
    return int(float(number) * units[unit])


def _history(file: Path, maps: list[str], sets: list[str], start: datetime | None, end: datetime | None) -> History:
    from fraud_service.history import History

    return History.open(
        file,
        columns=_pairs("--map", maps),
        constants=_pairs("--set", sets),
        start=None if start is None else _milliseconds(start),
        end=None if end is None else _milliseconds(end),
    )


def _pairs(option: str, texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise ConfigurationError(f"{option} {text}: write NAME=VALUE")
    return dict(text.split("=", 1) for text in texts)


def _milliseconds(moment: datetime) -> int:
    return instant(f"{moment:%Y-%m-%dT%H:%M:%S}Z", "date")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _ticks(bar: Progress, total: int) -> Callable[[], None]:
    """Return what moves the bar by one; it is drawn once in a while, for it costs more than scoring."""
    task, ticks = bar.add_task("transactions", total=total), count(1)

    def tick() -> None:
        done = next(ticks)
        if done % 1000 == 0 or done == total:
            bar.update(task, completed=done)

    return tick


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


def _require_folder(path: Path | None) -> None:
    """Refuse, before hours of work, a file that could not be written."""
    if path is not None and not path.parent.is_dir():
        raise ConfigurationError(f"{path}: there is no folder {path.parent}")


def main() -> None:
    """Run the command line; an error of ours ends with one line and exit code 1."""
    try:
        app()
    except FraudServiceError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


if __name__ == "__main__":
    main()
