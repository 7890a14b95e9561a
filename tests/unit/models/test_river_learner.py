"""The online model: scorers compute what river predicts, and a restart restores the state exactly or not at all."""

from __future__ import annotations

import math
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model, optim, utils
from support.checks import EXTREMES, NOT_FINITE, planted, plausible, river_probability
from support.worlds import encoded, features

from fraud_service.domain.features import NAMES, Features
from fraud_service.domain.online_model import ModelInputRows, OnlineModel
from fraud_service.domain.scoring import probability
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.river_learner import LEARNING_RATE, OnlineState, RiverLearner

FAST = settings(max_examples=60, deadline=None, derandomize=True)

FINITE = st.floats(-1e18, 1e18) | st.sampled_from([0.0, 1.0, 720.0, 1e13])
ROWS = st.lists(FINITE, min_size=len(NAMES), max_size=len(NAMES)).map(lambda values: Features(*values))
EXAMPLES = st.lists(st.tuples(ROWS, st.floats(-30, 30), st.booleans(), st.floats(0.01, 100)), max_size=12)
INITIAL = OnlineModel.untrained(leaves=3)


def encode(row, logit):
    """Encode a row as if it reached one of the first two leaves, and always the third."""
    return msgspec.structs.replace(encoded(row, logit), leaves=[int(row.amount > 100), 2])


@cache
def shipped():
    return OnnxForest.load(artifact.shipped_folder())


def learner(state=None, version="model-1", initial=INITIAL):
    return RiverLearner(initial, version, state)


def trained(count=50, seed=1):
    model = learner()
    for row, is_fraud in planted(seed, count):
        model.learn(encode(row, -2.0), is_fraud=is_fraud, weight=1.0)
    return model


def state_of(model):
    return msgspec.msgpack.decode(model.state(), type=OnlineState)


@FAST
@given(EXAMPLES, ROWS, st.floats(-30, 30))
def test_scorers_compute_from_the_exported_model_what_river_itself_predicts(examples, row, logit):
    model = learner()
    for seen, known, is_fraud, weight in examples:
        model.learn(encode(seen, known), is_fraud=is_fraud, weight=weight)
    assert probability(model.export().logit(encode(row, logit), logit)) == pytest.approx(
        river_probability(model, encode(row, logit)), abs=1e-9
    )


def test_an_untrained_online_model_scores_exactly_as_the_pretrained_model():
    pretrained = shipped()
    rows = [*plausible(1, 100), *EXTREMES]
    online = pretrained.untrained_online_model()
    model = RiverLearner(online, pretrained.version, None)
    for row in pretrained.encode(rows):
        assert online.logit(row, row.logit) == row.logit
        assert model.export().logit(row, row.logit) == row.logit
        assert river_probability(model, row) == pytest.approx(probability(row.logit), abs=1e-12)


@FAST
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1.0, 1e200, 1e307]), st.integers(1, 40))
def test_a_batch_has_the_same_bits_as_its_rows_one_by_one(seed, largest, count):
    pretrained, luck = shipped(), np.random.default_rng(seed)
    rows = pretrained.encode([*plausible(seed, count), *EXTREMES])
    known = [*rows.logits[:-1], math.nan]
    model = OnlineModel(
        tuple((largest * luck.normal(size=len(NAMES))).tolist()),
        tuple(luck.normal(size=pretrained.manifest.leaves).tolist()),
        *luck.normal(size=2).tolist(),
    )
    assert np.array_equal(rows.online(model, known), ModelInputRows(rows).online(model, known), equal_nan=True)


def test_a_batch_that_does_not_fit_the_model_gets_no_score():
    rows = shipped().encode([*EXTREMES])
    for unfit in [OnlineModel((), (), 1.0, 0.0), OnlineModel.untrained(leaves=1)]:
        assert all(math.isnan(logit) for logit in rows.online(unfit, rows.logits))


def test_before_the_first_example_the_learner_exports_the_initial_model():
    assert learner().export() == INITIAL


def test_the_learner_starts_with_the_weights_of_the_initial_model():
    warm = msgspec.structs.replace(
        INITIAL,
        weights=tuple(float(n) for n in range(len(NAMES))),
        leaf_weights=(0.5, -0.5, 0.25),
        pretrained_weight=0.7,
        intercept=-0.25,
    )
    assert learner(initial=warm).export() == warm


def test_learning_changes_the_weights_of_features_and_of_leaves():
    exported = trained().export()
    assert exported.weights != INITIAL.weights
    assert exported.leaf_weights != INITIAL.leaf_weights


def test_a_restarted_learner_has_the_same_bits_in_every_weight():
    model = trained()
    restarted = learner(model.state())
    assert restarted.export() == model.export()
    assert restarted.state() == model.state()
    assert state_of(restarted).iterations == 50


def test_a_state_of_another_pretrained_model_is_ignored():
    other = learner(trained().state(), version="model-2")
    assert other.export() == INITIAL
    assert state_of(other) == OnlineState(
        "model-2", [*[0.0] * len(NAMES), 1.0, 0.0, 0.0, 0.0], [0.0] * (len(NAMES) + 4), 0.0, 0
    )


def test_the_state_names_its_pretrained_model():
    assert state_of(trained()).pretrained == "model-1"


def test_frauds_raise_the_score_of_similar_payments_and_legitimate_ones_lower_it():
    row = features(amount=500.0, speed_kmh=900.0)
    before = river_probability(learner(), encode(row, -1.0))
    for is_fraud in (True, False):
        model = learner()
        for _ in range(100):
            model.learn(encode(row, -1.0), is_fraud=is_fraud, weight=1.0)
        assert (river_probability(model, encode(row, -1.0)) > before) is is_fraud


def test_an_example_of_double_weight_changes_the_model_more():
    once, double = learner(), learner()
    once.learn(encode(EXTREMES[1], -2.0), is_fraud=True, weight=1.0)
    double.learn(encode(EXTREMES[1], -2.0), is_fraud=True, weight=2.0)
    pairs = zip(once.export().weights, double.export().weights, strict=True)
    assert all(abs(further) > abs(far) or far == further == 0 for far, further in pairs)


def test_a_single_example_changes_a_weight_by_at_most_the_learning_rate():
    model = learner()
    model.learn(encode(EXTREMES[3], -30.0), is_fraud=True, weight=1e6)
    assert max(abs(weight) for weight in model.export().weights) <= LEARNING_RATE


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_an_example_with_a_pretrained_logit_that_is_not_finite_is_skipped(logit):
    model = trained()
    before = model.state()
    model.learn(encode(EXTREMES[1], logit), is_fraud=True, weight=1.0)
    assert model.state() == before


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_an_example_with_a_weight_that_is_not_finite_is_skipped(weight):
    model = trained()
    before = model.state()
    model.learn(encode(EXTREMES[1], -2.0), is_fraud=True, weight=weight)
    assert model.state() == before


def test_an_example_with_a_nan_feature_is_skipped():
    model = trained()
    before = model.state()
    model.learn(encode(NOT_FINITE[1], -2.0), is_fraud=True, weight=1.0)
    assert model.state() == before


def test_river_still_keeps_its_weights_under_the_private_name_that_restoring_sets():
    model = linear_model.LogisticRegression(optimizer=optim.AdaGrad(LEARNING_RATE))
    model._weights = utils.VectorDict({"a": 2.0})
    assert dict(model.weights) == {"a": 2.0}
    assert model.predict_proba_one({"a": 0.5})[True] == pytest.approx(probability(1.0))
    model.learn_one({"a": 1.0}, y=True)
    assert 2.0 < model.weights["a"] <= 2.0 + LEARNING_RATE
    assert set(model.optimizer.g2) == {"a"}


def test_river_still_counts_its_steps_under_the_name_that_restoring_sets():
    model = linear_model.LogisticRegression(optimizer=optim.SGD(LEARNING_RATE))
    model.learn_one({"a": 1.0}, y=True)
    assert model.optimizer.n_iterations == 1
