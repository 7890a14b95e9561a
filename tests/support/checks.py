"""Checks that every model must pass, as functions over one small protocol, and the adapters to it.

A check needs a model of its own, and raises `AssertionError` if the model fails. Models that learn must also pass
`LEARNER_CHECKS`.
"""

from __future__ import annotations

import math
import random
from copy import deepcopy
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

import msgspec
from support.worlds import MONDAY, features, snapshot

from fraud_service.domain.events import MAX_AMOUNT
from fraud_service.domain.features import MAX_AGE_H, NAMES, Features
from fraud_service.domain.scoring import probability
from fraud_service.domain.snapshot import decode_snapshot, encode_snapshot
from fraud_service.models.artifact import Artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.river_learner import RiverLearner

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fraud_service.domain.online_model import ModelInput, OnlineModel

COLD_START = features(
    amount=25.0,
    hours_since_last=MAX_AGE_H,
    amount_to_mean=1.0,
    amount_to_largest=1.0,
    merchant_hours_since_legitimate=MAX_AGE_H,
    merchant_hours_since_lowamount_fraud=MAX_AGE_H,
    card_hours_since_fraud=MAX_AGE_H,
)
EXTREMES = [
    features(),
    COLD_START,
    Features(*([1.0] * len(NAMES))),
    Features(*([float(MAX_AMOUNT)] * len(NAMES))),
    Features(*([-20.0] * len(NAMES))),
    Features(*([5e-324] * len(NAMES))),
    features(amount=float(MAX_AMOUNT), total_1d=1e18, mean_7d=1e13, mean_30d=1e13, amount_to_mean=1000.0),
    features(
        count_10m=16.0, count_1h=16.0, small_payments_1h=16.0, distinct_merchants_1h=16.0, count_1d=1e7, count_30d=1e9
    ),
    features(merchant_labelled_30d=1e9, merchant_fraud_share_30d=1.0, merchant_streak=100.0, card_frauds_30d=1e9),
    features(distance_km=20_015.0, speed_kmh=20_000.0, amount_zscore=20.0),
]
NOT_FINITE = [
    Features(*([math.nan] * len(NAMES))),
    features(amount=math.nan),
    features(amount=math.inf),
    features(speed_kmh=-math.inf, distance_km=math.nan),
]


class Scorer(Protocol):
    """A model that scores."""

    def score(self, rows: Sequence[Features]) -> list[float]:
        """Return the probability of fraud of every row."""

    def data(self) -> bytes:
        """Serialise the whole model."""

    def restored(self, data: bytes) -> Self:
        """Load the model from its serialised form."""


class Learner(Scorer, Protocol):
    """A model that also learns."""

    def learn(self, row: Features, *, is_fraud: bool) -> None:
        """Learn one example."""


class Planted(NamedTuple):
    """An example whose label follows from its features."""

    row: Features
    is_fraud: bool


@dataclass(frozen=True)
class PretrainedScorer:
    """The pretrained model as the scorer uses it."""

    model: OnnxForest
    artifact: Artifact

    def score(self, rows):
        return [probability(encoded.logit) for encoded in self.model.encode(rows)]

    def data(self):
        return msgspec.msgpack.encode(self.artifact)

    def restored(self, data):
        artifact = msgspec.msgpack.decode(data, type=Artifact)
        return PretrainedScorer(OnnxForest(artifact), artifact)


@dataclass(frozen=True)
class SnapshotScorer:
    """The online model as published in snapshots."""

    online: OnlineModel
    pretrained: OnnxForest

    def score(self, rows):
        return [probability(self.online.logit(row, row.logit)) for row in self.pretrained.encode(rows)]

    def data(self):
        return encode_snapshot(snapshot(MONDAY, {}, {}, online=self.online))

    def restored(self, data):
        return SnapshotScorer(decode_snapshot(data).online, self.pretrained)


def river_probability(learner: RiverLearner, encoded: ModelInput) -> float:
    """Return the prediction of river itself, to compare with that of the exported model."""
    return float(learner._model.predict_proba_one(learner._inputs(encoded))[True])


@dataclass(frozen=True)
class RiverScorer:
    """River's model, which learns from the output of the pretrained model."""

    learner: RiverLearner
    pretrained: OnnxForest

    @classmethod
    def untrained(cls, pretrained: OnnxForest, state: bytes | None = None) -> RiverScorer:
        return cls(RiverLearner(pretrained.untrained_online_model(), pretrained.version, state), pretrained)

    def score(self, rows):
        return [river_probability(self.learner, row) for row in self.pretrained.encode(rows)]

    def learn(self, row, *, is_fraud):
        (encoded,) = self.pretrained.encode([row])
        self.learner.learn(encoded, is_fraud=is_fraud, weight=1.0)

    def data(self):
        return self.learner.state()

    def restored(self, data):
        return RiverScorer.untrained(self.pretrained, data)


def plausible(seed: int, count: int) -> list[Features]:
    """Draw rows with features of every possible magnitude."""
    rng = random.Random(seed)
    draws = (lambda: 0.0, lambda: float(rng.randrange(20)), rng.random, lambda: math.exp(rng.uniform(-3, 9)))
    return [Features(*(rng.choice(draws)() for _ in NAMES)) for _ in range(count)]


def planted(seed: int, count: int) -> list[Planted]:
    """Draw examples in which frauds are large payments at night to merchants new to the card."""
    rng, examples = random.Random(seed), []
    for _ in range(count):
        is_fraud = rng.random() < 0.2
        row = features(
            amount=math.exp(rng.gauss(6.0 if is_fraud else 3.0, 0.7)),
            hour_of_day=float(rng.randrange(6) if is_fraud else rng.randrange(6, 24)),
            is_night=float(is_fraud),
            amount_to_mean=math.exp(rng.gauss(1.5 if is_fraud else 0.0, 0.5)),
            merchant_visits=0.0 if is_fraud else float(rng.randrange(12)),
            count_30d=float(rng.randrange(1, 60)),
            card_age_days=float(rng.randrange(365)),
        )
        examples.append(Planted(row, is_fraud))
    return examples


def learn_all(model: Learner, examples: Iterable[Planted]) -> None:
    """Let the model learn the examples in order."""
    for row, is_fraud in examples:
        model.learn(row, is_fraud=is_fraud)


def auc(scores: Sequence[float], truth: Sequence[bool]) -> float:
    """Return the chance that a fraud scores above a legitimate payment; equal scores count half (Mann and Whitney)."""
    won, legitimate, frauds = 0.0, 0, 0
    for _, tied in groupby(sorted(zip(scores, truth, strict=True)), key=itemgetter(0)):
        flags = [is_fraud for _, is_fraud in tied]
        frauds_here, legitimate_here = sum(flags), len(flags) - sum(flags)
        won += frauds_here * (legitimate + legitimate_here / 2)
        frauds, legitimate = frauds + frauds_here, legitimate + legitimate_here
    return won / (frauds * legitimate)


def check_scoring_changes_nothing(model: Scorer) -> None:
    rows = [*plausible(1, 30), *EXTREMES]
    before, copies = model.data(), deepcopy(rows)
    first, second = model.score(rows), model.score(rows)
    assert first == second
    assert rows == copies
    assert model.data() == before


def check_scores_are_probabilities(model: Scorer) -> None:
    for row in [*EXTREMES, *plausible(2, 100)]:
        (score,) = model.score([row])
        assert isinstance(score, float)
        assert 0.0 <= score <= 1.0, (score, row)


def check_a_batch_equals_its_rows(model: Scorer) -> None:
    rows = [*plausible(3, 150), *EXTREMES]
    one_by_one = [model.score([row])[0] for row in rows]
    assert model.score(rows) == one_by_one
    assert model.score(rows[::-1]) == one_by_one[::-1]
    assert model.score(rows[:7]) + model.score(rows[7:]) == one_by_one


def check_a_restored_model_is_the_same(model: Scorer) -> None:
    rows = [*plausible(4, 100), *EXTREMES]
    restored = model.restored(model.data())
    assert restored.data() == model.data()
    assert restored.score(rows) == model.score(rows)


def check_a_row_that_is_not_finite_harms_no_other(model: Scorer) -> None:
    rows = plausible(5, 20)
    expected = model.score(rows)
    for bad in NOT_FINITE:
        assert [model.score([*rows[:10], bad])[:10], model.score([bad, *rows[10:]])[1:]] == [
            expected[:10],
            expected[10:],
        ]
    assert model.score(rows) == expected


def check_learning_continues_after_a_restart(model: Learner) -> None:
    interrupted, examples = model.restored(model.data()), planted(6, 1000)
    learn_all(model, examples)
    learn_all(interrupted, examples[:500])
    interrupted = interrupted.restored(interrupted.data())
    learn_all(interrupted, examples[500:])
    assert interrupted.data() == model.data()
    assert interrupted.score(EXTREMES) == model.score(EXTREMES)


def check_the_same_examples_teach_the_same(model: Learner) -> None:
    twin, stranger = model.restored(model.data()), model.restored(model.data())
    learn_all(model, planted(7, 300))
    learn_all(twin, planted(7, 300))
    learn_all(stranger, planted(8, 300))
    assert twin.data() == model.data()
    assert stranger.data() != model.data()


def check_size_does_not_grow_with_examples(model: Learner) -> None:
    learn_all(model, planted(9, 200))
    size = len(model.data())
    learn_all(model, planted(10, 2000))
    assert len(model.data()) <= size + 8  # the count of steps takes more digits


def check_examples_that_are_not_finite_ruin_nothing(model: Learner) -> None:
    learn_all(model, planted(11, 200))
    before = model.data()
    for row in NOT_FINITE:
        if any(map(math.isnan, row.vector())):
            model.learn(row, is_fraud=True)
    assert model.data() == before
    for row in [*NOT_FINITE, *EXTREMES]:  # a model may learn an infinite value as a very large one
        model.learn(row, is_fraud=True)
    check_scores_are_probabilities(model)


def check_planted_fraud_ranks_above_legitimate(model: Learner) -> None:
    learn_all(model, planted(12, 1500))
    rows, truth = zip(*planted(13, 500), strict=True)
    assert auc(model.score(rows), truth) > 0.95


CHECKS = (
    check_scoring_changes_nothing,
    check_scores_are_probabilities,
    check_a_batch_equals_its_rows,
    check_a_restored_model_is_the_same,
    check_a_row_that_is_not_finite_harms_no_other,
)
LEARNER_CHECKS = (
    check_learning_continues_after_a_restart,
    check_the_same_examples_teach_the_same,
    check_size_does_not_grow_with_examples,
    check_examples_that_are_not_finite_ruin_nothing,
    check_planted_fraud_ranks_above_legitimate,
)
