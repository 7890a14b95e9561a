"""The learner's real topology, driven without a broker."""

from __future__ import annotations

import time
from collections import Counter

import msgspec
import pytest
from confluent_kafka import TopicPartition
from support.loop import looped
from support.malformed import BROKER_TIME
from support.worlds import score

from fraud_service.config import factories
from fraud_service.domain.codec import LATEST
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import DeadLetterReason
from fraud_service.domain.events import Label, LabelledTransaction, LabelSource, Transaction, encode
from fraud_service.domain.in_memory import InMemoryService
from fraud_service.domain.label_join import MAX_PAYMENTS, Ignored, LabelJoin
from fraud_service.domain.online_training import ALWAYS_TRAIN_SCORE, NegativeSampler
from fraud_service.domain.records import decode_labelled, decode_score, encode_record
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.domain.time import DAY, FIRST_EVENT, HOUR, LearningSchedule
from fraud_service.kafka.partitioner import murmur2_partition
from fraud_service.processors import learner

START = 1_700_000_000_000 - 1_700_000_000_000 % DAY


def payment(number: int, card: str | None = None) -> Transaction:
    return Transaction(
        transaction_id=f"t-{number}",
        timestamp=START + number * HOUR,
        card_id=card or f"c-{number % 9}",
        merchant_id=f"m-{number % 4}",
        amount=30.0 + number % 11,
        currency="EUR",
    )


def verdict(transaction: Transaction, after: int, *, fraud: bool = True, source=LabelSource.CHARGEBACK) -> Label:
    return Label(
        transaction_id=transaction.transaction_id,
        card_id=transaction.card_id,
        is_fraud=fraud,
        labelled_at=transaction.timestamp + after,
        source=source,
    )


@pytest.fixture
def loop(tmp_path):
    with looped(tmp_path) as loop:
        yield loop


def examples(loop):
    return [decode_labelled(record.value) for record in loop.on("labelled")]


def test_a_transaction_without_a_label_counts_as_legitimate_when_it_matures_though_its_card_is_idle(loop):
    loop.transaction(payment(0, "idle"))
    loop.transaction(payment(6 * 24, "other"))
    loop.tick()
    assert examples(loop) == []
    loop.transaction(payment(8 * 24, "other"))
    loop.tick()
    (example,) = examples(loop)
    assert (example.transaction_id, example.is_fraud, example.source) == ("t-0", False, None)
    assert example.known_at == START + 7 * DAY


def test_a_label_may_come_before_its_transaction_twice_or_contradict_an_earlier_one(loop):
    early, twice, wrong = payment(1, "a"), payment(2, "b"), payment(3, "c")
    loop.label(verdict(early, DAY))
    for transaction in (early, twice, wrong):
        loop.transaction(transaction)
    loop.tick()
    for label in (verdict(twice, DAY), verdict(twice, DAY), verdict(wrong, DAY)):
        loop.label(label)
    loop.label(verdict(wrong, 3 * DAY, fraud=False, source=LabelSource.ANALYST))
    loop.transaction(payment(6 * 24, "clock"))
    loop.tick()
    taught = [(e.transaction_id, e.is_fraud, e.corrects) for e in examples(loop)]
    assert taught == [("t-1", True, False), ("t-2", True, False), ("t-3", True, False), ("t-3", False, True)]


def test_labels_alone_do_not_start_the_schedule(loop):
    loop.label(verdict(payment(0), DAY))
    loop.learner.commit()
    loop.transaction(payment(0))
    loop.tick()
    loop.transaction(payment(48))
    loop.tick()
    assert [e.transaction_id for e in examples(loop)] == ["t-0"]
    assert len(loop.on("snapshots")) <= 48


@pytest.mark.parametrize(
    ("value", "key", "reason"),
    [
        (b"{", b"c-1", DeadLetterReason.NOT_JSON),
        (None, b"c-1", DeadLetterReason.EMPTY),
        (encode(verdict(payment(1), DAY)), None, DeadLetterReason.MISSING_KEY),
        (encode(verdict(payment(1), DAY)), b"c-5", DeadLetterReason.KEY_MISMATCH),
        (encode(verdict(payment(1), BROKER_TIME)), b"c-1", DeadLetterReason.FUTURE_TIMESTAMP),
    ],
)
def test_a_label_that_cannot_be_read_is_a_dead_letter(loop, value, key, reason):
    loop.learner.send(loop.settings.topics.labels, key, value, BROKER_TIME)
    loop.tick()
    (letter,) = loop.on("dead_letters")
    assert (letter.value, letter.header["fraud-reason"]) == (value, reason)


def test_a_label_in_the_wrong_partition_is_a_dead_letter_that_names_the_partitioner(loop):
    label = verdict(payment(1), DAY)
    wrong = (murmur2_partition(label.card_id.encode(), loop.partitions) + 1) % loop.partitions
    loop.label(label, partition=wrong)
    loop.tick()
    (letter,) = loop.on("dead_letters")
    assert letter.header["fraud-reason"] == DeadLetterReason.WRONG_PARTITION
    assert "murmur2" in letter.header["fraud-detail"]


def test_labels_above_the_limit_become_dead_letters_until_the_next_hour(tmp_path):
    with looped(tmp_path, label_rate_limit_per_card=2) as loop:
        payments = [payment(number, "busy") for number in range(4)]
        for one in payments:
            loop.transaction(one)
        labels = [encode(verdict(one, DAY)) for one in payments]
        for value in labels[:3]:
            loop.learner.send(loop.settings.topics.labels, b"busy", value, BROKER_TIME)
        loop.learner.send(loop.settings.topics.labels, b"busy", labels[3], BROKER_TIME + HOUR)
        loop.transaction(payment(6 * 24, "clock"))
        loop.tick()
        (letter,) = loop.on("dead_letters")
        assert (letter.value, letter.header["fraud-reason"]) == (labels[2], DeadLetterReason.LABEL_FLOOD)
        assert [example.transaction_id for example in examples(loop)] == ["t-0", "t-1", "t-3"]


def test_a_label_older_than_label_retention_is_a_dead_letter_and_changes_no_state(loop):
    loop.transaction(payment(0))
    loop.transaction(payment(1))
    loop.tick()
    now = START + HOUR - 60 * DAY  # the newest boundary that is closed, without what is kept
    old = Label(transaction_id="t-9", card_id="c-9", is_fraud=True, labelled_at=FIRST_EVENT, source=LabelSource.ANALYST)
    labels = [msgspec.structs.replace(old, labelled_at=at) for at in (FIRST_EVENT, now - 1, now, now + 1)]
    before = state(loop)
    for one in labels[:3]:
        loop.label(one)
    assert state(loop) == before
    loop.label(labels[3])
    loop.tick()
    letters = loop.on("dead_letters")
    assert [letter.value for letter in letters] == [encode(one) for one in labels[:3]]
    assert {letter.header["fraud-reason"] for letter in letters} == {DeadLetterReason.LABEL_TOO_OLD}
    assert "60 days" in letters[0].header["fraud-detail"]
    assert state(loop) != before


def test_before_the_first_boundary_an_old_label_waits_for_its_payment(loop):
    loop.transaction(payment(500 * 24, "today"))
    loop.tick()
    loop.label(verdict(payment(3, "c"), DAY))
    for number in (3, 30):
        loop.transaction(payment(number, "c"))
        loop.tick()
    assert [(one.transaction_id, one.is_fraud) for one in examples(loop)] == [("t-3", True)]
    assert loop.on("dead_letters") == []


def state(loop) -> list[bytes | None]:
    """What the learner remembers of labels, in all partitions."""
    return [store.get(f"l/3/c-9/t-{number}") for store in ledgers(loop) for number in range(10)]


def ledgers(loop):
    return [loop.step._stream.store(number, b"join") for number in range(loop.partitions)]


def test_a_boundary_with_very_many_unknown_payments_is_swept_in_parts_each_committed(tmp_path, monkeypatch):
    monkeypatch.setattr(learner, "SWEEP_BATCH", 100)
    with looped(tmp_path, label_rate_limit_per_source=0, label_rate_limit_per_card=0) as loop:
        loop.transaction(payment(0))
        loop.tick()
        for number in range(1050):
            label = verdict(payment(number, f"c-{number}"), 0)
            loop.label(msgspec.structs.replace(label, labelled_at=START - 59 * DAY))
        commits, context = [], loop.learner._context
        commit = context.commit_checkpoint
        context.commit_checkpoint = lambda *, force: (
            commits.append(len(context.checkpoint._store_transactions)),
            commit(force=force),
        )
        loop.beats.clear()
        loop.transaction(payment(25))
        loop.tick()
        assert len(commits) > 8
        assert len(loop.beats) >= len(commits)
        boundary = (START + DAY) // HOUR
        assert all(LabelJoin(store, LearningSchedule()).count(boundary) == 0 for store in ledgers(loop))
        assert len(loop.on("snapshots")) == 25


@pytest.mark.parametrize("timestamp", [-1, LATEST + 1, 1 << 53])
def test_a_score_of_a_time_that_is_no_date_is_a_dead_letter_and_the_learner_goes_on(loop, timestamp):
    for number in (0, 24):
        loop.transaction(payment(number))
    forged = msgspec.json.decode(encode_record(score())) | {"timestamp": timestamp}
    loop.learner.send(loop.settings.topics.scores, b"c-1", msgspec.json.encode(forged), BROKER_TIME)
    loop.tick()
    assert [letter.header["fraud-reason"] for letter in loop.on("dead_letters")] == [DeadLetterReason.INVALID_RECORD]
    assert len(loop.on("snapshots")) == 24


@pytest.mark.parametrize("beyond", [3 * DAY, 3650 * DAY])
def test_a_forged_score_from_the_future_moves_no_boundary(loop, beyond):
    for number in (0, 24):
        loop.transaction(payment(number))
    now = int(time.time() * 1000)
    forged = msgspec.json.encode(msgspec.json.decode(encode_record(score())) | {"timestamp": now + beyond})
    loop.learner.send(loop.settings.topics.scores, b"c-1", forged, now + beyond)
    loop.tick()
    assert [letter.header["fraud-reason"] for letter in loop.on("dead_letters")] == [DeadLetterReason.FUTURE_TIMESTAMP]
    assert len(loop.on("snapshots")) == 24


def test_a_record_on_the_scores_topic_that_is_no_score_is_a_dead_letter(loop):
    loop.learner.send(loop.settings.topics.scores, b"c-1", b"{}", BROKER_TIME)
    loop.tick()
    (letter,) = loop.on("dead_letters")
    assert letter.header["fraud-reason"] == DeadLetterReason.INVALID_RECORD


def month() -> list[LabelledTransaction]:
    rows = []
    for number in range(600):
        transaction = payment(number)
        rows.append(
            LabelledTransaction(transaction, number % 13 == 0, transaction.timestamp + (number % 7 + 1) * DAY // 2)
        )
    return rows


def play(loop, rows, turn_every: int) -> None:
    waiting = sorted((row.label(0) for row in rows), key=lambda label: label.labelled_at)
    for number, row in enumerate(rows):
        while waiting and waiting[0].labelled_at <= row.transaction.timestamp:
            loop.label(waiting.pop(0))
        loop.transaction(row.transaction)
        if number % turn_every == 0:
            loop.tick()
    loop.tick()


def test_the_live_topologies_compute_what_the_core_computes_without_them(tmp_path):
    rows = month()
    with looped(tmp_path) as loop:
        play(loop, rows, turn_every=1)
        scores = [decode_score(record.value) for record in loop.on("scores")]
        model = loop.model
        rehearsal = InMemoryService(
            Detector(model, factories.policy(loop.settings)),
            factories.first_snapshot(model),
            factories.learner_factory(model),
            factories.learning_schedule(loop.settings),
            NegativeSampler(loop.settings.negative_sample_rate),
            0,
        )
        verdicts = {v.transaction.transaction_id: v for v in rehearsal.run(rows)}
        assert len(loop.on("snapshots")) > 300
        for score in scores:
            expected = verdicts[score.transaction_id]
            assert score.features == expected.features
            assert score.score == expected.decision.score
            assert score.snapshot == expected.decision.snapshot
        assert len({score.snapshot for score in scores}) > 300
        assert rehearsal.snapshots.newest == loop.knowledge.newest


@pytest.mark.parametrize("turn_every", [2, 7, 50])
def test_snapshots_do_not_depend_on_the_order_of_partitions_or_checkpoints(tmp_path, turn_every):
    rows = month()
    with looped(tmp_path / "a") as one, looped(tmp_path / "b", partitions=7) as other:
        play(one, rows, turn_every=1)
        play(other, rows, turn_every)
        # The scores differ where snapshots come later; what labels teach of risk and examples does not.
        assert Counter(e.transaction_id for e in examples(one)) == Counter(e.transaction_id for e in examples(other))
        assert one.knowledge.newest.risk_digest == other.knowledge.newest.risk_digest


@pytest.mark.parametrize("batch", [3, 64])
def test_the_bounds_of_batches_change_no_bit_of_what_is_learned(tmp_path, batch):
    rows = month()
    with looped(tmp_path / "single") as single, looped(tmp_path / "batches") as batched:
        batched.learner.batch = batch
        for loop in (single, batched):
            play(loop, rows, turn_every=80)
        for role in ("labelled", "risk", "snapshots"):
            found, expected = (
                [(one.key, one.value, one.headers) for one in loop.on(role)] for loop in (batched, single)
            )
            assert found == expected


def test_the_results_of_a_boundary_are_committed_at_once_and_nothing_else(loop):
    loop.transaction(payment(0))
    loop.transaction(payment(1))
    loop.scorer.commit()
    first, second = loop.scorer.produced[loop.settings.topics.scores]
    loop.learner.send(first.topic, first.key, first.value, BROKER_TIME)
    loop.label(verdict(payment(0), HOUR // 2))
    assert (len(loop.on("snapshots")), loop.learner._context.checkpoint.empty()) == (0, False)
    loop.learner.send(second.topic, second.key, second.value, BROKER_TIME)
    assert (len(loop.on("snapshots")), loop.learner._context.checkpoint.empty()) == (1, True)


def test_a_learner_killed_between_checkpoints_continues_to_the_same_bit(tmp_path):
    rows = month()
    with looped(tmp_path / "a") as steady, looped(tmp_path / "b") as killed:
        play(steady, rows, turn_every=20)
        waiting = sorted((row.label(0) for row in rows), key=lambda label: label.labelled_at)
        for number, row in enumerate(rows):
            sent = []
            while waiting and waiting[0].labelled_at <= row.transaction.timestamp:
                sent.append(waiting.pop(0))
            for label in sent:
                killed.label(label)
            if number % 20 == 1 and sent:
                killed.learner._pending.clear()
                killed.restart_learner()
                for label in sent:
                    killed.label(label)
            killed.transaction(row.transaction)
            if number % 20 == 0:
                killed.tick()
        killed.tick()
        assert [m.value for m in killed.on("snapshots")] == [m.value for m in steady.on("snapshots")]
        assert [m.value for m in killed.on("labelled")] == [m.value for m in steady.on("labelled")]
        assert [(m.key, m.value) for m in killed.on("risk")] == [(m.key, m.value) for m in steady.on("risk")]


def test_snapshots_come_after_the_rows_they_depend_on_and_are_sound(loop):
    play(loop, month(), turn_every=10)
    snapshots = [decode_snapshot(record.value) for record in loop.on("snapshots")]
    assert [s.as_of for s in snapshots] == sorted({s.as_of for s in snapshots})
    assert loop.knowledge.newest == snapshots[-1]
    rows = Counter(record.header["fraud-snapshot"] for record in loop.on("risk"))
    assert all(rows.get(s.version, 0) == s.risk_rows for s in snapshots)
    assert snapshots[-1].examples == len(examples(loop))


def test_down_sampling_keeps_every_fraud_and_carries_the_weight(tmp_path):
    rows = month()
    with looped(tmp_path, negative_sample_rate=0.25) as loop:
        play(loop, rows, turn_every=10)
        taught = examples(loop)
        known = {
            r.transaction.transaction_id
            for r in rows
            if r.is_fraud and r.labelled_at < rows[-1].transaction.timestamp - HOUR
        }
        assert known <= {e.transaction_id for e in taught if e.is_fraud}
        undoubted = [e.weight for e in taught if not e.is_fraud and e.score < ALWAYS_TRAIN_SCORE]
        assert set(undoubted) == {0.0, 4.0}
        assert 0.15 < undoubted.count(4.0) / len(undoubted) < 0.35
        assert {e.weight for e in taught if e.is_fraud or e.score >= ALWAYS_TRAIN_SCORE} == {1.0}


def test_a_first_transaction_with_a_wrong_time_does_not_block_the_schedule(loop):
    loop.transaction(msgspec.structs.replace(payment(0, "absurd"), timestamp=1_700_000_000))
    for number in range(10):
        loop.transaction(payment(number))
        loop.label(verdict(payment(number), HOUR))
    loop.tick()
    loop.transaction(payment(24))
    loop.tick()
    assert {e.transaction_id for e in examples(loop)} >= {f"t-{number}" for number in range(10)}
    assert loop.knowledge.newest.online_weight == 0.5  # nothing has matured: no model was taught
    assert 0 < len(loop.on("snapshots")) < 48


@pytest.mark.parametrize("role", ["scores", "labels"])
def test_lag_counts_from_the_message_in_work_be_it_readable_or_not(loop, role):
    moment = int(time.time() * 1000) - 50_000
    loop.learner.send(getattr(loop.settings.topics, role), b"c-1", b"{", moment)
    loop.tick()
    assert 50 <= loop.learner_metrics.lag_tracker.lag_s() < 55


def test_the_detail_of_a_dead_score_does_not_repeat_a_card_number(loop):
    loop.learner.send(loop.settings.topics.scores, b"c-1", b'{"outcome": "4242424242424242"}', BROKER_TIME)
    loop.tick()
    (letter,) = loop.on("dead_letters")
    assert letter.header["fraud-reason"] == DeadLetterReason.INVALID_RECORD
    assert letter.header["fraud-detail"].endswith("cannot be read: `outcome` has an unknown value")
    assert "4242424242424242" not in str(letter)


def test_a_score_nested_deeper_than_the_stack_is_a_dead_letter_and_not_the_end(loop):
    loop.learner.send(loop.settings.topics.scores, b"c-1", b'{"unknown":' * 5000, BROKER_TIME)
    loop.transaction(payment(0))
    loop.tick()
    assert [letter.header["fraud-reason"] for letter in loop.on("dead_letters")] == [DeadLetterReason.INVALID_RECORD]


def test_a_boundary_that_was_passed_before_a_restart_is_closed_though_no_score_comes(loop):
    """Killed between the commit of the score that told the time and the turn after it: found by the simulation."""
    loop.transaction(payment(0))
    loop.tick()
    before = len(loop.on("snapshots"))
    loop.learner.ticks = False
    loop.transaction(payment(30))
    loop.tick()
    assert len(loop.on("snapshots")) == before
    loop.restart_learner()
    names = loop.settings.topics
    loop.step.on_assign(
        [TopicPartition(topic, number) for topic in (names.scores, names.labels) for number in range(loop.partitions)]
    )
    loop.learner._end_turn()
    loop.learner.commit()
    newest = decode_snapshot(loop.on("snapshots")[-1].value)
    assert newest.as_of == START + 30 * HOUR


def test_payments_beyond_the_limit_of_one_id_are_counted_and_the_others_learned(loop):
    used = payment(0, "c-1")
    for number in range(MAX_PAYMENTS + 3):
        loop.transaction(msgspec.structs.replace(used, amount=30.0 + number))
    loop.label(verdict(used, HOUR))
    loop.tick()
    loop.transaction(payment(48, "clock"))
    loop.tick()
    assert {e.amount for e in examples(loop)} == {30.0 + number for number in range(MAX_PAYMENTS)}
    assert all(e.is_fraud for e in examples(loop))
    assert loop.learner_metrics.unlearned._value.get() == 3


def ignored(loop) -> dict[str, float]:
    counts = {cause: loop.learner_metrics.ignored.labels(cause)._value.get() for cause in Ignored}
    return {cause: count for cause, count in counts.items() if count}


def test_a_history_after_a_first_payment_of_today_is_learned(loop):
    loop.transaction(payment(500 * 24, "today"))
    loop.tick()
    for number in range(0, 20 * 24, 12):
        loop.transaction(payment(number))
        loop.label(verdict(payment(number), DAY))
        loop.tick()
    taught = [example.transaction_id for example in examples(loop)]
    assert taught == [f"t-{number}" for number in range(0, 18 * 24 + 13, 12)]
    assert ignored(loop) == {}
    assert loop.on("dead_letters") == []
    closed = [decode_snapshot(record.value).as_of for record in loop.on("snapshots")]
    assert closed == list(range(START + HOUR, START + (20 * 24 - 12) * HOUR + 1, HOUR))


def test_a_partition_that_is_read_first_keeps_its_event_time_when_older_payments_follow(loop):
    for number in (10, 0, 9):
        loop.transaction(payment(number))
    loop.tick()
    closed = [decode_snapshot(record.value).as_of for record in loop.on("snapshots")]
    assert closed == list(range(START + HOUR, START + 10 * HOUR + 1, HOUR))


def test_a_history_after_two_payments_of_today_is_forgotten_and_each_of_its_scores_is_counted(loop):
    for number in (500 * 24, 500 * 24 + 1):
        loop.transaction(payment(number, "today"))
    loop.tick()
    for number in range(3):
        loop.transaction(payment(number))
    loop.tick()
    assert ignored(loop) == {"old_payment": 3}


@pytest.mark.parametrize("after", [0, 500 * 24], ids=["first", "later"])
def test_a_test_payment_moves_no_event_time_and_is_not_learned(loop, after):
    test = msgspec.structs.replace(payment(after, "helm-test"), currency="XTS")
    loop.transaction(payment(0))
    loop.transaction(test)
    loop.tick()
    assert loop.on("snapshots") == []
    loop.transaction(payment(8 * 24))
    loop.tick()
    assert [example.transaction_id for example in examples(loop)] == ["t-0"]
    assert ignored(loop) == {"test_payment": 1}
    assert loop.scorer_metrics.event_time._value.get() == payment(8 * 24).timestamp / 1000


def test_a_payment_that_is_scored_twice_is_counted(loop):
    for number in (*range(20), 0):
        loop.transaction(payment(number, "c"))
    loop.tick()
    assert ignored(loop) == {"repeated_payment": 1}


@pytest.mark.parametrize("order", ["label first", "payment first"])
def test_a_label_dated_before_its_payment_is_learned_from_the_payment_on_and_counted(loop, order):
    paid = payment(30, "a")
    predated = verdict(paid, -2 * DAY)
    loop.transaction(payment(0, "clock"))
    for event in (predated, paid) if order == "label first" else (paid, predated):
        (loop.label if event is predated else loop.transaction)(event)
    loop.tick()
    for number in (31, 32):
        loop.transaction(payment(number, "a"))
        loop.tick()
    (example,) = examples(loop)
    assert (example.transaction_id, example.is_fraud, example.known_at) == ("t-30", True, paid.timestamp)
    assert example.boundary_ms == paid.timestamp
    frauds = {one.transaction_id: one.features.card_frauds_7d for one in map(decode_score, values(loop, "scores"))}
    assert (frauds["t-30"], frauds["t-32"]) == (0, 1)  # no score contains its own label
    assert loop.learner_metrics.predated._value.get() == 1
    assert loop.on("dead_letters") == []
    assert ignored(loop) == {}


def test_a_label_dated_before_its_payment_has_the_same_effect_live_and_in_a_core_without_kafka(loop):
    paid = payment(30, "a")
    loop.transaction(payment(0, "clock"))
    loop.label(verdict(paid, -2 * DAY))
    loop.transaction(paid)
    loop.label(verdict(payment(31, "b"), HOUR))
    loop.transaction(payment(31, "b"))
    loop.transaction(payment(33, "b"))
    loop.tick()
    assert [(one.transaction_id, one.known_at) for one in examples(loop)] == [
        ("t-30", paid.timestamp),
        ("t-31", payment(32).timestamp),
    ]
    assert loop.learner_metrics.predated._value.get() == 1


def values(loop, role: str) -> list[bytes]:
    return [record.value for record in loop.on(role)]


def test_payments_of_the_future_are_dead_letters_and_learning_goes_on(loop):
    future = [msgspec.structs.replace(payment(n, f"c-{n}"), timestamp=2_051_222_400_000) for n in (900, 901)]
    loop.raw(encode(future[0]), future[0].card_id.encode(), START)
    for number in range(0, 20 * 24, 12):
        loop.transaction(payment(number))
        loop.label(verdict(payment(number), DAY))
        if number == 120:
            loop.raw(encode(future[1]), future[1].card_id.encode(), payment(number).timestamp)
        loop.tick()
    letters = loop.on("dead_letters")
    assert [letter.header["fraud-reason"] for letter in letters] == [DeadLetterReason.FUTURE_TIMESTAMP] * 2
    counted = loop.scorer_metrics.dead_letters.labels(DeadLetterReason.FUTURE_TIMESTAMP)._value.get()
    assert counted == 2  # FraudDeadLetters fires on this
    taught = [example.transaction_id for example in examples(loop)]
    assert taught == [f"t-{number}" for number in range(0, 18 * 24 + 13, 12)]
    assert ignored(loop) == {}


def test_a_first_payment_of_2001_is_not_learned_and_is_counted(loop):
    old = msgspec.structs.replace(payment(900, "old"), timestamp=980_000_000_000)
    loop.transaction(old)
    loop.label(verdict(old, DAY))
    loop.tick()
    for number in range(0, 10 * 24, 12):
        loop.transaction(payment(number))
        loop.label(verdict(payment(number), DAY))
        loop.tick()
    assert "t-900" not in {example.transaction_id for example in examples(loop)}
    assert len(examples(loop)) > 10
    assert ignored(loop) == {"old_payment": 1}


def test_labels_without_effect_are_counted_by_cause(loop):
    loop.transaction(payment(0, "a"))
    loop.tick()
    loop.label(verdict(payment(7, "nobody"), DAY))  # no such payment
    loop.label(verdict(payment(0, "a"), 2 * DAY))
    loop.label(verdict(payment(0, "a"), 2 * DAY))  # the same again
    loop.label(verdict(payment(0, "a"), 61 * DAY, fraud=False))  # after its payment has expired
    loop.transaction(payment(3 * 24, "clock"))
    loop.tick()
    loop.label(verdict(payment(0, "a"), DAY, fraud=False))  # older than the label that was applied
    for day in (30, 62, 64):
        loop.transaction(payment(day * 24, "clock"))
        loop.tick()
    assert ignored(loop) == {"unmatched_label": 1, "repeated_label": 1, "late_label": 1, "outdated_label": 1}
