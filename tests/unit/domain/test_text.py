"""What nobody sees is made visible, and nothing else is touched."""

from __future__ import annotations

import json
import unicodedata

import pytest

from fraud_service.domain.text import HIDDEN, has_hidden, visible, visible_json

pytestmark = pytest.mark.attack

EVERY = [chr(point) for point in range(0x110000)]
RESERVED = {*range(0x2060, 0x2070), *range(0x13430, 0x13440), *range(0xE0000, 0xE0080)}


def test_hidden_is_what_unicode_calls_control_format_and_line_break():
    named = {c for c in EVERY if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"}}
    found = {c for c in EVERY if has_hidden(f"a{c}b")}
    assert named <= found
    assert {ord(c) for c in found - named} <= RESERVED
    assert found == {chr(point) for first, last in HIDDEN for point in range(first, last + 1)}


def test_a_line_for_people_holds_nothing_that_cannot_be_printed():
    shown = visible("".join(EVERY))
    assert shown.isprintable()
    assert visible("a\x1b[31m\r\n\u202e\U000e0041\ud800") == r"a\x1b[31m\r\n\u202e\U000e0041\ud800"


def test_what_can_be_printed_is_shown_as_it_is():
    text = r"Café 漢字 بطاقة 🙂 C:\new \x1b"
    assert visible(text) == text


def test_json_holds_nothing_that_cannot_be_printed_and_means_the_same():
    value = {"".join(EVERY[:0x800]): ["".join(EVERY[0xA000:0xD800]), "".join(EVERY[0xE000:])]}
    for written in (json.dumps(value, ensure_ascii=False, indent=1), json.dumps(value)):
        shown = visible_json(written)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert json.loads(shown) == value
