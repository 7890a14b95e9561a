"""Run the targets of `make fuzz` under Hypothesis."""

from __future__ import annotations

import pytest
from fuzz.targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.attack
NAMES = pytest.mark.parametrize("name", TARGETS)
FEW = settings(max_examples=100, deadline=None, derandomize=True)


@NAMES
def test_a_valid_input_is_accepted(name):
    target, good = TARGETS[name]
    assert target(good)


@NAMES
@FEW
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_hold_the_contract(name, data):
    target, _ = TARGETS[name]
    target(data)


@NAMES
@FEW
@given(place=st.integers(0, 400), noise=st.binary(max_size=9), dropped=st.integers(0, 9))
def test_an_altered_valid_input_holds_the_contract(name, place, noise, dropped):
    target, good = TARGETS[name]
    target(good[:place] + noise + good[place + dropped :])
