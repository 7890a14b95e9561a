"""Verify: every check on one log in a single pass, with every decision and snapshot recomputed."""

from __future__ import annotations

from collections import Counter

import pytest
from support.replayed import copy

from fraud_service.domain.records import decode_score
from fraud_service.verification.report import FindingKind, Report
from fraud_service.verification.verify import VerifyOptions, verify


@pytest.fixture
def verified(monkeypatch):
    """Verify a log with `--replay`."""

    def of(log, **options) -> Report:
        log.serve(monkeypatch)
        return verify(log.settings, VerifyOptions(replay=True, **options))

    return of


def test_every_decision_and_snapshot_is_recomputed_and_nothing_is_wrong(log, verified):
    report = verified(log)
    assert (report.found, report.notes) == ({}, ())
    assert report.counts["scores"] == report.counts["decisions_recomputed"] == len(log.on("scores"))
    assert report.counts["snapshots"] == report.counts["snapshots_rebuilt"] == len(log.on("snapshots"))
    assert report.counts["alerts"] == report.counts["flagged"] == len(log.on("alerts"))
    assert report.counts["inputs"] == len(log.on("transactions"))


def test_inputs_scores_and_alerts_are_read_once(log, monkeypatch):
    log.serve(monkeypatch)
    read, reads = type(log).read, Counter()

    def counted(self, topic, partition, *offsets):
        for entry in read(self, topic, partition, *offsets):
            reads[topic] += 1
            yield entry

    monkeypatch.setattr(type(log), "read", counted)
    verify(log.settings, VerifyOptions(replay=True))
    topics = log.settings.topics
    for role in ("transactions", "scores", "alerts"):
        assert reads[getattr(topics, role)] == len(log.on(role))


def test_progress_reaches_the_size_that_was_announced(log, monkeypatch):
    log.serve(monkeypatch)
    sizes, progress = [], []
    verify(log.settings, VerifyOptions(replay=True), sizes.append, progress.append)
    assert sizes == [sum(progress)]


def test_a_time_range_leaves_older_records_out_of_the_counts_and_still_recomputes_them(log, verified):
    moment = 1 + max(entry.timestamp for role in ("transactions", "scores", "alerts") for entry in log.on(role))
    report = verified(log, since=moment)
    assert report.found == {}
    assert "inputs" not in report.counts
    assert report.counts["decisions_recomputed"] == len(log.on("scores"))


def test_an_altered_decision_is_reported_with_its_place_and_its_difference(log, verified):
    altered = copy(log)
    entry = next(one for one in altered.on("scores") if b'"outcome":"review"' in one.value)
    altered.replace(entry, value=entry.value.replace(b'"outcome":"review"', b'"outcome":"approve"'))
    report = verified(altered)
    (finding,) = [one for one in report.findings if one.kind is FindingKind.OUTCOME]
    assert report.found == {"outcome": 1, "unexpected": 1}  # its alert has no flagged score any more
    identity = decode_score(entry.value).transaction_id.encode()
    places = [
        (one.topic, one.partition, one.offset) for one in altered.on("transactions") if identity in (one.value or b"")
    ]
    assert (finding.topic, finding.partition, finding.offset) == places[0]
    assert finding.detail.startswith("outcome: logged ")
    assert (finding.card_id, finding.transaction_id) == (None, None)
    assert report.counts["decisions_recomputed"] == len(log.on("scores")) - 1


def test_a_score_without_its_transaction_is_reported_once_on_its_own_topic(log, verified):
    altered = copy(log)
    entry = altered.on("scores")[40]
    lost = decode_score(entry.value)
    for one in altered.on("transactions"):
        if (one.key, lost.transaction_id.encode() in (one.value or b"")) == (entry.key, True):
            altered.remove(one)
    (finding, *_) = [one for one in verified(altered).findings if one.kind is FindingKind.UNEXPECTED]
    assert (finding.topic, finding.partition, finding.offset) == entry[:3]


def test_a_score_that_cannot_be_read_is_reported_on_its_own_topic(log, verified):
    altered = copy(log)
    entry = altered.on("scores")[40]
    altered.replace(entry, value=b"{")
    found = [one for one in verified(altered).findings if one.kind is FindingKind.UNREADABLE]
    assert [(one.topic, one.partition, one.offset) for one in found] == [entry[:3]]


def test_an_altered_snapshot_is_reported_and_counted_in_a_note(log, verified):
    altered = copy(log)
    entry = altered.on("snapshots")[20]
    altered.replace(entry, value=entry.value.replace(b'"intercept":', b'"intercept":1', 1))
    report = verified(altered)
    assert any("1 records of snapshots, risk and models are altered or not signed" in note for note in report.notes)
    assert report.found["unreadable"] == 1


def test_a_snapshot_that_differs_from_the_rebuilt_one_is_reported(log, verified):
    altered = copy(log)
    entry = next(one for one in altered.on("risk") if one.value)
    altered.replace(entry, value=entry.value[:-1] + bytes([entry.value[-1] ^ 1]))
    found = [one.detail for one in verified(altered).findings if one.kind is FindingKind.SNAPSHOT]
    version, row = entry.header("fraud-snapshot"), entry.key.decode()
    assert found == [f"snapshot {version} differs from the rebuilt one: risk row {row} differs"]


def test_expired_examples_are_a_note_and_no_finding(log, verified):
    altered = copy(log)
    altered.cut("labelled", 0.5)
    report = verified(altered)
    assert report.found == {}
    assert any("lost its first records to retention" in note for note in report.notes)


def test_labels_that_cannot_be_compared_with_expired_payments_are_a_note(log, verified):
    altered = copy(log)
    altered.cut("transactions", 0.5)
    altered.cut("scores", 0.5)
    notes = verified(altered).notes
    assert any("labels were not compared with payments, because older or uncommitted" in note for note in notes)


def test_more_findings_than_are_listed_are_counted(log, verified, monkeypatch):
    monkeypatch.setattr("fraud_service.verification.report.MAX_LISTED", 1)
    altered = copy(log)
    entries = [one for one in altered.on("scores") if b'"is_duplicate":false' in one.value and one.partition == 0][:3]
    for entry in entries:
        altered.replace(entry, value=entry.value.replace(b'"currency":"EUR"', b'"currency":"USD"'))
    report = verified(altered)
    assert len(report.findings) == 1
    assert report.found["facts"] == 3
