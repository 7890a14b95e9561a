"""Commands that read the log back: replay, explain, state and snapshots. None of them writes to a topic or group."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from fraud_service.cli.options import (
    Bootstrap,
    From,
    To,
    milliseconds,
    progress_bar,
    read,
    require_folder,
)
from fraud_service.cli.output import say, say_json
from fraud_service.config import settings
from fraud_service.domain.errors import ConfigurationError, InvalidEvent
from fraud_service.domain.events import MAX_EVENT_BYTES, instant
from fraud_service.domain.text import visible_json

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.verification.replay import Plan, ReplayResult

app = typer.Typer()
snapshots_app = typer.Typer(no_args_is_help=True, help="List, show, compare and rebuild what labels have taught.")
app.add_typer(snapshots_app, name="snapshots")

Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Candidate: this threshold instead.")]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", help='Candidate: thresholds from a file, {"review": 0.2, "decline": 0.9}.')
]
Partitions = Annotated[str | None, typer.Option(help="Only these partitions, as in 0,1.")]


@app.command()
def replay(
    start: From = None,
    end: To = None,
    partitions: Partitions = None,
    models: Annotated[Path | None, typer.Option(help="Candidate: the folder of a model.")] = None,
    version: Annotated[str | None, typer.Option(help="Candidate: a model that was promoted.")] = None,
    policy: PolicyFile = None,
    review_threshold: Threshold = None,
    decline_threshold: Threshold = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write everything found here, as JSON.")] = None,
    report: Annotated[Path | None, typer.Option(help="Of a candidate: write a page with pictures here.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Keep in this folder how far it is; go on from there after an end.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Make every decision of the log again and compare it byte for byte; exits 1 when one differs.

    With a candidate model or threshold: say instead what it would have decided. Reads beside the running service and
    touches nothing of it. Profiles are rebuilt from the first transaction there is, whatever --from says. A replay that
    was ended starts over; with --resume, it goes on.
    """
    from fraud_service.verification import replay
    from fraud_service.verification.decision_verifier import TimeRange

    for path in (json_out, report):
        require_folder(path)
    review, decline = _thresholds(policy, review_threshold, decline_threshold)
    chosen = settings.load(bootstrap_servers=bootstrap, review_threshold=review, decline_threshold=decline)
    candidate = (models, version, review, decline) != (None, None, None, None)
    _require_one_purpose(report, resume, candidate=candidate)
    span = TimeRange(_moment(start, TimeRange().begin), _moment(end, TimeRange().end))
    asked = replay.plan(chosen, span, _numbers(partitions))
    if resume is not None:
        asked = replay.load_checkpoints(resume, asked)
    with progress_bar() as bar:
        task = bar.add_task("scores", total=sum(part.end - part.begin for part in asked.scores.values()))

        def tick(done: int) -> None:
            bar.update(task, completed=done)

        if candidate:
            _compare(chosen, asked, (models, version), json_out, report, tick)
            return
        found = replay.verify(chosen, asked, tick, resume)
    _write(json_out, found)
    _tell(found)
    if found.differences:
        raise typer.Exit(1)


def _require_one_purpose(report: Path | None, resume: Path | None, *, candidate: bool) -> None:
    if report is not None and not candidate:
        raise ConfigurationError("--report: needs a candidate: --models, --version, --policy or a threshold")
    if resume is not None and candidate:
        raise ConfigurationError("--resume: only a verification is kept, none of a candidate")


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy as a file has it, JSON; what it does not name stays as it is configured."""

    review: float | None = None
    decline: float | None = None


def _thresholds(path: Path | None, review: float | None, decline: float | None) -> tuple[float | None, float | None]:
    """Return the thresholds of the candidate: an option goes before the file."""
    file = Thresholds() if path is None else _read_thresholds(path)
    return file.review if review is None else review, file.decline if decline is None else decline


def _read_thresholds(path: Path) -> Thresholds:
    try:
        return msgspec.json.decode(read(path, MAX_EVENT_BYTES), type=Thresholds)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f'--policy {path}: {error}: write thresholds as in {{"review": 0.2, "decline": 0.9}}'
        ) from None


def _tell(found: ReplayResult) -> None:
    for line in found.refused:
        say(f"refused: {line}")
    for one in found.findings:
        say(f"{one.kind}: transaction {one.transaction_id}, partition {one.partition}@{one.offset}: {one.detail}")
    say_json(json.dumps({"differences": found.differences, **found.counts, "passed_over": len(found.passed_over)}))


def _compare(
    chosen: Settings,
    asked: Plan,
    model: tuple[Path | None, str | None],
    json_out: Path | None,
    report: Path | None,
    tick: Callable[[int], None],
) -> None:
    from fraud_service.config import factories
    from fraud_service.verification import what_if

    candidate = what_if.Candidate(factories.policy(chosen), *model)
    found = what_if.compared(chosen, asked, candidate, tick)
    _write(json_out, found.figures)
    if report is not None:
        report.write_text(what_if.page(chosen, found), encoding="utf-8")
    told = msgspec.to_builtins(found.figures)
    say_json(json.dumps({name: value for name, value in told.items() if not name.startswith("by_")}))


def _write(path: Path | None, found: msgspec.Struct) -> None:
    if path is not None:
        path.write_text(f"{_json(found)}\n", encoding="utf-8")


@app.command()
def explain(
    transaction_id: str,
    card: Annotated[str | None, typer.Option(help="card_id: only its partition is searched.")] = None,
    at: Annotated[
        str | None, typer.Option(help="When it was scored, RFC 3339, broker's clock: only an hour around is searched.")
    ] = None,
    payment: Annotated[
        int | None,
        typer.Option(help="Number of the payment under this id, from 1; by default the newest, or that of --at."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one page for a case file here.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Explain one decision: what it rested on, what became known later, and whether made again it is the same.

    If a card used the id for several payments, lists all of them; --payment chooses one.
    Exits 1 when the decision made again differs. Without --card and --at the whole score log is searched.
    """
    from fraud_service.verification import case_report
    from fraud_service.verification import explain as run

    require_folder(html)
    chosen = settings.load(bootstrap_servers=bootstrap)
    case = run.explain(chosen, transaction_id, card, None if at is None else _instant("--at", at), payment)
    if html is not None:
        html.write_text(case_report.html(case), encoding="utf-8")
    say_json(_json(case) if as_json else case_report.text(case))
    if case.proof not in case_report.PROOFS:
        raise typer.Exit(1)


@app.command()
def state(
    at: Annotated[str, typer.Option(help="Event time, RFC 3339.")],
    card: Annotated[str | None, typer.Option(help="card_id: its profile and risk.")] = None,
    merchant: Annotated[str | None, typer.Option(help="merchant_id: its risk.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Print the profile of a card, or the risk of a merchant, as it was at an event time."""
    from fraud_service.verification import time_travel

    if (card is None) == (merchant is None):
        raise ConfigurationError("state: give --card or --merchant, one of the two")
    chosen, moment = settings.load(bootstrap_servers=bootstrap), _instant("--at", at)
    if card is not None:
        say_json(_json(time_travel.profile_at(chosen, card, moment)))
    elif merchant is not None:
        say_json(_json(time_travel.merchant_at(chosen, merchant, moment)))


@snapshots_app.command("list")
def snapshots_list(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False, bootstrap: Bootstrap = None
) -> None:
    """Print every snapshot on the topic, and whether its risk table still proves it."""
    from fraud_service.verification import snapshots

    rows = snapshots.listed(settings.load(bootstrap_servers=bootstrap))
    if as_json:
        say_json(_json(rows))
        return
    for row in rows:
        say(
            f"{row['version']}  from {row['effective_from']}  {row['examples']:>8} examples  "
            f"online {row['online_weight']:.3f}  {row['model']}  {'proved' if row['is_proved'] else 'NOT PROVED'}"
        )


@snapshots_app.command("show")
def snapshots_show(version: str, bootstrap: Bootstrap = None) -> None:
    """Print one snapshot, its strongest weights included."""
    from fraud_service.verification import snapshots

    say_json(_json(snapshots.shown(settings.load(bootstrap_servers=bootstrap), version)))


@snapshots_app.command("diff")
def snapshots_diff(before: str, after: str, bootstrap: Bootstrap = None) -> None:
    """Print what changed from one snapshot to another."""
    from fraud_service.verification import snapshots

    say_json(_json(snapshots.differing(settings.load(bootstrap_servers=bootstrap), before, after)))


@snapshots_app.command("rebuild")
def snapshots_rebuild(
    version: Annotated[str | None, typer.Argument(help="The last one to rebuild; the newest if absent.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Teach the labelled examples again from the beginning, and prove every digest; exits 1 when one differs."""
    from fraud_service.verification import snapshots

    chosen = settings.load(bootstrap_servers=bootstrap)
    with progress_bar() as bar:
        task = bar.add_task("snapshots", total=None)
        proof = snapshots.rebuild(chosen, version, lambda done: bar.update(task, completed=done))
    say_json(_json(proof))
    if proof.differing or proof.not_rebuilt or proof.refused:
        raise typer.Exit(1)


def _json(value: object) -> str:
    return visible_json(msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def _instant(option: str, text: str) -> int:
    try:
        return instant(text, option)
    except InvalidEvent as error:
        raise ConfigurationError(error.detail) from None


def _moment(given: datetime | None, otherwise: int) -> int:
    return otherwise if given is None else milliseconds(given)


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise ConfigurationError(f"--partitions {text}: write numbers and commas, as in 0,1")
    return [int(part) for part in text.split(",")]
