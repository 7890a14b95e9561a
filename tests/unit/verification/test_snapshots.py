"""Snapshots are rebuilt from the labelled examples to the same digest, and altered records are reported."""

from __future__ import annotations

import pytest
from support.archived import Log
from support.loop import looped
from support.replayed import QUICK, copy, payment
from support.worlds import HOUR, label

from fraud_service.domain.errors import ConfigurationError, TopicReadError
from fraud_service.domain.records import decode_labelled
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.kafka.topic_reader import Record
from fraud_service.security.signatures import Keyring
from fraud_service.verification import snapshots
from fraud_service.verification.explain import explain


def versions(log):
    return [entry.key.decode() for entry in log.on("snapshots")]


def test_every_snapshot_is_rebuilt_to_the_bit_across_a_promotion(log, monkeypatch):
    log.serve(monkeypatch)
    models = {decode_snapshot(entry.value).model for entry in log.on("snapshots")}
    assert len(models) == 2
    assert snapshots.rebuild(log.settings) == snapshots.RebuildProof(len(versions(log)), {}, [], [])


def test_snapshots_are_rebuilt_up_to_the_requested_one(log, monkeypatch):
    log.serve(monkeypatch)
    assert snapshots.rebuild(log.settings, versions(log)[9]).rebuilt == 10
    with pytest.raises(ConfigurationError, match="there is no snapshot nothing"):
        snapshots.rebuild(log.settings, "nothing")


def test_snapshots_are_rebuilt_even_if_the_first_score_read_was_not_the_oldest(tmp_path, monkeypatch):
    with looped(tmp_path, **QUICK) as loop:
        loop.transaction(payment(0, 0, 0, 20.0, 30))
        loop.tick()  # the schedule starts here
        for number in range(1, 60):
            paid = payment(number, number % 5, number % 3, 20.0 + 900 * (number % 9 == 0), 2 * number)
            loop.transaction(paid)
            loop.label(
                label(paid.transaction_id, paid.timestamp + HOUR, card_id=paid.card_id, is_fraud=number % 9 == 0)
            )
            loop.tick()
        log = Log.of(loop).serve(monkeypatch)
    assert snapshots.rebuild(log.settings) == snapshots.RebuildProof(len(versions(log)), {}, [], [])


def test_an_altered_snapshot_is_reported_and_the_others_are_still_rebuilt(log, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    entry = altered.on("snapshots")[20]
    altered.replace(entry, value=entry.value.replace(b'"intercept":', b'"intercept":1', 1))
    proof = snapshots.rebuild(altered.settings)
    assert proof.differing == {entry.key.decode(): ["its snapshot is not on the topic, or cannot be read"]}
    assert proof.rebuilt == len(versions(log)) - 1
    assert entry.key.decode() in proof.rejected[0]


def test_an_altered_risk_row_is_reported(log, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    entry = next(entry for entry in altered.on("risk") if entry.value)
    altered.replace(entry, value=entry.value[:-1] + bytes([entry.value[-1] ^ 1]))
    proof = snapshots.rebuild(altered.settings)
    assert proof.differing == {entry.header("fraud-snapshot"): [f"risk row {entry.key.decode()} differs"]}


def test_an_altered_example_changes_the_first_snapshot_that_was_trained_on_it(log, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    entry = altered.on("labelled")[0]
    altered.replace(
        entry,
        value=entry.value.replace(b'"is_fraud":false', b'"is_fraud":true').replace(b'"weight":4.0', b'"weight":5.0'),
    )
    assert entry not in altered.on("labelled")
    assert snapshots.rebuild(altered.settings).differing


@pytest.mark.parametrize("value", [None, b"{}", b"\xff"])
def test_rebuild_and_explain_skip_records_of_another_format(log, monkeypatch, value):
    altered = copy(log).serve(monkeypatch)
    paid = decode_labelled(altered.on("labelled")[0].value)
    for number in range(altered.partitions):
        place = altered.entries[altered.settings.topics.labelled, number]
        place.append(Record(altered.settings.topics.labelled, number, len(place), None, value, 0, []))
        place.append(
            place[-1]._replace(offset=len(place), value=b'{"transaction_id":"%b"}' % paid.transaction_id.encode())
        )
    assert snapshots.rebuild(altered.settings) == snapshots.RebuildProof(len(versions(log)), {}, [], [])
    assert explain(altered.settings, paid.transaction_id).examples


def test_an_unsigned_record_does_not_change_when_the_learner_began(log, monkeypatch):
    ring = Keyring({"2026": b"k" * 32}, "2026", "here")
    signed = copy(log).serve(monkeypatch)
    for role in ("snapshots", "risk", "models"):
        for entry in signed.on(role):
            signed.replace(entry, headers=ring.sign_headers(role, entry.key, entry.value, entry.headers))
    place = signed.entries[signed.settings.topics.snapshots, 0]
    place.append(place[-1]._replace(offset=len(place), key=b"20200101T0000-0123abcd", headers=[]))
    monkeypatch.setattr("fraud_service.verification.log_reader.load_keyring", lambda _: ring)
    monkeypatch.setattr("fraud_service.kafka.model_topic.load_keyring", lambda _: ring)
    proof = snapshots.rebuild(signed.settings)
    assert (proof.rebuilt, proof.differing, proof.not_rebuilt) == (len(versions(log)), {}, [])


def test_expired_examples_are_an_error_that_says_so(log, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    altered.cut("labelled", 0.5)
    with pytest.raises(TopicReadError, match="has lost its first records to retention"):
        snapshots.rebuild(altered.settings)


def test_snapshots_are_listed_shown_and_compared(log, monkeypatch):
    log.serve(monkeypatch)
    rows = snapshots.list_snapshots(log.settings)
    assert [row["version"] for row in rows] == versions(log)
    assert all(row["is_proved"] for row in rows)
    last, before = versions(log)[-1], versions(log)[-9]
    assert len(snapshots.show(log.settings, last)["strongest_weights"]) == 10
    changed = snapshots.compare(log.settings, before, last)
    assert changed["version"] == [before, last]
    assert changed["risk_rows"]
    assert snapshots.compare(log.settings, last, last) == {"weights": {}, "leaf_weights_changed": 0, "risk_rows": []}
