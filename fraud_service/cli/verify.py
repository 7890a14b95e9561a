"""Commands that verify and explain the topics: verify, replay, explain, state and snapshots. They join no group."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from fraud_service.cli import options
from fraud_service.cli.output import say, say_json, say_table, to_json
from fraud_service.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime

    from fraud_service.config.settings import Settings
    from fraud_service.verification.decisions import TimeRange
    from fraud_service.verification.replay import Plan, ReplayResult

PANEL: Final = "Verify and explain"

MEANINGS: Final = {  # of counts whose names do not say it
    "flagged": "scores with review or decline, each with an alert",
    "inputs": "transactions on the topic, rejected ones too",
    "labelled": "examples from transactions and labels, kept longer than both; a corrected label makes another",
    "labels": "label events on the topic",
    "pending": "inputs that are not committed yet",
    "reused_ids": "further payments of a card under an id it had used before",
}

app = typer.Typer()
snapshots_app = typer.Typer(no_args_is_help=True, help="List, show, compare and rebuild snapshots.")


@app.command(rich_help_panel=PANEL)
def verify(
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Check records written since: RFC 3339, or how long ago, as in 12h or 7d."),
    ] = None,
    state: Annotated[
        bool, typer.Option("--state", help="Also rebuild the profile of each card and compare it with the changelog.")
    ] = False,
    volume: Annotated[
        Path | None, typer.Option(help="Also compare this FRAUD_STATE_DIR of a scorer with the changelog.")
    ] = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also recompute every decision and snapshot and compare them.")
    ] = False,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Check the topics for lost, duplicated, reordered or altered records. Exits 1 when it finds any.

    It may run beside the live service.
    """
    from fraud_service.verification.verify import VerifyOptions
    from fraud_service.verification.verify import verify as run

    chosen = options.connect(bootstrap)
    checks = VerifyOptions(None if since is None else options.instant_ms(since, "--since"), state, volume, replay)
    with options.ProgressCounter("records") as counter:
        report = run(chosen, checks, on_size=counter.set_total, progress=counter.advance)
    if as_json:
        say_json(msgspec.json.encode(report))
    else:
        for name, number in report.counts.items():
            say(f"{name:24} {number:>12,}  {MEANINGS.get(name, '')}".rstrip())
        say(*map(str, (*report.notes, *report.findings)))
        listed = ", ".join(f"{number:,} {kind}" for kind, number in report.found.items())
        say(f"wrong: {listed}" if listed else "nothing is wrong")
    if report.is_clean and not any(report.counts.values()):
        say("nothing was checked: the topics have no records" + (" in this time" if since else ""), err=True)
    if not report.is_clean:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def replay(
    start: options.From = None,
    end: options.To = None,
    partitions: Annotated[str | None, typer.Option(help="Only these partitions, as in 0,1.")] = None,
    models: Annotated[Path | None, typer.Option(help="What if: the folder of another model.")] = None,
    version: Annotated[str | None, typer.Option(help="What if: another version that was promoted.")] = None,
    review_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="What if: another FRAUD_REVIEW_THRESHOLD.")
    ] = None,
    decline_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="What if: another FRAUD_DECLINE_THRESHOLD.")
    ] = None,
    json_out: options.ResultFile = None,
    report: Annotated[Path | None, typer.Option(help="What if: write a report to this HTML file.")] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Keep the progress here, and continue from it.")
    ] = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Recompute every decision on the log and compare it byte for byte. Exits 1 when one differs, or if there is none.

    With a what-if option, it prints instead what that model or threshold would have decided. Card profiles are always
    rebuilt from the first transaction on the topic, also with --from. It may run beside the live service.
    """
    from fraud_service.verification import replay

    for path in (json_out, report):
        options.require_output(path)
    is_what_if = (models, version, review_threshold, decline_threshold) != (None, None, None, None)
    _require_one_purpose(report, resume, is_what_if=is_what_if)
    chosen = options.connect(bootstrap, review_threshold=review_threshold, decline_threshold=decline_threshold)
    asked = replay.plan(chosen, _time_range(start, end), _numbers(partitions))
    kept = replay.ResumeFolder(resume)
    asked = kept.plan(asked)
    with options.ProgressCounter("scores", sum(part.end - part.begin for part in asked.scores.values())) as counter:
        if is_what_if:
            decided = _compare(chosen, asked, (models, version), json_out, report, counter.advance)
            _require_decisions(chosen, decided)
            return
        found = replay.verify(chosen, asked, counter.advance, kept)
    _write(json_out, found)
    _say_result(found)
    if found.differences:
        raise typer.Exit(1)
    _require_decisions(chosen, sum(count for name, count in found.counts.items() if name != "out_of_range"))


def _require_one_purpose(report: Path | None, resume: Path | None, *, is_what_if: bool) -> None:
    if report is not None and not is_what_if:
        raise ConfigurationError("--report: needs a what-if option: --models, --version or a threshold")
    if resume is not None and is_what_if:
        raise ConfigurationError("--resume: does not work with a what-if option: remove one of them")


def _require_decisions(chosen: Settings, number: int) -> None:
    if not number:
        say(
            f"nothing was replayed: {chosen.topics.scores} has no decision here; check --from, --to and --partitions",
            err=True,
        )
        raise typer.Exit(1)


def _say_result(found: ReplayResult) -> None:
    from fraud_service.verification.report import unlisted

    for line in found.rejected:
        say(f"rejected: {line}")
    say(*map(str, found.findings), *unlisted(len(found.findings) + len(found.rejected), found.differences))
    counts = {**found.counts, "incomplete_snapshots": len(found.incomplete)}
    say_json(json.dumps({"differences": found.differences, **counts}))


def _compare(
    chosen: Settings,
    asked: Plan,
    model: tuple[Path | None, str | None],
    json_out: Path | None,
    report: Path | None,
    advance: Callable[[int], None],
) -> int:
    """Print the answer, and return the number of compared decisions."""
    from fraud_service.config import factories
    from fraud_service.verification import what_if

    candidate = what_if.Candidate(factories.policy(chosen), *model)
    found = what_if.compare(chosen, asked, candidate, advance)
    _write(json_out, found.figures)
    if report is not None:
        report.write_text(what_if.page(chosen, found), encoding="utf-8")
    figures = msgspec.to_builtins(found.figures)
    say_json(json.dumps({name: value for name, value in figures.items() if not name.startswith("by_")}))
    return found.figures.all.transactions + found.figures.left_out


def _write(path: Path | None, found: msgspec.Struct) -> None:
    if path is not None:
        path.write_text(f"{to_json(found)}\n", encoding="utf-8")


@app.command(rich_help_panel=PANEL)
def explain(
    transaction_id: Annotated[str, typer.Argument(help="transaction_id of the transaction.")],
    card: Annotated[str | None, typer.Option(help="Its card_id, so that only one partition is searched.")] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it was scored, RFC 3339 or how long ago: searches an hour around it."),
    ] = None,
    payment: Annotated[
        int | None,
        typer.Option(help="Which payment under this id, from 1. By default the newest, or the one of --at."),
    ] = None,
    as_json: options.AsJson = False,
    html: Annotated[Path | None, typer.Option(help="Write a case report to this HTML file.")] = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Explain one decision: its features, reasons and later labels, and whether recomputing it gives the same.

    If a card used the id for several payments, it lists all of them; --payment chooses one. Without --card and --at it
    searches the whole topic of scores. Exits 1 when the recomputed decision differs.
    """
    from fraud_service.verification import case_report
    from fraud_service.verification import explain as run

    options.require_output(html)
    chosen = options.connect(bootstrap)
    case = run.explain(chosen, transaction_id, card, None if at is None else options.instant_ms(at, "--at"), payment)
    if html is not None:
        html.write_text(case_report.html(case), encoding="utf-8")
    say_json(to_json(case) if as_json else case_report.text(case))
    if case.proof not in case_report.PROOFS:
        raise typer.Exit(1)


@app.command(rich_help_panel=PANEL)
def state(
    at: Annotated[str, typer.Option(metavar="TIME", help="Event time: RFC 3339, or how long ago.")],
    card: Annotated[str | None, typer.Option(help="card_id, to print its profile and risk.")] = None,
    merchant: Annotated[str | None, typer.Option(help="merchant_id, to print its risk.")] = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Print the profile of a card, or the risk of a merchant, as it was at an event time.

    As in: state --card c-17 --at 2026-01-31T12:00:00Z, or state --merchant m-4 --at 12h
    """
    from fraud_service.verification import time_travel

    if (card is None) == (merchant is None):
        raise ConfigurationError("state: give either --card or --merchant")
    chosen, moment = options.connect(bootstrap), options.instant_ms(at, "--at")
    if card is not None:
        say_json(to_json(time_travel.profile_at(chosen, card, moment)))
    elif merchant is not None:
        figures = time_travel.merchant_at(chosen, merchant, moment)
        say_json(to_json(figures))
        if "risk" in figures and not figures["risk"]["days"]:
            say(f"no label of merchant {merchant} had become known by then", err=True)


def _time_range(start: datetime | None, end: datetime | None) -> TimeRange:
    from fraud_service.verification.decisions import TimeRange

    bounds = {"begin": options.date_ms(start), "end": options.date_ms(end)}
    return TimeRange(**{name: at for name, at in bounds.items() if at is not None})


def _numbers(text: str | None) -> list[int] | None:
    if text is None:
        return None
    if not all(part.isdecimal() for part in text.split(",")):
        raise ConfigurationError(f"--partitions {text}: write numbers and commas, as in 0,1")
    return [int(part) for part in text.split(",")]


@snapshots_app.command("list")
def list_snapshots(as_json: options.AsJson = False, bootstrap: options.Bootstrap = None) -> None:
    """List the snapshots on the topic, and whether the risk rows on their topic match their digests."""
    from fraud_service.verification import snapshots

    rows = snapshots.list_snapshots(options.connect(bootstrap))
    if as_json:
        say_json(to_json(rows))
        return
    header = "version", "effective from", "examples", "online weight up to", "model", "risk rows"
    lines = [
        (
            row["version"],
            row["effective_from"],
            row["examples"],
            f"{row['online_weight']:.3f}",
            row["model"],
            "proved" if row["is_proved"] else "NOT PROVED",
        )
        for row in rows
    ]
    say_table(header, lines)
    if not lines:
        say("there is no snapshot: the learner publishes one when event time passes the end of a period", err=True)


@snapshots_app.command()
def show(version: str, bootstrap: options.Bootstrap = None) -> None:
    """Print one snapshot, with its strongest weights."""
    from fraud_service.verification import snapshots

    say_json(to_json(snapshots.show(options.connect(bootstrap), version)))


@snapshots_app.command()
def diff(before: str, after: str, bootstrap: options.Bootstrap = None) -> None:
    """Print what changed from one snapshot to another."""
    from fraud_service.verification import snapshots

    say_json(to_json(snapshots.compare(options.connect(bootstrap), before, after)))


@snapshots_app.command()
def rebuild(
    version: Annotated[str | None, typer.Argument(help="The last snapshot to rebuild. By default, the newest.")] = None,
    bootstrap: options.Bootstrap = None,
) -> None:
    """Train on the labelled examples again, from the first, and compare every digest. Exits 1 when one differs."""
    from fraud_service.verification import snapshots

    chosen = options.connect(bootstrap)
    with options.ProgressCounter("snapshots") as counter:
        proof = snapshots.rebuild(chosen, version, lambda _: counter.advance())
    say_json(to_json(proof))
    if not proof.rebuilt:
        say("nothing was rebuilt: there is no snapshot", err=True)
        raise typer.Exit(1)
    if proof.differing or proof.not_rebuilt or proof.rejected:
        raise typer.Exit(1)
