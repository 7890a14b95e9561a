"""Run commands in this process, without the settings of the environment."""

from __future__ import annotations

import sys

import pytest

from fraud_service import cli


@pytest.fixture(autouse=True)
def _no_settings(clean_environment):
    """Hide the settings of the environment from each test."""


@pytest.fixture
def run(monkeypatch, capsys):
    """Run one command in this process: gives exit code, stdout and stderr."""

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["fraud-service", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return main
