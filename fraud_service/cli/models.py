"""Commands that train, evaluate and promote models."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from fraud_service.cli import options
from fraud_service.cli.file_options import FileOptions, reads_file
from fraud_service.cli.output import say, say_json, say_table
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.time import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from fraud_service.config.settings import Settings
    from fraud_service.evaluation.metrics import Result
    from fraud_service.models.artifact import Manifest
    from fraud_service.training.dataset import Examples
    from fraud_service.training.fit import FittedForest
    from fraud_service.training.history import History

STDOUT: Final = Path("-")
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
    as_json: options.AsJson = False,
) -> None:
    """Train a pretrained model on a file and write its artifact.

    Transactions before --train-from only build card profiles. Labels known later than --train-to plus --label-delay
    are not used. A transaction without a label counts as legitimate.
    """
    from fraud_service.config import factories
    from fraud_service.training import fit, pipeline
    from fraud_service.training.history_checks import count_repeats

    history = reading.open(file, end=train_to)
    _require_label(history, file, reading)
    with options.ProgressCounter("transactions", len(history)) as counter:
        window, examples = pipeline.prepare(
            history,
            out,
            start=options.date_ms(train_from),
            label_delay_ms=options.duration_ms(label_delay, "--label-delay"),
            progress=counter.advance,
            time_zone=settings.load().time_zone,
        )
    with options.ProgressCounter("trees", fit.max_trees()) as counter:
        fitted = fit.fit(examples, factories.policy(settings.load()), counter.advance)
    manifest = pipeline.export(fitted, window, source or file.name, out)
    if not as_json:
        say(*_trained(manifest, fitted, out, _next_command(file, out, train_to, reading)))
        return
    repeats = count_repeats(history)._asdict()
    held_out = {"held_out": msgspec.to_builtins(fitted.held_out), "missing": fitted.missing}
    say_json(
        json.dumps({"version": manifest.version, "out": str(out), "metrics": manifest.metrics, **held_out, **repeats})
    )


def _require_label(history: History, file: Path, reading: FileOptions) -> None:
    missing = _missing_label(history, file, reading)
    if missing:
        raise ConfigurationError(missing)


def _missing_label(history: History, file: Path, reading: FileOptions) -> str | None:
    """Say which column seems to be the label, if none is; None if there is one."""
    from fraud_service.training.history_files import open_source
    from fraud_service.training.label_columns import explain_missing_label

    return (
        None if history.has("label") else f"{file}: {explain_missing_label(open_source(file, reading.file_mapping()))}"
    )


def _trained(manifest: Manifest, fitted: FittedForest, out: Path, following: str) -> Iterator[str]:
    """Report the training: rows and frauds, the figures on held-out days, and the command that follows."""
    from fraud_service.evaluation.answer import sentence

    rows, frauds = manifest.training["rows"], manifest.training["frauds"]
    yield f"trained {manifest.version} on {rows:,} payments, {frauds:,} of them frauds: {out}"
    found = fitted.held_out
    if found is None:
        yield f"no figures on held-out days: {fitted.missing}"
    else:
        yield (
            f"on the last {manifest.training['judged_days']:g} days, a model trained without them "
            f"{sentence(found.alerts, found.frauds, found.rows)}"
        )
    yield f"next: {following}"


def _next_command(file: Path, out: Path, train_to: datetime | None, reading: FileOptions) -> str:
    """Return the backtest on the days after the training window, which are in the file or in a later one."""
    later = shlex.quote(str(file)) if train_to else "LATER_FILE"
    after = f" --from {train_to:%Y-%m-%d}" if train_to else ""
    reads = "".join(f" {shlex.quote(word)}" for word in reading.arguments())
    return f"fraud-service backtest {later} --models {shlex.quote(str(out))}{after}{reads}"


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
    json_out: Annotated[
        Path | None,
        typer.Option("--json", help="Write all results to this JSON file. `-` prints them as JSON instead."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write a report with charts to this HTML file.")] = None,
    compare: Annotated[Path | None, typer.Option(help="The --json file of another run, for comparison.")] = None,
) -> None:
    """Score a file as the live service would have, apply each label when it became known, and measure the quality.

    Transactions before --from only build card profiles, merchant risk and the online model. They are not measured.
    Figures leave out transactions without a label; if all labels say fraud, they count as legitimate. Without any label
    it exits 1, unless --scores asks for the scores.
    """
    from fraud_service.evaluation.metrics import decode_result
    from fraud_service.training import backtest as run

    other = None if compare is None else decode_result(options.read_file(compare), str(compare))
    for path in (scores, json_out, report):
        options.require_output(path, file)
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
    _say_backtest(_complete(found, history, file, reading), other, json_out, report)
    if not found.figures.rows and scores is None:
        raise typer.Exit(1)


def _complete(found: Result, history: History, file: Path, reading: FileOptions) -> Result:
    """Add what the run does not see: repeated payments, and the column that seems to be the label."""
    from fraud_service.training.history_checks import count_repeats

    hint = _missing_label(history, file, reading)
    return msgspec.structs.replace(
        found,
        run=found.run | count_repeats(history)._asdict(),
        warnings=[*found.warnings, *([hint] if hint else [])],
    )


def _say_backtest(found: Result, other: Result | None, json_out: Path | None, report: Path | None) -> None:
    """Write and print the answer."""
    from fraud_service.evaluation import answer, metrics
    from fraud_service.evaluation import report as page

    if report is not None:
        report.write_text(page.report(found, other), encoding="utf-8")
    encoded = metrics.encode_result(found)
    if json_out == STDOUT:
        say_json(encoded)
    else:
        if json_out is not None:
            json_out.write_bytes(encoded)
        say(*answer.text(found))
    say(*(f"warning: {warning}" for warning in found.warnings), err=True)


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
    from fraud_service.training import refit as training

    history = None
    if file is not None:
        history = reading.open(file)
        _require_label(history, file, reading)
    chosen = options.connect(bootstrap, needs_keys=True)
    champion = run.champion(chosen)
    examples = _labelled(chosen, history, options.duration_ms(label_delay, "--label-delay"))
    at = 0 if examples is None else int(examples.timestamps.max())
    source = f"topic {chosen.topics.labelled}" if file is None else file.name
    lacking = training.shortage(examples)
    with options.ProgressCounter("trees", 0 if lacking else training.max_trees()) as counter:
        outcome, challenger = training.evaluate_challenger(
            examples, champion, at, source, margin, progress=counter.advance
        )
    if not dry_run:
        if challenger is not None:
            models.promote(chosen, challenger)
        if examples is not None:
            run.report(chosen, outcome)  # after the promotion: a failed one must not be reported
    say_json(json.dumps({**msgspec.structs.asdict(outcome), "dry_run": dry_run}))
    if lacking is not None:
        say(f"nothing was compared: in {source}, {lacking}. {run.ADVICE}", err=True)
        raise typer.Exit(1)


def _labelled(chosen: Settings, history: History | None, delay_ms: int) -> Examples | None:
    """Return the labelled examples of a file; without one, those on the topic."""
    from fraud_service.admin import refit as run

    if history is None:
        with options.ProgressCounter("labelled examples") as counter:
            return run.labelled_on_topic(chosen, counter.advance)
    with options.ProgressCounter("transactions", len(history)) as counter:
        return run.labelled_in_file(history, delay_ms, chosen.time_zone, counter.advance)


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
