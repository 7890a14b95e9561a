from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.join_world import SCHEDULE, Trained, World
from support.worlds import features, label, score

from fraud_service.domain.events import LabelSource
from fraud_service.domain.in_memory import MemoryStore
from fraud_service.domain.label_join import (
    ITEMS_PER_HEARTBEAT,
    MAX_LABELS,
    Ignored,
    LabelJoin,
    examples_due,
)
from fraud_service.domain.label_join_rows import DueItem, LabelJoinRepartitioner

FAST = settings(max_examples=200, deadline=None, derandomize=True)


def test_a_fraud_label_is_trained_at_the_first_boundary_after_it():
    world = World()
    assert world.score(score("t1", 5))
    assert world.label(label("t1", 31))
    assert world.close(39) == []
    assert world.close(40) == [(4, "t1", True, 31, False)]
    assert world.close(2000) == []


def test_a_label_at_a_boundary_belongs_to_it():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 30))
    assert world.close(2000) == [(3, "t1", True, 30, False)]


def test_an_example_has_the_scored_transaction_and_the_label_source():
    world = World()
    record = score("t1", 5, features=features(amount=7.0), merchant_id="m", amount=7.0, online_logit=None)
    world.score(record)
    world.label(label("t1", 30, source=LabelSource.CHARGEBACK))
    world.close(30)
    (example,) = world.examples
    assert example.source is LabelSource.CHARGEBACK
    for name in ("transaction_id", "card_id", "merchant_id", "timestamp", "amount", "pretrained_logit", "online_logit"):
        assert getattr(example.scored, name) == getattr(record, name)
    assert example.scored.features == record.features


def test_a_transaction_without_a_label_matures_as_legitimate():
    world = World()
    world.score(score("t1", 5))
    assert world.close(2000) == [(11, "t1", False, 105, False)]
    assert world.examples[0].source is None


def test_a_transaction_matures_even_if_its_card_never_pays_again():
    world = World()
    world.score(score("idle", 5, card_id="idle"))
    for timestamp in range(20, 200, 20):
        world.close(timestamp)
        world.score(score(f"busy{timestamp}", timestamp, card_id="busy"))
    assert (11, "idle", False, 105, False) in world.trained


def test_a_legitimate_label_is_trained_before_maturity():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 30, is_fraud=False))
    assert world.close(2000) == [(3, "t1", False, 30, False)]


def test_a_label_may_arrive_before_its_transaction():
    world = World()
    assert not world.label(label("t1", 31))
    assert world.close(35) == []
    assert world.score(score("t1", 5))
    assert world.close(2000) == [(4, "t1", True, 31, False)]


def test_a_label_older_than_its_transaction_becomes_known_with_the_transaction():
    world = World()
    world.label(label("t1", 3))
    world.score(score("t1", 25))
    assert world.close(2000) == [(3, "t1", True, 25, False)]


def test_an_item_that_was_due_before_it_arrived_is_due_at_the_next_boundary():
    world = World()
    world.close(300)
    world.score(score("late", 5))
    world.score(score("labelled", 250))
    world.label(label("labelled", 260))
    assert world.close(2000) == [(31, "late", False, 105, False), (31, "labelled", True, 260, False)]


def test_a_repeated_label_is_trained_once():
    world = World()
    world.score(score("t1", 5))
    for _ in range(2):
        world.label(label("t1", 30))
    world.close(60)
    world.label(label("t1", 30))
    world.label(label("t1", 90))
    assert [is_fraud for _, _, is_fraud, _, _ in world.trained + world.close(2000)][:1] == [True]
    assert len(world.trained) == 1


def test_a_transaction_that_arrives_twice_counts_once():
    world = World()
    assert world.score(score("t1", 5))
    assert not world.score(score("t1", 5))
    world.close(200)
    assert not world.score(score("t1", 5))
    assert not world.score(score("t1", 5, is_duplicate=True, features=None))
    world.close(2000)
    assert len(world.trained) == 1


def test_the_score_of_a_duplicate_alone_is_not_an_example():
    world = World()
    assert not world.score(score("t1", 5, is_duplicate=True, features=None))
    assert world.close(2000) == []


@pytest.mark.parametrize("first", [True, False])
def test_a_contradicting_label_corrects_the_training(first):
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 30, is_fraud=first))
    world.close(50)
    world.label(label("t1", 60, is_fraud=not first))
    world.close(2000)
    assert world.trained == [(3, "t1", first, 30, False), (6, "t1", not first, 60, True)]
    assert world.examples[1].corrected_at == 30


def test_of_contradicting_labels_in_one_interval_only_the_last_is_trained():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 32))
    world.label(label("t1", 38, is_fraud=False))
    assert world.close(2000) == [(4, "t1", False, 38, False)]


def test_a_label_older_than_the_last_one_changes_nothing():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 60, is_fraud=False))
    world.close(60)
    world.label(label("t1", 50))
    world.close(2000)
    assert world.trained == [(6, "t1", False, 60, False)]


@pytest.mark.parametrize("first", [True, False])
def test_of_labels_at_the_same_instant_fraud_counts(first):
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 30, is_fraud=first))
    world.label(label("t1", 30, is_fraud=not first))
    assert world.close(2000) == [(3, "t1", True, 30, False)]


def test_a_fraud_label_of_the_same_instant_that_arrives_later_corrects():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 30, is_fraud=False))
    world.close(30)
    world.label(label("t1", 30))
    world.close(2000)
    assert world.trained == [(3, "t1", False, 30, False), (4, "t1", True, 30, True)]


def test_a_legitimate_label_of_the_same_instant_that_arrives_later_does_not_overrule_fraud():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 30))
    world.close(30)
    world.label(label("t1", 30, is_fraud=False))
    world.close(2000)
    assert world.trained == [(3, "t1", True, 30, False)]


@pytest.mark.parametrize("labelled_at", [90, 105, 150, 900])
def test_a_fraud_label_after_maturity_corrects(labelled_at):
    world = World()
    world.score(score("t1", 5))
    world.close(110)
    world.label(label("t1", labelled_at))
    world.close(2000)
    boundary = max(SCHEDULE.boundary(labelled_at), 12)
    assert world.trained == [(11, "t1", False, 105, False), (boundary, "t1", True, labelled_at, True)]
    assert world.examples[1].corrected_at == 105


def test_a_correction_names_when_the_opposite_was_trained_despite_a_later_confirmation():
    world = World()
    world.score(score("t1", 5))
    for labelled_at, is_fraud in ((20, True), (30, True), (50, False)):
        world.label(label("t1", labelled_at, is_fraud=is_fraud))
        world.close(labelled_at)
    assert world.trained == [(2, "t1", True, 20, False), (5, "t1", False, 50, True)]
    assert world.examples[1].corrected_at == 20


def test_a_label_after_retention_is_not_trained_and_expires():
    world = World()
    world.score(score("t1", 5))
    world.close(1100)
    assert not world.label(label("t1", 1090))
    assert world.close(4000) == []
    assert world.stores == [{}]


def test_a_label_whose_transaction_never_arrives_expires_after_retention():
    world = World()
    world.label(label("t1", 55))
    world.label(label("t1", 75))
    world.close(1050)
    assert any(key.startswith("l/") for key in world.stores[0])
    world.close(1060)
    assert world.score(score("t1", 1060))
    world.close(1070)
    assert world.trained == [(107, "t1", True, 1060, False)]


def test_features_are_kept_until_retention_has_passed():
    world = World()
    world.score(score("t1", 5))
    world.close(1000)
    assert list(world.stores[0]) != []
    world.close(1010)
    assert world.stores == [{}]


def test_a_transaction_that_arrives_again_after_retention_is_not_trained_again():
    world = World()
    world.score(score("t1", 5))
    world.close(1100)
    world.score(score("t1", 5))
    world.close(2000)
    assert len(world.trained) == 1


def test_values_of_the_store_stay_bounded():
    world = World()
    for number in range(1281):
        world.score(score(f"t{number:04}", 5, features=features()))
    for number in range(3 * MAX_LABELS):
        world.label(label("t0000", 20 + number, is_fraud=number % 2 == 0))
    largest = max(len(value) for value in world.stores[0].values())
    assert largest < 4096
    world.close(2000)
    assert len({name for _, name, *_ in world.trained}) == 1281
    assert world.stores == [{}]


def test_of_too_many_labels_the_newest_are_kept():
    world = World()
    world.score(score("t1", 5))
    for number in range(2 * MAX_LABELS):
        world.label(label("t1", 21 + number, is_fraud=number == 2 * MAX_LABELS - 1))
    world.close(50)
    assert world.trained[-1][2] is True


@pytest.mark.parametrize("is_known", [False, True], ids=["unknown", "known"])
def test_many_labels_of_one_transaction_are_due_once(is_known):
    world = World()
    if is_known:
        world.score(score("t1", 5))
    for number in range(500):
        world.label(label("t1", 21 + number % 9, is_fraud=number % 2 == 0))
    rows = [key for key in world.stores[0] if key.startswith("d/") and key.count("/") == 2]
    assert len(rows) == 1 + is_known  # of a known one also its maturity
    world.close(3000)
    assert world.stores == [{}]


def test_a_sweep_removes_only_items_without_effect():
    world = World()
    for number in range(30):
        world.label(label(f"unknown-{number}", 20 + number % 3))
    world.score(score("known", 25))
    world.close(1020)
    world.label(label("known", 1021))
    swept = 0
    while swept < world.joins[0].count(103):
        swept = world.joins[0].sweep(103, swept, 7)
    assert [key for key in world.stores[0] if key.startswith("l/")] == []
    assert [example.scored.transaction_id for example in examples_due(world.joins, 103)] == ["known"]
    assert world.stores == [{}]


def test_heartbeats_continue_while_a_boundary_yields_no_example():
    world, beats = World(), []
    for number in range(3 * ITEMS_PER_HEARTBEAT):
        world.label(label(f"unknown-{number}", 20))
    assert examples_due(world.joins, 102, lambda: beats.append(1)) == []
    assert len(beats) == 3
    assert world.stores == [{}]


TRANSACTIONS = [f"t{number}" for number in range(5)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("score"), st.sampled_from(TRANSACTIONS)),
        st.tuples(st.just("label"), st.sampled_from(TRANSACTIONS), st.integers(0, 450), st.booleans()),
        st.tuples(st.just("close"), st.integers(0, 12)),
    ),
    min_size=20,
    max_size=60,
)
TIMES = st.lists(st.integers(0, 300), min_size=len(TRANSACTIONS), max_size=len(TRANSACTIONS))
Steps = list[tuple]


def sensible(steps: Steps) -> Steps:
    """Drop the steps that other tests cover: labels beyond eight or of one instant, and times after retention."""
    kept: Steps = []
    labelled: dict[str, set[int]] = {}
    closed = -1
    for step in steps:
        if step[0] == "close":
            closed += step[1]
            if closed > 70:
                break
        if step[0] == "label":
            instants = labelled.setdefault(step[1], set())
            if step[2] in instants or len(instants) == MAX_LABELS:
                continue
            instants.add(step[2])
        kept.append(step)
    return kept


def run_steps(
    steps: Steps, times: list[int], partitions: int = 1, move: tuple[int, int] | None = None, sweeps: int = 0
) -> World:
    """Run steps, with one card per transaction. `move` is a step, and the number of partitions to move to before it."""
    steps = sensible(steps)
    world = World(partitions, sweeps=sweeps)
    at = dict(zip(TRANSACTIONS, times, strict=True))
    for number, step in enumerate(steps):
        if move is not None and number == move[0]:
            world = repartitioned(world, move[1])
        if step[0] == "score":
            world.score(score(step[1], at[step[1]], card_id=step[1]))
        elif step[0] == "label":
            world.label(label(step[1], step[2], is_fraud=step[3], card_id=step[1]))
        else:
            world.close((world.closed + step[1]) * SCHEDULE.interval_ms)
    world.close(700)
    return world


def repartitioned(world: World, partitions: int) -> World:
    """Move a world, whose card ids equal its transaction ids, to other partitions."""
    moved = World(partitions, world.closed, world.trained, world.examples)
    repartitioner = LabelJoinRepartitioner(lambda card_id: sum(card_id.encode()) % partitions)
    rows = [row for store in world.stores for row in (repartitioner.move(*item) for item in store.items())]
    for partition, key, value in (*(row for row in rows if row is not None), *repartitioner.counts()):
        moved.stores[partition].put(key, value)
    return moved


def expected_training(steps: Steps, times: list[int]) -> set[Trained]:
    """Compute from all steps what each boundary should train: the last label, when it differs from the one before."""
    at = dict(zip(TRANSACTIONS, times, strict=True))
    arrived: dict[str, int] = {}  # the first boundary after the arrival of the transaction
    words: list[tuple[int, str, int, bool]] = []  # the first boundary after its arrival, transaction, instant, verdict
    closed = -1
    for step in steps:
        if step[0] == "score":
            arrived.setdefault(step[1], closed + 1)
        elif step[0] == "label":
            words.append((closed + 1, *step[1:]))
        else:
            closed = max(closed, closed + step[1])
    found: set[Trained] = set()
    for name, since in arrived.items():
        verdict: bool | None = None
        for boundary in range(since, 71):
            now = boundary * SCHEDULE.interval_ms
            known = [
                (max(instant, at[name]), instant, is_fraud)
                for first, other, instant, is_fraud in words
                if other == name and first <= boundary and max(instant, at[name]) <= now
            ]
            last: tuple[int, bool] | None = None
            if known:
                known_at, _, is_fraud = max(known, key=lambda word: word[1])
                last = known_at, is_fraud
            elif at[name] + SCHEDULE.label_maturity_ms <= now:
                last = at[name] + SCHEDULE.label_maturity_ms, False
            if last is not None and last[1] is not verdict:
                found.add((boundary, name, last[1], last[0], verdict is not None))
                verdict = last[1]
    return found


@FAST
@given(STEPS, TIMES)
def test_each_boundary_trains_the_last_label_when_it_differs(steps, times):
    trained = run_steps(steps, times).trained
    assert len(trained) == len(set(trained))
    assert set(trained) == expected_training(sensible(steps), times)


@FAST
@given(STEPS, TIMES)
def test_a_transaction_is_trained_once_and_then_only_corrected(steps, times):
    verdicts: dict[str, bool] = {}
    for _, name, is_fraud, _, corrects in run_steps(steps, times).trained:
        assert corrects == (name in verdicts)
        assert verdicts.get(name) is not is_fraud
        verdicts[name] = is_fraud


@FAST
@given(STEPS, TIMES, st.integers(2, 4), st.randoms(use_true_random=False))
def test_partitions_and_their_interleaving_do_not_change_the_examples(steps, times, partitions, dice):
    one = run_steps(steps, times)
    several = run_steps(steps, times, partitions)
    assert several.trained == one.trained
    assert several.examples == one.examples
    interleaved: Steps = []
    waiting: list[tuple] = []
    for step in [*sensible(steps), ("close", 0)]:
        if step[0] != "close":
            waiting.append(step)
            continue
        dice.shuffle(waiting)  # between two boundaries, transactions and labels come as they like
        interleaved += [*waiting, step]
        waiting = []
    shuffled = run_steps(interleaved, times, partitions)
    assert shuffled.trained == one.trained


@FAST
@given(STEPS, TIMES, st.integers(1, 3), st.integers(1, 4))
def test_a_sweep_before_a_boundary_does_not_change_the_examples(steps, times, partitions, sweeps):
    plain, swept = run_steps(steps, times, partitions), run_steps(steps, times, partitions, sweeps=sweeps)
    assert swept.trained == plain.trained
    assert swept.stores == plain.stores


@FAST
@given(STEPS, TIMES, st.integers(1, 3), st.integers(0, 60), st.integers(1, 5))
def test_a_move_to_other_partitions_does_not_change_the_examples(steps, times, before, moment, after):
    moved = run_steps(steps, times, before, (moment, after))
    assert moved.trained == run_steps(steps, times).trained
    moved.close(2000)
    assert all(store == {} for store in moved.stores)


@FAST
@given(STEPS, TIMES, st.integers(1, 3))
def test_after_retention_the_store_is_empty(steps, times, partitions):
    world = run_steps(steps, times, partitions)
    world.close(2000)
    assert world.stores == [{}] * partitions


def test_due_items_sort_by_time_and_then_by_transaction():
    dues = [DueItem(2, "a"), DueItem(1, "b"), DueItem(1, "a")]
    assert sorted(dues) == [DueItem(1, "a"), DueItem(1, "b"), DueItem(2, "a")]


@pytest.mark.parametrize(("instant", "number"), [(0, 0), (1, 1), (10, 1), (11, 2)])
def test_the_boundary_of_an_instant_is_the_first_at_or_after_it(instant, number):
    assert SCHEDULE.boundary(instant) == number


def test_after_a_first_payment_of_a_wrong_time_nothing_of_it_stays_and_later_payments_keep_their_labels():
    ignored, store = [], MemoryStore()
    join = LabelJoin(store, SCHEDULE, ignored.append)
    join.add_scored(score("t-old", 5, card_id="old"), 0)
    join.add_label(label("t-old", 31, card_id="old"), 0)
    join.add_label(label("t-never", 33, card_id="old"), 0)
    now = 1_000_000
    join.add_scored(score("t-new", now - 3), 0)
    join.add_label(label("t-new", now - 2), 0)
    closed = now // SCHEDULE.interval_ms - 1
    join.restart(0, closed)
    assert ignored == [Ignored.OLD_PAYMENT, Ignored.UNMATCHED_LABEL]
    assert not [key for key in store if "old" in key or "t-never" in key]
    assert not [key for key in store if key.startswith("d/") and int(key.split("/")[1]) <= closed]
    (example,) = examples_due([join], closed + 1)
    assert (example.scored.transaction_id, example.is_fraud) == ("t-new", True)
