"""The scorer's real topology, driven without a broker."""

from __future__ import annotations

import json
import math
import time
from uuid import UUID

import msgspec
import pytest
from support.loop import looped
from support.malformed import BROKER_TIME, MALFORMED, text
from support.payments import payment

from fraud_service.domain.errors import DeadLetterReason, InvalidRecord
from fraud_service.domain.events import encode
from fraud_service.domain.records import decode_score
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.processors.scorer import PROFILE
from fraud_service.security.card_data import mask_bytes

START = 1_700_000_000_000


@pytest.fixture
def loop(tmp_path):
    with looped(tmp_path) as loop:
        yield loop


def test_each_malformed_message_is_one_dead_letter_and_the_good_ones_around_it_are_scored(loop):
    for number, (value, key, _) in enumerate(MALFORMED):
        loop.transaction(payment(number))
        loop.raw(value, key)
    loop.tick()
    letters = loop.on("dead_letters")
    assert [(letter.value, letter.key, letter.header["fraud-reason"]) for letter in letters] == [
        (None if reason is DeadLetterReason.TOO_LARGE else value and mask_bytes(value), key and mask_bytes(key), reason)
        for value, key, reason in MALFORMED
    ]
    assert [decode_score(record.value).transaction_id for record in loop.on("scores")] == [
        f"t-{number}" for number in range(len(MALFORMED))
    ]
    counted = sum(
        sample.value
        for metric in loop.scorer_metrics.dead_letters.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
    assert counted == len(MALFORMED)


def test_a_dead_letter_says_where_it_came_from(loop):
    loop.transaction(payment(0))
    loop.raw(b"{", b"c-1")
    loop.tick()
    (letter,) = loop.on("dead_letters")
    assert letter.header["fraud-source-topic"] == loop.settings.topics.transactions
    assert (letter.header["fraud-source-partition"], letter.header["fraud-source-offset"]) == (
        str(loop.on("scores")[0].partition),
        "1",
    )


def test_the_detail_of_a_dead_letter_does_not_repeat_the_value(loop):
    canary = "4111111111111111"
    for changes in ({"currency": canary}, {"timestamp": canary}, {"amount": f"-{canary}"}, {"latitude": canary}):
        loop.raw(text(**changes), b"c-1")
    loop.tick()
    letters = loop.on("dead_letters")
    assert len(letters) == 4
    assert not any(canary in value for letter in letters for value in letter.header.values())


def test_every_flagged_transaction_leaves_one_alert_as_a_cloud_event(loop):
    for number in range(30):
        loop.transaction(payment(number))
    for number in range(30, 34):
        loop.transaction(
            payment(
                number, amount=4000.0, entry_mode="ecommerce", device_id="new", country="XX", merchant_id=f"x{number}"
            )
        )
    loop.tick()
    records = [decode_score(message.value) for message in loop.on("scores")]
    flagged = [record for record in records if record.outcome != "approve"]
    alerts = loop.on("alerts")
    assert flagged
    assert [alert.header["ce_subject"] for alert in alerts] == [record.transaction_id for record in flagged]
    for alert, record in zip(alerts, flagged, strict=True):
        assert alert.header["ce_specversion"] == "1.0"
        assert UUID(alert.header["ce_id"]).version == 5
        body = json.loads(alert.value)
        assert body["reasons"]
        assert body["score"] == record.score
        total = body["base"] + sum(body["contributions"].values())
        assert total == pytest.approx(math.log(record.score / (1 - record.score)), abs=1e-6)


def test_a_repeated_transaction_gets_its_first_decision_again_and_no_second_alert(loop):
    suspicious = payment(40, amount=9000.0, entry_mode="ecommerce", merchant_id="never-seen", country="XX")
    for number in range(30):
        loop.transaction(payment(number))
    loop.transaction(suspicious)
    loop.tick()
    state_before, alerts_before = profile(loop), len(loop.on("alerts"))
    loop.transaction(suspicious)
    loop.tick()
    first, second = (decode_score(record.value) for record in loop.on("scores")[-2:])
    assert first.outcome != "approve"
    assert second == msgspec.structs.replace(first, is_duplicate=True, features=None)
    assert len(loop.on("alerts")) == alerts_before
    assert profile(loop) == state_before


MODES = ["E-Commerce", "81", "carrier pigeon", None, "chip"]


def test_an_entry_mode_without_a_meaning_is_counted_and_scored_as_if_it_were_absent(loop):
    for number, mode in enumerate(MODES):
        loop.transaction(payment(number, entry_mode=mode))
    loop.tick()
    rows = [decode_score(record.value).features for record in loop.on("scores")]
    assert [row.is_card_not_present for row in rows] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert loop.on("dead_letters") == []
    assert loop.scorer_metrics.unknown_modes._value.get() == 1


def test_by_setting_an_entry_mode_without_a_meaning_is_a_dead_letter(tmp_path):
    with looped(tmp_path, reject_unknown_entry_modes=True) as loop:
        for number, mode in enumerate(MODES):
            loop.transaction(payment(number, entry_mode=mode))
        loop.tick()
        (letter,) = loop.on("dead_letters")
        assert letter.header["fraud-reason"] == "invalid_field"
        assert "`entry_mode` has no known meaning: send chip, contactless," in letter.header["fraud-detail"]
        assert "pigeon" not in letter.header["fraud-detail"]
        assert b"carrier pigeon" in letter.value
        assert len(loop.on("scores")) == len(MODES) - 1


def profile(loop, card: str = "c-1") -> bytes:
    context, topic = loop.scorer._context, loop.settings.topics.transactions
    transaction = context.checkpoint.get_store_transaction(topic, murmur2_partition(card.encode(), loop.partitions))
    return transaction.as_state(prefix=card.encode()).get_bytes(PROFILE)


def test_a_scorer_killed_between_checkpoints_scores_again_what_was_not_committed(tmp_path):
    # Within an hour: no snapshot comes between, with which the second time could differ from the first.
    payments = [payment(number, timestamp=START + number * 30_000) for number in range(60)]
    with looped(tmp_path / "a") as steady, looped(tmp_path / "b") as killed:
        for number in range(60):
            steady.transaction(payments[number])
        steady.tick()
        for number in range(40):
            killed.transaction(payments[number])
        killed.tick()
        for number in range(40, 50):
            killed.transaction(payments[number])
        killed.scorer._pending.clear()  # the transaction is aborted
        killed.restart_scorer()
        for number in range(40, 60):
            killed.transaction(payments[number])
        killed.tick()
        assert [m.value for m in killed.on("scores")] == [m.value for m in steady.on("scores")]


def test_unreadable_state_stops_the_scorer(loop):
    loop.transaction(payment(0))
    loop.tick()
    partition = murmur2_partition(b"c-1", loop.partitions)
    transaction = loop.scorer._context.checkpoint.get_store_transaction(loop.settings.topics.transactions, partition)
    transaction.as_state(prefix=b"c-1").set_bytes(PROFILE, b"garbage")
    with pytest.raises(InvalidRecord, match="profile"):
        loop.transaction(payment(1))


def test_lag_counts_from_the_oldest_message_of_a_batch_be_it_readable_or_not(loop):
    now = int(time.time() * 1000)
    loop.raw(b"{", b"c-1", now - 50_000)
    loop.tick()
    assert 50 <= loop.scorer_metrics.lag_tracker.lag_s() < 55
    loop.raw(text(), b"c-1", now - 30_000)
    loop.tick()
    assert 30 <= loop.scorer_metrics.lag_tracker.lag_s() < 35


def misplaced(loop, number: int) -> int:
    """Send a payment to the partition after the correct one; return that partition."""
    one = payment(number)
    partition = (murmur2_partition(one.card_id.encode(), loop.partitions) + 1) % loop.partitions
    loop.scorer.send(loop.settings.topics.transactions, one.card_id.encode(), encode(one), BROKER_TIME, partition)
    return partition


def counted_misplaced(loop) -> float:
    return loop.scorer_registry.registry.get_sample_value("fraud_misplaced_transactions_total")


def test_a_transaction_outside_the_partition_of_its_card_is_a_dead_letter_that_names_the_remedy(loop):
    loop.transaction(payment(0))
    partition = misplaced(loop, 1)
    loop.transaction(payment(2))
    loop.tick()
    (letter,) = loop.on("dead_letters")
    assert letter.header["fraud-reason"] == DeadLetterReason.WRONG_PARTITION
    assert f"in partition {partition}, but its card belongs to" in letter.header["fraud-detail"]
    assert "murmur2" in letter.header["fraud-detail"]
    assert letter.value == encode(payment(1))
    assert [decode_score(record.value).transaction_id for record in loop.on("scores")] == ["t-0", "t-2"]
    assert counted_misplaced(loop) == 1


def test_a_setting_accepts_transactions_outside_the_partition_of_their_card_and_they_are_still_counted(tmp_path):
    with looped(tmp_path, reject_wrong_partition=False) as loop:
        loop.transaction(payment(0))
        misplaced(loop, 1)
        loop.tick()
        assert loop.on("dead_letters") == []
        assert len(loop.on("scores")) == 2
        assert counted_misplaced(loop) == 1


@pytest.mark.parametrize("partitions", [1, 4, 12])
def test_the_partition_of_a_card_follows_the_number_of_partitions(tmp_path, partitions):
    with looped(tmp_path, partitions=partitions) as loop:
        for number in range(20):
            loop.transaction(payment(number, card_id=f"c-{number}"))
        loop.tick()
        assert loop.on("dead_letters") == []
        assert counted_misplaced(loop) == 0
