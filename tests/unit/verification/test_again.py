"""What a verification says of a replay: every decision and snapshot made again, and what is not the same."""

from __future__ import annotations

import pytest
from support.replayed import copy

from fraud_service.domain.records import decode_score
from fraud_service.verification import redo_decisions
from fraud_service.verification.findings import Findings, Kind, Report


@pytest.fixture
def told(monkeypatch):
    """Give what is found in a log."""

    def of(log) -> Report:
        log.serve(monkeypatch)
        findings = Findings()
        redo_decisions.follow_decisions(log.settings, lambda _: None, findings)
        redo_decisions.follow_snapshots(log.settings, findings)
        return findings.report()

    return of


def test_everything_comes_out_again(log, told):
    report = told(log)
    assert (report.found, report.notes) == ({}, ())
    assert report.counts == {
        "decisions_again": len(log.on("scores")),
        "snapshots_again": len(log.on("snapshots")),
    }


def test_an_altered_decision_is_named_with_its_place_and_what_differs(log, told):
    altered = copy(log)
    entry = next(one for one in altered.on("scores") if b'"outcome":"review"' in one.value)
    altered.replace(entry, value=entry.value.replace(b'"outcome":"review"', b'"outcome":"approve"'))
    report = told(altered)
    (anomaly,) = report.anomalies
    identity = decode_score(entry.value).transaction_id.encode()
    places = [
        (one.topic, one.partition, one.offset) for one in altered.on("transactions") if identity in (one.value or b"")
    ]
    assert anomaly.kind is Kind.DECISION
    assert (anomaly.topic, anomaly.partition, anomaly.offset) == places[0]
    assert anomaly.what.startswith("outcome: outcome: logged ")
    assert report.counts["decisions_again"] == len(log.on("scores")) - 1


def test_a_score_without_its_transaction_is_named_on_its_own_topic(log, told):
    altered = copy(log)
    entry = altered.on("scores")[40]
    lost = decode_score(entry.value)
    for one in altered.on("transactions"):
        if (one.key, lost.transaction_id.encode() in (one.value or b"")) == (entry.key, True):
            altered.remove(one)
    anomalies = [one for one in told(altered).anomalies if one.what.startswith("input_missing")]
    assert (anomalies[0].topic, anomalies[0].partition, anomalies[0].offset) == entry[:3]


def test_a_score_that_cannot_be_read_is_named_on_its_own_topic(log, told):
    altered = copy(log)
    entry = altered.on("scores")[40]
    altered.replace(entry, value=b"{")
    named = [one for one in told(altered).anomalies if one.what.startswith("score_unreadable")]
    assert [(one.topic, one.partition, one.offset) for one in named] == [entry[:3]]


def test_a_record_that_is_not_believed_is_a_note(log, told):
    altered = copy(log)
    entry = altered.on("snapshots")[20]
    altered.replace(entry, value=entry.value.replace(b'"intercept":', b'"intercept":1', 1))
    assert any("1 records of snapshots, risk and models are not believed" in note for note in told(altered).notes)


def test_a_snapshot_that_is_not_what_was_taught_is_named(log, told):
    altered = copy(log)
    entry = next(one for one in altered.on("risk") if one.value)
    altered.replace(entry, value=entry.value[:-1] + bytes([entry.value[-1] ^ 1]))
    named = [one.what for one in told(altered).anomalies if one.kind is Kind.SNAPSHOT]
    assert named == [
        f"snapshot {entry.header('fraud-snapshot')} is not what was taught: risk row {entry.key.decode()} differs"
    ]


def test_what_retention_has_taken_is_a_note_and_no_anomaly(log, told):
    altered = copy(log)
    altered.cut("labelled", 0.5)
    report = told(altered)
    assert report.found == {}
    assert any("lost its first records to retention" in note for note in report.notes)


def test_more_differences_than_are_listed_are_counted(log, told, monkeypatch):
    monkeypatch.setattr("fraud_service.verification.replay.MAX_LISTED", 1)
    altered = copy(log)
    entries = [one for one in altered.on("scores") if b'"is_duplicate":false' in one.value and one.partition == 0][:3]
    for entry in entries:
        altered.replace(entry, value=entry.value.replace(b'"currency":"EUR"', b'"currency":"USD"'))
    report = told(altered)
    assert len(report.anomalies) == 1
    assert report.notes == ("2 decisions more differ than are listed",)
