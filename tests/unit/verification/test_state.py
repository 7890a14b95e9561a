"""A profile that is not the fold of its card's decisions is found, on the changelog and on a volume."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given, settings
from support.audited import NAMES, PARTITIONS, Written, written
from support.drawn import messages
from support.worlds import MONDAY, transaction

from fraud_service.domain import profile
from fraud_service.domain.events import encode
from fraud_service.domain.profile import decode_profile, encode_profile
from fraud_service.domain.records import decode_score
from fraud_service.runtime.changelogs import LocalState, temporary_rows
from fraud_service.verification.matching import pair
from fraud_service.verification.report import FindingKind, Findings, Report
from fraud_service.verification.state import StateCheck, StateScope, compare_volume

FAST = settings(max_examples=25, deadline=None, derandomize=True)
ALL = 1_000


def payments(count: int = 24, cards: int = 4):
    for number in range(count):
        card = f"card-{number % cards}"
        yield encode(transaction(f"t-{number}", MONDAY + number * 60_000, card_id=card)), card.encode()


def pairs(log: Written, number: int, begin: int = 0):
    rejected = {
        int(letter.header("fraud-source-offset"))
        for letter in log.all("dead_letters")
        if letter.header("fraud-source-partition") == str(number)
    }
    inputs = [one for one in log.of("transactions", number) if one.offset >= begin and one.offset not in rejected]
    return pair(inputs, log.of("scores", number), is_truncated=begin > 0)


def verified(log: Written, *, committed: int | None = ALL, begin: int = 0) -> Report:
    findings = Findings()
    for number in range(PARTITIONS):
        scope = StateScope(NAMES["transactions"], "changelog", number, committed, is_truncated=begin > 0)
        with temporary_rows() as rows, temporary_rows() as folded:
            check = StateCheck(scope, log.of("changelog", number), rows, folded, findings)
            for one in pairs(log, number, begin):
                check.take(one)
            check.finish()
    return findings.report()


def last_rows(log: Written):
    return {entry.key: entry for entry in log.all("changelog")}


def altered(log: Written, entry, **changed) -> Written:
    place = log.entries["changelog", entry.partition]
    place[place.index(entry)] = entry._replace(**changed)
    return log


@FAST
@given(messages())
def test_the_profiles_of_every_run_are_verified(sent):
    log = written(sent)
    report = verified(log)
    assert report.is_clean
    assert report.notes == ()
    assert report.counts.get("profiles", 0) == len(last_rows(log))


def test_rows_of_a_live_service_are_compared_with_the_transactions_they_contain():
    log = Written(checkpoint=10)
    for value, key in payments():
        log.send(value, key)  # the last ones wait for their checkpoint
    report = verified(log)
    assert report.is_clean
    assert report.counts["profiles"] == len(last_rows(log))


def test_an_altered_profile_is_reported_with_its_place():
    log = written(payments())
    *_, entry = last_rows(log).values()
    profile = decode_profile(entry.value)
    profile.days.totals[0] += 0.01
    (finding,) = verified(altered(log, entry, value=encode_profile(profile))).findings
    assert (finding.kind, finding.partition, finding.offset) == (FindingKind.STATE, entry.partition, entry.offset)
    assert "card-" not in finding.detail


def test_a_profile_that_missed_a_transaction_is_found():
    log = written(payments())
    *_, entry = last_rows(log).values()
    earlier = [row for row in log.all("changelog") if row.key == entry.key][-2]
    assert verified(altered(log, entry, value=earlier.value)).found == {"state": 1}


def test_a_profile_with_another_decision_than_the_log_is_found():
    log = written(payments())
    entry = log.all("scores")[-1]
    place = log.entries["scores", entry.partition]
    record = decode_score(entry.value)
    changed = msgspec.json.encode(msgspec.structs.replace(record, score=record.score / 2))
    place[place.index(entry)] = entry._replace(value=changed)
    assert verified(log).found == {"state": 1}


@pytest.mark.parametrize("value", [b"", b"garbage", b"\x91\x09"])
def test_a_profile_that_cannot_be_read_is_found(value):
    log = written(payments())
    *_, entry = last_rows(log).values()
    (finding,) = verified(altered(log, entry, value=value)).findings
    assert (finding.kind, finding.detail) == (FindingKind.STATE, "the profile cannot be read")


def test_a_profile_of_a_card_without_decisions_is_found():
    log = written(payments())
    *_, entry = last_rows(log).values()
    log.entries["changelog", 0].append(entry._replace(partition=0, offset=900, key=b'card-x|"profile"'))
    (finding,) = verified(log).findings
    assert (finding.kind, finding.offset) == (FindingKind.STATE, 900)


def test_a_row_without_its_processed_offset_is_found():
    log = written(payments())
    *_, entry = last_rows(log).values()
    found = verified(altered(log, entry, headers=[])).found
    assert found["unreadable"] == 1


def test_cards_whose_rows_are_gone_are_counted_in_a_note():
    log = written(payments())
    *_, entry = last_rows(log).values()
    kept = [row for row in log.of("changelog", entry.partition) if row.key != entry.key]
    log.entries["changelog", entry.partition] = kept
    report = verified(log)
    assert report.is_clean
    assert report.counts["cards_without_profile"] == 1
    assert "erased, or their state is lost" in report.notes[0]


def test_an_erased_card_is_no_finding_before_it_comes_back_and_after():
    log = written(payments())
    key = b'card-1|"profile"'
    entry = last_rows(log)[key]
    log.append("changelog", entry.partition, key, None, entry.headers)
    assert verified(log).counts["profiles_erased"] == 1
    log.states[entry.partition, b"card-1"].clear()
    for number in range(100, 104):
        log.send(encode(transaction(f"t-{number}", MONDAY + number * 60_000, card_id="card-1")), b"card-1")
    report = verified(log.done())
    assert report.is_clean
    assert report.counts["profiles"] == len(last_rows(log))


def test_a_profile_with_expired_transactions_is_not_compared():
    log = written(payments())
    report = verified(log, begin=6)
    assert report.is_clean
    assert report.counts["profiles_unproved"] > 0


def test_a_card_that_was_erased_after_its_first_transactions_expired_is_verified_again():
    log = written(payments())
    for number in range(PARTITIONS):
        log.states[number, b"card-1"].clear()  # erased
    log.send(encode(transaction("t-100", MONDAY + 100 * 60_000, card_id="card-1")), b"card-1")
    assert verified(log.done(), begin=4).counts["profiles"] == 1


@pytest.mark.parametrize("committed", [None, 0])
def test_uncommitted_profiles_are_not_compared(committed):
    log = written(payments())
    assert set(verified(log, committed=committed).counts) == {"profiles_in_flight"}


class Rows(dict):
    """Stands for the map on a volume."""


def volume_of(log: Written, number: int, upto: int) -> LocalState:
    rows = Rows()
    for entry in log.of("changelog", number):
        if entry.offset <= upto:
            rows[entry.key] = entry.value
    return LocalState(rows, upto)


def compared(log: Written, number: int, volume: LocalState) -> Report:
    findings = Findings()
    scope = StateScope(NAMES["transactions"], "changelog", number, ALL, is_truncated=False)
    compare_volume(scope, volume, log.of("changelog", number), findings)
    return findings.report()


def test_a_volume_is_compared_up_to_the_offset_it_has_applied():
    log = written(payments())
    number = max(range(PARTITIONS), key=lambda number: len(log.of("changelog", number)))
    last = log.of("changelog", number)[-1].offset
    for upto in (last, last - 2):
        report = compared(log, number, volume_of(log, number, upto))
        assert report.is_clean
        assert report.counts["profiles_on_volume"] > 0


def test_what_differs_on_a_volume_is_found():
    log = written(payments())
    number = max(range(PARTITIONS), key=lambda number: len(log.of("changelog", number)))
    entries = log.of("changelog", number)
    key, last = entries[-1].key, entries[-1].offset
    changed, lost, more = (volume_of(log, number, last) for _ in range(3))
    changed.rows[key] = b"other"
    del lost.rows[key]
    more.rows[b'card-x|"profile"'] = b"x"
    for volume in (changed, lost, more):
        (finding,) = compared(log, number, volume).findings
        assert (finding.kind, finding.partition, finding.offset) == (FindingKind.STATE, number, last)


def crc(text: str) -> int:
    return zlib.crc32(text.encode())


def upgraded(monkeypatch) -> Written:
    """Write a log whose first half was scored when profiles still named merchants by CRC-32."""
    sent = [*payments()]
    log = Written()
    with monkeypatch.context() as patch:
        patch.setattr(profile, "fingerprint", crc)
        for value, key in sent[:12]:
            log.send(value, key)
    for state in log.states.values():
        for name, value in state.items():
            state[name] = encode_profile(msgspec.structs.replace(decode_profile(value), has_crcs=True))
    for value, key in sent[12:16]:  # not of every card
        log.send(value, key)
    for number in range(PARTITIONS):
        log._changed[number] |= dict.fromkeys(key for partition, key in log.states if partition == number)
    return log.done()


def test_a_profile_that_an_older_schema_began_is_verified_without_its_fingerprints(monkeypatch):
    report = verified(upgraded(monkeypatch))
    assert report.is_clean
    assert report.counts["profiles_upgraded"] > 0


@pytest.mark.parametrize(
    "change",
    [
        {"count": 99},
        {"merchants": {7: 9}},
        {"countries": [7, 7]},
        {"usual_log_amount": 1.0},
        {"recent": b""},
    ],
)
def test_an_altered_profile_that_an_older_schema_began_is_found(monkeypatch, change):
    log = upgraded(monkeypatch)
    entry = next(one for one in last_rows(log).values() if decode_profile(one.value).has_crcs)
    value = encode_profile(msgspec.structs.replace(decode_profile(entry.value), **change))
    assert verified(altered(log, entry, value=value)).found == {"state": 1}
