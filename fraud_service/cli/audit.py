"""Commands that look at what lies on the topics: the verifier and the dead letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from fraud_service import settings
from fraud_service.cli.options import Bootstrap, instant_of, progress_bar, read

app = typer.Typer()

Since = Annotated[
    str | None, typer.Option("--since", help="Leave out what the broker took in before: RFC 3339, or 90m, 12h, 7d ago.")
]


@app.command()
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="The whole report, as JSON.")] = False,
    since: Since = None,
    state: Annotated[
        bool, typer.Option("--state", help="Fold each card's profile anew and compare the state.")
    ] = False,
    volume: Annotated[
        Path | None, typer.Option(help="A scorer's FRAUD_STATE_DIR, to be compared with the changelog.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Make every decision and every snapshot again and compare them.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Check on the topics that nothing was lost, doubled, reordered or altered; exits 1 when something was.

    Reads only, joins no group, and may run beside the live service.
    """
    from fraud_service.audit.findings import encode_report
    from fraud_service.audit.verify import Depth
    from fraud_service.audit.verify import verify as run

    chosen = settings.load(bootstrap_servers=bootstrap)
    with progress_bar() as bar:
        task = bar.add_task("records", total=None)
        report = run(
            chosen,
            Depth(None if since is None else instant_of(since, "--since"), state, volume, replay),
            on_size=lambda size: bar.update(task, total=size),
            on_entry=lambda count: bar.advance(task, count),
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


letters_app = typer.Typer(no_args_is_help=True, help="List, show and send again what could not be read.")
app.add_typer(letters_app, name="dead-letters")

ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only of this reason.")]
TopicOption = Annotated[str | None, typer.Option("--topic", help="Only of messages from this topic.")]
PartitionOption = Annotated[int | None, typer.Option("--partition", help="Only in this partition of the dead letters.")]
OffsetOption = Annotated[int | None, typer.Option("--offset", help="Only at this offset of the dead letters.")]
LETTER: Final = "{partition:>4} {offset:>9}  {reason:18} {source:44} {redriven!s:5}  {detail}"


@letters_app.command("list")
def letters_list(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: Since = None,
    partition: PartitionOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """List dead letters: place, reason, source, whether sent again, what was wrong."""
    from fraud_service.stream.redrive import Wanted, look

    wanted = Wanted(reason, topic, None if since is None else instant_of(since, "--since"), partition)
    for found in look(settings.load(bootstrap_servers=bootstrap), wanted):
        typer.echo(json.dumps(found.row()) if as_json else LETTER.format(**found.row()))


@letters_app.command("show")
def letters_show(partition: int, offset: int, bootstrap: Bootstrap = None) -> None:
    """Print one dead letter: headers, key and value."""
    from fraud_service.stream.redrive import Wanted, look, require_one

    chosen = settings.load(bootstrap_servers=bootstrap)
    found = require_one(look(chosen, Wanted(partition=partition, offset=offset)), partition, offset)
    for name, value in found.entry.headers:
        typer.echo(f"{name}: {value.decode(errors='replace')}")
    typer.echo(f"sent again: {'yes' if found.is_redriven else 'no'}")
    for name, data in (("key", found.entry.key), ("value", found.entry.value)):
        typer.echo(f"{name}: {'(none)' if data is None else data.decode(errors='backslashreplace')}")


@letters_app.command("redrive")
def letters_redrive(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: Since = None,
    partition: PartitionOption = None,
    offset: OffsetOption = None,
    value_from: Annotated[Path | None, typer.Option(help="Repaired bytes, for a single letter.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Send dead letters to the topic they came from, each once; a missing or wrong key becomes the card's."""
    from fraud_service.stream.redrive import Wanted, look, redrive

    chosen = settings.load(bootstrap_servers=bootstrap)
    moment = None if since is None else instant_of(since, "--since")
    wanted = Wanted(reason, topic, moment, partition, offset)
    value = None if value_from is None else read(value_from)
    if yes:
        sent = sum(1 for _ in redrive(chosen, wanted, value))
        typer.echo(f"sent again: {sent}")
        return
    for found in look(chosen, wanted):
        hindrance = None if value is not None and not found.is_redriven else found.hindrance
        place = f"{found.entry.partition} {found.entry.offset}"
        typer.echo(f"{place}: to {found.letter.topic}" if hindrance is None else f"{place}: left, for {hindrance}")
    typer.echo("nothing was done: add --yes to do it")
