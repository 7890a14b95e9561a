"""The benchmark guard: `benchmarks/quick.py` compares two trees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_each_tree_is_measured_with_its_own_code(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from quick import code_of  # noqa: PLC0415 - found through the path above

    (tmp_path / "fraud_service").mkdir()
    (tmp_path / "fraud_service" / "__init__.py").touch()
    (tmp_path / "fraud_service" / "__main__.py").write_text("print('the other tree')", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "fraud_service"],
        cwd=ROOT,
        env=os.environ | code_of(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "the other tree\n"
