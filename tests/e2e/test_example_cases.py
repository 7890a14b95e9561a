"""Test that the cases example escapes control characters of messages. `tests/broker` runs the examples on Kafka."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.attack

CASES = Path(__file__).parents[2] / "examples" / "cases.py"


def test_control_characters_in_a_card_id_are_escaped():
    shown = runpy.run_path(str(CASES))["shown"]
    assert shown("c\x1b[2J\u202e\n1") == r"c\x1b[2J\u202e\n1"
    assert shown("Karte-é-漢") == "Karte-é-漢"
    assert shown(17) == "17"
