"""Re-fits: evaluated on transactions that the challenger has not seen, promoted only by the margin."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from support.worlds import DAY, MONDAY, LinearModel, features

pytest.importorskip("sklearn")

from fraud_service.domain.decision import Outcome
from fraud_service.domain.features import NAMES
from fraud_service.domain.records import LabelledRecord, encode_record, readable_examples
from fraud_service.domain.time import rfc3339
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training.dataset import Examples
from fraud_service.training.fit import CANDIDATE_PARAMETERS
from fraud_service.training.refit import (
    HOLDOUT_MS,
    MAX_AGE_MS,
    LabelledWindow,
    evaluate_challenger,
    max_trees,
    shortage,
)

DAYS = 40


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    for choice in CANDIDATE_PARAMETERS:
        monkeypatch.setitem(choice, "n_estimators", 10)
    monkeypatch.setattr("fraud_service.training.refit.TRIAL_TREES", 10)


def world(seed: int = 1, change: int = DAYS) -> Examples:
    """Draw forty days in which the first feature tells frauds, from a day on the second."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4000, len(NAMES))) * 100
    timestamps = MONDAY + np.sort(rng.integers(0, DAYS * DAY, 4000))
    telling = np.where(timestamps < MONDAY + change * DAY, rows[:, 0], rows[:, 1])
    return Examples(rows, telling > 150, timestamps)


def test_what_a_comparison_lacks_is_said_with_its_numbers():
    examples = world()
    assert shortage(examples) is None
    assert shortage(None) == "there is no labelled example"
    early = examples.where(examples.timestamps < examples.timestamps[0] + 8 * DAY)
    few = early.where(~early.labels | (early.timestamps > early.timestamps.max() - HOLDOUT_MS))
    assert "and 0 before, and a comparison needs 20 of both" in shortage(few)


class UselessModel(LinearModel):
    """A champion whose scores say nothing about fraud."""


class PerfectModel(LinearModel):
    """A champion that reads the truth off the first feature."""

    def logits(self, rows):
        return [row.amount / 100 for row in rows]


def test_a_better_challenger_is_promoted_and_its_manifest_has_the_comparison():
    outcome, promoted = evaluate_challenger(world(), UselessModel(), MONDAY + DAYS * DAY, "a topic")
    assert outcome.challenger > 0.9
    assert outcome.champion < 0.2
    assert outcome.promoted == promoted.manifest.version
    assert promoted.manifest.metrics["challenger_average_precision"] == outcome.challenger
    assert promoted.manifest.metrics["champion_average_precision"] == outcome.champion
    assert promoted.manifest.metrics["margin"] == outcome.margin
    assert promoted.manifest.training["source"] == "a topic"
    newest = int(world().timestamps.max()) + 1
    assert promoted.manifest.training["to"] == rfc3339(newest)  # the days that judged are fitted too
    assert OnnxForest(artifact.unpack(artifact.pack(promoted))).version == outcome.promoted


def test_an_equally_good_champion_stays():
    outcome, promoted = evaluate_challenger(world(), PerfectModel(), MONDAY, "a topic")
    assert promoted is outcome.promoted is None
    steps: list[int] = []
    evaluate_challenger(world(), PerfectModel(), MONDAY, "a topic", progress=steps.append)
    assert sum(steps) == max_trees()
    assert outcome.champion == 1.0


def test_the_champion_stays_if_the_margin_is_not_reached():
    outcome, _ = evaluate_challenger(world(), UselessModel(), MONDAY, "a topic")
    gap = outcome.challenger - outcome.champion
    assert evaluate_challenger(world(), UselessModel(), MONDAY, "a topic", margin=gap)[1] is None
    assert evaluate_challenger(world(), UselessModel(), MONDAY, "a topic", margin=gap - 0.001)[1] is not None


def test_after_a_drift_the_challenger_of_the_short_span_is_chosen():
    outcome, _ = evaluate_challenger(world(change=DAYS - 18), PerfectModel(), MONDAY, "a topic")
    assert outcome.span_days == 14
    assert outcome.promoted is not None


def test_the_same_labels_give_the_same_model():
    steps: list[int] = []
    first = evaluate_challenger(world(), UselessModel(), MONDAY, "a topic", progress=steps.append)[1]
    second = evaluate_challenger(world(), UselessModel(), MONDAY, "a topic")[1]
    assert sum(steps) == max_trees()
    assert artifact.pack(first) == artifact.pack(second)


def test_without_frauds_in_the_holdout_nothing_is_evaluated():
    examples = world()
    late = examples.timestamps > examples.timestamps.max() - HOLDOUT_MS
    quiet = msgspec.structs.replace(examples, labels=examples.labels & ~late)
    outcome, promoted = evaluate_challenger(quiet, UselessModel(), MONDAY, "a topic")
    assert (outcome.champion, outcome.challenger, promoted) == (None, None, None)
    assert evaluate_challenger(None, UselessModel(), MONDAY, "a topic")[1] is None


def record(number: int, *, is_fraud: bool, timestamp: int = MONDAY) -> LabelledRecord:
    return LabelledRecord(
        transaction_id=f"t{number}",
        card_id="card-1",
        merchant_id="merchant-1",
        timestamp=timestamp,
        amount=1.0,
        is_fraud=is_fraud,
        source=None,
        known_at=timestamp + DAY,
        corrects=False,
        weight=1.0,
        boundary_ms=0,
        pretrained_logit=None,
        online_logit=None,
        score=0.5,
        outcome=Outcome.REVIEW,
        model="model-1",
        features=features(amount=float(number)),
    )


def test_a_correction_replaces_the_earlier_label_and_old_examples_are_dropped():
    window = LabelledWindow()
    assert window.examples() is None
    window.add([record(1, is_fraud=True), record(2, is_fraud=True, timestamp=MONDAY + DAY)])
    window.add([record(2, is_fraud=False, timestamp=MONDAY + DAY)])
    assert window.examples().labels.tolist() == [True, False]
    window.add([record(3, is_fraud=False, timestamp=MONDAY + MAX_AGE_MS)])
    assert window.examples().features[:, 0].tolist() == [2.0, 3.0]


def test_an_unreadable_record_among_the_labelled_examples_is_skipped():
    """One of them ended every re-fit for as long as the topic kept it."""
    good = encode_record(record(1, is_fraud=True))
    endless = good.replace(str(MONDAY).encode(), b"1" + b"0" * 400)
    assert [*readable_examples([b"junk", good, b"", endless, b"[" * 5000])] == [record(1, is_fraud=True)]


def test_transactions_that_share_an_id_are_separate_examples_with_separate_corrections():
    window = LabelledWindow()
    cheap = record(1, is_fraud=False)
    dear = msgspec.structs.replace(cheap, amount=9999.0)
    window.add([cheap, dear, msgspec.structs.replace(dear, is_fraud=True, corrects=True)])
    assert sorted(window.examples().labels.tolist()) == [False, True]
