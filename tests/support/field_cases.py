"""Find the cases of ../shared/field, which lie beside the repository: a folder each, with inputs and what is right."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.processes import Done

ROOT = Path(__file__).resolve().parents[2]
FIELD = ROOT.parent / "shared" / "field"
MODEL = ROOT / "models" / "pretrained"
DAY_2 = "2024-03-02"  # of the generated files

needs_field = pytest.mark.skipif(not FIELD.is_dir(), reason="the folder ../shared/field is not here")


def case(name: str) -> pytest.MarkDecorator:
    """Give a test the folder that it is a case of. `test_every_folder_has_a_case` finds the name in the source."""
    return pytest.mark.parametrize("folder", [FIELD / name], ids=[name])


def assert_refused(done: Done, file: Path, *parts: str) -> None:
    """Check that a command named the file and these parts in one message, and ended with the code of wrong usage."""
    assert done.returncode == 2, done.stdout + done.stderr
    (message,) = [line for line in done.stderr.splitlines() if str(file) in line]
    assert [part for part in parts if part not in message] == [], message
    assert "Traceback" not in done.stderr


def backtest(command: Callable[..., Done], file: Path, *options: object, **variables: str) -> Done:
    """Backtest a file with the shipped model."""
    return command("backtest", file, "--models", MODEL, *options, **variables)
