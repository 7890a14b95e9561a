from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import (
    DAY,
    HOUR,
    MONDAY,
    BrokenModel,
    CountingLearner,
    DictStore,
    LinearModel,
    UndecidedModel,
    close_boundaries,
    features,
    label,
    online_model,
    score,
    table_digest,
)

from fraud_service.domain.decision import Outcome
from fraud_service.domain.errors import InvalidRecord
from fraud_service.domain.events import LabelSource
from fraud_service.domain.label_join import LabelJoin
from fraud_service.domain.label_join_rows import Example, ScoredTransaction
from fraud_service.domain.model_weighting import LabelledScore, ModelComparison
from fraud_service.domain.online_training import (
    ALWAYS_TRAIN_SCORE,
    MAX_SILENCE_MS,
    BoundaryResult,
    LearnerState,
    NegativeSampler,
    OnlineTrainer,
    decode_learner_state,
    encode_learner_state,
)
from fraud_service.domain.records import decode_labelled, encode_record
from fraud_service.domain.risk import NO_RISK, card_key, decode_risk, merchant_key
from fraud_service.domain.snapshot import SnapshotStore, decode_snapshot, encode_snapshot, untrained
from fraud_service.domain.time import LearningSchedule

FAST = settings(max_examples=40, deadline=None, derandomize=True)
SCHEDULE = LearningSchedule(
    interval_ms=6 * HOUR, activation_delay_ms=HOUR, label_maturity_ms=2 * DAY, label_retention_ms=10 * DAY
)
START = SCHEDULE.boundary(MONDAY)


def example(number: int = 1, *, is_fraud: bool = True, known_at: int = MONDAY + DAY, **facts) -> Example:
    """Make the example of a numbered payment, one day older than its label."""
    scored = {
        "transaction_id": f"t{number}",
        "card_id": "card-1",
        "merchant_id": "merchant-1",
        "timestamp": known_at - DAY,
        "amount": 25.0,
        "pretrained_logit": -2.0,
        "online_logit": -1.0,
        "score": 0.1,
        "outcome": Outcome.APPROVE,
        "values": facts.pop("features", features(amount=float(number))).vector(),
        "model": "model-1",
    }
    scored |= {name: facts.pop(name) for name in list(facts) if name in scored}
    return Example(ScoredTransaction(**scored), is_fraud, LabelSource.ANALYST, known_at, **facts)


def train(
    *boundaries: list[Example],
    sampling: NegativeSampler = NegativeSampler(),  # noqa: B008 - frozen
    store: DictStore | None = None,
) -> list[BoundaryResult]:
    """Close one boundary for each list of examples."""
    trainer = OnlineTrainer(DictStore() if store is None else store, SCHEDULE, sampling, LinearModel())
    progress, learner, done = LearnerState(closed=START), CountingLearner(), []
    for examples in boundaries:
        done.append(trainer.close(progress.closed + 1, progress, examples, learner))
        progress = done[-1].progress
    return done


def table_after(results: list[BoundaryResult]) -> dict[str, bytes]:
    """Return the table of a reader of the risk topic."""
    table: dict[str, bytes] = {}
    for result in results:
        for key, row in result.risk.items():
            if row is None:
                del table[key]  # only what was there is ever removed
            else:
                table[key] = row
    return table


def test_a_labelled_record_has_the_example_and_its_boundary():
    (result,) = train([example(1), example(2, is_fraud=False, known_at=MONDAY + DAY + 5)])
    assert [(row.transaction_id, row.is_fraud, row.weight) for row in result.labelled()] == [
        ("t1", True, 1.0),
        ("t2", False, 1.0),
    ]
    assert {row.boundary_ms for row in result.labelled()} == {(START + 1) * SCHEDULE.interval_ms}
    assert result.progress.examples == 2
    assert result.progress.label_horizon == MONDAY + DAY + 5
    assert result.progress.closed == result.progress.last_trained == START + 1
    assert result.progress.model == b"[[1.0, -3.0, true, 1.0], [2.0, -3.0, false, 1.0]]"
    assert result.snapshot is not None
    assert result.snapshot.as_of == (START + 1) * SCHEDULE.interval_ms
    assert result.snapshot.effective_from == result.snapshot.as_of + SCHEDULE.activation_delay_ms
    assert result.snapshot.online == online_model(intercept=2.0, pretrained_weight=1.0)
    assert (result.snapshot.examples, result.snapshot.model) == (2, "model-1")


def test_labelled_records_keep_every_bit():
    (result,) = train([example(1), example(2, is_fraud=False, pretrained_logit=None)])
    for record in result.labelled():
        assert decode_labelled(encode_record(record)) == record
    with pytest.raises(InvalidRecord, match="labelled topic"):
        decode_labelled(b"{}")


def test_before_the_first_label_no_snapshot_is_published():
    results = train([], [], [])
    assert [result.snapshot for result in results] == [None] * 3
    assert results[-1].progress == LearnerState(closed=START + 3, pretrained="model-1")


def test_every_boundary_publishes_until_a_month_passes_without_examples():
    quiet = MAX_SILENCE_MS // SCHEDULE.interval_ms
    results = train([example()], *([[]] * (quiet + 2)), [example(2)])
    published = [result.snapshot is not None for result in results]
    assert published == [True] * (quiet + 1) + [False] * 2 + [True]
    assert len({result.snapshot.version for result in results if result.snapshot is not None}) == quiet + 2


def test_the_learner_gets_limited_logits():
    learner = CountingLearner()
    trainer = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(), LinearModel(base=500.0))
    trainer.close(START + 1, LearnerState(closed=START), [example()], learner)
    assert learner.examples[0][1] == 30.0


def test_labels_before_the_first_maturity_train_risk_but_no_model():
    trainer, learner = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(), LinearModel()), CountingLearner()
    early = trainer.close(START + 1, LearnerState.starting_at(START), [example(1)], learner)
    assert learner.examples == []
    assert early.progress.comparison == ModelComparison()
    assert decode_risk(early.risk[merchant_key("merchant-1")]).streak == 1
    matured = START + SCHEDULE.label_maturity_ms // SCHEDULE.interval_ms + 1
    trainer.close(matured, early.progress, [example(2)], learner)
    assert len(learner.examples) == 1


MANY = [example(number, is_fraud=number % 10 == 0, score=0.9 * ALWAYS_TRAIN_SCORE) for number in range(2000)]


def test_sampling_is_the_same_on_every_run_and_keeps_every_fraud():
    sampling = NegativeSampler(0.25)
    weights = [sampling.weight(one) for one in MANY]
    assert weights == [NegativeSampler(0.25).weight(one) for one in MANY]
    assert {weight for weight, one in zip(weights, MANY, strict=True) if one.is_fraud} == {1.0}
    assert {weight for weight, one in zip(weights, MANY, strict=True) if not one.is_fraud} == {0.0, 4.0}
    assert sum(weights) == pytest.approx(2000, rel=0.06)


def test_a_legitimate_transaction_with_a_suspicious_score_is_always_trained():
    doubted = [example(number, is_fraud=False, score=ALWAYS_TRAIN_SCORE) for number in range(200)]
    assert {NegativeSampler(0.1).weight(one) for one in doubted} == {1.0}


def test_with_a_rate_of_zero_only_frauds_and_corrections_are_trained():
    doubted = example(1, is_fraud=False, score=0.9)
    assert NegativeSampler(0.0).weight(doubted) == 0.0
    assert NegativeSampler(0.0).weight(msgspec.structs.replace(doubted, corrects=True)) == 1.0
    assert NegativeSampler(0.0).weight(msgspec.structs.replace(doubted, is_fraud=True)) == 1.0


def test_sampling_depends_only_on_the_transaction_id():
    sampling = NegativeSampler(0.5)
    for number in range(50):
        one = example(number, is_fraud=False, score=0.001)
        other = example(number, is_fraud=False, score=0.002, known_at=MONDAY + 9 * DAY, card_id="card-2", amount=1.0)
        assert sampling.weight(one) == sampling.weight(other)


def test_a_smaller_sample_is_a_subset_of_a_larger_one():
    smaller = {one.scored.transaction_id for one in MANY if NegativeSampler(0.1).weight(one)}
    assert smaller <= {one.scored.transaction_id for one in MANY if NegativeSampler(0.3).weight(one)}


def test_without_sampling_all_examples_weigh_the_same():
    assert {NegativeSampler().weight(one) for one in MANY} == {1.0}


def test_skipped_examples_train_risk_but_not_the_model():
    left_out = [one for one in MANY[:100] if NegativeSampler(0.25).weight(one) == 0]
    store = DictStore()
    (result,) = train(left_out, sampling=NegativeSampler(0.25), store=store)
    assert [record.weight for record in result.labelled()] == [0.0] * len(left_out)
    assert result.progress.model is None
    row = decode_risk(store[merchant_key("merchant-1")])
    assert sum(day.labelled for day in row.days) == len(left_out)


def test_a_correction_is_trained_at_any_sampling_rate():
    corrected = [example(number, is_fraud=False, corrects=True, corrected_at=MONDAY) for number in range(20)]
    (result,) = train(corrected, sampling=NegativeSampler(0.1))
    assert len(result.examples) == 20


def test_risk_counts_labels_by_the_day_they_became_known():
    store = DictStore()
    train([example(1), example(2, is_fraud=False), example(3, known_at=MONDAY + 2 * DAY)], store=store)
    row = decode_risk(store[merchant_key("merchant-1")])
    today = MONDAY // DAY
    assert [msgspec.structs.astuple(day) for day in row.days] == [(today + 1, 2, 1), (today + 2, 1, 1)]
    assert (row.streak, row.streak_started_at, row.last_legitimate) == (1, MONDAY + DAY, MONDAY)
    assert row == decode_risk(store[card_key("card-1")])


@pytest.mark.parametrize(("amount_zscore", "unexplained"), [(1.9, 1), (2.0, 1), (2.1, 0)])
def test_a_fraud_with_an_anomalous_amount_is_not_a_low_amount_fraud(amount_zscore, unexplained):
    (result,) = train([example(features=features(amount_zscore=amount_zscore))])
    assert decode_risk(result.risk[merchant_key("merchant-1")]).lowamount_frauds == unexplained


def test_scorers_get_only_rows_with_labelled_fraud():
    results = train([example(1, is_fraud=False)], [example(2)], [example(3, is_fraud=False)])
    keys = {merchant_key("merchant-1"), card_key("card-1")}
    assert [set(result.risk) for result in results] == [set(), keys, keys]
    assert results[0].snapshot is not None
    assert results[0].snapshot.risk_rows == 0
    # Of a merchant the legitimate payments before its first fraud count too, of a card only what came since.
    assert sum(day.labelled for day in decode_risk(results[1].risk[merchant_key("merchant-1")]).days) == 2
    assert sum(day.labelled for day in decode_risk(results[1].risk[card_key("card-1")]).days) == 1


def test_a_row_without_recent_fraud_is_removed_for_scorers_only():
    store = DictStore()
    later = [example(2, is_fraud=False, known_at=MONDAY + 40 * DAY)]
    results = train([example(1)], later, store=store)
    assert results[1].risk == {merchant_key("merchant-1"): None, card_key("card-1"): None}
    assert results[1].progress.risk_digest == LearnerState().risk_digest
    assert decode_risk(store[merchant_key("merchant-1")]) != NO_RISK


def test_a_correction_removes_the_count_of_the_label_it_contradicts():
    store = DictStore()
    wrong = example(1)
    right = example(1, is_fraud=False, known_at=MONDAY + 3 * DAY, corrects=True, corrected_at=wrong.known_at)
    train([wrong], [right], store=store)
    row = decode_risk(store[merchant_key("merchant-1")])
    assert row.labelled(MONDAY + 3 * DAY, 30) == [(1, 0)]
    assert (row.streak, row.lowamount_frauds, row.streak_started_at) == (0, 0, None)


def test_a_correction_after_a_confirmation_removes_the_count_of_the_right_day():
    store = DictStore()
    join = LabelJoin(DictStore(), SCHEDULE)
    trainer = OnlineTrainer(store, SCHEDULE, NegativeSampler(), LinearModel())
    progress, learner = LearnerState(closed=START), CountingLearner()
    join.add_scored(score("t1", MONDAY + 1), START)
    for day, is_fraud in ((1, True), (3, True), (5, False)):
        join.add_label(label("t1", MONDAY + day * DAY, is_fraud=is_fraud), progress.closed)
        until = SCHEDULE.boundary(MONDAY + day * DAY)
        progress = close_boundaries([join], trainer, progress, until, learner)[-1].progress
    row = decode_risk(store[merchant_key("merchant-1")])
    assert row.labelled(MONDAY + 5 * DAY, 30) == [(1, 0)]


MERCHANTS = ["merchant-1", "merchant-2", "merchant-3"]
CARDS = [f"card-{number}" for number in range(4)]
PAYMENTS = st.lists(
    st.tuples(
        st.integers(0, 20 * DAY),  # made after the start
        st.integers(0, 2 * DAY),  # and scored after it was made
        st.sampled_from(CARDS),
        st.sampled_from(MERCHANTS),
        st.floats(-6, 6),
        st.floats(-6, 6),
        st.floats(0, 6),
        st.lists(st.tuples(st.integers(-DAY, 12 * DAY), st.integers(0, DAY), st.booleans()), max_size=4),
    ),
    min_size=6,
    max_size=20,
)


def arrivals(payments: list[tuple]) -> list[tuple]:
    """Return the scored payments and their labels in order of arrival."""
    laid_out = []
    for number, (made, delay, card, merchant, pretrained, online, unusual, labels) in enumerate(payments):
        name, timestamp = f"t{number}", MONDAY + made
        record = score(
            name,
            timestamp,
            card_id=card,
            merchant_id=merchant,
            pretrained_logit=pretrained,
            online_logit=online,
            features=features(amount=float(number), amount_zscore=unusual),
        )
        laid_out.append((timestamp + delay, number, "score", card, record))
        for place, (after, transport, is_fraud) in enumerate(labels):
            word = label(name, timestamp + after, is_fraud=is_fraud, card_id=card)
            laid_out.append((timestamp + after + transport, number, f"label{place}", card, word))
    return sorted(laid_out, key=lambda arrival: arrival[:3])


def learn(payments: list[tuple], partitions: int = 1, *, restarts: bool = False) -> list[BoundaryResult]:
    """Run the learner for forty days; a restart keeps only its stored state."""
    joins = [LabelJoin(DictStore(), SCHEDULE) for _ in range(partitions)]
    trainer = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(0.6), LinearModel())
    progress, learner = LearnerState(closed=START - 8), CountingLearner()
    coming, results = arrivals(payments), []
    for boundary in range(START - 7, START + 160):
        while coming and coming[0][0] <= boundary * SCHEDULE.interval_ms:
            _, _, kind, card, event = coming.pop(0)
            join = joins[CARDS.index(card) % partitions]
            (join.add_scored if kind == "score" else join.add_label)(event, progress.closed)
        results += close_boundaries(joins, trainer, progress, boundary, learner)
        progress = results[-1].progress
        if restarts:
            progress = decode_learner_state(encode_learner_state(progress))
            learner = CountingLearner(progress.model)
    return results


@FAST
@given(PAYMENTS, st.integers(2, 4))
def test_the_assignment_of_cards_to_partitions_does_not_change_the_results(payments, partitions):
    assert learn(payments, partitions) == learn(payments)


@FAST
@given(PAYMENTS)
def test_a_learner_that_restarts_at_every_boundary_has_the_same_bits(payments):
    results, restarted = learn(payments), learn(payments, restarts=True)
    plain = [msgspec.structs.replace(result, progress=LearnerState()) for result in results]
    assert [msgspec.structs.replace(result, progress=LearnerState()) for result in restarted] == plain
    assert encode_learner_state(restarted[-1].progress) == encode_learner_state(results[-1].progress)


@FAST
@given(PAYMENTS)
def test_scorers_that_apply_every_snapshot_have_the_table_of_its_digest(payments):
    results = learn(payments)
    snapshots = SnapshotStore(untrained("model-1", online_model()))
    for number, result in enumerate(results):
        assert table_digest(table_after(results[: number + 1])) == result.progress.risk_digest
        if result.snapshot is None:
            assert result.risk == {}
            continue
        assert result.snapshot.risk_rows == len(result.risk)
        assert result.snapshot.risk_digest == result.progress.risk_digest
        for key, row in result.risk.items():
            snapshots.receive_risk(result.snapshot.version, key, row)
        snapshots.receive_snapshot(decode_snapshot(encode_snapshot(result.snapshot)))
        snapshots.apply_received()
        assert snapshots.newest == result.snapshot
    assert snapshots.incomplete == []


@FAST
@given(PAYMENTS)
def test_no_snapshot_contains_later_labels(payments):
    for result in learn(payments):
        if result.snapshot is None:
            continue
        assert result.snapshot.label_horizon <= result.snapshot.as_of
        for row in result.risk.values():
            assert row is None or all(day.day <= result.snapshot.as_of // DAY for day in decode_risk(row).days)
        assert all(record.known_at <= record.boundary_ms == result.snapshot.as_of for record in result.labelled())


PROGRESS = LearnerState(
    start=3,
    closed=7,
    last_trained=6,
    examples=9,
    label_horizon=4,
    comparison=ModelComparison().with_scores(3, [LabelledScore(0.1, 1 / 3, is_fraud=True, weight=1.5)]),
    risk_digest="ab" * 32,
    model=b"\x00\xff",
)


@pytest.mark.parametrize("progress", [LearnerState(), PROGRESS])
def test_an_encoded_learner_state_decodes_to_an_equal_one(progress):
    assert decode_learner_state(encode_learner_state(progress)) == progress


def test_a_learner_that_never_ran_has_the_initial_state():
    assert decode_learner_state(None) == LearnerState()
    assert LearnerState().closed == -1


def test_a_learner_state_of_another_schema_is_rejected():
    with pytest.raises(InvalidRecord, match="schema 3; this version reads 2"):
        decode_learner_state(encode_learner_state(msgspec.structs.replace(PROGRESS, schema=3)))


@pytest.mark.parametrize("data", [b"", b"\xc0", b"\x91\xa1x", encode_learner_state(PROGRESS)[:-1]])
def test_bytes_that_are_not_a_learner_state_are_rejected(data):
    with pytest.raises(InvalidRecord, match="cannot be read"):
        decode_learner_state(data)


def test_the_current_model_encodes_examples_that_another_model_scored():
    model, learner = LinearModel(base=-1.5), CountingLearner()
    trainer = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(), model)
    result = trainer.close(START + 1, LearnerState(closed=START), [example(1, model="model-0"), example(2)], learner)
    assert [logit for _, logit, *_ in learner.examples] == [-1.5, -1.5]
    assert model.batches == [2]
    assert [(row.model, row.pretrained_logit) for row in result.labelled()] == [("model-0", -2.0), ("model-1", -2.0)]


@pytest.mark.parametrize("model", [BrokenModel(), UndecidedModel()])
def test_examples_that_the_current_model_cannot_score_train_only_risk(model):
    learner = CountingLearner()
    trainer = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(), model)
    result = trainer.close(START + 1, LearnerState(closed=START), [example(1, model="model-0")], learner)
    assert learner.examples == []
    assert decode_risk(result.risk[merchant_key("merchant-1")]).streak == 1


def test_the_models_are_compared_before_the_example_is_learned():
    learner = CountingLearner(b"[[1.0, -2.0, true, 1.0]]")  # exports intercept 1 and weight 1
    trainer = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(), LinearModel())
    result = trainer.close(START + 1, LearnerState(closed=START), [example(1), example(2)], learner)
    judged = [LabelledScore(-3.0, -2.0, is_fraud=True, weight=1.0)] * 2
    assert result.progress.comparison == ModelComparison().with_scores(
        (START + 1) * SCHEDULE.interval_ms // DAY, judged
    )


def test_another_pretrained_model_resets_the_comparison():
    trainer = OnlineTrainer(DictStore(), SCHEDULE, NegativeSampler(), LinearModel())
    before = msgspec.structs.replace(PROGRESS, closed=START, pretrained="model-0")
    result = trainer.close(START + 1, before, [], CountingLearner())
    assert result.progress.comparison == ModelComparison()
    assert result.progress.pretrained == "model-1"
