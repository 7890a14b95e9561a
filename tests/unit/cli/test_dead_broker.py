"""Every command that talks to Kafka names a broker that does not answer, within seconds and in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import typer

from fraud_service import cli
from fraud_service.config.settings import Settings
from fraud_service.domain.errors import ClusterUnavailable
from fraud_service.kafka import clients
from fraud_service.models import artifact

NOBODY = "127.0.0.1:1"
CLOSED = f"no Kafka broker answers at {NOBODY} (Connect to "
PAYMENT = "transaction_id,timestamp,card_id,merchant_id,amount,currency\nt1,1700000001000,c1,m1,5.00,EUR\n"
MOMENT = "2026-01-01T00:00:00Z"
# The arguments of each command that takes --bootstrap; PAST is a file with one payment.
COMMANDS = {
    "topics create": "",
    "topics check": "",
    "feed": "PAST",
    "label": "t1 --card c1 --fraud",
    "refit": "",
    "models list": "",
    "models promote": "MODEL",
    "models rollback": "forest-1",
    "online off": "",
    "online on": "",
    "verify": "",
    "replay": "",
    "explain": "t1",
    "state": f"--card c1 --at {MOMENT}",
    "snapshots list": "",
    "snapshots show": "v",
    "snapshots diff": "a b",
    "snapshots rebuild": "",
    "dead-letters list": "",
    "dead-letters show": "0 1",
    "dead-letters redrive": "",
    "reset": "fraud-scorer",
    "recover": "--from-transactions t --from-labels l",
    "repartition": "--partitions 8 --transactions t --labels l --scores s",
    "erase": "--card c1",
    "sign": "",
    "demo": "",
}
SERVICES = {"score", "learn", "tokenize"}  # they wait for a broker, and log its address meanwhile


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("FRAUD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FRAUD_ALLOW_UNSIGNED", "true")
    monkeypatch.setenv("TERM", "dumb")


def with_bootstrap(command, path=()):
    """Yield the names of the commands that have the option --bootstrap."""
    if any(parameter.name == "bootstrap" for parameter in command.params):
        yield " ".join(path)
    for name, inner in getattr(command, "commands", {}).items():
        yield from with_bootstrap(inner, (*path, name))


def test_the_table_has_every_command_that_talks_to_kafka():
    assert set(with_bootstrap(typer.main.get_command(cli.app))) == {*COMMANDS, *SERVICES}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_closed_port_is_named_in_one_line_with_exit_code_1(command, monkeypatch, capsys, tmp_path):
    pytest.importorskip("pyarrow")
    past = tmp_path / "past.csv"
    past.write_text(PAYMENT, encoding="utf-8")
    model = str(artifact.shipped_folder())
    arguments = [{"PAST": str(past), "MODEL": model}.get(word, word) for word in COMMANDS[command].split()]
    monkeypatch.setattr(clients, "REACH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(sys, "argv", ["fraud-service", *command.split(), *arguments, "--bootstrap", NOBODY])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert said.err.startswith(CLOSED), said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def run(*arguments: str) -> tuple[int, str, float]:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fraud_service", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    return done.returncode, done.stderr, time.monotonic() - started


def test_a_closed_port_ends_a_process_within_five_seconds_and_without_lines_of_the_client():
    code, said, seconds = run("topics", "check", "--bootstrap", NOBODY)
    assert (code, len(said.splitlines())) == (1, 1)
    assert said.startswith(CLOSED)
    assert "/bootstrap" not in said
    assert clients.REACH_TIMEOUT_S == 2.5
    assert seconds < 25  # 4 on a machine that does nothing else; the client alone would wait for 30


def test_a_command_waits_longer_for_a_broker_that_accepts_but_does_not_answer(monkeypatch, capsys):
    monkeypatch.setattr(clients, "REACH_TIMEOUT_S", 0.2)
    monkeypatch.setattr(clients, "SILENCE_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(sys, "argv", ["fraud-service", "topics", "check", "--bootstrap", address])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    waiting, end = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert f"no Kafka broker has answered at {address} yet" in waiting
    assert end.startswith(f"no Kafka broker answers at {address}. Check FRAUD_BOOTSTRAP_SERVERS")


def test_a_name_that_does_not_resolve_is_named(monkeypatch, capsys):
    monkeypatch.setattr(clients, "REACH_TIMEOUT_S", 1.0)
    monkeypatch.setattr(sys, "argv", ["fraud-service", "topics", "check", "--bootstrap", "no-such-broker.invalid:9092"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "no Kafka broker answers at no-such-broker.invalid:9092" in capsys.readouterr().err


@pytest.mark.parametrize(("ports", "is_reached"), [([1], False), ([], True), ([1, None], True)])
def test_brokers_that_name_an_address_out_of_reach_are_named(monkeypatch, ports, is_reached):
    with socket.create_server(("127.0.0.1", 0)) as open_server:
        addresses = [("127.0.0.1", open_server.getsockname()[1] if port is None else port) for port in ports]
        monkeypatch.setattr(
            clients, "_Probe", lambda _: SimpleNamespace(has_answered=lambda: True, addresses=addresses)
        )
        if is_reached:
            clients.require_connection(Settings(bootstrap_servers="kafka:9092"))
            return
        with pytest.raises(ClusterUnavailable, match=r"^the brokers at kafka:9092 give 127.0.0.1:1 as their address"):
            clients.require_connection(Settings(bootstrap_servers="kafka:9092"))
