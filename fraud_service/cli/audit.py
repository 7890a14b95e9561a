"""Commands that look at what lies on the topics: the verifier and the dead letters."""

from __future__ import annotations

from typing import Annotated

import typer

from fraud_service import settings
from fraud_service.cli.options import Bootstrap, instant_of, progress_bar

app = typer.Typer()

Since = Annotated[
    str | None, typer.Option("--since", help="Leave out what the broker took in before: RFC 3339, or 90m, 12h, 7d ago.")
]


@app.command()
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="The whole report, as JSON.")] = False,
    since: Since = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Check on the topics that nothing was lost, doubled, reordered or altered; exits 1 when something was.

    Reads only, joins no group, and may run beside the live service.
    """
    from fraud_service.audit.findings import encode_report
    from fraud_service.audit.verify import verify as run

    chosen = settings.load(bootstrap_servers=bootstrap)
    with progress_bar() as bar:
        task = bar.add_task("records", total=None)
        report = run(
            chosen,
            None if since is None else instant_of(since, "--since"),
            on_size=lambda size: bar.update(task, total=size),
            on_entry=lambda: bar.advance(task),
        )
    if as_json:
        typer.echo(encode_report(report))
    else:
        for name, number in report.counts.items():
            typer.echo(f"{name:24} {number:>12,}")
        for line in (*report.notes, *report.anomalies):
            typer.echo(str(line))
        listed = ", ".join(f"{number:,} {kind}" for kind, number in report.found.items())
        typer.echo(f"wrong: {listed}" if listed else "nothing is wrong")
    if not report.is_clean:
        raise typer.Exit(1)
