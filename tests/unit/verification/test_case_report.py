"""A case as text and as a page: complete, self-contained, and without characters that change how it is displayed."""

from __future__ import annotations

import msgspec
from support.replayed import copy

from fraud_service.verification.case_report import html, text
from fraud_service.verification.explain import explain


def test_a_case_escapes_control_and_bidirectional_characters(log, flagged, monkeypatch):
    log.serve(monkeypatch)
    case, hostile = explain(log.settings, flagged.transaction_id), "\x1b[2J\r\n\u202e<b>"
    ids = dict.fromkeys(("transaction_id", "card_id", "merchant_id", "currency", "model", "snapshot"), hostile)
    score = msgspec.structs.replace(case.score, **ids)
    event = msgspec.structs.replace(case.transaction, country=hostile, entry_mode=hostile)
    other = {"version": hostile, hostile: [{hostile: hostile}]}
    bad = msgspec.structs.replace(case, score=score, transaction=event, snapshot=other, proof="x", detail=hostile)
    for written in (text(bad), html(bad)):
        assert all(line.isprintable() for line in written.split("\n"))
        assert written.count("u202e") > len(ids)
    assert "<b>" not in html(bad)
    assert text(bad).count("\n") == text(msgspec.structs.replace(case, snapshot={"a": 1, "b": 2})).count("\n")


def test_the_page_is_self_contained_and_escapes_markup(log, flagged, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    case = explain(altered.settings, flagged.transaction_id)
    page = html(msgspec.structs.replace(case, score=msgspec.structs.replace(case.score, merchant_id="<script>")))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page
    assert flagged.reasons[0].code in page
