"""Fitting: metrics only where the holdout can tell, and the numbers that the manifest needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.worlds import HOUR

pytest.importorskip("sklearn")

from fraud_service.domain.features import NAMES
from fraud_service.training.dataset import Examples
from fraud_service.training.fit import fit, prior, standardisation


def test_with_too_few_frauds_in_the_holdout_there_are_no_metrics(quick):
    rng = np.random.default_rng(6)
    labels = np.arange(600) % 20 == 0
    examples = Examples(rng.normal(size=(600, len(NAMES))), labels, np.arange(600) * 6 * HOUR)
    assert fit(examples).metrics == {}


def test_the_prior_is_the_logit_of_the_fraud_rate():
    labels = np.array([True] + [False] * 99)
    assert prior(Examples(np.zeros((100, 42)), labels, np.arange(100))) == pytest.approx(math.log(1 / 99))


def test_a_constant_feature_has_scale_one():
    features = np.zeros((10, 42))
    features[:, 1] = 1e13
    features[:, 2] = np.sinh(np.arange(10.0))
    centre, scale = standardisation(Examples(features, np.zeros(10, bool), np.arange(10)))
    assert scale[:2] == [1.0, 1.0]
    assert (centre[2], scale[2]) == pytest.approx((4.5, np.arange(10).std()), abs=1e-6)
