"""A committed log: what is found in it has the same bytes on every machine and under every seed of Python's hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import golden


@pytest.mark.parametrize("seed", ["0", "4711"])
def test_the_golden_log_is_found_byte_for_byte(seed):
    tests = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, golden.__file__],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.decode() == golden.SAID.read_text(encoding="utf-8"), done.stderr.decode()[-2000:]
