"""Commands that read the log back: replay, explain, state and snapshots. None of them writes to a topic or group."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from fraud_service import settings
from fraud_service.cli.options import Bootstrap, From, To, milliseconds, progress_bar, require_folder
from fraud_service.errors import ConfigurationError

if TYPE_CHECKING:
    from fraud_service.replay.run import Plan
    from fraud_service.settings import Settings

app = typer.Typer()

Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Candidate: this threshold instead.")]
Partitions = Annotated[str | None, typer.Option(help="Only these partitions, as in 0,1.")]


@app.command()
def replay(
    start: From = None,
    end: To = None,
    partitions: Partitions = None,
    models: Annotated[Path | None, typer.Option(help="Candidate: the folder of a model.")] = None,
    version: Annotated[str | None, typer.Option(help="Candidate: a model that was promoted.")] = None,
    review_threshold: Threshold = None,
    decline_threshold: Threshold = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything found here, as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Of a candidate: write a page with pictures here.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make every decision of the log again and compare it byte for byte; exits 1 when one differs.

    With a candidate model or threshold: say instead what it would have decided. Reads beside the running service and
    touches nothing of it. Profiles are rebuilt from the first transaction there is, whatever --from says. A replay that
    was ended starts over.
    """
    from fraud_service.replay import run
    from fraud_service.replay.engine import Span

    for path in (json_out, report):
        require_folder(path)
    chosen = settings.load(
        bootstrap_servers=bootstrap, review_threshold=review_threshold, decline_threshold=decline_threshold
    )
    candidate = models is not None or version is not None or (review_threshold, decline_threshold) != (None, None)
    if report is not None and not candidate:
        raise ConfigurationError("--report: needs a candidate, --models, --version or a threshold")
    span = Span(_moment(start, Span().begin), _moment(end, Span().end))
    asked = run.plan(chosen, span, _numbers(partitions))
    with progress_bar() as bar:
        task = bar.add_task("scores", total=sum(part.end - part.begin for part in asked.scores.values()))

        def tick(done: int) -> None:
            bar.update(task, completed=done)

        if candidate:
            _compare(chosen, asked, (models, version), json_out, report, tick)
            return
        found = run.verify(chosen, asked, tick)
    _write(json_out, found)
    for line in found.refused:
        typer.echo(f"refused: {line}")
    for one in found.findings:
        typer.echo(
            f"{one.kind}: transaction {one.transaction_id}, partition {one.partition}@{one.offset}: {one.detail}"
        )
    typer.echo(json.dumps({"differences": found.differences, **found.counts, "passed_over": len(found.passed_over)}))
    if found.differences:
        raise typer.Exit(1)


def _compare(
    chosen: Settings,
    asked: Plan,
    model: tuple[Path | None, str | None],
    json_out: Path | None,
    report: Path | None,
    tick: Callable[[int], None],
) -> None:
    from fraud_service import service
    from fraud_service.replay import candidates

    candidate = candidates.Candidate(service.policy(chosen), *model)
    found = candidates.compared(chosen, asked, candidate, tick)
    _write(json_out, found.figures)
    if report is not None:
        report.write_text(candidates.page(chosen, found), encoding="utf-8")
    told = msgspec.to_builtins(found.figures)
    typer.echo(json.dumps({name: value for name, value in told.items() if not name.startswith("by_")}))


def _write(path: Path | None, found: msgspec.Struct) -> None:
    if path is not None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")


def _moment(given: datetime | None, otherwise: int) -> int:
    return otherwise if given is None else milliseconds(given)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise ConfigurationError(f"--partitions {text}: write numbers and commas, as in 0,1")
    return [int(part) for part in text.split(",")]
