"""The commands of the page on history files work, on made-up files of the shapes that they name."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.histories import QUICK_TREES
from support.public_sets import ROWS, write_set

from fraud_service import cli

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/history-files.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line, comments=True) for line in re.findall(r"^fraud-service (.*)$", PAGE, re.MULTILINE)]
OF_SETS = [shlex.split(command) for command in re.findall(r"^\|[^|]*\| `fraud-service (.*?)` \|", PAGE, re.MULTILINE)]


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run one command in a folder with the shipped model and a key; gives stdout."""
    fit = pytest.importorskip("fraud_service.training.fit")
    for choice in fit.CANDIDATE_PARAMETERS:
        monkeypatch.setitem(choice, "n_estimators", QUICK_TREES)
    (tmp_path / "models").symlink_to(ROOT / "models")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "k1").write_text("ab" * 32, encoding="utf-8")
    (tmp_path / "keys" / "k1").chmod(0o600)
    monkeypatch.setenv("FRAUD_TOKENIZER_KEY_DIR", str(tmp_path / "keys"))
    monkeypatch.setenv("FRAUD_ALLOW_UNSIGNED", "true")
    monkeypatch.chdir(tmp_path)

    def main(arguments):
        monkeypatch.setattr(sys, "argv", ["fraud-service", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        assert not ended.value.code, (arguments, captured.err)
        return captured.out

    return main


def test_the_quick_path_works(run, tmp_path):
    write_set("handbook", tmp_path, 1200).rename(tmp_path / "payments.csv")
    assert [command[0] for command in COMMANDS] == ["inspect", "backtest", "train", "backtest", "feed"]
    for command in COMMANDS[:-1]:  # the last one needs a broker
        run(command)
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "mine" / "manifest.json").is_file()


def test_each_data_set_has_a_command():
    assert sorted(command[3] for command in OF_SETS) == sorted(ROWS)


@pytest.mark.parametrize("command", OF_SETS, ids=lambda command: command[3])
def test_the_command_of_a_data_set_works(run, tmp_path, command):
    write_set(command[3], tmp_path)
    found = json.loads(run([*command, "--json", "-"]))["run"]
    assert found["transactions"] == (380 if command[3] == "tabformer" else 400)
