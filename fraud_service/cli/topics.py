"""Commands that list, create and check the topics."""

from __future__ import annotations

import json

import typer

from fraud_service.cli.options import AsJson, Bootstrap
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.time import DAY

app = typer.Typer(no_args_is_help=True, help="List, create and check the topics of the service.")


@app.command("list")
def list_topics(as_json: AsJson = False) -> None:
    """List the topics that the service needs, with partitions, retention and content."""
    from fraud_service.kafka import topics

    chosen = settings.load()
    specs = topics.topic_specs(chosen)
    if as_json:
        rows = [
            {
                "role": spec.role,
                "name": spec.name,
                "key": spec.key,
                "partitions": spec.partitions,
                "replication": chosen.replication_factor,
                **spec.config(),
            }
            for spec in specs
        ]
        say_json(json.dumps(rows, indent=2))
        return
    for spec in specs:
        kept = "for ever" if spec.retention < 0 else f"{spec.retention // DAY} days"
        shape = f"{spec.partitions:4} × {chosen.replication_factor}  {spec.cleanup:8} {kept:9}"
        say(f"{spec.role:14} {spec.name:58} {shape} {spec.key:24} {spec.content}")


@app.command()
def create(bootstrap: Bootstrap = None) -> None:
    """Create the topics that are missing, changelogs included."""
    from fraud_service.kafka import clients, topics

    chosen = settings.load(bootstrap_servers=bootstrap)
    created = topics.create(clients.admin(chosen), topics.topic_specs(chosen), chosen.replication_factor)
    say(*([f"created {name}" for name in created] or ["nothing to create"]))


@app.command()
def check(bootstrap: Bootstrap = None) -> None:
    """Compare the topics of the cluster with what the service needs. Exits 1 when they differ."""
    from fraud_service.kafka import clients, topics

    chosen = settings.load(bootstrap_servers=bootstrap)
    found = topics.findings(clients.admin(chosen), topics.topic_specs(chosen), chosen.replication_factor)
    say(*(found or ["all topics are as they should be"]))
    if found:
        raise typer.Exit(1)
