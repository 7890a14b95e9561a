"""The report: one page that works offline, the same bytes for the same run, and no markup from the data."""

from __future__ import annotations

import re

import msgspec
import numpy as np
import pytest
from support.worlds import HOUR, MONDAY

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from fraud_service.domain.errors import ConfigurationError
from fraud_service.evaluation.metrics import Result, Scores, decode_result, encode_result, evaluate
from fraud_service.evaluation.report import report

ROWS = 600


def run(seed: int = 1, source: str = "days.parquet", rows: int = ROWS) -> Result:
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.1
    good = 1 / (1 + np.exp(-(rng.normal(size=rows) - 3 + 4 * truth)))
    scores = Scores(
        timestamps=MONDAY + np.arange(rows) * HOUR,
        cards=np.arange(rows) % 37,
        is_fraud=truth,
        amounts=rng.random(rows) * 100,
        components={"blended": good, "pretrained": good**2, "online": rng.random(rows)},
        flagged=good > 0.3,
    )
    return Result(
        run={"source": source, "model": "forest-1"},
        figures=evaluate(scores),
        weights=[(MONDAY + hour * HOUR, hour / 10) for hour in range(10)],
        features={"amount": 1.5, "speed": 0.25},
        models=["forest-1"],
        refits=[{"at": "2024-02-01", "champion": 0.7, "promoted": "no"}],
    )


@pytest.fixture(scope="module")
def page():
    return report(run(), run(2, "other.parquet"))


def test_the_same_run_gives_the_same_page(page):
    assert report(run(), run(2, "other.parquet")) == page


def test_the_page_needs_neither_scripts_nor_the_network(page):
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#)', page.replace('xlink:href="#', 'href="#'))
    assert "@import" not in page


def test_every_chart_has_a_caption(page):
    assert page.count("<svg") == page.count("<figcaption>") == 7
    assert page.count('role="img" aria-label="') == 7


def test_the_page_has_every_metric_of_every_component(page):
    for component in run().figures.components.values():
        for figure in (component.average_precision, component.auc_roc, component.log_loss):
            assert f"<td>{figure:.4f}</td>" in page


def test_the_page_compares_two_runs(page):
    here, there = (run(seed).figures.components["blended"].average_precision for seed in (1, 2))
    assert "<h2>Compared with other.parquet (forest-1)</h2>" in page
    assert f"<td>{here:.4f}</td><td>{there:.4f}</td><td>{here - there:+.4f}</td>" in page
    assert "Compared with" not in report(run())


def test_re_fits_are_listed(page):
    assert "<td>2024-02-01</td><td>0.7000</td><td>no</td>" in page


def test_names_from_the_data_are_escaped():
    page = report(run(source="<script>alert(1)</script>"), run(source="<b>"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "<b>" not in page


def test_without_labels_the_page_says_so():
    nothing = msgspec.structs.replace(run(), figures=evaluate(_empty()), weights=[], refits=[])
    assert "There is nothing to draw" in report(nothing)


def _empty() -> Scores:
    none = np.array([])
    return Scores(none, none, none.astype(bool), none, {}, none.astype(bool))


def test_a_result_survives_a_round_trip():
    assert decode_result(encode_result(run()), "a.json") == run()
    assert encode_result(run()) == encode_result(run())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'{"format": 1}'])
def test_the_error_of_a_file_that_is_not_a_result_names_it(data):
    with pytest.raises(ConfigurationError, match=r"^other\.json: not the --json of a backtest"):
        decode_result(data, "other.json")


def test_a_result_of_another_format_is_rejected():
    with pytest.raises(ConfigurationError, match="has format 2, this version reads 1"):
        decode_result(encode_result(msgspec.structs.replace(run(), format=2)), "other.json")
