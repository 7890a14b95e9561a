"""Verify names what the learner cannot learn: payments sent twice or too old, and labels of no payment."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest
from support.archived import Log
from support.loop import looped
from support.replayed import QUICK, START, payment

from fraud_service.domain.events import Label, LabelSource
from fraud_service.domain.time import HOUR
from fraud_service.kafka.topic_reader import Record
from fraud_service.verification import completeness
from fraud_service.verification.report import MAX_LISTED, FindingKind, Findings
from fraud_service.verification.verify import verify


@pytest.fixture
def verified(tmp_path, monkeypatch):
    """Run payments and labels through a loop, tick after each payment, and verify its log."""

    def of(*events):
        with looped(tmp_path, **QUICK) as loop:
            for event in events:
                if isinstance(event, Label):
                    loop.label(event)
                else:
                    loop.transaction(event)
                    loop.tick()
            log = Log.of(loop)
        log.entries.update(
            {
                place: [entry._replace(timestamp=1000 * number) for number, entry in enumerate(entries)]
                for place, entries in log.entries.items()
                if place[0] == log.settings.topics.snapshots
            }
        )
        log.serve(monkeypatch)
        return verify(log.settings)

    return of


def label(number: int, card: int, hour: int) -> Label:
    known = {"labelled_at": START + hour * HOUR, "source": LabelSource.CHARGEBACK}
    return Label(transaction_id=f"t-{number}", card_id=f"c-{card}", is_fraud=True, **known)


def paid(number: int, hour: int, card: int = 1):
    return payment(number, card, 1, 10.0, hour)


def test_a_payment_that_comes_again_after_many_others_is_repeated(verified):
    many = [paid(number, number) for number in range(20)]
    report = verified(*many, many[0])
    assert report.found == {"repeated": 1}
    assert "its profile counts it twice" in report.findings[0].detail


def test_a_payment_that_comes_again_at_once_is_a_duplicate_and_nothing_is_wrong(verified):
    report = verified(paid(0, 0), paid(0, 0), paid(1, 1))
    assert (report.found, report.counts["duplicates"]) == ({}, 1)


def test_a_payment_that_is_older_than_the_label_retention_is_forgotten(verified):
    old, test = paid(2, 0, card=2), msgspec.structs.replace(paid(3, 0, card=3), currency="XTS")
    report = verified(paid(0, 24 * 30), paid(1, 24 * 30 + 6), old, test)
    assert report.found == {"forgotten": 1}


def test_a_label_of_no_payment_is_unmatched_once_event_time_has_passed_it_by_a_day(verified):
    labels = [label(0, 1, 2), label(7, 1, 2), label(0, 2, 2), label(8, 1, 70)]
    report = verified(paid(0, 0), *labels, paid(1, 72))
    assert report.found == {"unmatched": 2}


def test_every_payment_of_a_history_that_was_sent_twice_is_found_whatever_its_size():
    found = completeness.ScoredPayments()
    for number in [*range(1000), *range(1000)]:
        found.add(entry(number), score(number), is_counted=True)
    assert len([*found.repeated()]) == 1000


def test_a_duplicate_of_a_payment_that_never_was_scored_is_found_also_after_many_other_ids():
    found = completeness.ScoredPayments()
    for number in range(1000):
        found.add(entry(number), score(number), is_counted=True)
    found.add(entry(1000), score(3, is_duplicate=True), is_counted=False)
    found.add(entry(1001), score(4, is_duplicate=True, amount=999.0), is_counted=False)
    found.add(entry(1002), score(5000, is_duplicate=True), is_counted=False)  # its first score has expired
    assert [*found.wrong_duplicates()] == [1001]
    assert not [*found.repeated()]


def entry(offset: int) -> Record:
    return Record("scores", 0, offset, b"", b"", 0, [])


def score(number: int, *, is_duplicate: bool = False, amount: float = 10.0):
    """Return what a score has of its payment."""
    one = msgspec.structs.replace(paid(number, number), amount=amount)
    return SimpleNamespace(**msgspec.structs.asdict(one), is_duplicate=is_duplicate)


def test_the_report_says_how_many_findings_it_does_not_list(verified):
    many = [paid(number, number) for number in range(20)]
    report = verified(*many, many[0])
    assert not any("listed" in note for note in report.notes)
    findings = Findings()
    for number in range(MAX_LISTED + 5):
        findings.add(FindingKind.MISSING, entry(number), "gone")
    assert findings.report().notes == (f"only the first {MAX_LISTED:,} of {MAX_LISTED + 5:,} findings are listed",)
