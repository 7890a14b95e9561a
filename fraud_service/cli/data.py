"""Commands that simulate a file, send a file as a stream, or send one label."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fraud_service.cli import options
from fraud_service.cli.file_options import FileOptions, latest_event_ms, reads_file
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import (
    ClusterUnavailable,
    ConfigurationError,
    InvalidEvent,
    InvalidRecord,
    PreflightError,
    TopicReadError,
)
from fraud_service.domain.events import Label, LabelSource, decode_label, encode
from fraud_service.security.card_data import reject_card_data

if TYPE_CHECKING:
    from collections import Counter

    from fraud_service.admin.feed_checks import RefusalCounter
    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.config.settings import Settings
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.training.history import History
    from fraud_service.training.history_faults import Skipped
    from fraud_service.training.label_file import LabelDefaults

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
@reads_file
def feed(
    file: Annotated[Path, typer.Argument(help="File with transactions: .parquet, .csv or .jsonl.")],
    reading: FileOptions,
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
    again: Annotated[
        bool, typer.Option("--again", help="Send transactions that the service has scored before.")
    ] = False,
    unlearned: Annotated[
        bool, typer.Option("--unlearned", help="Send transactions that are too old for the learner.")
    ] = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send a file of transactions to the input topics, each label at the time it became known.

    It checks the topics and the file first, and sends nothing if the service would refuse or forget a part of it.
    Exits 1 if the service has refused a record, and 3 if everything was sent but the service does not process it.
    As in: feed history.csv --map cc_num=card_id --set currency=EUR
    """
    from fraud_service.admin.event_time_pacing import EventTimePacer
    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.config import factories
    from fraud_service.kafka.topic_reader import TopicReader
    from fraud_service.training.history_checks import count_repeats

    delay = options.duration_ms(label_delay, "--label-delay")
    history = reading.open(file, start, end)
    chosen = settings.load(bootstrap_servers=bootstrap)
    _require_acceptable(history, chosen)
    with TopicReader(chosen, "fraud-feed") as reader:
        refusals = _compare_with_service(chosen, reader, history, again=again, unlearned=unlearned)
        with ExitStack() as stack:
            counter = stack.enter_context(options.ProgressCounter("sent", len(history)))
            sender = stack.enter_context(HistoryProducer(chosen))
            pacers = [EventTimePacer(chosen, factories.learning_schedule(chosen))] if event_time else []
            sender.produce(history, delay, rate, counter.advance, *(stack.enter_context(one).before for one in pacers))
        refused, code = _refusals(refusals, sender)
    say_json(json.dumps(_outcome(sender, refused) | count_repeats(history)._asdict() | _skipped(history.skipped)))
    if code:
        raise typer.Exit(code)


def _require_acceptable(history: History, chosen: Settings) -> None:
    """Check, before the first record is sent, that there are rows, the input topics, and no row to be refused."""
    from fraud_service.admin import feed_checks
    from fraud_service.kafka import clients, topics

    if not len(history):
        raise ConfigurationError("no transaction is left to send: check --from, --to and the file")
    clients.require_connection(chosen)
    topics.require_inputs(chosen)
    feed_checks.require_accepted(history, chosen)


def _outcome(sender: HistoryProducer, refused: Counter[str] | None) -> dict[str, object]:
    total = None if refused is None else refused.total()
    return {
        "transactions": sender.transactions,
        "labels": sender.labels,
        "labels_of_the_future": sender.later_labels,
        "accepted": None if total is None else sender.transactions + sender.labels - total,
        "refused": total,
        "reasons": dict(refused or {}),
    }


def _skipped(skipped: Skipped) -> dict[str, int]:
    return {"skipped_rows": len(skipped.faults)}


def _compare_with_service(
    chosen: Settings, reader: TopicReader, history: History, *, again: bool, unlearned: bool
) -> RefusalCounter | None:
    """Compare a history with the event time and the newest scores of the service, as far as these can be read."""
    from fraud_service.admin import feed_checks
    from fraud_service.config import factories

    schedule = factories.learning_schedule(chosen)
    try:
        service = feed_checks.service_time(chosen, reader, schedule)
        refusals = feed_checks.RefusalCounter(chosen, reader)
    except (TopicReadError, InvalidRecord, ClusterUnavailable, PreflightError) as error:
        feed_checks.unknown("event time and refusals of the service", error)
        return None
    if not again:
        feed_checks.require_new(history, service)
    if not unlearned:
        feed_checks.require_learnable(history, service, schedule, chosen.learner_group)
    return refusals


def _refusals(refusals: RefusalCounter | None, sender: HistoryProducer) -> tuple[Counter[str] | None, int]:
    """Return the refusals by reason, None if they are unknown, and the exit code."""
    from fraud_service.admin import feed_checks

    if refusals is None:
        return None, 0
    try:
        with options.ProgressCounter("processed", sender.offsets) as counter:
            refused = refusals.count(sender.sent, counter.advance)
    except TopicReadError as error:
        feed_checks.unknown("refusals of the service", error)
        return None, 0
    except feed_checks.NotProcessed as error:
        say(str(error), err=True)
        return None, feed_checks.NOT_PROCESSED
    return refused, int(bool(refused))


@app.command(rich_help_panel=PANEL)
@reads_file
def label(
    reading: FileOptions,
    transaction_id: Annotated[str | None, typer.Argument(help="transaction_id of the transaction.")] = None,
    card: Annotated[str | None, typer.Option(help="card_id of the transaction.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Send the labels of this .csv, .jsonl or .parquet file.")
    ] = None,
    fraud: Annotated[
        bool | None, typer.Option("--fraud/--legitimate", help="The label; with --file, of all rows.")
    ] = None,
    source: Annotated[
        LabelSource | None,
        typer.Option(help="Where the label comes from. By default analyst, with --file chargeback."),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="When the label became known: RFC 3339, or how long ago, as in 12h. By default, now."
        ),
    ] = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send one label, or those of a file with the columns transaction_id, card_id, label, labelled_at and source.

    As in: label t-17 --card c-4 --fraud, or label --file chargebacks.csv --fraud. A file is checked as a whole first.
    Exits 1 if the learner has refused a label, and 3 if all were sent but no learner processes them.
    """
    moment = options.instant_ms(at, "--at") if at else int(time.time() * 1000)
    if file is not None:
        from fraud_service.training.label_file import LabelDefaults

        if transaction_id is not None or card is not None:
            raise typer.BadParameter("give either a transaction with --card, or --file")
        _label_file(file, reading, LabelDefaults(fraud, source or LabelSource.CHARGEBACK, moment), bootstrap)
    elif transaction_id is None or card is None or fraud is None:
        raise typer.BadParameter("give a TRANSACTION_ID with --card, and --fraud or --legitimate; or --file")
    else:
        _label_one(
            Label(
                transaction_id=transaction_id,
                card_id=card,
                is_fraud=fraud,
                labelled_at=moment,
                source=source or LabelSource.ANALYST,
            ),
            bootstrap,
        )


def _label_one(event: Label, bootstrap: str | None) -> None:
    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.kafka import clients

    chosen = settings.load(bootstrap_servers=bootstrap)
    try:
        # The learner would reject these, so do not send them.
        decode_label(encode(event))
        reject_card_data(encode(event), numbers=chosen.reject_pan)
    except InvalidEvent as error:
        raise ConfigurationError(error.detail) from None
    clients.require_connection(chosen)
    with HistoryProducer(chosen) as producer:
        producer.label(event)
    say(f"sent: {event.transaction_id} is {'fraud' if event.is_fraud else 'legitimate'}")


def _label_file(file: Path, reading: FileOptions, defaults: LabelDefaults, bootstrap: str | None) -> None:
    from fraud_service.admin.feed_checks import RefusalCounter
    from fraud_service.admin.history_producer import HistoryProducer
    from fraud_service.kafka import clients, topics
    from fraud_service.kafka.topic_reader import TopicReader

    found = reading.open_labels(file, defaults)
    chosen = settings.load(bootstrap_servers=bootstrap)
    found.require_known_by(latest_event_ms())
    clients.require_connection(chosen)
    topics.require_inputs(chosen)
    with TopicReader(chosen, "fraud-feed") as reader:
        refusals = RefusalCounter(chosen, reader)
        with options.ProgressCounter("sent", len(found.labels)) as counter, HistoryProducer(chosen) as sender:
            for event in found.labels:
                sender.label(event)
                counter.advance()
        refused, code = _refusals(refusals, sender)
    outcome = _outcome(sender, refused)
    repeated = {"repeated_rows": found.repeated} | _skipped(found.skipped)
    shown = ("labels", "accepted", "refused", "reasons")
    say_json(json.dumps({name: outcome[name] for name in shown} | repeated))
    if code:
        raise typer.Exit(code)
