"""No command prints control characters from a message, on stdout or on stderr."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError, KafkaException
from rich.console import Console

from fraud_service import cli
from fraud_service.admin.models import ModelStatus
from fraud_service.cli.options import ProgressCounter
from fraud_service.cli.output import say_table
from fraud_service.config.settings import Settings
from fraud_service.demo.screen import console
from fraud_service.domain.errors import TopicReadError
from fraud_service.domain.text import HIDDEN
from fraud_service.evaluation.html import page, table
from fraud_service.kafka.dead_letters import DeadLetter, LetterHeaders
from fraud_service.kafka.topic_reader import Record
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.replay import Plan, ReplayResult
from fraud_service.verification.report import Finding, FindingKind, Report

pytestmark = pytest.mark.attack

PACKAGE = Path(cli.__file__).parents[1]
EVERY = "".join(chr(point) for first, last in HIDDEN for point in range(first, last + 1) if first != 0xD800)
HOSTILE = f"\x1b]0;owned\x07\x1b[2J\r\n12:00 nothing is wrong\n{EVERY}[red]"
TOLD = r"\x1b[2J\r\n12:00 nothing is wrong\n"

HEADERS = [
    ("fraud-reason", b"not_json"),
    ("fraud-detail", HOSTILE.encode()),
    (HOSTILE, HOSTILE.encode()),
    ("none", None),
]
LETTER = LetterHeaders(HOSTILE, HOSTILE, 0, 7, None)
FOUND = DeadLetter(
    Record("letters", 0, 3, HOSTILE.encode(), HOSTILE.encode() + b"\xff", 0, HEADERS), LETTER, 9, is_redriven=False
)
ROW = {
    "version": HOSTILE,
    "effective_from": "",
    "examples": 1,
    "online_weight": 0.5,
    "model": HOSTILE,
    "is_proved": True,
}
FINDING = Finding(FindingKind.SCORE, HOSTILE, 0, 1, HOSTILE, HOSTILE, HOSTILE, 0)
REPORT = Report({HOSTILE: 1}, {HOSTILE: 1}, (FINDING,), (HOSTILE,))
VERIFIED = ReplayResult({"score": 1}, [FINDING], [HOSTILE], [HOSTILE])

LOOK = "fraud_service.kafka.dead_letters.find_dead_letters"
LISTED = "fraud_service.verification.snapshots.list_snapshots"
VERIFICATION = "fraud_service.verification"
COMMANDS = {
    "dead-letters list": {LOOK: [FOUND]},
    "dead-letters list --json": {LOOK: [FOUND]},
    "dead-letters show 0 3": {LOOK: [FOUND]},
    "dead-letters redrive": {LOOK: [FOUND]},
    "verify": {f"{VERIFICATION}.verify.verify": REPORT},
    "verify --json": {f"{VERIFICATION}.verify.verify": REPORT},
    "replay": {f"{VERIFICATION}.replay.plan": Plan("s", TimeRange(), {}, {}), f"{VERIFICATION}.replay.verify":
    VERIFIED},
    "state --card c --at 2026-01-01T00:00:00Z": {f"{VERIFICATION}.time_travel.profile_at": {HOSTILE: HOSTILE}},
    "state --merchant m --at 2026-01-01T00:00:00Z": {f"{VERIFICATION}.time_travel.merchant_at": {HOSTILE: HOSTILE}},
    "snapshots list": {LISTED: [ROW]},
    "snapshots list --json": {LISTED: [ROW]},
    "snapshots show v": {f"{VERIFICATION}.snapshots.show": ROW},
    "snapshots diff a b": {f"{VERIFICATION}.snapshots.compare": ROW},
    "models list": {"fraud_service.admin.models.model_statuses": [ModelStatus(HOSTILE, 0, HOSTILE, is_active=True)]},
    "models list --json": {"fraud_service.admin.models.model_statuses": [ModelStatus(HOSTILE, 0, HOSTILE,
    is_active=True)]},
    "topics check": {
        "fraud_service.kafka.topics.findings": [HOSTILE],
        "fraud_service.kafka.topics.notes": [HOSTILE],
        "fraud_service.kafka.clients.admin": None,
    },
    "topics create": {"fraud_service.kafka.topics.create": [HOSTILE], "fraud_service.kafka.clients.admin": None},
    "sign": {"fraud_service.admin.resign.re_sign": [HOSTILE]},
    "reset g": {"fraud_service.admin.reset.reset": [HOSTILE]},
    "erase --card c": {"fraud_service.admin.erase.erase": [HOSTILE]},
}  # fmt: skip


def is_safe(text: str) -> bool:
    return all(cell.isprintable() for line in text.split("\n") for cell in line.split("\t"))  # tables have tabs


@pytest.fixture
def run(monkeypatch, capsys):
    """Run one command in this process, what it asks replaced: gives stdout and stderr."""
    monkeypatch.setattr("fraud_service.config.settings.load", lambda **_: Settings(allow_unsigned=True))
    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)

    def main(command, **answers):
        for name, answer in answers.items():
            monkeypatch.setattr(name, lambda *_, answer=answer, **__: answer)
        monkeypatch.setattr(sys, "argv", ["fraud-service", *command.split()])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr()

    return main


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_control_characters(run, command):
    said = run(command, **COMMANDS[command])
    assert is_safe(said.out + said.err)
    assert "\t" not in said.out or said.out.splitlines()[0].count("\t") == said.out.splitlines()[1].count("\t")
    if said.out[0] in "[{":
        assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(said.out))  # JSON still means the same
    else:
        assert TOLD in said.out


@pytest.mark.parametrize("error", [TopicReadError(HOSTILE), RuntimeError(HOSTILE), KeyError(HOSTILE)])
def test_no_error_prints_control_characters(run, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("fraud_service.admin.models.model_statuses", fail)
    said = run("models list")
    assert said.out == ""
    assert is_safe(said.err)
    assert "owned" in said.err


def test_log_records_of_a_command_and_its_libraries_are_escaped():
    script = f"""
import logging, structlog
from fraud_service import cli
cli.begin()
log = structlog.get_logger("ours")
log.warning({HOSTILE!r}, **{{{HOSTILE!r}: {HOSTILE!r}, "deep": [{HOSTILE!r}]}})
logging.getLogger("foreign").warning("%s", {HOSTILE!r})
try:
    raise ValueError({HOSTILE!r})
except ValueError:
    log.exception("failed")
    logging.getLogger("foreign").exception("failed too")
"""
    done = subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, timeout=60, check=True)
    assert is_safe(done.stderr)
    assert done.stderr.count("owned") >= 6


def test_raw_bytes_of_a_dead_letter_are_written_to_a_file_but_not_to_a_terminal(monkeypatch, capfdbinary):
    monkeypatch.setattr("fraud_service.config.settings.load", lambda **_: Settings(allow_unsigned=True))
    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)
    monkeypatch.setattr(LOOK, lambda *_, **__: [FOUND])
    monkeypatch.setattr(sys, "argv", ["fraud-service", "dead-letters", "show", "0", "3", "--raw"])
    for is_terminal, code, written in ((False, 0, FOUND.entry.value), (True, 2, b"")):
        stream = sys.stdout.buffer
        monkeypatch.setattr(
            "typer.get_binary_stream",
            lambda _, stream=stream, answer=is_terminal: SimpleNamespace(write=stream.write, isatty=lambda: answer),
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        sys.stdout.flush()
        assert (ended.value.code or 0, capfdbinary.readouterr().out) == (code, written)


def test_a_page_shows_no_markup_and_no_bidirectional_characters():
    written = page(HOSTILE, table([HOSTILE], [[HOSTILE, "<b>"]]))
    assert is_safe(written)
    assert "<b>" not in written


def test_the_screen_of_the_demo_prints_markup_as_text(capsys):
    console().print("[red]x[/]")
    assert capsys.readouterr().out == "[red]x[/]\n"


def test_every_command_prints_through_the_output_module():
    doors = {"print", "typer.echo", "typer.secho", "click.echo", "sys.stdout.write", "sys.stderr.write"}
    found = {
        (path.relative_to(PACKAGE).as_posix(), ast.unparse(node.func))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in doors
    }
    assert found == {("cli/output.py", "typer.echo")}


def test_a_table_is_aligned_on_a_terminal_and_separated_by_tabs_elsewhere(monkeypatch, capsys):
    rows = [("a", 1, "x\ty"), ("long", 22, "")]
    say_table(("name", "count", "text"), rows)
    assert capsys.readouterr().out == "name\tcount\ttext\na\t1\tx\\ty\nlong\t22\t\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    say_table(("name", "count", "text"), rows)
    assert capsys.readouterr().out == "name  count  text\na     1      x\\ty\nlong  22\n"


@pytest.mark.parametrize(("total", "done"), [(100, 91), (None, 7), (10, 12)])
def test_a_progress_bar_ends_at_its_end_when_the_work_is_done(monkeypatch, total, done):
    shown = io.StringIO()
    monkeypatch.setattr(
        "fraud_service.cli.options.Console", lambda **_: Console(file=shown, force_terminal=True, width=100)
    )
    with ProgressCounter("offsets", total) as counter:
        counter.advance(done)
    end = max(total or 0, done)
    assert re.findall(r"(\d+)/ *(\d+)", shown.getvalue())[-1] == (str(end), str(end))


def test_a_progress_bar_of_failed_work_stays_where_it_was(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(
        "fraud_service.cli.options.Console", lambda **_: Console(file=shown, force_terminal=True, width=100)
    )
    with suppress(TopicReadError), ProgressCounter("offsets", 100) as counter:
        counter.advance(40)
        raise TopicReadError("the broker is gone")
    assert "100/100" not in shown.getvalue()


def test_without_a_terminal_no_progress_bar_is_printed(capsys):
    with ProgressCounter("offsets", 100) as counter:
        counter.advance(100)
    assert capsys.readouterr() == ("", "")


def test_no_progress_bar_is_shown_for_no_work(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr("fraud_service.cli.options.Console", lambda **_: Console(file=shown, force_terminal=True))
    with ProgressCounter("trees", 0):
        pass
    assert shown.getvalue() == ""


NO_PLAN = {f"{VERIFICATION}.replay.plan": Plan("s", TimeRange(), {}, {})}


@pytest.mark.parametrize(
    ("command", "answers", "code", "sentence"),
    [
        ("verify", {f"{VERIFICATION}.verify.verify": Report({}, {}, (), ())}, 0, "nothing was checked"),
        ("verify --since 1h", {f"{VERIFICATION}.verify.verify": Report({}, {}, (), ())}, 0, "in this time"),
        (
            "replay --from 2030-01-01",
            NO_PLAN | {f"{VERIFICATION}.replay.verify": ReplayResult({"out_of_range": 3}, [], [], [])},
            1,
            "nothing was replayed",
        ),
        ("replay", NO_PLAN | {f"{VERIFICATION}.replay.verify": ReplayResult({"identical": 3}, [], [], [])}, 0, ""),
        ("snapshots list", {LISTED: []}, 0, "there is no snapshot"),
        ("dead-letters list", {LOOK: []}, 0, "0 dead letters"),
        ("dead-letters redrive", {LOOK: []}, 0, "there is no dead letter to send"),
        ("dead-letters redrive --reason missing_key", {LOOK: []}, 1, "no dead letter to send for these options"),
    ],
)
def test_a_command_that_finds_nothing_says_so(monkeypatch, capsys, command, answers, code, sentence):
    monkeypatch.setattr("fraud_service.config.settings.load", lambda **_: Settings(allow_unsigned=True))
    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)
    for name, answer in answers.items():
        monkeypatch.setattr(name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(sys, "argv", ["fraud-service", *command.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert (ended.value.code or 0) == code
    captured = capsys.readouterr()
    assert sentence in captured.out + captured.err
    assert "add --yes" not in captured.out


def test_no_message_names_a_class():
    for path in PACKAGE.rglob("*.py"):
        for text in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.JoinedStr)):
            assert not any(
                isinstance(node, ast.Attribute) and node.attr in {"__name__", "__qualname__"} for node in ast.walk(text)
            ), f"{path}:{text.lineno}"


def test_an_answer_of_the_brokers_that_no_command_expects_is_one_sentence(run, monkeypatch):
    def refuse(*_, **__):
        raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))

    monkeypatch.setattr("fraud_service.admin.models.model_statuses", refuse)
    said = run("models list")
    assert said.err == (
        "Kafka reported an error: Broker: Topic authorization failed. Check the brokers, and the rights of this user\n"
    )


def test_a_file_that_cannot_be_written_is_one_sentence(run, monkeypatch, tmp_path):
    def write(*_, **__):
        tmp_path.write_text("")

    monkeypatch.setattr("fraud_service.admin.models.model_statuses", write)
    assert run("models list").err == f"{tmp_path}: Is a directory\n"


def test_the_list_of_dead_letters_has_a_header_and_totals_by_reason_on_stderr(run):
    odd = FOUND._replace(entry=FOUND.entry._replace(timestamp=2**62), letter=LETTER._replace(reason="not_json"))
    good = FOUND._replace(letter=LETTER._replace(reason="missing_key"), is_redriven=True)
    said = run("dead-letters list", **{LOOK: [odd, good, odd]})
    header, *rows = (line.split("\t") for line in said.out.splitlines())
    assert header == ["partition", "offset", "written", "reason", "source", "sent again", "detail"]
    assert [(row[2], row[3], row[5]) for row in rows] == [
        ("unknown", "not_json", "no"),
        ("1970-01-01T00:00:00.000Z", "missing_key", "yes"),
        ("unknown", "not_json", "no"),
    ]
    assert said.err == "3 dead letters: 2 not_json, 1 missing_key\n"
    assert run("dead-letters list", **{LOOK: []}).err == "0 dead letters\n"
