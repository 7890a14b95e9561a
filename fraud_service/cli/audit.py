"""Commands that look at what lies on the topics: the verifier and the dead letters."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fraud_service.cli.options import Bootstrap, instant_of, progress_bar, read
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import MAX_EVENT_BYTES

if TYPE_CHECKING:
    from fraud_service.admin.dead_letter_proof import RedriveCheck

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
    from fraud_service.verification.findings import encode_report
    from fraud_service.verification.verify import VerifyOptions
    from fraud_service.verification.verify import verify as run

    chosen = settings.load(bootstrap_servers=bootstrap)
    with progress_bar() as bar:
        task = bar.add_task("records", total=None)
        report = run(
            chosen,
            VerifyOptions(None if since is None else instant_of(since, "--since"), state, volume, replay),
            on_size=lambda size: bar.update(task, total=size),
            on_entry=lambda count: bar.advance(task, count),
        )
    if as_json:
        say_json(encode_report(report))
    else:
        for name, number in report.counts.items():
            say(f"{name:24} {number:>12,}")
        say(*map(str, (*report.notes, *report.anomalies)))
        listed = ", ".join(f"{number:,} {kind}" for kind, number in report.found.items())
        say(f"wrong: {listed}" if listed else "nothing is wrong")
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
    from fraud_service.kafka.dead_letter_reader import DeadLetterFilter, find_dead_letters

    wanted = DeadLetterFilter(reason, topic, None if since is None else instant_of(since, "--since"), partition)
    for found in find_dead_letters(settings.load(bootstrap_servers=bootstrap), wanted, with_content=False).letters:
        if as_json:
            say_json(json.dumps(found.row()))
        else:
            say(LETTER.format(**found.row()))


@letters_app.command("show")
def letters_show(
    partition: int,
    offset: int,
    raw: Annotated[
        bool, typer.Option("--raw", help="Write only the value, byte for byte: redirect it to a file.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Print one dead letter: headers, key and value; what cannot be printed is escaped."""
    from fraud_service.kafka.dead_letter_reader import DeadLetterFilter, find_dead_letters, require_one

    chosen = settings.load(bootstrap_servers=bootstrap)
    found = require_one(
        find_dead_letters(chosen, DeadLetterFilter(partition=partition, offset=offset)), partition, offset
    )
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
        raise ConfigurationError("--raw: the bytes may hold control sequences for a terminal: redirect them to a file")
    stdout.write(value)


@letters_app.command("redrive")
def letters_redrive(
    reason: ReasonOption = None,
    topic: TopicOption = None,
    since: Since = None,
    partition: PartitionOption = None,
    offset: OffsetOption = None,
    value_from: Annotated[Path | None, typer.Option(help="Repaired bytes, for a single letter.")] = None,
    unproved: Annotated[
        bool, typer.Option("--unproved", help="Also send letters that no source message proves: check them first.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what would be done.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Send dead letters to the topic they came from, each once; a missing or wrong key becomes the card's.

    Compares each letter with its source message. Exits 1 when a letter is forged.
    """
    from fraud_service.admin.dead_letter_proof import RedriveOptions, check_letters
    from fraud_service.admin.redrive import redrive
    from fraud_service.kafka.dead_letter_reader import DeadLetterFilter, find_dead_letters

    chosen = settings.load(bootstrap_servers=bootstrap)
    wanted = DeadLetterFilter(reason, topic, None if since is None else instant_of(since, "--since"), partition, offset)
    options = RedriveOptions(None if value_from is None else read(value_from, MAX_EVENT_BYTES), unproved)
    verdicts = (
        redrive(chosen, wanted, options)
        if yes
        else check_letters(chosen, find_dead_letters(chosen, wanted).letters, options)
    )
    counts = Counter(_say_verdict(verdict, is_dry=not yes) for verdict in verdicts)
    listed = ", ".join(f"{name}: {counts[name]}" for name in ("sent again", "left", "forged"))
    say(listed if yes else "nothing was done: add --yes to do it")
    if counts["forged"]:
        raise typer.Exit(1)


def _say_verdict(verdict: RedriveCheck, *, is_dry: bool) -> str:
    """Print what happens to a letter; returns the name under which it is counted."""
    place = f"{verdict.found.entry.partition} {verdict.found.entry.offset}"
    if verdict.hindrance is None:
        if is_dry:
            say(f"{place}: to {verdict.found.letter.topic}")
        return "sent again"
    if is_dry or not verdict.found.is_redriven:
        say(f"{place}: left, because {verdict.hindrance}")
    return "forged" if verdict.is_forged else "left"
