"""Commands for a service that is lost, or moves."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
import typer

from fraud_service.cli.options import Bootstrap, duration, progress_bar
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError

app = typer.Typer()


@app.command()
def recover(
    transactions: Annotated[str, typer.Option("--from-transactions", metavar="TOPIC", help="Payments it had read.")],
    labels: Annotated[str, typer.Option("--from-labels", metavar="TOPIC", help="Labels it had read.")],
    models: Annotated[
        str | None, typer.Option("--from-models", metavar="TOPIC", help="Models that were promoted, if any.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from-bootstrap", metavar="HOST:PORT", help="Where they are, if elsewhere.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make a lost service again: send the topics it read to those of a new one that runs, never ahead of it."""
    from fraud_service.admin.rebuild import Rebuild, Sources
    from fraud_service.config import factories

    chosen = settings.load(bootstrap_servers=bootstrap)
    there = settings.load(bootstrap_servers=source or bootstrap)
    with Rebuild(there, Sources(transactions, labels, models)) as recovery, progress_bar() as bar:
        task = bar.add_task("transactions", total=len(recovery))
        found = recovery.run(chosen, factories.calendar(chosen), lambda: bar.advance(task))
    say_json(msgspec.json.encode(found))


@app.command()
def repartition(
    partitions: Annotated[int, typer.Option(min=2, help="How many there shall be.")],
    transactions: Annotated[str, typer.Option(metavar="TOPIC", help="The new topic of payments.")],
    labels: Annotated[str, typer.Option(metavar="TOPIC", help="The new topic of labels.")],
    scores: Annotated[str, typer.Option(metavar="TOPIC", help="The new topic of scores.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Move a service that was stopped to more partitions, profiles and what labels taught with it."""
    from fraud_service.admin import repartition as moving

    old = settings.load(bootstrap_servers=bootstrap)
    names = old.topics.model_copy(update={"transactions": transactions, "labels": labels, "scores": scores})
    new = old.model_copy(update={"partitions": partitions, "topics": names})
    for line in moving.repartition(old, new, really=yes):
        say(line)


@app.command()
def erase(
    cards: Annotated[list[str], typer.Option("--card", metavar="CARD", help="Erase this card; again for more.")] = [],
    idle: Annotated[
        str | None, typer.Option(metavar="400d", help="Erase the profiles of cards that have not paid for so long.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Erase cards from the state of a service that was stopped. On the logs they stay until retention is over."""
    from fraud_service.admin import erase

    if not cards and idle is None:
        raise ConfigurationError("nothing to erase: name cards with --card, or a time with --idle, as in --idle 400d")
    before = 0 if idle is None else int(time.time() * 1000) - duration(idle)
    for line in erase.erase(settings.load(bootstrap_servers=bootstrap), frozenset(cards), before, really=yes):
        say(line)
