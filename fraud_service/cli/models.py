"""Commands for models: data to train on, training, backtests and re-fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from fraud_service.cli.options import (
    Bootstrap,
    Delay,
    From,
    Maps,
    Sets,
    To,
    TrainFrom,
    TrainTo,
    duration,
    history_of,
    milliseconds,
    progress_bar,
    read,
    require_folder,
    ticks,
)
from fraud_service.cli.output import say_json
from fraud_service.config import settings

LARGEST_RESULT: Final = 1 << 28  # bytes
SUMMARY: Final = ("average_precision", "auc_roc", "card_precision_100")

app = typer.Typer()


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
    from fraud_service.demo.simulator import World, write

    world = World(seed=seed, cards=cards, merchants=merchants, days=days, drift_day=drift_day)
    say_json(json.dumps({"transactions": write(world, file), "file": str(file)}))


@app.command()
def train(
    file: Path,
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    maps: Maps = [],
    sets: Sets = [],
    train_from: TrainFrom = None,
    train_to: TrainTo = None,
    label_delay: Delay = "7d",
    source: Annotated[
        str | None, typer.Option(help="What the model card calls the data; the file name by default.")
    ] = None,
) -> None:
    """Fit the pretrained model on a file and write its artifact.

    What lies before --train-from warms the profiles; labels known after --train-to plus the delay are not used.
    """
    from fraud_service.training import pipeline

    history = history_of(file, maps, sets, None, train_to)
    with progress_bar() as bar:
        manifest = pipeline.train(
            history,
            out,
            start=None if train_from is None else milliseconds(train_from),
            label_delay=duration(label_delay),
            source=source or file.name,
            progress=ticks(bar, len(history)),
        )
    say_json(json.dumps({"version": manifest.version, "out": str(out), "metrics": manifest.metrics}))


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
    from fraud_service.evaluation import report as page
    from fraud_service.evaluation import result
    from fraud_service.training import backtest as run

    other = None if compare is None else result.decode_result(read(compare, LARGEST_RESULT), str(compare))
    for path in (scores, json_out, report):
        require_folder(path)
    history = history_of(file, maps, sets, None, end)
    plan = run.Plan(
        source=file.name,
        models=models,
        label_delay=duration(label_delay),
        start=None if start is None else milliseconds(start),
        online=not no_online,
        refit_every=None if refit_every is None else duration(refit_every),
    )
    with progress_bar() as bar:
        table, found = run.backtest(history, plan, settings.load(), ticks(bar, len(history)))
    if scores is not None:
        run.write_scores(table, scores)
    if json_out is not None:
        json_out.write_bytes(result.encode_result(found))
    if report is not None:
        report.write_text(page.report(found, other), encoding="utf-8")
    figures = {
        name: {figure: getattr(one, figure) for figure in SUMMARY} for name, one in found.figures.components.items()
    }
    say_json(json.dumps({**found.run, "frauds": found.figures.frauds, "figures": figures}))


@app.command()
def refit(
    file: Annotated[Path | None, typer.Argument(help="Labelled transactions; the labelled topic if absent.")] = None,
    maps: Maps = [],
    sets: Sets = [],
    label_delay: Delay = "7d",
    margin: Annotated[float, typer.Option(min=0, help="Average precision by which it must be better.")] = 0.01,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the comparison.")] = False,
    artifact: Annotated[
        Path | None, typer.Option(help="Promote this artifact as it is, to roll back or to roll out.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Fit a new pretrained model on what is labelled by now, and promote it to all pods if it is better.

    Champion and challenger are judged on the last seven labelled days, which the challenger has not seen.
    """
    from fraud_service.admin import refit as run
    from fraud_service.models.artifact import find, read
    from fraud_service.training.refit import evaluate_challenger

    chosen = settings.load(bootstrap_servers=bootstrap)
    if artifact is not None:
        given = read(find(artifact))
        if not dry_run:
            run.promote(chosen, given)
        say_json(json.dumps({"promoted": None if dry_run else given.manifest.version}))
        return
    champion = run.champion(chosen)
    with progress_bar() as bar:
        if file is None:
            task = bar.add_task("labelled examples", total=None)
            examples = run.labelled_on_topic(chosen, lambda count: bar.advance(task, count))
        else:
            history = history_of(file, maps, sets, None, None)
            examples = run.labelled_in_file(history, duration(label_delay), ticks(bar, len(history)))
    at = 0 if examples is None else int(examples.timestamps.max())
    source = f"topic {chosen.topics.labelled}" if file is None else file.name
    outcome, challenger = evaluate_challenger(examples, champion, at, source, margin)
    if not dry_run:
        if challenger is not None:
            run.promote(chosen, challenger)
        run.report(chosen, outcome)  # after the model: it must not tell of a promotion that failed
    say_json(json.dumps({**msgspec.structs.asdict(outcome), "dry_run": dry_run}))
