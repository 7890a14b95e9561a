"""A flood of labels is rejected, and labels of other sources and cards are not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.worlds import HOUR, MONDAY, DictStore, label

from fraud_service.domain.errors import DeadLetterReason, InvalidEvent
from fraud_service.domain.events import LabelSource
from fraud_service.security.label_rate_limit import KEY, MAX_PER_CARD, LabelRateLimiter, LabelRateLimits

pytestmark = pytest.mark.attack

FAST = settings(max_examples=60, deadline=None, derandomize=True)
LABELS = st.lists(st.tuples(st.sampled_from(LabelSource), st.integers(0, 5), st.integers(-HOUR, 3 * HOUR)), max_size=60)


def accepted(limiter: LabelRateLimiter, arrivals) -> list[bool]:
    found = []
    for number, (source, card, after) in enumerate(arrivals):
        try:
            limiter.check(label(f"t-{number}", source=source, card_id=f"card-{card}"), MONDAY + after)
            found.append(True)
        except InvalidEvent as error:
            found.append(error.reason != DeadLetterReason.LABEL_FLOOD)
    return found


@FAST
@given(LABELS, st.integers(1, 8), st.integers(1, 8))
def test_an_hour_accepts_labels_of_a_source_and_of_a_card_up_to_the_limits(arrivals, per_source, per_card):
    hour, sources, cards, expected = -1, {}, {}, []
    for source, card, after in arrivals:
        if (MONDAY + after) // HOUR > hour:
            hour, sources, cards = (MONDAY + after) // HOUR, {}, {}
        is_taken = sources.get(source, 0) < per_source and cards.get(card, 0) < per_card
        expected.append(is_taken)
        if is_taken:
            sources[source], cards[card] = sources.get(source, 0) + 1, cards.get(card, 0) + 1
    assert accepted(LabelRateLimiter(DictStore(), LabelRateLimits(per_source, per_card)), arrivals) == expected


@FAST
@given(LABELS, st.integers(0, 60))
def test_a_restarted_learner_rejects_the_same_labels(arrivals, place):
    limits = LabelRateLimits(4, 3)
    whole = accepted(LabelRateLimiter(DictStore(), limits), arrivals)
    store = DictStore()
    parts = (
        accepted(LabelRateLimiter(store, limits), arrivals[:place]),
        accepted(LabelRateLimiter(store, limits), arrivals[place:]),
    )
    assert [*parts[0], *parts[1]] == whole


def test_without_limits_nothing_is_counted():
    store = DictStore()
    assert all(accepted(LabelRateLimiter(store, LabelRateLimits()), [(LabelSource.ANALYST, 0, 0)] * 100))
    assert store == {}


@pytest.mark.parametrize("limits", [LabelRateLimits(per_source=2), LabelRateLimits(per_card=2)])
def test_each_limit_works_alone_and_says_how_many_there_were(limits):
    limiter = LabelRateLimiter(DictStore(), limits)
    assert accepted(limiter, [(LabelSource.ANALYST, 0, 0)] * 3) == [True, True, False]
    with pytest.raises(InvalidEvent, match="2 labels of"):
        limiter.check(label(source=LabelSource.ANALYST, card_id="card-0"), MONDAY)
    assert accepted(limiter, [(LabelSource.CUSTOMER, 1, 0)]) == [True]


def test_the_state_of_an_hour_is_bounded():
    store = DictStore()
    limiter = LabelRateLimiter(store, LabelRateLimits(per_card=MAX_PER_CARD))
    assert all(accepted(limiter, [(LabelSource.SETTLEMENT, number, 0) for number in range(2000)]))
    assert set(store) == {KEY}
    assert len(store[KEY]) < 8300
