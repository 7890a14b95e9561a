"""Commands that change the state of a stopped service, rebuild a lost one, re-sign records, or re-send dead letters."""

from __future__ import annotations

import json
import time
from collections import Counter
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from fraud_service.cli import options
from fraud_service.cli.output import say, say_json, say_table
from fraud_service.domain.codec import LATEST
from fraud_service.domain.errors import ConfigurationError, DeadLetterReason
from fraud_service.domain.events import MAX_EVENT_BYTES
from fraud_service.domain.text import count_of
from fraud_service.domain.time import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fraud_service.admin.redrive import RedriveCheck
    from fraud_service.kafka.dead_letters import DeadLetterFilter

PANEL: Final = "Administer"

app = typer.Typer()
letters_app = typer.Typer(no_args_is_help=True, help="List, show and re-send records that the service rejected.")

Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only letters written since: RFC 3339, or how long ago, as in 90m, 12h or 7d."),
]
Reason = Annotated[str | None, typer.Option(help="Only letters with this reason.")]
Topic = Annotated[str | None, typer.Option(help="Only letters of records from this topic.")]
Partition = Annotated[int | None, typer.Option(help="Only letters in this partition of the dead-letter topic.")]
Offset = Annotated[int | None, typer.Option(help="Only the letter at this offset of --partition.")]


@app.command(rich_help_panel=PANEL)
def reset(
    group: Annotated[str, typer.Argument(help="Consumer group, as in FRAUD_SCORER_GROUP.")],
    yes: options.Yes = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Make a stopped consumer group start over: delete its offsets, changelog and local state.

    Output topics are kept. A reset of the learner empties the topics of snapshots and risk.
    """
    from fraud_service.admin import reset

    _say_all(reset.reset(options.connect(bootstrap), group, really=yes))


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
    bootstrap: options.Bootstrap = None,
) -> None:
    """Rebuild a lost service: send its inputs to a new running service, in event time.

    As in: recover --from-transactions old.transactions --from-labels old.labels --from-bootstrap old-kafka:9092
    """
    from fraud_service.admin.rebuild import SourceTopics, rebuild
    from fraud_service.config import factories

    chosen = options.connect(bootstrap)
    there = chosen if source is None else options.connect(source)
    lost = SourceTopics(transactions, labels, models)
    with options.ProgressCounter("transactions") as counter:
        found = rebuild(there, lost, chosen, factories.learning_schedule(chosen), counter.set_total, counter.advance)
    say_json(msgspec.json.encode(found))
    if not any(msgspec.structs.astuple(found)):
        say(f"nothing was sent: {transactions} and {labels} have no records", err=True)
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def repartition(
    partitions: Annotated[int, typer.Option(min=2, help="New number of partitions.")],
    transactions: Annotated[str, typer.Option(metavar="TOPIC", help="New topic of transactions.")],
    labels: Annotated[str, typer.Option(metavar="TOPIC", help="New topic of labels.")],
    scores: Annotated[str, typer.Option(metavar="TOPIC", help="New topic of scores.")],
    yes: options.Yes = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Move a stopped service to more partitions, with its card profiles and its learner state.

    As in: repartition --partitions 12 --transactions transactions.v2 --labels labels.v2 --scores scores.v2
    """
    from fraud_service.admin import repartition

    old = options.connect(bootstrap)
    names = old.topics.model_copy(update={"transactions": transactions, "labels": labels, "scores": scores})
    new = old.model_copy(update={"partitions": partitions, "topics": names})
    _say_all(repartition.repartition(old, new, really=yes))


@app.command(rich_help_panel=PANEL)
def erase(
    cards: Annotated[list[str], typer.Option("--card", metavar="CARD", help="Erase this card. Repeatable.")] = [],
    idle: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Erase cards without a payment for this long, as in 400d.")
    ] = None,
    yes: options.Yes = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Erase cards from the state of a stopped service. Topics keep their records until retention removes them.

    Exits 1 if there is no row of the cards that --card names. As in: erase --card c-17 --card c-18 --yes, or
    erase --idle 400d
    """
    from fraud_service.admin import erase

    if not cards and idle is None:
        raise ConfigurationError("nothing to erase: name cards with --card, or a time with --idle, as in --idle 400d")
    before = 0 if idle is None else int(time.time() * 1000) - options.duration_ms(idle, "--idle", least="1d")
    _say_all(erase.erase(options.connect(bootstrap), frozenset(cards), before, really=yes))


@app.command(rich_help_panel=PANEL)
def sign(
    unsigned: Annotated[
        bool, typer.Option("--unsigned", help="Also sign unsigned records. You vouch for them.")
    ] = False,
    unbound: Annotated[
        bool, typer.Option("--unbound", help="Also re-sign records of a version without FRAUD_DEPLOYMENT.")
    ] = False,
    yes: options.Yes = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Re-sign models, risk and snapshots with the active key: at the first key, and before you remove an old one.

    Stop the learner first.
    """
    from fraud_service.admin import resign

    chosen = options.connect(bootstrap)
    _say_all(resign.re_sign(chosen, unsigned=unsigned, unbound=unbound, really=yes))


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:  # each as it comes: the work happens in between
        say(line)


@letters_app.command("list")
def list_letters(
    reason: Reason = None,
    topic: Topic = None,
    since: Since = None,
    partition: Partition = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """List dead letters, with what was wrong. The totals by reason go to stderr."""
    from fraud_service.kafka.dead_letters import find_dead_letters

    wanted = _filter(reason, topic, since, partition)
    found = find_dead_letters(options.connect(bootstrap), wanted, with_content=False)
    rows = [one.row() for one in found]
    if as_json:
        for row in rows:
            say_json(json.dumps(row))
        return
    cells = [
        (
            row["partition"],
            row["offset"],
            _written(one.entry.timestamp),
            row["reason"],
            row["source"],
            "yes" if row["redriven"] else "no",
            row["detail"],
        )
        for one, row in zip(found, rows, strict=True)
    ]
    say_table(("partition", "offset", "written", "reason", "source", "sent again", "detail"), cells)
    totals = Counter(str(row["reason"]) for row in rows).most_common()
    listed = ", ".join(f"{number:,} {name}" for name, number in totals)
    say(count_of(len(rows), "dead letter") + (f": {listed}" if listed else ""), err=True)


def _written(timestamp: int) -> str:
    """Return the time of a record; a forged one may be out of range."""
    return rfc3339(timestamp) if 0 <= timestamp <= LATEST else "unknown"


@letters_app.command()
def show(
    partition: int,
    offset: int,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write only the value, byte for byte. Redirect it to a file.")
    ] = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Print one dead letter: headers, key and value. Bytes that are not text are escaped."""
    from fraud_service.kafka.dead_letters import read_one

    found = read_one(options.connect(bootstrap), partition, offset)
    if raw:
        _write_raw(found.entry.value or b"")
        return
    for name, value in found.entry.headers:
        say(f"{name}: {_text(value)}")
    say(f"sent again: {'yes' if found.is_redriven else 'no'}")
    say(f"key: {_text(found.entry.key)}", f"value: {_text(found.entry.value)}")


def _text(data: bytes | None) -> str:
    return "(none)" if data is None else data.decode(errors="backslashreplace")


def _write_raw(value: bytes) -> None:
    stdout = typer.get_binary_stream("stdout")
    if stdout.isatty():
        raise ConfigurationError("--raw: the bytes could control this terminal: redirect them to a file")
    stdout.write(value)


@letters_app.command()
def redrive(
    reason: Reason = None,
    topic: Topic = None,
    since: Since = None,
    partition: Partition = None,
    offset: Offset = None,
    value_from: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Send these repaired bytes. For a single letter.")
    ] = None,
    unproved: Annotated[
        bool,
        typer.Option("--unproved", help="Also send letters without proof in their source topic. Check them first."),
    ] = False,
    yes: options.Yes = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Send dead letters to the topic they came from, each once. The key becomes the card_id.

    Compares each letter with its source record. Exits 1 when a letter is forged, or the options select none. As in:
    dead-letters redrive --reason missing_key --since 12h --yes
    """
    from fraud_service.admin.redrive import RedriveOptions, check_letters
    from fraud_service.admin.redrive import redrive as send
    from fraud_service.kafka.dead_letters import find_dead_letters

    wanted = _filter(reason, topic, since, partition, offset)
    value = None if value_from is None else options.read_file(value_from, MAX_EVENT_BYTES)
    chosen = options.connect(bootstrap)
    how = RedriveOptions(value, unproved)
    checks = send(chosen, wanted, how) if yes else check_letters(chosen, find_dead_letters(chosen, wanted), how)
    is_selection = wanted != _filter(None, None, None, None)
    counts = Counter(_say_check(check, is_dry=not yes) for check in checks)
    listed = ", ".join(f"{name}: {counts[name]}" for name in ("sent again", "left", "forged"))
    if not counts:
        say("there is no dead letter to send" + (" for these options" if is_selection else ""))
    else:
        say(listed if yes else "nothing was done: add --yes to do it")
    if counts["forged"] or (not counts and is_selection):
        raise typer.Exit(1)


def _filter(
    reason: str | None, topic: str | None, since: str | None, partition: int | None, offset: int | None = None
) -> DeadLetterFilter:
    from fraud_service.kafka.dead_letters import DeadLetterFilter

    if reason is not None and reason not in {*DeadLetterReason}:
        near = get_close_matches(reason.lower(), DeadLetterReason, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigurationError(f"--reason {reason}: {hint}The reasons are {', '.join(DeadLetterReason)}")
    since_ms = None if since is None else options.instant_ms(since, "--since")
    return DeadLetterFilter(reason, topic, since_ms, partition, offset)


def _say_check(check: RedriveCheck, *, is_dry: bool) -> str:
    """Print what happens to a letter, and return the name under which it is counted."""
    place = f"{check.found.entry.partition} {check.found.entry.offset}"
    if check.hindrance is None:
        if is_dry:
            say(f"{place}: to {check.found.letter.topic}")
        return "sent again"
    if is_dry or not check.found.is_redriven:
        say(f"{place}: left, because {check.hindrance}")
    return "forged" if check.is_forged else "left"
