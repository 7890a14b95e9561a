"""Log lines are JSON without card data. These tests use a separate process, because pytest captures logs too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.attack

CANARY = "4242424242424242"
BEGIN = """
import logging, structlog
from fraud_service.cli import logging as logs
logs.configure("info")
ours, foreign = structlog.get_logger("ours"), logging.getLogger("foreign")
"""


def lines(script: str) -> list[dict[str, object]]:
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script], capture_output=True, text=True, timeout=60, check=True
    )
    assert CANARY not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_no_line_has_a_card_number_and_every_line_is_json():
    written = lines(f"""
ours.info("text", card="{CANARY}", number={CANARY}, deep={{"list": [{CANARY}, b"{CANARY}"]}}, **{{"{CANARY}": 1}})
foreign.warning("of a library: %s", {{"card_id": "{CANARY}"}})
try:
    raise ValueError("{CANARY}")
except ValueError:
    ours.exception("failed")
    foreign.exception("failed too")
""")
    assert len(written) == 4
    assert all("[card number]" in json.dumps(line) for line in written)
    assert "Traceback" in written[2]["exception"]


def test_other_data_is_logged_unchanged():
    facts = {"count": 7, "share": 0.5, "missing": None, "good": True, "names": ["a", r"\u0022"]}
    (line,) = lines(f"ours.info('text', **{facts!r})")
    assert {name: line[name] for name in facts} == facts


def test_a_command_logs_to_stderr_without_card_data():
    script = f"""
import structlog
from fraud_service import cli
cli.begin()
structlog.get_logger("ours").warning("refused", card="{CANARY}")
print("{{}}")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "{}\n"
    assert "refused" in done.stderr
    assert "[card number]" in done.stderr
    assert CANARY not in done.stderr
