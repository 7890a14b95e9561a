"""Hidden characters become visible escapes; all other text stays the same."""

from __future__ import annotations

import json
import unicodedata

import pytest

from fraud_service.domain.text import HIDDEN, has_hidden, visible, visible_json

pytestmark = pytest.mark.attack

EVERY = [chr(point) for point in range(0x110000)]
RESERVED = {*range(0x2060, 0x2070), *range(0x13430, 0x13440), *range(0xE0000, 0xE0080)}


def test_hidden_characters_are_the_control_format_and_line_break_characters_of_unicode():
    named = {c for c in EVERY if unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"}}
    found = {c for c in EVERY if has_hidden(f"a{c}b")}
    assert named <= found
    assert {ord(c) for c in found - named} <= RESERVED
    assert found == {chr(point) for first, last in HIDDEN for point in range(first, last + 1)}


def test_visible_text_is_printable():
    shown = visible("".join(EVERY))
    assert shown.isprintable()
    assert visible("a\x1b[31m\r\n\u202e\U000e0041\ud800") == r"a\x1b[31m\r\n\u202e\U000e0041\ud800"


def test_visible_does_not_change_printable_text():
    text = r"Café 漢字 بطاقة 🙂 C:\new \x1b"
    assert visible(text) == text


def test_visible_json_is_printable_and_equal():
    value = {"".join(EVERY[:0x800]): ["".join(EVERY[0xA000:0xD800]), "".join(EVERY[0xE000:])]}
    for written in (json.dumps(value, ensure_ascii=False, indent=1), json.dumps(value)):
        shown = visible_json(written)
        assert all(line.isprintable() for line in shown.split("\n"))
        assert json.loads(shown) == value
