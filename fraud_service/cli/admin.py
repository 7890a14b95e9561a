"""Commands that change the state of a stopped service, rebuild a lost one, or sign its records again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from fraud_service.cli.options import Bootstrap, Yes, duration_ms, progress_bar
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

app = typer.Typer()
PANEL: Final = "Administer"


@app.command(rich_help_panel=PANEL)
def reset(
    group: Annotated[str, typer.Argument(help="Consumer group, as in FRAUD_SCORER_GROUP.")],
    yes: Yes = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Make a stopped consumer group start over: delete its offsets, changelog and local state.

    Output topics are kept. A reset of the learner empties the topics of snapshots and risk.
    """
    from fraud_service.admin import reset

    _say_all(reset.reset(settings.load(bootstrap_servers=bootstrap), group, really=yes))


@app.command(rich_help_panel=PANEL)
def recover(
    transactions: Annotated[
        str, typer.Option("--from-transactions", metavar="TOPIC", help="Transactions that the lost service read.")
    ],
    labels: Annotated[str, typer.Option("--from-labels", metavar="TOPIC", help="Labels that the lost service read.")],
    models: Annotated[
        str | None, typer.Option("--from-models", metavar="TOPIC", help="Models that were promoted, if any.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from-bootstrap", metavar="HOST:PORT", help="Kafka of these topics, if another.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Rebuild a lost service: send the inputs of the lost one to a new one that runs, at the pace of event time."""
    from fraud_service.admin.rebuild import Rebuild, SourceTopics
    from fraud_service.config import factories

    chosen = settings.load(bootstrap_servers=bootstrap)
    there = settings.load(bootstrap_servers=source or bootstrap)
    with Rebuild(there, SourceTopics(transactions, labels, models)) as rebuild, progress_bar() as bar:
        task = bar.add_task("transactions", total=len(rebuild))
        found = rebuild.run(chosen, factories.calendar(chosen), lambda: bar.advance(task))
    say_json(msgspec.json.encode(found))


@app.command(rich_help_panel=PANEL)
def repartition(
    partitions: Annotated[int, typer.Option(min=2, help="New number of partitions.")],
    transactions: Annotated[str, typer.Option(metavar="TOPIC", help="New topic of transactions.")],
    labels: Annotated[str, typer.Option(metavar="TOPIC", help="New topic of labels.")],
    scores: Annotated[str, typer.Option(metavar="TOPIC", help="New topic of scores.")],
    yes: Yes = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Move a stopped service to more partitions, with its card profiles and its learner state."""
    from fraud_service.admin import repartition

    old = settings.load(bootstrap_servers=bootstrap)
    names = old.topics.model_copy(update={"transactions": transactions, "labels": labels, "scores": scores})
    new = old.model_copy(update={"partitions": partitions, "topics": names})
    _say_all(repartition.repartition(old, new, really=yes))


@app.command(rich_help_panel=PANEL)
def erase(
    cards: Annotated[list[str], typer.Option("--card", metavar="CARD", help="Erase this card. Repeatable.")] = [],
    idle: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Erase cards without a payment for this long, as in 400d.")
    ] = None,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Erase cards from the state of a stopped service. Topics keep their records until retention removes them."""
    from fraud_service.admin import erase

    if not cards and idle is None:
        raise ConfigurationError("nothing to erase: name cards with --card, or a time with --idle, as in --idle 400d")
    before = 0 if idle is None else int(time.time() * 1000) - duration_ms(idle, "--idle")
    _say_all(erase.erase(settings.load(bootstrap_servers=bootstrap), frozenset(cards), before, really=yes))


@app.command(rich_help_panel=PANEL)
def sign(
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Also sign unsigned records. You vouch for them.")
    ] = False,
    unbound: Annotated[
        bool, typer.Option("--unbound", help="Also re-sign records of a version without FRAUD_DEPLOYMENT.")
    ] = False,
    yes: Yes = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Re-sign models, risk and snapshots with the active key: at the first key, and before you remove an old one.

    Stop the learner first.
    """
    from fraud_service.admin import resign

    chosen = settings.load(bootstrap_servers=bootstrap)
    _say_all(resign.re_sign(chosen, unsigned=unsigned, unbound=unbound, really=yes))


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:  # each as it comes: the work happens in between
        say(line)
