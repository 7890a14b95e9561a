"""Records that no key of ours has signed are named, and accuse no record that one has."""

from __future__ import annotations

import pytest
from support.worlds import HOUR, MONDAY, snapshot

from fraud_service.domain.risk import NO_RISK, encode_risk
from fraud_service.domain.snapshot import encode_snapshot
from fraud_service.kafka.topic_reader import Record
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.security.signatures import Keyring
from fraud_service.verification import labels_and_snapshots
from fraud_service.verification.findings import Findings, Kind

pytestmark = pytest.mark.attack

RING = Keyring({"2026": b"k" * 32}, "2026", "production")
STAGING = Keyring(RING.keys, "2026", "staging")
ROW = encode_risk(NO_RISK.with_label(MONDAY, MONDAY, is_fraud=True, amount_is_anomalous=False))
TABLE: dict[str, bytes] = {}
FIRST = snapshot(MONDAY, {"card:c-1": ROW}, TABLE)
SECOND = snapshot(MONDAY + HOUR, {}, TABLE, examples=2)
FUTURE = snapshot(MONDAY + 1000 * HOUR, {}, {}, examples=9)


def entry(offset: int, key: bytes, value: bytes, ring: Keyring, role: str, headers=()) -> Record:
    return Record(role, 0, offset, key, value, 0, ring.signed(role, key, value, headers))


def row(offset: int, key: bytes, value: bytes, ring: Keyring, version: bytes) -> Record:
    return entry(offset, key, value, ring, "risk", [(VERSION_HEADER, version)])


@pytest.mark.parametrize("ring", [Keyring(), STAGING], ids=["unsigned", "of another deployment"])
def test_a_snapshot_of_somebody_else_is_named_and_accuses_none_of_ours(ring):
    findings = Findings()
    written = [(FIRST, RING), (FUTURE, ring), (SECOND, RING)]
    entries = [entry(n, b"v", encode_snapshot(one), by, "snapshots") for n, (one, by) in enumerate(written)]
    newest = labels_and_snapshots.follow_snapshots(
        labels_and_snapshots.verified_entries(entries, "snapshots", RING, findings), findings
    )
    assert newest == SECOND
    assert [(one.kind, one.offset) for one in findings.report().anomalies] == [(Kind.UNEXPECTED, 1)]


def test_a_risk_row_of_somebody_else_is_named_and_alters_no_sum():
    findings, version = Findings(), FIRST.version.encode()
    entries = [row(0, b"card:c-1", ROW, RING, version), row(1, b"card:c-1", encode_risk(NO_RISK), STAGING, version)]
    assert labels_and_snapshots.follow_risk(
        labels_and_snapshots.verified_entries(entries, "risk", RING, findings), SECOND, findings
    )
    assert [(one.kind, one.offset) for one in findings.report().anomalies] == [(Kind.UNEXPECTED, 1)]


def test_a_snapshot_may_be_signed_anew_but_not_sent_again():
    findings, rotated = Findings(), Keyring({**RING.keys, "2027": b"n" * 32}, "2027", "production")
    written = [(FIRST, RING), (SECOND, RING), (FIRST, rotated), (SECOND, rotated), (FIRST, rotated), (SECOND, RING)]
    entries = [entry(n, b"v", encode_snapshot(one), by, "snapshots") for n, (one, by) in enumerate(written)]
    assert (
        labels_and_snapshots.follow_snapshots(
            labels_and_snapshots.verified_entries(entries, "snapshots", rotated, findings), findings
        )
        == SECOND
    )
    report = findings.report()
    assert [(one.kind, one.offset) for one in report.anomalies] == [(Kind.REORDERED, 4), (Kind.DOUBLED, 5)]
    assert report.counts["snapshots_signed_anew"] == 2


def test_what_is_older_than_since_and_not_believed_is_counted_in_a_note_only():
    findings = Findings()
    written = [(FIRST, STAGING), (FIRST, RING), (FUTURE, STAGING), (SECOND, RING)]
    entries = [entry(n, b"v", encode_snapshot(one), by, "snapshots") for n, (one, by) in enumerate(written)]
    newest = labels_and_snapshots.follow_snapshots(
        labels_and_snapshots.verified_entries(entries, "snapshots", RING, findings, begin=1), findings
    )
    assert newest == SECOND
    assert [(one.kind, one.offset) for one in findings.report().anomalies] == [(Kind.UNEXPECTED, 2)]
    assert list(findings.report().notes) == [
        "1 records on the topic of snapshots are older than --since, and are not believed"
    ]


@pytest.mark.parametrize("version", [b"", b"2", b"0", b"\xff"])
def test_a_row_that_scorers_refuse_alters_no_sum_either(version):
    findings = Findings()
    entries = [
        row(0, b"card:c-1", ROW, Keyring(), FIRST.version.encode()),
        row(1, b"card:c-1", b"", Keyring(), version),
    ]
    assert labels_and_snapshots.follow_risk(entries, SECOND, findings)
    assert [(one.kind, one.offset) for one in findings.report().anomalies] == [(Kind.UNREADABLE, 1)]
