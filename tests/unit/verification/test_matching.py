"""Inputs meet their scores in one pass: with gaps, surplus records, swapped ones and ones that cannot be read."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.audited import written
from support.worlds import MONDAY, transaction

from fraud_service.domain.events import encode
from fraud_service.verification import matching
from fraud_service.verification.matching import Matcher, pair


def test_the_example_of_the_matcher_is_right():
    assert doctest.testmod(matching).failed == 0


@given(st.lists(st.integers(0, 3)), st.sets(st.integers(0, 30)), st.integers(1, 5))
def test_a_matcher_accounts_for_every_item_once_however_small_its_lookahead(keys, dropped, lookahead):
    found = [key for number, key in enumerate(keys) if number not in dropped]
    matcher = Matcher([(key, number) for number, key in enumerate(found)], lookahead)
    matched, surplus = [], []
    for key in keys:
        one = matcher.take(key)
        if one is not None:
            matched.append(one[0])
            assert found[one[0]] == key
        surplus += matcher.surplus()
    surplus += matcher.rest()
    assert sorted(matched + surplus) == list(range(len(found)))


@given(st.lists(st.integers(0, 5), max_size=20))
def test_equal_streams_match_in_order_and_leave_nothing(keys):
    matcher = Matcher([(key, number) for number, key in enumerate(keys)])
    assert [matcher.take(key) for key in keys] == [(number, True) for number in range(len(keys))]
    assert matcher.is_aligned
    assert list(matcher.rest()) == []


def test_one_moved_item_is_out_of_order_and_its_neighbours_are_not():
    matcher = Matcher([(key, key) for key in "cabd"])
    assert [matcher.take(key) for key in "abcd"] == [("a", True), ("b", True), ("c", False), ("d", True)]


def test_an_item_that_many_later_ones_have_passed_is_surplus():
    matcher = Matcher([(key, key) for key in "xabcd"], lookahead=2)
    given_up = []
    for key in "abcd":
        assert matcher.take(key) == (key, True)
        given_up.append(list(matcher.surplus()))
    assert given_up == [[], [], ["x"], []]
    assert matcher.take("x") is None


def test_matching_cannot_be_resumed_while_an_earlier_item_waits():
    matcher = Matcher([(key, key) for key in "bac"])
    states = [(matcher.take(key), matcher.is_aligned)[1] for key in "abc"]
    assert states == [False, False, True]


def log_of(count: int):
    return written((encode(transaction(f"t-{n}", MONDAY + n, card_id="card-1")), b"card-1") for n in range(count))


@pytest.fixture(scope="module")
def streams():
    """Give the inputs and scores of one card."""
    log = log_of(8)
    return log.all("transactions"), log.all("scores")


def test_inputs_after_the_last_score_are_pending_and_earlier_ones_are_not(streams):
    inputs, scores = streams
    pairs = list(pair(inputs, [*scores[:3], *scores[4:6]], is_truncated=False))
    assert [one.score is None for one in pairs] == [False, False, False, True, False, False, True, True]
    assert [one.is_pending for one in pairs if one.score is None] == [False, True, True]


def test_scores_of_expired_inputs_come_first_and_without_an_input(streams, monkeypatch):
    inputs, scores = streams
    monkeypatch.setattr(matching, "LOOKAHEAD", 2)
    pairs = list(pair(inputs[5:], scores, is_truncated=True))
    assert [(one.input is None, one.score == score) for one, score in zip(pairs, scores, strict=True)] == [
        (number < 5, True) for number in range(8)
    ]


def test_a_score_that_was_written_twice_is_surplus_and_known_to_be_repeated(streams):
    inputs, scores = streams
    surplus = [one for one in pair(inputs, [*scores[:4], *scores[3:]], is_truncated=False) if one.input is None]
    assert [(one.score, one.is_repeated) for one in surplus] == [(scores[3], True)]


def test_an_input_that_this_version_cannot_read_meets_its_score_by_its_ids(streams):
    inputs, scores = streams
    rejected = inputs[2]._replace(value=b'{"transaction_id":"t-2","card_id":"card-1"}')
    pairs = list(pair([*inputs[:2], rejected, *inputs[3:]], scores, is_truncated=False))
    assert [one.score for one in pairs] == scores
    assert pairs[2].transaction is None
