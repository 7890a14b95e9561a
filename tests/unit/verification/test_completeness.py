"""Every kind of fault between inputs, scores, alerts and dead letters is found, and a clean log has no finding."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.audited import NAMES, PARTITIONS, Log, edited, renumbered, written
from support.drawn import messages
from support.worlds import transaction

from fraud_service.domain.codec import LATEST
from fraud_service.domain.events import encode
from fraud_service.kafka.messages import CONTENT_HASH
from fraud_service.kafka.topic_reader import OffsetRange
from fraud_service.verification.completeness import CompletenessCheck, PartitionScope, UnmatchedRecords
from fraud_service.verification.log_reader import DeadLetterIndex
from fraud_service.verification.matching import pair, read_score
from fraud_service.verification.report import FindingKind, Findings, Report

if TYPE_CHECKING:
    from fraud_service.kafka.topic_reader import Record

FAST = settings(max_examples=25, deadline=None, derandomize=True)


def verified(log: Log, committed: int | None = 1_000, moments: dict[int, int] | None = None, begin: int = 0) -> Report:
    findings, letters, unmatched = Findings(), DeadLetterIndex(), UnmatchedRecords()
    for number in range(PARTITIONS):
        letters.add(log.of("dead_letters", number), findings)
    for number in range(PARTITIONS):
        moment, topic = (moments or {}).get(number, -1), NAMES["transactions"]
        ranges = OffsetRange(begin, 1_000), OffsetRange(0, 1_000)
        scope = PartitionScope(topic, number, *ranges, committed, 1_000, moment)
        check = CompletenessCheck(scope, letters.of(topic, number), log.of("alerts", number), unmatched, findings)
        inputs, scores = check.inputs(log.of("transactions", number)), log.of("scores", number)
        for one in pair(inputs, scores, is_truncated=moments is not None, read=read_score):
            check.take(one)
        check.finish()
    unmatched.resolve(findings)
    return findings.report()


def kinds(report: Report) -> dict[str, int]:
    return dict(report.found)


@FAST
@given(messages())
def test_a_clean_log_is_clean_and_counted(sent):
    log = written(sent)
    report = verified(log)
    assert report.findings == ()
    assert report.counts["inputs"] == len(sent)
    assert report.counts.get("scores", 0) + report.counts.get("dead_letters", 0) == len(sent)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def chosen(draw, log: Log, role: str):
    entries = log.all(role)
    assume(entries)
    return draw(st.sampled_from(entries))


@FAST
@given(messages(), st.data())
def test_a_missing_score_is_reported_at_its_input(sent, data):
    log = written(sent)
    gone = chosen(data.draw, log, "scores")
    tampered = edited(log, "scores", lambda entries: [e for e in entries if e != gone], gone.partition)
    found = verified(tampered)
    assert found.found["missing"] == 1
    (finding,) = [finding for finding in found.findings if finding.kind is FindingKind.MISSING]
    assert (finding.topic, finding.partition) == (NAMES["transactions"], gone.partition)


@FAST
@given(messages(), st.data())
def test_a_score_written_twice_is_duplicated(sent, data):
    log = written(sent)
    twice = chosen(data.draw, log, "scores")
    place = log.of("scores", twice.partition).index(twice)
    tampered = edited(
        log, "scores", lambda entries: renumbered([*entries[: place + 1], *entries[place:]]), twice.partition
    )
    found = kinds(verified(tampered))
    assert found["duplicated"] >= 1
    assert "missing" not in found


@FAST
@given(messages(), st.data())
def test_two_swapped_scores_are_out_of_order(sent, data):
    log = written(sent)
    number = data.draw(st.integers(0, PARTITIONS - 1))
    entries = log.of("scores", number)
    assume(len(entries) > 1)
    place = data.draw(st.integers(0, len(entries) - 2))
    one, other = entries[place], entries[place + 1]
    assume(json.loads(one.value)["transaction_id"] != json.loads(other.value)["transaction_id"])
    swapped = renumbered([*entries[:place], other, one, *entries[place + 2 :]])
    found = kinds(verified(edited(log, "scores", lambda _: swapped, number)))
    assert found["out_of_order"] >= 1
    assert not {"missing", "duplicated", "unexpected"} & found.keys()


@FAST
@given(messages(), st.data())
def test_a_score_without_an_input_is_unexpected(sent, data):
    log = written(sent)
    number = data.draw(st.integers(0, PARTITIONS - 1))
    (stranger,) = written([(encode(transaction("stranger", card_id="card-9", amount=1.0)), b"card-9")]).all("scores")
    entries = log.of("scores", number)
    place = data.draw(st.integers(0, len(entries)))
    tampered = [*entries[:place], stranger._replace(partition=number), *entries[place:]]
    found = verified(edited(log, "scores", lambda _: renumbered(tampered), number))
    assert kinds(found)["unexpected"] == 1
    assert "missing" not in kinds(found)


@FAST
@given(messages(), st.data(), st.sampled_from(["amount", "timestamp", "merchant_id", "currency"]))
def test_a_score_with_other_fields_than_its_input_is_altered(sent, data, field):
    log = written(sent)
    entry = chosen(data.draw, log, "scores")
    record = json.loads(entry.value)
    record[field] = {"amount": 1.25, "timestamp": 7, "merchant_id": "other", "currency": "XXX"}[field]
    altered = entry._replace(value=json.dumps(record).encode())
    tampered = edited(log, "scores", lambda entries: [altered if e == entry else e for e in entries], entry.partition)
    assert kinds(verified(tampered))["altered"] >= 1


@FAST
@given(messages(), st.data())
def test_a_missing_alert_a_second_one_and_a_wrong_id_are_distinguished(sent, data):
    log = written(sent)
    entry = chosen(data.draw, log, "alerts")
    without = edited(log, "alerts", lambda entries: [e for e in entries if e != entry], entry.partition)
    assert kinds(verified(without)) == {"missing": 1}
    place = log.of("alerts", entry.partition).index(entry)
    twice = edited(log, "alerts", lambda e: renumbered([*e[: place + 1], *e[place:]]), entry.partition)
    assert kinds(verified(twice)) in ({"duplicated": 1}, {"duplicated": 1, "out_of_order": 1})
    headers = [(name, b"another" if name == "ce_id" else value) for name, value in entry.headers]
    renamed = entry._replace(headers=headers)
    other = edited(log, "alerts", lambda entries: [renamed if e == entry else e for e in entries], entry.partition)
    assert kinds(verified(other)) == {"altered": 1}


@FAST
@given(messages(), st.data())
def test_a_lost_dead_letter_a_second_one_and_other_bytes_are_distinguished(sent, data):
    log = written(sent)
    entry = chosen(data.draw, log, "dead_letters")
    without = edited(log, "dead_letters", lambda entries: [e for e in entries if e != entry], entry.partition)
    assert kinds(verified(without)) == {"missing": 1}
    twice = edited(log, "dead_letters", lambda e: renumbered([*e, entry]), entry.partition)
    assert kinds(verified(twice)) == {"duplicated": 1}
    bent = entry._replace(value=(entry.value or b"") + b"x")
    other = edited(log, "dead_letters", lambda entries: [bent if e == entry else e for e in entries], entry.partition)
    assert kinds(verified(other)) == {"altered": 1}


def test_a_dead_letter_that_keeps_only_a_hash_is_compared_by_it():
    log = written([(b"x" * 100_000, b"c-1")])
    (letter,) = [entry for number in range(PARTITIONS) for entry in log.of("dead_letters", number)]
    assert letter.value is None
    assert kinds(verified(log)) == {}
    for value in (b"0" * 64, b"no hash"):
        headers = [(name, value if name == CONTENT_HASH else known) for name, known in letter.headers]
        bent = edited(log, "dead_letters", lambda _, h=headers: [letter._replace(headers=h)], letter.partition)
        assert kinds(verified(bent)) == {"altered": 1}


@FAST
@given(messages(), st.data())
def test_a_dead_letter_of_an_input_that_was_scored_is_found(sent, data):
    log = written(sent)
    source = chosen(data.draw, log, "transactions")
    assume(
        source.offset
        not in {
            int(e.header("fraud-source-offset"))
            for e in log.all("dead_letters")
            if int(e.header("fraud-source-partition")) == source.partition
        }
    )
    tampered = edited(log, "x", lambda _: [], 0)
    headers = [
        ("fraud-reason", b"empty"),
        ("fraud-source-topic", source.topic.encode()),
        ("fraud-source-partition", b"%d" % source.partition),
        ("fraud-source-offset", b"%d" % source.offset),
    ]
    tampered.append("dead_letters", 0, source.key, source.value, headers)
    found = kinds(verified(tampered))
    assert found.keys() & {"unexpected", "duplicated"}


@FAST
@given(messages(), st.integers(0, 20))
def test_uncommitted_inputs_are_pending_and_not_missing(sent, committed):
    log = written(sent)
    cut = Log()
    for (role, number), entries in log.entries.items():
        kept = entries
        if role != "transactions":
            moments = {e.timestamp for e in log.of("transactions", number) if e.offset < committed}
            kept = [e for e in entries if e.timestamp in moments or role == "dead_letters"]
        cut.entries[role, number] = kept
    report = verified(cut, committed)
    assert report.findings == ()
    assert verified(log, committed).findings == ()


@FAST
@given(messages(), st.integers(1, 20))
def test_records_removed_by_retention_are_neither_missing_nor_unexpected(sent, begin):
    log = written(sent)
    cut = Log()
    for place, entries in log.entries.items():
        cut.entries[place] = [e for e in entries if e.offset >= begin] if place[0] == "transactions" else entries
    moments = {number: first(cut.of("transactions", number)) for number in range(PARTITIONS)}
    for role, number in list(cut.entries):
        if role in {"scores", "alerts"}:
            cut.entries[role, number] = [e for e in cut.of(role, number) if e.timestamp >= moments[number]]
    report = verified(cut, moments=moments, begin=begin)
    assert report.findings == ()


def first(entries: list[Record]) -> int:
    return entries[0].timestamp if entries else LATEST


def test_a_score_in_another_partition_than_its_input_is_in_the_wrong_partition_and_not_missing():
    log = written([])
    payment = transaction("t-1", card_id="card-1")
    home = written([(encode(payment), b"card-1")]).all("scores")[0].partition
    log.send(encode(payment), b"card-1", partition=(home + 1) % PARTITIONS)
    report = verified(log)
    assert kinds(report) == {"wrong_partition": 1}
    assert "murmur2" in report.findings[0].detail


@pytest.mark.parametrize("text", ["", "²", "٣", "-1", "1e3", " 1", "9" * 19, "9" * 5_000, "1\n", "0x1"])
def test_a_dead_letter_without_a_valid_offset_is_skipped(text):
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    forged = [(name, value if name != "fraud-source-offset" else text.encode()) for name, value in entry.headers]
    for headers in (forged, [], [("fraud-reason", None)], [("fraud-redriven-offset", text.encode())]):
        log.append("dead_letters", entry.partition, None, None, headers)
    assert kinds(verified(log)) == {"unreadable": 4}


@pytest.mark.parametrize(
    ("offset", "key", "value"), [(1, b"card-1", None), (0, b"card-2", None), (0, None, None), (0, b"card-1", b"x")]
)
def test_a_redrive_mark_that_names_itself_or_has_another_key_than_its_letter_is_reported(offset, key, value):
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    log.append("dead_letters", entry.partition, key, value, [("fraud-redriven-offset", b"%d" % offset)])
    assert kinds(verified(log)) == {"unexpected": 1}


@pytest.mark.parametrize("header", ["fraud-reason", "fraud-source-offset", "fraud-source-topic"])
def test_a_dead_letter_without_reason_or_source_is_unreadable(header):
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    cut = entry._replace(headers=[(name, value) for name, value in entry.headers if name != header])
    report = verified(edited(log, "dead_letters", lambda _: [cut], entry.partition))
    assert kinds(report) == {"missing": 1, "unreadable": 1}


def test_redrive_marks_are_counted_and_a_second_one_is_found():
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    mark = [("fraud-redriven-offset", b"%d" % entry.offset)]
    log.append("dead_letters", entry.partition, b"card-1", None, mark)
    report = verified(log)
    assert (report.findings, report.counts["redriven"], report.counts["dead_letters"]) == ((), 1, 1)
    log.append("dead_letters", entry.partition, b"card-1", None, mark)
    log.append("dead_letters", entry.partition, b"card-1", None, [("fraud-redriven-offset", b"77")])
    assert kinds(verified(log)) == {"duplicated": 1, "unexpected": 1}
