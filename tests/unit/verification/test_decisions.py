"""Each way in which outputs can fail their inputs is found and named, and nothing is found where nothing is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.audited import NAMES, PARTITIONS, Log, edited, renumbered, written
from support.drawn import messages
from support.worlds import transaction

from fraud_service.domain.codec import LATEST
from fraud_service.domain.events import encode
from fraud_service.kafka.messages import CONTENT_HASH
from fraud_service.verification.dead_letters import Letters
from fraud_service.verification.decisions import Decisions, PartitionScope, Unmatched, resolve_unmatched
from fraud_service.verification.findings import (
    Findings,
    Kind,
    Report,
    decode_report,
    encode_report,
)
from fraud_service.verification.stream_matcher import Matcher

if TYPE_CHECKING:
    from fraud_service.kafka.topic_reader import Record

FAST = settings(max_examples=25, deadline=None, derandomize=True)


def verified(log: Log, committed: int | None = 1_000, moments: dict[int, int] | None = None, begin: int = 0) -> Report:
    findings, letters, loose = Findings(), Letters(), Unmatched.none()
    for number in range(PARTITIONS):
        letters.take(log.of("dead_letters", number), findings)
    for number in range(PARTITIONS):
        moment = (moments or {}).get(number, -1)
        scope = PartitionScope(NAMES["transactions"], number, begin, 1_000, committed, 1_000, moment)
        decisions = Decisions(scope, letters.of(NAMES["transactions"], number), loose, findings)
        decisions.follow(log.of("transactions", number), log.of("scores", number), log.of("alerts", number))
    resolve_unmatched(loose, findings)
    return findings.report()


def kinds(report: Report) -> dict[str, int]:
    return dict(report.found)


@FAST
@given(messages())
def test_a_clean_log_is_clean_and_counted(sent):
    log = written(sent)
    report = verified(log)
    assert report.anomalies == ()
    assert report.counts["inputs"] == len(sent)
    assert report.counts.get("scores", 0) + report.counts.get("dead_letters", 0) == len(sent)
    assert decode_report(encode_report(report)) == report


def chosen(draw, log: Log, role: str):
    entries = log.all(role)
    assume(entries)
    return draw(st.sampled_from(entries))


@FAST
@given(messages(), st.data())
def test_a_lost_score_is_named_by_its_input(sent, data):
    log = written(sent)
    gone = chosen(data.draw, log, "scores")
    tampered = edited(log, "scores", lambda entries: [e for e in entries if e != gone], gone.partition)
    found = verified(tampered)
    assert found.found["lost"] == 1
    (anomaly,) = [anomaly for anomaly in found.anomalies if anomaly.kind is Kind.LOST]
    assert (anomaly.topic, anomaly.partition) == (NAMES["transactions"], gone.partition)


@FAST
@given(messages(), st.data())
def test_a_score_written_twice_is_a_double(sent, data):
    log = written(sent)
    twice = chosen(data.draw, log, "scores")
    place = log.of("scores", twice.partition).index(twice)
    tampered = edited(
        log, "scores", lambda entries: renumbered([*entries[: place + 1], *entries[place:]]), twice.partition
    )
    found = kinds(verified(tampered))
    assert found["doubled"] >= 1
    assert "lost" not in found


@FAST
@given(messages(), st.data())
def test_two_scores_that_changed_places_are_out_of_order(sent, data):
    log = written(sent)
    number = data.draw(st.integers(0, PARTITIONS - 1))
    entries = log.of("scores", number)
    assume(len(entries) > 1)
    place = data.draw(st.integers(0, len(entries) - 2))
    one, other = entries[place], entries[place + 1]
    assume(json.loads(one.value)["transaction_id"] != json.loads(other.value)["transaction_id"])
    swapped = renumbered([*entries[:place], other, one, *entries[place + 2 :]])
    found = kinds(verified(edited(log, "scores", lambda _: swapped, number)))
    assert found["reordered"] >= 1
    assert not {"lost", "doubled", "unexpected"} & found.keys()


@FAST
@given(messages(), st.data())
def test_a_score_of_nobody_is_unexpected(sent, data):
    log = written(sent)
    number = data.draw(st.integers(0, PARTITIONS - 1))
    (stranger,) = written([(encode(transaction("stranger", card_id="card-9", amount=1.0)), b"card-9")]).all("scores")
    entries = log.of("scores", number)
    place = data.draw(st.integers(0, len(entries)))
    tampered = [*entries[:place], stranger._replace(partition=number), *entries[place:]]
    found = verified(edited(log, "scores", lambda _: renumbered(tampered), number))
    assert kinds(found)["unexpected"] == 1
    assert "lost" not in kinds(found)


@FAST
@given(messages(), st.data(), st.sampled_from(["amount", "timestamp", "merchant_id", "currency"]))
def test_a_score_that_says_something_else_than_its_input_is_altered(sent, data, field):
    log = written(sent)
    entry = chosen(data.draw, log, "scores")
    record = json.loads(entry.value)
    record[field] = {"amount": 1.25, "timestamp": 7, "merchant_id": "other", "currency": "XXX"}[field]
    altered = entry._replace(value=json.dumps(record).encode())
    tampered = edited(log, "scores", lambda entries: [altered if e == entry else e for e in entries], entry.partition)
    assert kinds(verified(tampered))["altered"] >= 1


@FAST
@given(messages(), st.data())
def test_a_missing_alert_a_second_one_and_a_wrong_id_are_told_apart(sent, data):
    log = written(sent)
    entry = chosen(data.draw, log, "alerts")
    without = edited(log, "alerts", lambda entries: [e for e in entries if e != entry], entry.partition)
    assert kinds(verified(without)) == {"lost": 1}
    place = log.of("alerts", entry.partition).index(entry)
    twice = edited(log, "alerts", lambda e: renumbered([*e[: place + 1], *e[place:]]), entry.partition)
    assert kinds(verified(twice)) in ({"doubled": 1}, {"doubled": 1, "reordered": 1})
    headers = [(name, b"another" if name == "ce_id" else value) for name, value in entry.headers]
    renamed = entry._replace(headers=headers)
    other = edited(log, "alerts", lambda entries: [renamed if e == entry else e for e in entries], entry.partition)
    assert kinds(verified(other)) == {"altered": 1}


@FAST
@given(messages(), st.data())
def test_a_lost_dead_letter_a_second_one_and_other_bytes_are_told_apart(sent, data):
    log = written(sent)
    entry = chosen(data.draw, log, "dead_letters")
    without = edited(log, "dead_letters", lambda entries: [e for e in entries if e != entry], entry.partition)
    assert kinds(verified(without)) == {"lost": 1}
    twice = edited(log, "dead_letters", lambda e: renumbered([*e, entry]), entry.partition)
    assert kinds(verified(twice)) == {"doubled": 1}
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
    assert found.keys() & {"unexpected", "doubled"}


@FAST
@given(messages(), st.integers(0, 20))
def test_what_was_not_committed_yet_is_pending_and_not_lost(sent, committed):
    log = written(sent)
    cut = Log()
    for (role, number), entries in log.entries.items():
        kept = entries
        if role != "transactions":
            moments = {e.timestamp for e in log.of("transactions", number) if e.offset < committed}
            kept = [e for e in entries if e.timestamp in moments or role == "dead_letters"]
        cut.entries[role, number] = kept
    report = verified(cut, committed)
    assert report.anomalies == ()
    assert verified(log, committed).anomalies == ()


@FAST
@given(messages(), st.integers(1, 20))
def test_what_retention_has_taken_is_neither_lost_nor_a_surplus(sent, begin):
    log = written(sent)
    cut = Log()
    for place, entries in log.entries.items():
        cut.entries[place] = [e for e in entries if e.offset >= begin] if place[0] == "transactions" else entries
    moments = {number: first(cut.of("transactions", number)) for number in range(PARTITIONS)}
    for role, number in list(cut.entries):
        if role in {"scores", "alerts"}:
            cut.entries[role, number] = [e for e in cut.of(role, number) if e.timestamp >= moments[number]]
    report = verified(cut, moments=moments, begin=begin)
    assert report.anomalies == ()


def first(entries: list[Record]) -> int:
    return entries[0].timestamp if entries else LATEST


@given(st.lists(st.integers(0, 3)), st.sets(st.integers(0, 30)), st.integers(1, 5))
def test_a_matcher_accounts_for_every_item_once_however_small_its_window(keys, dropped, window):
    missing, surplus, pairs = [], [], []
    matcher = Matcher(lambda *item: missing.append(item), lambda *item: surplus.append(item), window)
    found = [key for number, key in enumerate(keys) if number not in dropped]
    for number in range(len(keys)):
        pairs.append(matcher.expect(keys[number], number))
        if number < len(found):
            pairs.append(matcher.find(found[number], number))
    matcher.finish()
    met = len([pair for pair in pairs if pair])
    assert met + len(missing) == len(keys)
    assert met + len(surplus) == len(found)


def test_a_score_in_another_partition_than_its_input_is_misplaced_and_not_lost():
    log = written([])
    payment = transaction("t-1", card_id="card-1")
    home = written([(encode(payment), b"card-1")]).all("scores")[0].partition
    log.send(encode(payment), b"card-1", partition=(home + 1) % PARTITIONS)
    report = verified(log)
    assert kinds(report) == {"misplaced": 1}
    assert "murmur2" in report.anomalies[0].what


@pytest.mark.parametrize("text", ["", "²", "٣", "-1", "1e3", " 1", "9" * 19, "9" * 5_000, "1\n", "0x1"])
def test_a_letter_that_names_no_offset_is_foreign_and_stops_nothing(text):
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    forged = [(name, value if name != "fraud-source-offset" else text.encode()) for name, value in entry.headers]
    for headers in (forged, [], [("fraud-reason", None)], [("fraud-redriven-offset", text.encode())]):
        log.append("dead_letters", entry.partition, None, None, headers)
    assert kinds(verified(log)) == {"unreadable": 4}


@pytest.mark.parametrize(
    ("offset", "key", "value"), [(1, b"card-1", None), (0, b"card-2", None), (0, None, None), (0, b"card-1", b"x")]
)
def test_a_mark_that_names_itself_or_has_another_key_than_its_letter_is_not_believed(offset, key, value):
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    log.append("dead_letters", entry.partition, key, value, [("fraud-redriven-offset", b"%d" % offset)])
    assert kinds(verified(log)) == {"unexpected": 1}


@pytest.mark.parametrize("header", ["fraud-reason", "fraud-source-offset", "fraud-source-topic"])
def test_a_dead_letter_that_does_not_say_whose_it_is_is_unreadable(header):
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    cut = entry._replace(headers=[(name, value) for name, value in entry.headers if name != header])
    report = verified(edited(log, "dead_letters", lambda _: [cut], entry.partition))
    assert kinds(report) == {"lost": 1, "unreadable": 1}


def test_marks_of_redriven_letters_are_counted_and_a_second_one_is_found():
    log = written([(b"{", b"card-1")])
    (entry,) = log.all("dead_letters")
    mark = [("fraud-redriven-offset", b"%d" % entry.offset)]
    log.append("dead_letters", entry.partition, b"card-1", None, mark)
    report = verified(log)
    assert (report.anomalies, report.counts["redriven"], report.counts["dead_letters"]) == ((), 1, 1)
    log.append("dead_letters", entry.partition, b"card-1", None, mark)
    log.append("dead_letters", entry.partition, b"card-1", None, [("fraud-redriven-offset", b"77")])
    assert kinds(verified(log)) == {"doubled": 1, "unexpected": 1}
