"""Several payments under one transaction id: each waits, is trained and matures as if it had its own id."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.join_world import SCHEDULE, World
from support.worlds import features, label, score

from fraud_service.domain.events import LabelSource
from fraud_service.domain.label_join import MAX_LABELS, MAX_PAYMENTS, Admission, LabelJoin, training_order
from fraud_service.domain.label_join_rows import Example, LabelJoinRepartitioner, ScoredTransaction

pytestmark = pytest.mark.attack

FAST = settings(max_examples=300, deadline=None, derandomize=True)


def amounts(world: World) -> list[tuple[float, bool, int, bool]]:
    """Return amount, is fraud, known at, and corrects of each trained example."""
    return [(one.scored.amount, one.is_fraud, one.known_at, one.corrects) for one in world.examples]


def test_another_payment_under_a_used_id_is_trained_and_matures_separately():
    world = World()
    assert world.score(score("t1", 5, amount=1.0))
    assert world.score(score("t1", 25, amount=9999.0))
    world.close(2000)
    assert amounts(world) == [(1.0, False, 105, False), (9999.0, False, 125, False)]
    assert world.stores == [{}]


@pytest.mark.parametrize("other", [{"amount": 2.0}, {"currency": "USD"}, {"merchant_id": "m2"}, {"timestamp": 6}])
def test_any_other_content_is_another_payment(other):
    world = World()
    world.score(score("t1", 5))
    assert world.score(score("t1", **({"timestamp": 5} | other)))
    assert world.score(score("t1", **({"timestamp": 5} | other))) is Admission.IGNORED
    assert len(world.close(2000)) == 2
    assert world.stores == [{}]


def test_a_label_applies_to_every_payment_under_its_id_that_was_made_by_then():
    world = World()
    for timestamp in (5, 25, 60):
        world.score(score("t1", timestamp))
    world.label(label("t1", 31))
    world.close(2000)
    assert [(one.scored.timestamp, one.is_fraud) for one in world.examples] == [(5, True), (25, True), (60, False)]


@pytest.mark.parametrize("is_applied", [True, False])
def test_a_label_applies_to_a_payment_that_arrives_after_it(is_applied):
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 31, source=LabelSource.CUSTOMER))
    world.close(40 if is_applied else 29)
    world.score(score("t1", 25))
    world.close(2000)
    assert sorted((one.scored.timestamp, one.is_fraud, one.source) for one in world.examples) == [
        (5, True, LabelSource.CUSTOMER),
        (25, True, LabelSource.CUSTOMER),
    ]


def test_an_old_legitimate_label_does_not_clear_a_later_payment_under_its_id():
    world = World()
    world.score(score("t1", 5))
    world.label(label("t1", 20, is_fraud=False))
    world.close(30)
    world.score(score("t1", 50, amount=9999.0))
    world.close(60)
    assert amounts(world) == [(score("t1", 5).amount, False, 20, False)]


def test_only_the_first_payments_under_an_id_are_kept():
    world = World()
    taken = [world.score(score("t1", 5, amount=float(number))) for number in range(MAX_PAYMENTS + 2)]
    assert taken == [Admission.ADDED] * MAX_PAYMENTS + [Admission.TOO_MANY] * 2
    for number in range(2 * MAX_LABELS):
        world.label(label("t1", 10 + number))
    assert max(len(value) for value in world.stores[0].values()) < 16_384
    world.close(2000)
    assert {amount for amount, *_ in amounts(world)} == {float(number) for number in range(MAX_PAYMENTS)}
    assert world.stores == [{}]


def test_payments_of_one_instant_under_one_id_are_due_at_most_once_each():
    world = World()
    for number in range(MAX_PAYMENTS):
        world.score(score("t1", 5, amount=float(number)))
    world.close(110)
    assert sum(key.count("/") == 2 for key in world.stores[0]) <= MAX_PAYMENTS + 1


def test_a_row_of_an_older_version_is_read_and_its_payment_recognised():
    world = World()
    world.score(score("t1", 5))
    ((key, value),) = [item for item in world.stores[0].items() if item[0].startswith("t/")]
    scored, waiting, trained, trained_known_at, labelled_at, *_ = msgspec.msgpack.decode(value)
    world.stores[0].put(key, msgspec.msgpack.encode([scored[:11], waiting, trained, trained_known_at, labelled_at]))
    assert world.score(score("t1", 5)) is Admission.IGNORED
    assert world.score(score("t1", 5, amount=9.0)) is Admission.ADDED
    world.label(label("t1", 31))
    world.close(2000)
    assert [one.is_fraud for one in world.examples] == [True, True]


def test_a_row_of_several_payments_moves_with_its_card():
    world = World()
    for timestamp in (5, 25):
        world.score(score("t1", timestamp, card_id="c"))
    repartitioner = LabelJoinRepartitioner(lambda _: 1)
    rows = [row for item in world.stores[0].items() if (row := repartitioner.move(*item)) is not None]
    moved = World(2)
    for partition, key, value in (*rows, *repartitioner.counts()):
        moved.stores[partition].put(key, value)
    moved.joins = [LabelJoin(store, SCHEDULE) for store in moved.stores]
    moved.close(2000)
    assert [one.scored.timestamp for one in moved.examples] == [5, 25]


def test_examples_of_one_id_have_a_fixed_order_without_comparing_examples():
    def example(**said: object) -> Example:
        record = score("t1", 5, **said)
        return Example(ScoredTransaction.of(record, features()), is_fraud=True, source=None, known_at=5)

    many = [example(amount=amount, currency=currency) for amount in (1.0, 2.0) for currency in ("EUR", "USD")]
    backwards = many[::-1]
    assert sorted(backwards, key=training_order) == many
    assert len({training_order(one) for one in many}) == len(many)


IDS = range(4)  # payments under one id
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("score"), st.sampled_from(IDS)),
        st.tuples(st.just("label"), st.integers(0, 450), st.booleans()),
        st.tuples(st.just("close"), st.integers(0, 12)),
    ),
    min_size=10,
    max_size=40,
)


def sensible(steps: list[tuple]) -> list[tuple]:
    """Drop the steps that other tests cover: labels beyond eight or of one instant, and times after retention."""
    kept: list[tuple] = []
    instants: set[int] = set()
    closed = -1
    for step in steps:
        if step[0] == "label" and (step[1] in instants or len(instants) == MAX_LABELS):
            continue
        if step[0] == "label":
            instants.add(step[1])
        closed += step[1] if step[0] == "close" else 0
        kept += [step] if closed <= 70 else []
    return kept


def run_steps(steps: list[tuple], times: list[int], *, is_shared: bool) -> World:
    """Run steps with one shared id, or with one id per payment and a copy of each label for each id."""
    world = World()
    first = next((step[1] for step in steps if step[0] == "score"), -1)
    names = ["t" if is_shared else f"t{number}" for number in IDS]
    for step in steps:
        if step[0] == "score":
            world.score(score(names[step[1]], times[step[1]], amount=float(step[1])))
        elif step[0] == "label":
            about = [number for number in IDS if number == first or times[number] <= step[1]]
            for name in ["t"] if is_shared else [names[number] for number in about]:
                world.label(label(name, step[1], is_fraud=step[2]))
        else:
            world.close((world.closed + step[1]) * SCHEDULE.interval_ms)
    world.close(2000)
    return world


@FAST
@given(STEPS, st.lists(st.integers(0, 300), min_size=len(IDS), max_size=len(IDS)))
def test_payments_under_one_id_are_trained_as_if_each_had_its_own(steps, times):
    steps = sensible(steps)
    shared, apart = (run_steps(steps, times, is_shared=is_shared) for is_shared in (True, False))
    assert sorted(amounts(shared)) == sorted(amounts(apart))
    assert shared.stores == apart.stores == [{}]


def test_a_label_of_an_expired_payment_does_not_apply_to_a_later_one_under_its_id():
    world = World()
    world.score(score("t1", 5))
    later = SCHEDULE.label_retention_ms - 5
    world.score(score("t1", later))
    world.close(5 + SCHEDULE.label_retention_ms + 20)  # the first one is forgotten, and the other has not matured
    world.label(label("t1", 50))  # fraud, said of the first one before the other was made
    world.close(5000)
    assert [(one.scored.timestamp, one.is_fraud) for one in world.examples] == [(5, False), (later, False)]
