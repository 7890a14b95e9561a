"""Commands that read the log back: replay, explain, state and snapshots. None of them writes to a topic or group."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from fraud_service import settings
from fraud_service.cli.options import Bootstrap, From, To, milliseconds, progress_bar, require_folder
from fraud_service.errors import ConfigurationError

app = typer.Typer()

Partitions = Annotated[str | None, typer.Option(help="Only these partitions, as in 0,1.")]


@app.command()
def replay(
    start: From = None,
    end: To = None,
    partitions: Partitions = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything found here, as JSON.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make every decision of the log again and compare it byte for byte; exits 1 when one differs.

    Reads beside the running service and touches nothing of it. Profiles are rebuilt from the first transaction there
    is, whatever --from says. A replay that was ended starts over.
    """
    from fraud_service.replay import run
    from fraud_service.replay.engine import Span

    require_folder(json_out)
    chosen = settings.load(bootstrap_servers=bootstrap)
    span = Span(_moment(start, Span().begin), _moment(end, Span().end))
    asked = run.plan(chosen, span, _numbers(partitions))
    with progress_bar() as bar:
        task = bar.add_task("scores", total=sum(part.end - part.begin for part in asked.scores.values()))
        found = run.verify(chosen, asked, lambda count: bar.update(task, completed=count))
    if json_out is not None:
        json_out.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    for line in found.refused:
        typer.echo(f"refused: {line}")
    for one in found.findings:
        typer.echo(
            f"{one.kind}: transaction {one.transaction_id}, partition {one.partition}@{one.offset}: {one.detail}"
        )
    typer.echo(json.dumps({"differences": found.differences, **found.counts, "passed_over": len(found.passed_over)}))
    if found.differences:
        raise typer.Exit(1)


def _moment(given: datetime | None, otherwise: int) -> int:
    return otherwise if given is None else milliseconds(given)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise ConfigurationError(f"--partitions {text}: write numbers and commas, as in 0,1")
    return [int(part) for part in text.split(",")]
