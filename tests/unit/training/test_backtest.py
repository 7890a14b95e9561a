"""Backtests: the files of the command, and that their scores are those of the in-memory service."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from support.worlds import DAY

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("pyarrow")

import pyarrow as pa
from pyarrow import parquet
from support.simulated import simulated_file
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.config import factories
from fraud_service.config.settings import Settings
from fraud_service.domain.detector import Detector
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.in_memory import InMemoryService
from fraud_service.domain.online_training import NegativeSampler
from fraud_service.domain.time import instant
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
    """Run the command; returns the facts of the run and the files it wrote."""
    files = [folder / f"{name}.{suffix}" for suffix in ("parquet", "json", "html")]
    outputs = [str(word) for pair in zip(("--scores", "--json", "--report"), files, strict=True) for word in pair]
    result = CliRunner().invoke(
        app, ["backtest", str(world), "--models", str(models), "--from", FROM, *outputs, *more], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return json.loads(files[1].read_bytes())["run"], files


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


# --- The answer -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """The labels of a small world, and a function that writes it with other ones."""
    folder = tmp_path_factory.mktemp("few")
    world = parquet.read_table(simulated_file(folder, seed=4, cards=60, merchants=40, days=12)).sort_by("timestamp")
    table = world.drop_columns(["labelled_at"])
    place = table.schema.get_field_index("is_fraud")

    def write(labels, name="is_fraud"):
        path = folder / "few.parquet"
        parquet.write_table(table.set_column(place, name, pa.array(labels, pa.bool_())), path)
        return path

    return table["is_fraud"].to_pylist(), write


@pytest.fixture
def run(models, tmp_path):
    """Run a backtest; returns exit code, stdout, warnings and the result as JSON."""

    def backtested(file, *more):
        path = tmp_path / "few.json"
        words = ["backtest", str(file), "--models", str(models), "--no-online", "--json", str(path), *more]
        result = CliRunner().invoke(app, words, catch_exceptions=False)
        warnings = [
            line.removeprefix("warning: ") for line in result.stderr.splitlines() if line.startswith("warning:")
        ]
        return result.exit_code, result.stdout, warnings, json.loads(path.read_bytes())

    return backtested


def test_the_answer_ends_with_the_sentence_of_the_json(few, run):
    labels, write = few
    code, out, warnings, found = run(write(labels))
    alerts = found["figures"]["operating"]
    assert code == 0
    assert out.splitlines()[-1].startswith(f"caught {alerts['caught']} of {sum(labels)} frauds and ")
    assert f"with {alerts['alerts_a_day']:,.1f} alerts a day" in out.splitlines()[-1]
    assert [line.split()[-1] for line in out.splitlines() if "<-" in line] == ["review", "decline"]
    assert "Largest frauds missed" in out
    assert found["warnings"] == warnings


def test_a_dash_prints_the_result_as_json_and_nothing_else(few, models):
    labels, write = few
    words = ["backtest", str(write(labels)), "--models", str(models), "--no-online", "--json", "-"]
    found = json.loads(CliRunner().invoke(app, words, catch_exceptions=False).stdout)
    assert found["figures"]["frauds"] == sum(labels)
    assert found["run"]["duplicates"] == 0


def test_without_a_label_column_nothing_is_measured_and_the_column_is_named(few, run, tmp_path):
    labels, write = few
    report = tmp_path / "report.html"
    code, out, warnings, found = run(write(labels, "Class"), "--report", str(report))
    assert code == 1
    assert "no payment has a label, so it is unknown what they caught" in out
    assert any("nothing was measured: the file has no label" in one for one in warnings)
    assert any("--map Class=label" in one for one in warnings)
    assert found["warnings"] == warnings
    assert "nothing was measured" in report.read_text(encoding="utf-8")
    assert (found["figures"]["rows"], found["figures"]["operating"]["alerts"] > 0) == (0, True)
    assert run(write(labels, "Class"), "--scores", str(tmp_path / "scores.parquet"))[0] == 0  # these are a result
    assert run(write(labels, "Class"), "--map", "Class=label")[0] == 0


def test_if_all_labels_say_fraud_the_others_count_as_legitimate(few, run):
    labels, write = few
    complete = run(write(labels))[3]["figures"]
    code, _, warnings, found = run(write([one or None for one in labels]))
    assert code == 0
    assert found["figures"]["operating"] == complete["operating"]
    assert any("say fraud" in one and "count as legitimate" in one for one in warnings)


def test_if_all_labels_say_legitimate_false_alarms_are_measured(few, run):
    labels, write = few
    code, out, warnings, found = run(write([None if one else False for one in labels]))
    assert code == 0
    assert "no payment is labelled as fraud" in out.splitlines()[-1]
    assert any("says fraud: only the number of alerts and false alarms was measured" in one for one in warnings)
    assert found["figures"]["operating"]["cards_bothered"] > 0
    assert found["figures"]["unlabelled"] == sum(labels)


def test_if_a_part_has_labels_only_this_part_is_measured(few, run):
    labels, write = few
    half = len(labels) // 2
    code, _, warnings, found = run(write([*labels[:half], *[None] * (len(labels) - half)]))
    assert code == 0
    assert (found["figures"]["rows"], found["figures"]["frauds"]) == (half, sum(labels[:half]))
    assert any(f"{len(labels) - half:,} of {len(labels):,} payments have no label" in one for one in warnings)


def test_if_all_labels_are_outside_of_the_days_nothing_is_measured(few, run):
    labels, write = few
    half = len(labels) // 2
    code, _, warnings, _ = run(write([*labels[:half], *[None] * (len(labels) - half)]), "--from", "2024-01-09")
    assert code == 1
    assert any("the labelled payments of the file are from 2024-01-01" in one.lower() for one in warnings), warnings


def test_a_label_delay_beyond_the_end_of_the_file_is_named(few, run):
    labels, write = few
    code, _, warnings, _ = run(write(labels), "--label-delay", "60d")
    assert code == 0
    assert any("with a delay of 60 days (--label-delay): the run learned from no label" in one for one in warnings)
    assert not any("learned from no label" in one for one in run(write(labels))[2])


def test_days_that_the_model_was_trained_on_are_named(few, run, models):
    labels, write = few
    file = write(labels)
    model = artifact.read(artifact.find_folder(models))

    def warned(begin, end):
        changed = model.manifest.training | {"from": begin, "to": end}
        loaded = msgspec.structs.replace(model, manifest=msgspec.structs.replace(model.manifest, training=changed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OnnxForest, "load", lambda _: OnnxForest(loaded))
            return [one for one in run(file)[2] if "the model was trained on payments from" in one]

    (said,) = warned("2024-01-10T00:00:00.000Z", "2024-02-01T00:00:00.000Z")
    assert "the figures are too good: measure days after them, with --from" in said
    assert warned("2023-12-01T00:00:00.000Z", "2024-01-01T00:00:00.000Z") == []
