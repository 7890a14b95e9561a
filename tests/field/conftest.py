"""Commands without a broker, and the files of the generators."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from support.field_cases import FIELD
from support.processes import run_here

from fraud_service.config.settings import Settings


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run one command of the command line without a broker. A producer fails the test: nothing may be sent."""

    def forbidden(*_, **__):
        pytest.fail("a producer was opened")

    monkeypatch.setattr("fraud_service.kafka.clients.producer", forbidden)
    monkeypatch.setenv("COLUMNS", "200")
    settings = Settings(bootstrap_servers="127.0.0.1:9", state_dir=tmp_path, allow_unsigned=True)

    def run(*words: object, **variables: str):
        return run_here(settings, *map(str, words), **variables)

    return run


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    """Write the full files of the generators, and return their folder."""
    folder = tmp_path_factory.mktemp("field") / "gen"
    folder.mkdir()
    for program in ("make_files.py", "make_parquet.py"):
        shutil.copyfile(FIELD / "gen" / program, folder / program)
        subprocess.run([sys.executable, program], cwd=folder, check=True, timeout=60)
    return folder
