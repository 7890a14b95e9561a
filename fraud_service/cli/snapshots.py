"""Commands that list, show, compare and rebuild snapshots. They only read."""

from __future__ import annotations

from typing import Annotated

import typer

from fraud_service.cli.options import AsJson, Bootstrap, progress_bar
from fraud_service.cli.output import say, say_json, to_json
from fraud_service.config import settings

app = typer.Typer(no_args_is_help=True, help="List, show, compare and rebuild what labels taught.")


@app.command("list")
def list_snapshots(as_json: AsJson = False, bootstrap: Bootstrap = None) -> None:
    """List the snapshots on the topic, and whether the risk rows on their topic match their digests."""
    from fraud_service.verification import snapshots

    rows = snapshots.list_snapshots(settings.load(bootstrap_servers=bootstrap))
    if as_json:
        say_json(to_json(rows))
        return
    for row in rows:
        say(
            f"{row['version']}  from {row['effective_from']}  {row['examples']:>8} examples  "
            f"online {row['online_weight']:.3f}  {row['model']}  {'proved' if row['is_proved'] else 'NOT PROVED'}"
        )


@app.command()
def show(version: str, bootstrap: Bootstrap = None) -> None:
    """Print one snapshot, with its strongest weights."""
    from fraud_service.verification import snapshots

    say_json(to_json(snapshots.show(settings.load(bootstrap_servers=bootstrap), version)))


@app.command()
def diff(before: str, after: str, bootstrap: Bootstrap = None) -> None:
    """Print what changed from one snapshot to another."""
    from fraud_service.verification import snapshots

    say_json(to_json(snapshots.compare(settings.load(bootstrap_servers=bootstrap), before, after)))


@app.command()
def rebuild(
    version: Annotated[str | None, typer.Argument(help="The last snapshot to rebuild. By default, the newest.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Train on the labelled examples again, from the first, and compare every digest. Exits 1 when one differs."""
    from fraud_service.verification import snapshots

    chosen = settings.load(bootstrap_servers=bootstrap)
    with progress_bar() as bar:
        task = bar.add_task("snapshots", total=None)
        proof = snapshots.rebuild(chosen, version, lambda done: bar.update(task, completed=done))
    say_json(to_json(proof))
    if proof.differing or proof.not_rebuilt or proof.rejected:
        raise typer.Exit(1)
