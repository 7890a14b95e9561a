"""Commands that make data or send it: a simulated file, a file as a stream, one label."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fraud_service.cli import options
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import Label, LabelSource, decode_label, encode, instant
from fraud_service.security.card_data import reject_card_data

app = typer.Typer()
PANEL = "Make and send data"


@app.command(rich_help_panel=PANEL)
def simulate(
    file: Annotated[Path, typer.Argument(help="File to write: .parquet, .csv or .jsonl.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same file.")] = 1,
    cards: Annotated[int, typer.Option(help="Number of cards.")] = 2_000,
    merchants: Annotated[int, typer.Option(help="Number of merchants.")] = 1_000,
    days: Annotated[int, typer.Option(help="Days of event time.")] = 60,
    drift_day: Annotated[int | None, typer.Option(help="Day on which the fraud patterns change.")] = None,
) -> None:
    """Write simulated transactions with labels to a file."""
    from fraud_service.demo.simulator import World, write

    world = World(seed=seed, cards=cards, merchants=merchants, days=days, drift_day=drift_day)
    say_json(json.dumps({"transactions": write(world, file), "file": str(file)}))


@app.command(rich_help_panel=PANEL)
def feed(
    file: Annotated[Path, typer.Argument(help="File with transactions: .parquet, .csv or .jsonl.")],
    maps: options.Maps = [],
    sets: options.Sets = [],
    tokenized: options.Tokenized = [],
    start: options.From = None,
    end: options.To = None,
    label_delay: options.LabelDelay = "7d",
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Transactions a second. By default, as fast as possible.")
    ] = None,
    event_time: Annotated[
        bool,
        typer.Option("--event-time", help="Wait for scorers and learner, so that speed cannot change a score."),
    ] = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send a file of transactions to the input topics, each label at the time it became known."""
    from fraud_service.admin.event_time_pacing import EventTimePacer
    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.config import factories

    delay = options.duration_ms(label_delay, "--label-delay")
    history = options.history_of(file, maps, sets, tokenized, start, end)
    chosen = settings.load(bootstrap_servers=bootstrap)
    with ExitStack() as stack:
        counter = stack.enter_context(options.ProgressCounter("transactions", len(history)))
        sender = stack.enter_context(HistoryProducer(chosen))
        paced = (
            [stack.enter_context(EventTimePacer(chosen, factories.learning_schedule(chosen))).before]
            if event_time
            else []
        )
        sender.produce(history, delay, rate, counter.advance, *paced)
    say_json(json.dumps({"transactions": sender.transactions, "labels": sender.labels}))


@app.command(rich_help_panel=PANEL)
def label(
    transaction_id: Annotated[str, typer.Argument(help="transaction_id of the transaction.")],
    card: Annotated[str, typer.Option(help="card_id of the transaction.")],
    fraud: Annotated[bool, typer.Option("--fraud/--legitimate", help="The label.", show_default=False)],
    source: Annotated[LabelSource, typer.Option(help="Where the label comes from.")] = LabelSource.ANALYST,
    at: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the label became known, RFC 3339. By default, now.")
    ] = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send one label."""
    from fraud_service.admin.history_producer import HistoryProducer

    chosen = settings.load(bootstrap_servers=bootstrap)
    try:
        event = Label(
            transaction_id=transaction_id,
            card_id=card,
            is_fraud=fraud,
            labelled_at=instant(at or datetime.now().astimezone().isoformat(), "--at"),
            source=source,
        )
        # The learner would reject these, so do not send them.
        decode_label(encode(event))
        reject_card_data(encode(event), numbers=chosen.reject_pan)
    except InvalidEvent as error:
        raise ConfigurationError(error.detail) from None
    with HistoryProducer(chosen) as producer:
        producer.label(event)
    say(f"sent: {transaction_id} is {'fraud' if fraud else 'legitimate'}")
