"""Training: the same history gives the same files, nothing from after the window enters, and export proves itself."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from hashlib import sha256

import msgspec
import numpy as np
import pytest
from support.worlds import DAY, HOUR, MONDAY, transaction

from fraud_service.domain.errors import ConfigurationError, ModelError
from fraud_service.domain.features import NAMES
from fraud_service.models import artifact
from fraud_service.models.artifact import CARD, MANIFEST, MODEL, TREES
from fraud_service.models.onnx_forest import OnnxForest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

from support.simulated import simulated_file

from fraud_service.domain.events import LabelledTransaction
from fraud_service.training import export as exporting
from fraud_service.training.fit import (
    CANDIDATE_PARAMETERS,
    PARAMETERS,
    Examples,
    Window,
    collect,
    fit,
    prior,
    standardisation,
)
from fraud_service.training.history import History
from fraud_service.training.pipeline import train

QUICK = 15  # trees

# In a process of its own, as users run it: another hash seed, another number of threads.
TRAIN_AGAIN = f"""
import sys
from pathlib import Path
from fraud_service.training.history import History
from fraud_service.training.fit import CANDIDATE_PARAMETERS
from fraud_service.training.pipeline import train
for choice in CANDIDATE_PARAMETERS:
    choice["n_estimators"] = {QUICK}
train(History.open(Path(sys.argv[1])), Path(sys.argv[2]), start=None, label_delay={7 * DAY}, source="a small world")
"""


@pytest.fixture(scope="module")
def quick():
    """Fit few trees."""
    with pytest.MonkeyPatch.context() as patch:
        for choice in CANDIDATE_PARAMETERS:
            patch.setitem(choice, "n_estimators", QUICK)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return simulated_file(tmp_path_factory.mktemp("world"), seed=1, cards=150, merchants=100, days=36)


@pytest.fixture(scope="module")
def trained(quick, world, tmp_path_factory):
    """Train once; gives the folder and the manifest."""
    folder = tmp_path_factory.mktemp("trained") / "new" / "folder"
    turns = []
    manifest = train(
        History.open(world),
        folder,
        start=None,
        label_delay=7 * DAY,
        source="a small world",
        progress=lambda: turns.append(1),
    )
    assert len(turns) == len(History.open(world))
    return folder, manifest


def past(count, **facts):
    """Make a payment an hour; every third is a fraud, known a day later."""
    return [
        LabelledTransaction(
            transaction(f"t{n:04}", MONDAY + n * HOUR, **({"amount": 900.0 if n % 3 == 0 else 20.0} | facts)),
            is_fraud=n % 3 == 0,
            labelled_at=MONDAY + n * HOUR + DAY,
        )
        for n in range(count)
    ]


def known(event, **facts):
    return msgspec.structs.replace(event, **facts)


@pytest.fixture
def fitted(quick):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(1500, len(NAMES))) * 100
    return fit(Examples(features, features[:, 0] + features[:, 3] > 150, np.arange(1500) * HOUR))


def test_training_again_in_another_process_writes_the_same_bytes(trained, world, tmp_path):
    environment = os.environ | {"PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2"}
    subprocess.run([sys.executable, "-c", TRAIN_AGAIN, world, tmp_path], env=environment, check=True, timeout=120)
    folder, _ = trained
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([MANIFEST, MODEL, TREES, CARD])
    for name in (MANIFEST, MODEL, TREES, CARD):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_what_was_trained_can_be_served_and_has_learned_something(trained):
    folder, manifest = trained
    model = OnnxForest.load(folder)
    assert model.version == manifest.version
    assert model.manifest == manifest
    assert manifest.metrics["held_out_auc_roc"] > 0.8


def test_the_manifest_says_what_was_trained_on_what(trained, world):
    folder, manifest = trained
    events = list(History.open(world))
    begin, end = events[0].transaction.timestamp, events[-1].transaction.timestamp
    rows = [event for event in events if event.transaction.timestamp >= begin + (end - begin) // 3]
    frauds = sum(event.is_fraud and event.labelled_at <= end + 1 + 7 * DAY for event in rows)
    assert frauds < sum(event.is_fraud for event in rows)  # some become known too late
    assert tuple(manifest.features) == NAMES
    assert manifest.sha256 == {name: sha256((folder / name).read_bytes()).hexdigest() for name in (MODEL, TREES)}
    assert manifest.version == f"forest-{manifest.sha256[MODEL][:12]}"
    assert manifest.prior == pytest.approx(math.log(frauds / (len(rows) - frauds)))
    assert manifest.training["source"] == "a small world"
    assert (manifest.training["rows"], manifest.training["frauds"]) == (len(rows), frauds)
    assert manifest.training["label_delay_days"] == 7
    assert manifest.training["from"].startswith("2024-01-12T")
    assert manifest.training["to"].startswith("2024-02-05T")
    assert manifest.training["parameters"] in [PARAMETERS | choice for choice in CANDIDATE_PARAMETERS]
    assert manifest.training["judged_days"] == pytest.approx((end - rows[0].transaction.timestamp) / 4 / DAY, abs=0.01)
    assert set(manifest.training) >= {"python", "scikit-learn"}


def test_the_card_tells_a_person_what_the_manifest_tells_a_program(trained):
    folder, manifest = trained
    card = (folder / CARD).read_text(encoding="utf-8")
    assert card.startswith(f"# Model {manifest.version}\n")
    assert "| trained on | a small world |" in card
    assert f"{manifest.training['rows']:,}, of which {manifest.training['frauds']:,} frauds" in card
    assert f"| held out auc roc | {manifest.metrics['held_out_auc_roc']:g} |" in card
    assert f"| n_estimators | {QUICK} |" in card
    assert "What it is not for" in card


def test_export_keeps_every_score_to_less_than_a_millionth(fitted, tmp_path):
    exporting.export(fitted, Window(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path)
    served = OnnxForest.load(tmp_path)
    assert exporting.parity(fitted, served) < 1e-12
    assert len(artifact.read(tmp_path).trees.roots) == QUICK


def test_an_exported_graph_that_scores_otherwise_is_not_written(fitted, monkeypatch, tmp_path):
    graph = exporting.onnx_bytes

    def tampered(trees):
        return graph(msgspec.structs.replace(trees, value=[value + 1e-5 for value in trees.value]))

    monkeypatch.setattr(exporting, "onnx_bytes", tampered)
    with pytest.raises(ModelError, match=r"differs from scikit-learn by .*, allowed is 1e-06"):
        exporting.export(fitted, Window(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))


def test_an_exported_graph_that_scores_not_a_number_is_not_written(fitted, monkeypatch, tmp_path):
    graph = exporting.onnx_bytes
    monkeypatch.setattr(
        exporting,
        "onnx_bytes",
        lambda trees: graph(msgspec.structs.replace(trees, value=[math.nan] * len(trees.value))),
    )
    with pytest.raises(ModelError, match="differs from scikit-learn by nan"):
        exporting.export(fitted, Window(MONDAY, MONDAY + DAY, DAY), "noise", tmp_path / "new")
    assert not list(tmp_path.rglob("*.*"))


def test_a_fraud_known_only_after_the_window_and_the_delay_counts_as_genuine():
    events = past(90)
    window = Window(MONDAY, MONDAY + 90 * HOUR, DAY)
    deadline = window.end + window.label_delay
    in_time, too_late = list(events), list(events)
    in_time[30] = known(events[30], labelled_at=deadline)
    too_late[30] = known(events[30], labelled_at=deadline + 1)
    assert collect(in_time, window).labels.sum() == 30
    labels = collect(too_late, window).labels
    assert labels.sum() == 29
    assert not labels[30]


def test_what_happened_after_the_window_changes_no_example():
    window = Window(MONDAY, MONDAY + 90 * HOUR, DAY)
    before, after = collect(past(90), window), collect(past(120, merchant_id="merchant-1"), window)
    assert after.features.tolist() == before.features.tolist()
    assert after.labels.tolist() == before.labels.tolist()


def test_a_label_that_comes_later_than_all_features_changes_no_feature():
    window = Window(MONDAY, MONDAY + 90 * HOUR, DAY)
    events = past(90)
    other = [*events[:80], *(known(event, is_fraud=not event.is_fraud) for event in events[80:])]
    assert collect(other, window).features.tolist() == collect(events, window).features.tolist()


def test_what_lies_before_the_window_warms_the_profiles_and_is_not_fitted():
    window = Window(MONDAY + 20 * HOUR, MONDAY + 90 * HOUR, DAY)
    examples = collect(past(90), window)
    assert examples.features.shape == (70, len(NAMES))
    assert examples.timestamps.min() == window.start
    assert examples.features[0, NAMES.index("count_30d")] == 20


def test_a_repeated_transaction_is_fitted_once():
    events = past(90)
    window = Window(MONDAY, MONDAY + 90 * HOUR, DAY)
    assert len(collect([*events[:41], events[40], *events[41:]], window).labels) == 90
    later = msgspec.structs.replace(events[40].transaction, timestamp=MONDAY + 41 * HOUR)
    another = known(events[40], transaction=later)  # under a used id
    assert len(collect([*events[:41], another, *events[41:]], window).labels) == 91


def test_a_payment_of_which_nothing_became_known_counts_as_genuine():
    events = past(90)
    events[30] = known(events[30], is_fraud=None, labelled_at=None)
    assert not collect(events, Window(MONDAY, MONDAY + 90 * HOUR, DAY)).labels[30]


def test_too_few_frauds_are_refused_with_what_could_be_done():
    with pytest.raises(ConfigurationError) as caught:
        collect(past(30), Window(MONDAY, MONDAY + 30 * HOUR, DAY))
    assert "holds 10 known frauds in 30 transactions, at least 20 are needed" in str(caught.value)
    assert "--train-from/--train-to" in str(caught.value)


def test_a_history_without_transactions_is_refused(world, tmp_path):
    empty = History.open(world, end=1)
    with pytest.raises(ConfigurationError, match="the history has no transaction"):
        train(empty, tmp_path / "new", start=None, label_delay=DAY, source="nothing")
    assert not list(tmp_path.rglob("*.*"))


def test_a_history_of_nothing_but_frauds_is_refused(quick, tmp_path):
    events = [known(event, is_fraud=True) for event in past(300)]
    with pytest.raises(ConfigurationError, match="300 known frauds in 300 transactions"):
        train(events, tmp_path / "new", start=MONDAY, label_delay=DAY, source="only frauds")
    assert not list(tmp_path.rglob("*.*"))


def test_a_history_too_small_to_tell_anything_apart_is_refused(quick, tmp_path):
    with pytest.raises(ConfigurationError, match="60 transactions"):
        train(past(60), tmp_path / "new", start=MONDAY, label_delay=DAY, source="two days")
    assert not list(tmp_path.rglob("*.*"))


def test_with_too_few_frauds_in_the_last_week_there_are_no_figures_rather_than_wrong_ones(quick):
    rng = np.random.default_rng(6)
    labels = np.arange(600) % 20 == 0
    examples = Examples(rng.normal(size=(600, len(NAMES))), labels, np.arange(600) * 6 * HOUR)
    assert fit(examples).metrics == {}


def test_the_prior_is_the_logit_of_the_fraud_rate():
    labels = np.array([True] + [False] * 99)
    assert prior(Examples(np.zeros((100, 42)), labels, np.arange(100))) == pytest.approx(math.log(1 / 99))


def test_a_feature_that_never_varies_is_divided_by_one():
    features = np.zeros((10, 42))
    features[:, 1] = 1e13
    features[:, 2] = np.sinh(np.arange(10.0))
    centre, scale = standardisation(Examples(features, np.zeros(10, bool), np.arange(10)))
    assert scale[:2] == [1.0, 1.0]
    assert (centre[2], scale[2]) == pytest.approx((4.5, np.arange(10).std()), abs=1e-6)
