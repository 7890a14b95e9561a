"""Records without a valid signature are reported, and so are examples that were trained twice."""

from __future__ import annotations

import pytest
from support.worlds import HOUR, MONDAY, snapshot

from fraud_service.domain.records import decode_labelled
from fraud_service.domain.risk import NO_RISK, encode_risk
from fraud_service.domain.snapshot import encode_snapshot
from fraud_service.kafka.topic_reader import Record
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.security.signatures import Keyring
from fraud_service.verification import labels_and_snapshots
from fraud_service.verification.report import FindingKind, Findings

pytestmark = pytest.mark.attack

RING = Keyring({"2026": b"k" * 32}, "2026", "production")
STAGING = Keyring(RING.keys, "2026", "staging")
ROW = encode_risk(NO_RISK.with_label(MONDAY, MONDAY, is_fraud=True, amount_is_anomalous=False))
TABLE: dict[str, bytes] = {}
FIRST = snapshot(MONDAY, {"card:c-1": ROW}, TABLE)
SECOND = snapshot(MONDAY + HOUR, {}, TABLE, examples=2)
FUTURE = snapshot(MONDAY + 1000 * HOUR, {}, {}, examples=9)


def entry(offset: int, key: bytes, value: bytes, ring: Keyring, role: str, headers=()) -> Record:
    return Record(role, 0, offset, key, value, 0, ring.sign_headers(role, key, value, headers))


def row(offset: int, key: bytes, value: bytes, ring: Keyring, version: bytes) -> Record:
    return entry(offset, key, value, ring, "risk", [(VERSION_HEADER, version)])


@pytest.mark.parametrize("ring", [Keyring(), STAGING], ids=["unsigned", "of another deployment"])
def test_a_snapshot_of_another_producer_is_reported_and_causes_no_other_finding(ring):
    findings = Findings()
    written = [(FIRST, RING), (FUTURE, ring), (SECOND, RING)]
    entries = [entry(n, b"v", encode_snapshot(one), by, "snapshots") for n, (one, by) in enumerate(written)]
    newest = labels_and_snapshots.check_snapshots(
        labels_and_snapshots.skip_unsigned(entries, "snapshots", RING, findings), findings
    )
    assert newest == SECOND
    assert [(one.kind, one.offset) for one in findings.report().findings] == [(FindingKind.UNEXPECTED, 1)]


def test_a_risk_row_of_another_producer_is_reported_and_left_out_of_the_digest():
    findings, version = Findings(), FIRST.version.encode()
    entries = [row(0, b"card:c-1", ROW, RING, version), row(1, b"card:c-1", encode_risk(NO_RISK), STAGING, version)]
    assert labels_and_snapshots.matches_risk_digest(
        labels_and_snapshots.skip_unsigned(entries, "risk", RING, findings), SECOND, findings
    )
    assert [(one.kind, one.offset) for one in findings.report().findings] == [(FindingKind.UNEXPECTED, 1)]


def test_a_snapshot_may_be_re_signed_but_not_sent_again():
    findings, rotated = Findings(), Keyring({**RING.keys, "2027": b"n" * 32}, "2027", "production")
    written = [(FIRST, RING), (SECOND, RING), (FIRST, rotated), (SECOND, rotated), (FIRST, rotated), (SECOND, RING)]
    entries = [entry(n, b"v", encode_snapshot(one), by, "snapshots") for n, (one, by) in enumerate(written)]
    assert (
        labels_and_snapshots.check_snapshots(
            labels_and_snapshots.skip_unsigned(entries, "snapshots", rotated, findings), findings
        )
        == SECOND
    )
    report = findings.report()
    assert [(one.kind, one.offset) for one in report.findings] == [
        (FindingKind.OUT_OF_ORDER, 4),
        (FindingKind.DUPLICATED, 5),
    ]
    assert report.counts["snapshots_resigned"] == 2


def test_unsigned_records_before_since_are_only_counted_in_a_note():
    findings = Findings()
    written = [(FIRST, STAGING), (FIRST, RING), (FUTURE, STAGING), (SECOND, RING)]
    entries = [entry(n, b"v", encode_snapshot(one), by, "snapshots") for n, (one, by) in enumerate(written)]
    newest = labels_and_snapshots.check_snapshots(
        labels_and_snapshots.skip_unsigned(entries, "snapshots", RING, findings, begin=1), findings
    )
    assert newest == SECOND
    assert [(one.kind, one.offset) for one in findings.report().findings] == [(FindingKind.UNEXPECTED, 2)]
    assert list(findings.report().notes) == [
        "1 records on the topic of snapshots are older than --since and not signed: left out"
    ]


@pytest.mark.parametrize("version", [b"", b"2", b"0", b"\xff"])
def test_a_risk_row_that_scorers_reject_is_left_out_of_the_digest(version):
    findings = Findings()
    entries = [
        row(0, b"card:c-1", ROW, Keyring(), FIRST.version.encode()),
        row(1, b"card:c-1", b"", Keyring(), version),
    ]
    assert labels_and_snapshots.matches_risk_digest(entries, SECOND, findings)
    assert [(one.kind, one.offset) for one in findings.report().findings] == [(FindingKind.UNREADABLE, 1)]


def test_every_second_example_of_a_transaction_is_reported_at_its_place_unless_it_is_a_correction(log):
    findings, entries = Findings(), log.on("labelled")
    duplicates = labels_and_snapshots.ExampleDuplicates(findings)
    duplicates.report("labelled")  # without an example
    first = next(one for one in entries if not decode_labelled(one.value).corrects)
    correction = next(one for one in entries if decode_labelled(one.value).corrects)
    copies = [one._replace(partition=3, offset=900 + n) for n, one in enumerate([first, correction, first])]
    duplicates.add([*entries, copies[0]._replace(value=b"{"), *copies])
    duplicates.report("labelled")
    report = findings.report()
    assert report.counts["labelled"] == len(entries) + 4
    assert [(one.kind, one.topic, one.partition, one.offset) for one in report.findings] == [
        (FindingKind.UNREADABLE, first.topic, 3, 900),
        (FindingKind.DUPLICATED, "labelled", 3, 900),
        (FindingKind.DUPLICATED, "labelled", 3, 902),
    ]
