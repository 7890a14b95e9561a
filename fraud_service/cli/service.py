"""Commands of the running service: its two processes, its topics, and what is sent to it by hand."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from fraud_service.cli import logging
from fraud_service.cli.options import (
    Bootstrap,
    Delay,
    From,
    Maps,
    Sets,
    To,
    duration,
    history_of,
    progress_bar,
)
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import Label, LabelSource, decode_label, encode, instant
from fraud_service.domain.time import DAY
from fraud_service.security.card_data import refuse

app = typer.Typer()
topics_app = typer.Typer(no_args_is_help=True, help="Print, create and check the topics of the service.")
app.add_typer(topics_app, name="topics")


@app.command()
def score(bootstrap: Bootstrap = None) -> None:
    """Score transactions: the scorer. Runs until SIGTERM."""
    chosen = settings.load(bootstrap_servers=bootstrap)
    logging.configure(chosen.log_level)  # before Quix is imported: what its libraries warn of is JSON too
    from fraud_service import service

    _end_on_sigterm()
    service.run_scorer(chosen)


@app.command()
def learn(bootstrap: Bootstrap = None) -> None:
    """Learn from labels: the learner, one process for all partitions. Runs until SIGTERM."""
    chosen = settings.load(bootstrap_servers=bootstrap)
    logging.configure(chosen.log_level)  # before Quix is imported: what its libraries warn of is JSON too
    from fraud_service import service

    _end_on_sigterm()
    service.run_learner(chosen)


@app.command()
def tokenize(bootstrap: Bootstrap = None) -> None:
    """Replace card numbers by tokens, from the raw topics to the inputs of the service. Runs until SIGTERM."""
    chosen = settings.load(bootstrap_servers=bootstrap)
    logging.configure(chosen.log_level)  # before Quix is imported: what its libraries warn of is JSON too
    from fraud_service import service

    _end_on_sigterm()
    service.run_tokenizer(chosen)


@topics_app.command("list")
def topics_list(as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False) -> None:
    """Print the table of topics."""
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


@topics_app.command("create")
def topics_create(bootstrap: Bootstrap = None) -> None:
    """Create the topics that are missing, the changelogs included."""
    from fraud_service.kafka import clients, topics

    chosen = settings.load(bootstrap_servers=bootstrap)
    created = topics.create(clients.admin(chosen), topics.topic_specs(chosen), chosen.replication_factor)
    say(*([f"created {name}" for name in created] or ["nothing to create"]))


@topics_app.command("check")
def topics_check(bootstrap: Bootstrap = None) -> None:
    """Compare the cluster with the table; exits 1 when something is wrong."""
    from fraud_service.kafka import clients, topics

    chosen = settings.load(bootstrap_servers=bootstrap)
    found = topics.findings(clients.admin(chosen), topics.topic_specs(chosen), chosen.replication_factor)
    say(*(found or ["all topics are as they should be"]))
    if found:
        raise typer.Exit(1)


@app.command()
def label(
    transaction_id: str,
    card: Annotated[str, typer.Option(help="card_id of the transaction.")],
    fraud: Annotated[bool, typer.Option("--fraud/--legitimate", help="What became known.", show_default=False)],
    source: Annotated[LabelSource, typer.Option(help="Who says so.")] = LabelSource.ANALYST,
    at: Annotated[str | None, typer.Option(help="When it became known, RFC 3339; now by default.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Send one label."""
    from fraud_service.admin.history_producer import HistoryProducer

    chosen = settings.load(bootstrap_servers=bootstrap)
    moment = at or datetime.now().astimezone().isoformat()
    try:
        verdict = Label(
            transaction_id=transaction_id,
            card_id=card,
            is_fraud=fraud,
            labelled_at=instant(moment, "--at"),
            source=source,
        )
        decode_label(encode(verdict))  # what nobody could read is not sent, nor what everybody would refuse
        refuse(encode(verdict), numbers=chosen.reject_pan)
    except InvalidEvent as error:
        raise ConfigurationError(error.detail) from None
    with HistoryProducer(chosen) as feed:
        feed.label(verdict)
    say(f"sent: {transaction_id} is {'fraud' if fraud else 'legitimate'}")


@app.command()
def feed(
    file: Path,
    maps: Maps = [],
    sets: Sets = [],
    start: From = None,
    end: To = None,
    label_delay: Delay = "7d",
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Transactions a second; as fast as possible if absent.")
    ] = None,
    event_time: Annotated[
        bool,
        typer.Option("--event-time", help="Never run ahead of scorers and learner: a fast replay scores as a slow."),
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Stream a file (Parquet, CSV, JSON Lines) into the input topics, each label when it becomes known."""
    from fraud_service.admin.event_time_pacing import EventTimePacer
    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.config import factories

    delay = duration(label_delay)
    history = history_of(file, maps, sets, start, end)
    chosen = settings.load(bootstrap_servers=bootstrap)
    with ExitStack() as stack:
        bar, sender = stack.enter_context(progress_bar()), stack.enter_context(HistoryProducer(chosen))
        task = bar.add_task("transactions", total=len(history))
        paced = [stack.enter_context(EventTimePacer(chosen, factories.calendar(chosen))).before] if event_time else []
        sender.produce(history, delay, rate, lambda: bar.advance(task), *paced)
    say_json(json.dumps({"transactions": sender.transactions, "labels": sender.labels}))


@app.command()
def config() -> None:
    """Print every setting with its value; secrets in FRAUD_KAFKA_CONFIG stay hidden."""
    chosen = settings.load().model_dump(mode="json")
    chosen["kafka_config"] = dict.fromkeys(chosen["kafka_config"], "***")
    say_json(json.dumps(chosen, indent=2))


@app.command()
def reset(
    group: str,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Make a group start over: its offsets, changelog and local state are removed.

    Its output topics are kept, except snapshots and risk, which a reset of the learner empties.
    """
    from fraud_service.admin import reset

    for line in reset.reset(settings.load(bootstrap_servers=bootstrap), group, really=yes):
        say(line)


@app.command()
def demo(
    bootstrap: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Your Kafka; an embedded broker if absent.")
    ] = None,
    seconds: Annotated[int, typer.Option(min=5, help="How long transactions are fed.")] = 60,
    rate: Annotated[float, typer.Option(min=10, help="Transactions a second, about.")] = 400,
    days: Annotated[int, typer.Option(min=10, help="Days of event time that pass meanwhile.")] = 30,
) -> None:
    """Show everything at work for a minute, on simulated transactions; nothing is left behind.

    The embedded broker is noida-db, a closed binary in a wheel that only the demo extra installs. With --bootstrap it
    is not started.
    """
    from fraud_service.demo import Plan, run

    run(
        settings.load(bootstrap_servers=bootstrap),
        Plan(seconds=seconds, rate=rate, days=days),
        own_kafka=bootstrap is not None,
    )


def _end_on_sigterm() -> None:
    """End in order, with 0, when told to stop while starting; Quix takes the signal over once it runs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
