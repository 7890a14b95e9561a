"""Fitting: metrics only where the holdout can tell, and the numbers that the manifest needs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.worlds import HOUR

pytest.importorskip("sklearn")

from sklearn.ensemble import RandomForestClassifier

from fraud_service.domain.decision import Policy
from fraud_service.domain.features import NAMES
from fraud_service.training.dataset import Examples, Payments
from fraud_service.training.fit import (
    CANDIDATE_PARAMETERS,
    PARAMETERS,
    TREES_PER_STEP,
    fit,
    fit_forest,
    max_trees,
    prior,
    standardisation,
)


def test_with_too_few_frauds_in_the_holdout_there_are_no_metrics(quick):
    rng = np.random.default_rng(6)
    labels = np.arange(600) % 20 == 0
    examples = Examples(rng.normal(size=(600, len(NAMES))), labels, np.arange(600) * 6 * HOUR)
    found = fit(examples)
    assert (found.metrics, found.held_out) == ({}, None)
    assert found.missing.startswith(
        "known frauds are 1 of 29 payments on the last 7 days, and 29 before; figures need 20"
    )


def payments(count: int) -> Payments:
    return Payments(np.arange(count) % 7, np.full(count, 10.0), np.array(["EUR"] * count))


def test_the_alerts_on_the_held_out_days_are_counted_at_the_review_threshold(quick):
    rng = np.random.default_rng(7)
    features = rng.normal(size=(1200, len(NAMES)))
    examples = Examples(features, features[:, 0] > 1, np.arange(1200) * HOUR, payments(1200))
    found = fit(examples, Policy(review=0.5))
    held_out = found.held_out
    assert held_out.rows == found.metrics["held_out_rows"]
    assert held_out.frauds == found.metrics["held_out_frauds"]
    assert held_out.alerts.threshold == 0.5
    assert 0.5 < held_out.alerts.recall <= 1
    assert held_out.alerts.value_recall == held_out.alerts.recall  # all amounts are equal
    assert fit(examples, Policy(review=1.0)).held_out.alerts.alerts == 0
    assert fit(examples, Policy(review=1.0)).metrics == found.metrics


@pytest.mark.parametrize("rows", [300, 1200])
def test_the_progress_of_a_fit_ends_at_its_total(quick, rows):
    rng = np.random.default_rng(8)
    features, steps = rng.normal(size=(rows, len(NAMES))), []
    fit(Examples(features, features[:, 0] > 1, np.arange(rows) * HOUR), progress=steps.append)
    assert sum(steps) == max_trees()


def test_fitting_in_steps_gives_the_trees_of_one_fit(quick):
    rng = np.random.default_rng(9)
    features = rng.normal(size=(400, len(NAMES)))
    examples = Examples(features, features[:, 0] > 1, np.arange(400) * HOUR)
    parameters = CANDIDATE_PARAMETERS[0] | {"n_estimators": 2 * TREES_PER_STEP + 3}
    whole = RandomForestClassifier(**PARAMETERS, **parameters, max_samples=400).fit(features, examples.labels)
    steps = fit_forest(examples, parameters)
    assert (steps.predict_proba(features) == whole.predict_proba(features)).all()
    assert steps.get_params()["n_estimators"] == len(steps.estimators_) == parameters["n_estimators"]


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
