"""Backtests: the files of the command, and that their scores are those of the in-memory service."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.worlds import DAY

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")

from pyarrow import parquet
from support.simulated import simulated_file
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.config import factories
from fraud_service.config.settings import Settings
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.events import instant
from fraud_service.domain.in_memory import InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.models import artifact
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.training import backtest
from fraud_service.training.fit import CANDIDATE_PARAMETERS
from fraud_service.training.history import History

FROM = "2024-01-20"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return simulated_file(tmp_path_factory.mktemp("world"), seed=3, cards=150, merchants=80, days=36)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Copy nothing: the shipped models folder."""
    return artifact.shipped_folder().parent


def command(world, models, folder, *more, name="a"):
    """Run the command; returns its summary and the files it wrote."""
    files = [folder / f"{name}.{suffix}" for suffix in ("parquet", "json", "html")]
    outputs = [str(word) for pair in zip(("--scores", "--json", "--report"), files, strict=True) for word in pair]
    result = CliRunner().invoke(
        app, ["backtest", str(world), "--models", str(models), "--from", FROM, *outputs, *more], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1]), files


@pytest.fixture(scope="module")
def first(world, models, tmp_path_factory):
    return command(world, models, tmp_path_factory.mktemp("first"))


def test_the_same_input_gives_the_same_bytes(first, world, models, tmp_path):
    summary, files = first
    again, others = command(world, models, tmp_path)
    assert again == summary
    for one, other in zip(files, others, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_there_is_one_row_for_each_transaction_from_the_first_day_reported(first, world):
    summary, (scores, *_) = first
    rows = parquet.read_table(scores).to_pylist()
    begin = instant(f"{FROM}T00:00:00Z", "date")
    expected = [event.transaction for event in History.open(world, start=begin)]
    assert [row["transaction_id"] for row in rows] == [transaction.transaction_id for transaction in expected]
    assert summary["transactions"] == len(rows)
    assert {row["model"] for row in rows} == {summary["model"]}
    assert all(0 <= row["score"] <= 1 for row in rows)


def test_scores_equal_those_of_the_in_memory_service(first, world, models):
    _, (scores, *_) = first
    settings, model = Settings(), OnnxForest.load(artifact.find_folder(models))
    service = InMemoryService(
        Detector(model, factories.policy(settings)),
        factories.first_snapshot(model),
        factories.learner_factory(model),
        factories.learning_schedule(settings),
        NegativeSampler(settings.negative_sample_rate),
        7 * DAY,
    )
    expected = {v.transaction.transaction_id: v.decision for v in service.run(History.open(world))}
    for row in parquet.read_table(scores).to_pylist():
        decision = expected[row["transaction_id"]]
        assert (row["score"], row["outcome"], row["snapshot"]) == (decision.score, decision.outcome, decision.snapshot)


def test_without_the_online_model_only_the_pretrained_model_scores(first, world, models, tmp_path):
    _, (scores, *_) = command(world, models, tmp_path, "--no-online")
    alone = parquet.read_table(scores).to_pylist()
    assert all(row["score"] == row["pretrained"] and row["online"] is None for row in alone)
    beside = parquet.read_table(first[1][0]).to_pylist()
    assert [row["pretrained"] for row in alone] == [row["pretrained"] for row in beside]


def test_labels_after_a_day_change_no_score_until_then(first, world, models, tmp_path):
    """Time travel: flip every label that becomes known in the last ten days."""
    table = parquet.read_table(world)
    known, last = np.array(table["labelled_at"].cast("int64")), np.array(table["timestamp"].cast("int64")).max()
    flipped = np.where(known > last - 10 * DAY, ~np.array(table["is_fraud"]), np.array(table["is_fraud"]))
    position = table.schema.get_field_index("is_fraud")
    parquet.write_table(table.set_column(position, "is_fraud", [flipped.tolist()]), tmp_path / "flipped.parquet")
    _, (scores, *_) = command(tmp_path / "flipped.parquet", models, tmp_path)
    pairs = zip(parquet.read_table(first[1][0]).to_pylist(), parquet.read_table(scores).to_pylist(), strict=True)
    same = {
        (row["timestamp"].timestamp() * 1000 <= last - 10 * DAY, row["score"] == other["score"]) for row, other in pairs
    }
    assert (True, False) not in same
    assert (False, False) in same


def test_a_run_can_be_compared_with_another(first, world, models, tmp_path):
    _, (_, other, _) = first
    _, (*_, report) = command(world, models, tmp_path, "--no-online", "--compare", str(other))
    assert "<h2>Compared with world.parquet" in report.read_text(encoding="utf-8")


def test_a_re_fit_that_is_better_scores_from_then_on(world, tmp_path, models, monkeypatch):
    for choice in CANDIDATE_PARAMETERS:
        monkeypatch.setitem(choice, "n_estimators", 20)
    summary, (scores, figures, report) = command(world, models, tmp_path, "--refit-every", "7d", "--no-online")
    refits = json.loads(figures.read_bytes())["refits"]
    assert [refit["at"][:10] for refit in refits] == ["2024-01-27", "2024-02-03"]
    promoted = [refit["promoted"] for refit in refits if refit["promoted"]]
    used = list(dict.fromkeys(parquet.read_table(scores)["model"].to_pylist()))
    assert used == [summary["model"], *promoted]
    for refit in refits:
        better = refit["challenger"] is not None and refit["challenger"] > refit["champion"] + refit["margin"]
        assert bool(refit["promoted"]) is better
    assert "<h2>Re-fits</h2>" in report.read_text(encoding="utf-8")


def test_nothing_to_report_is_an_error_that_names_the_options(world, models):
    plan = backtest.BacktestPlan(
        source="w", models=models, label_delay_ms=7 * DAY, start=instant("2030-01-01T00:00:00Z", "date")
    )
    with pytest.raises(ConfigurationError, match="check --from, --to and the file"):
        backtest.backtest(History.open(world), plan, Settings())


@pytest.mark.parametrize("option", ["--scores", "--json", "--report"])
def test_an_output_that_cannot_be_written_is_rejected_at_the_start(option, world, models, tmp_path):
    arguments = ["backtest", str(world), "--models", str(models), option, str(tmp_path / "nowhere" / "file")]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert "there is no folder" in str(result.exception)
