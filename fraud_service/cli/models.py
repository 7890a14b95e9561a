"""Commands that train, evaluate and promote models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from fraud_service.cli import options
from fraud_service.cli.file_options import FileOptions, reads_file
from fraud_service.cli.output import say, say_json, say_table
from fraud_service.config import settings
from fraud_service.domain.events import rfc3339

if TYPE_CHECKING:
    from fraud_service.evaluation.metrics import Result

SUMMARY: Final = ("average_precision", "auc_roc", "card_precision_100")
PANEL: Final = "Train and choose models"

app = typer.Typer()
models_app = typer.Typer(no_args_is_help=True, help="List, sign, promote and roll back pretrained models.")
online_app = typer.Typer(no_args_is_help=True, help="Switch the online model off and on, in all scorers.")
app.add_typer(models_app, name="models", rich_help_panel=PANEL)
app.add_typer(online_app, name="online", rich_help_panel=PANEL)


@app.command(rich_help_panel=PANEL)
@reads_file
def train(
    file: options.LabelledFile,
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    reading: FileOptions,
    train_from: options.TrainFrom = None,
    train_to: options.TrainTo = None,
    label_delay: options.LabelDelay = "7d",
    source: Annotated[
        str | None, typer.Option(help="Name of the data in the model card. By default, the file name.")
    ] = None,
) -> None:
    """Train a pretrained model on a file and write its artifact.

    Transactions before --train-from only build card profiles. Labels known later than --train-to plus --label-delay
    are not used.
    """
    from fraud_service.training import pipeline
    from fraud_service.training.history_checks import count_repeats

    history = reading.open(file, end=train_to)
    with options.ProgressCounter("transactions", len(history)) as counter:
        manifest = pipeline.train(
            history,
            out,
            start=options.date_ms(train_from),
            label_delay_ms=options.duration_ms(label_delay, "--label-delay"),
            source=source or file.name,
            progress=counter.advance,
            time_zone=settings.load().time_zone,
        )
    repeats = count_repeats(history)._asdict()
    say_json(json.dumps({"version": manifest.version, "out": str(out), "metrics": manifest.metrics, **repeats}))


@app.command(rich_help_panel=PANEL)
@reads_file
def backtest(
    file: options.LabelledFile,
    models: Annotated[Path, typer.Option(help="Folder of the pretrained model, as `train --out` wrote it.")],
    reading: FileOptions,
    label_delay: options.LabelDelay = "7d",
    start: options.From = None,
    end: options.To = None,
    no_online: Annotated[bool, typer.Option("--no-online", help="Score with the pretrained model alone.")] = False,
    refit_every: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Re-fit the pretrained model this often; promote it if it is better."),
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="Write one row per transaction to this Parquet file.")] = None,
    json_out: options.ResultFile = None,
    report: Annotated[Path | None, typer.Option(help="Write a report with charts to this HTML file.")] = None,
    compare: Annotated[Path | None, typer.Option(help="The --json file of another run, for comparison.")] = None,
) -> None:
    """Score a file as the live service would have, apply each label when it became known, and measure the quality.

    Transactions before --from only build card profiles, merchant risk and the online model. They are not measured.
    """
    from fraud_service.evaluation import metrics
    from fraud_service.evaluation import report as page
    from fraud_service.training import backtest as run
    from fraud_service.training.history_checks import count_repeats

    other = None if compare is None else metrics.decode_result(options.read_file(compare), str(compare))
    for path in (scores, json_out, report):
        options.require_folder(path)
    history = reading.open(file, end=end)
    plan = run.BacktestPlan(
        source=file.name,
        models=models,
        label_delay_ms=options.duration_ms(label_delay, "--label-delay"),
        start=options.date_ms(start),
        online=not no_online,
        refit_every_ms=None if refit_every is None else options.duration_ms(refit_every, "--refit-every", least="1h"),
    )
    with options.ProgressCounter("transactions", len(history)) as counter:
        table, found = run.backtest(history, plan, settings.load(), counter.advance)
    if scores is not None:
        run.write_scores(table, scores)
    if json_out is not None:
        json_out.write_bytes(metrics.encode_result(found))
    if report is not None:
        report.write_text(page.report(found, other), encoding="utf-8")
    say_json(json.dumps(_summary(found) | count_repeats(history)._asdict()))


def _summary(found: Result) -> dict[str, object]:
    """Return the facts and the main figures of a backtest."""
    figures = {
        name: {figure: getattr(one, figure) for figure in SUMMARY} for name, one in found.figures.components.items()
    }
    return {**found.run, "frauds": found.figures.frauds, "figures": figures}


@app.command(rich_help_panel=PANEL)
@reads_file
def refit(
    reading: FileOptions,
    file: Annotated[
        Path | None, typer.Argument(help="Labelled transactions. By default, the topic of labelled examples.")
    ] = None,
    label_delay: options.LabelDelay = "7d",
    margin: Annotated[
        float, typer.Option(min=0, help="Promote only if average precision improves by at least this much.")
    ] = 0.01,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare, but promote nothing.")] = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Train a new pretrained model on the labels known by now, and promote it to all pods if it is better.

    Both models are measured on the last seven labelled days. The new model is not trained on them. Exits 1 if
    there are too few known frauds to compare.
    """
    from fraud_service.admin import models
    from fraud_service.admin import refit as run
    from fraud_service.training.refit import evaluate_challenger, shortage

    chosen = options.connect(bootstrap, needs_keys=True)
    champion = run.champion(chosen)
    if file is None:
        with options.ProgressCounter("labelled examples") as counter:
            examples = run.labelled_on_topic(chosen, counter.advance)
    else:
        history = reading.open(file)
        delay = options.duration_ms(label_delay, "--label-delay")
        with options.ProgressCounter("transactions", len(history)) as counter:
            examples = run.labelled_in_file(history, delay, chosen.time_zone, counter.advance)
    at = 0 if examples is None else int(examples.timestamps.max())
    source = f"topic {chosen.topics.labelled}" if file is None else file.name
    outcome, challenger = evaluate_challenger(examples, champion, at, source, margin)
    if not dry_run:
        if challenger is not None:
            models.promote(chosen, challenger)
        if examples is not None:
            run.report(chosen, outcome)  # after the promotion: a failed one must not be reported
    say_json(json.dumps({**msgspec.structs.asdict(outcome), "dry_run": dry_run}))
    lacking = shortage(examples)
    if lacking is not None:
        say(f"nothing was compared: in {source}, {lacking}. {run.ADVICE}", err=True)
        raise typer.Exit(1)


@models_app.command("list")
def list_models(as_json: options.AsJson = False, bootstrap: options.Bootstrap = None) -> None:
    """List the model that processes start with and all promoted models. `*` marks the active one."""
    from fraud_service.admin import models

    found = models.model_statuses(options.connect(bootstrap, needs_keys=True))
    if as_json:
        say_json(json.dumps([msgspec.structs.asdict(one) for one in found], indent=2))
        return
    rows = [
        (
            "*" if one.is_active else "",
            one.version,
            "at the start" if one.promoted_at is None else rfc3339(one.promoted_at),
            one.signed_with or "unsigned",
        )
        for one in found
    ]
    say_table(("active", "version", "promoted", "signed with"), rows)


@models_app.command()
def promote(folder: options.ModelFolder, bootstrap: options.Bootstrap = None) -> None:
    """Promote a model that no pod has yet. It is active from the next snapshot on."""
    from fraud_service.admin import models
    from fraud_service.models import artifact

    model = artifact.read(artifact.find_folder(folder))
    models.promote(options.connect(bootstrap, needs_keys=True), model)
    say(f"promoted: {model.manifest.version}")


@models_app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="A version of `models list`.")], bootstrap: options.Bootstrap = None
) -> None:
    """Promote an earlier model again. It is active from the next snapshot on."""
    from fraud_service.admin import models

    models.roll_back(options.connect(bootstrap, needs_keys=True), version)
    say(f"promoted: {version}")


@models_app.command()
def sign(folder: options.ModelFolder) -> None:
    """Sign the artifact of a model. Processes that have signing keys start only with a signed one."""
    from fraud_service.config.keyring import require_keyring
    from fraud_service.models import artifact

    keyring = require_keyring(settings.load())
    artifact.sign(folder, keyring)
    say(f"signed with {keyring.active}: {folder}")


@online_app.command()
def off(bootstrap: options.Bootstrap = None) -> None:
    """Score with the pretrained model alone, at once. The learner continues to train the online model."""
    _switch(bootstrap, online=False)


@online_app.command()
def on(bootstrap: options.Bootstrap = None) -> None:
    """Use the online model again, with the weight in the active snapshot."""
    _switch(bootstrap, online=True)


def _switch(bootstrap: str | None, *, online: bool) -> None:
    from fraud_service.admin import models

    models.switch_online_model(options.connect(bootstrap, needs_keys=True), online=online)
    say(f"the online model is {'on' if online else 'off'}")
