"""A committed log: the output of every command has the same bytes on every machine and under every hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import golden


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_the_output_on_the_golden_log_is_identical_byte_for_byte(seed):
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, golden.__file__],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.decode() == golden.OUTPUT.read_text(encoding="utf-8"), done.stderr.decode()[-2000:]
