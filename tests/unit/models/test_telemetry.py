from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.attack


def test_loading_the_model_runtime_switches_its_telemetry_off(tmp_path):
    code = "import fraud_service.models.pretrained, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "0", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "1\n"
    assert list(tmp_path.iterdir()) == []  # where it is on, it leaves a session file here
