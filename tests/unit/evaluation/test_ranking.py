from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from fraud_service.evaluation.ranking import average_precision

ROWS = st.lists(st.tuples(st.booleans(), st.integers(-4, 4) | st.floats(-9, 9)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(ROWS)
def test_average_precision_equals_that_of_scikit_learn(rows):
    is_fraud, scores = np.array([fraud for fraud, _ in rows]), np.array([float(score) for _, score in rows])
    assume(is_fraud.any())
    assert average_precision(is_fraud, scores) == pytest.approx(average_precision_score(is_fraud, scores), abs=1e-12)


@pytest.mark.parametrize("missing", [np.nan, -np.inf])
def test_a_missing_score_ranks_lowest(missing):
    assert average_precision(np.array([True, False, True]), np.array([2.0, 1.0, missing])) == pytest.approx(5 / 6)
