"""The report: one page that works offline, the same bytes for the same run, and no markup from the data."""

from __future__ import annotations

import re
import shutil

import msgspec
import numpy as np
import pytest
from support import browser
from support.worlds import HOUR, MONDAY

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fraud_service.domain.decision import Policy
from fraud_service.domain.errors import ConfigurationError
from fraud_service.evaluation.alerts import Scores
from fraud_service.evaluation.charts import _features
from fraud_service.evaluation.metrics import Result, decode_result, encode_result, evaluate
from fraud_service.evaluation.report import report

ROWS = 600


def run(
    seed: int = 1, source: str = "days.parquet", rows: int = ROWS, currencies: tuple[str, ...] = ("EUR",)
) -> Result:
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.1
    good = 1 / (1 + np.exp(-(rng.normal(size=rows) - 3 + 4 * truth)))
    scores = Scores(
        timestamps=MONDAY + np.arange(rows) * HOUR,
        cards=np.arange(rows) % 37,
        is_fraud=truth,
        is_labelled=np.ones(rows, dtype=bool),
        amounts=rng.random(rows) * 100,
        currencies=np.array([currencies[n % len(currencies)] for n in range(rows)]),
        components={"blended": good, "pretrained": good**2, "online": rng.random(rows)},
        flagged=good >= 0.3,
        ids=[f"t-{n}" for n in range(rows)],
        reasons=["UNUSUAL_AMOUNT" if score >= 0.3 else "" for score in good],
        policy=Policy(),
    )
    return Result(
        run={"source": source, "model": "forest-1", "label_delay_days": 7.0},
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
    assert page.count("<svg") == page.count("<figcaption>") == page.count('role="img" aria-label="') == 10
    for caption in re.findall(r"<figcaption>(.*?)</figcaption>", page):
        assert re.fullmatch(r"<strong>[^<]+\.</strong> [A-Z][^<]+\.", caption)  # a title, and what it shows


def test_the_page_has_every_metric_of_every_component(page):
    for component in run().figures.components.values():
        for figure in (component.average_precision, component.auc_roc, component.log_loss):
            assert f"<td>{figure:.4f}</td>" in page


def test_every_figure_is_explained(page):
    for figure in ("AP", "AUC ROC", "CP@100", "log loss", "Brier", "failed"):
        assert re.search(rf"<td>{figure}</td>(<td>[\d.-]+</td>){{3}}</tr>", page), figure
        assert re.search(rf"<li><strong>{figure}</strong>: [A-Z][^<]+\.</li>", page), figure
    assert "<td>label delay days</td><td>7</td>" in page


def test_the_page_begins_with_the_answer_and_the_warnings(page):
    result = msgspec.structs.replace(run(), warnings=["the model was trained on <these> days"])
    found = result.figures.operating
    first = re.search(r'<p class="answer">([^<]+)</p>\n(.*)\n', report(result))
    assert first[1] == (
        f"Caught {found.caught} of {result.figures.frauds} frauds and {100 * found.value_recall:.1f} % of the money "
        f"with {found.alerts_a_day:.1f} alerts a day; {100 * found.precision:.0f} % of alerts are right."
    )
    assert first[2] == '<p class="warning">the model was trained on &lt;these&gt; days.</p>'


def test_the_page_marks_the_thresholds_that_are_set(page):
    marked = re.findall(r'<tr class="set"><td>([\d.]+)</td>.*<td>(.*)</td></tr>', page)
    assert marked == [("0.3", "&lt;- review"), ("0.9", "&lt;- decline")]


def test_the_page_lists_the_largest_frauds(page):
    for found in (run().figures.largest["EUR"].caught, run().figures.largest["EUR"].missed):
        assert 1 <= len(found) <= 10
        for one in found:
            assert f"<td>{one.transaction_id}</td>" in page
            assert f"<td>{one.amount:.2f} EUR</td>" in page


def test_money_of_several_currencies_is_said_for_each():
    page = report(run(currencies=("EUR", "JPY")))
    assert re.search(r"frauds \([\d.]+ % of the money in (EUR|JPY), [\d.]+ % of the money in (EUR|JPY)\) with", page)
    assert "<th>value EUR</th>" in page
    assert "<h2>Largest frauds caught in JPY</h2>" in page


@pytest.mark.parametrize("rows", [3, 24 * 7, 24 * 7 + 30])
def test_no_line_is_drawn_through_fewer_than_three_points(rows, monkeypatch):
    drawn = []
    plot = Axes.plot

    def noted(axes, x, y, *args, **kwargs):
        lines = plot(axes, x, y, *args, **kwargs)
        drawn.extend((len(x), line.get_linestyle()) for line in lines)
        return lines

    monkeypatch.setattr(Axes, "plot", noted)
    report(msgspec.structs.replace(run(rows=rows), weights=[(MONDAY, 0.1), (MONDAY + HOUR, 0.2)]))
    assert drawn
    assert [one for one in drawn if one[0] < 3 and one[1] != "None"] == []


def test_text_in_charts_has_a_readable_size_on_a_phone(page):
    sizes = [float(size) for size in re.findall(r'style="font-size: ([\d.]+)px', page)]
    widths = {float(width) for width in re.findall(r'viewBox="0 0 ([\d.]+) ', page)}
    assert len(sizes) > 50
    assert min(sizes) * (390 - 2 * 16 - 15) / max(widths) >= 14  # without the margins and a scroll bar


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_never_scrolls_the_page_sideways(page, width, tmp_path):
    measured = browser.measure(page, width, tmp_path)
    assert measured["scroll_width"] <= width
    assert measured["smallest_text"] >= 14


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
    flags = none.astype(bool)
    return Scores(
        timestamps=none,
        cards=none,
        is_fraud=flags,
        is_labelled=flags,
        amounts=none,
        currencies=none.astype(str),
        components={},
        flagged=flags,
    )


def test_a_result_survives_a_round_trip():
    assert decode_result(encode_result(run()), "a.json") == run()
    assert encode_result(run()) == encode_result(run())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{}", b'{"format": 2}'])
def test_the_error_of_a_file_that_is_not_a_result_names_it(data):
    with pytest.raises(ConfigurationError, match=r"^other\.json: not the --json of a backtest"):
        decode_result(data, "other.json")


def test_a_result_of_another_format_is_rejected():
    with pytest.raises(ConfigurationError, match="has format 1, this version reads 2: run the backtest again"):
        decode_result(b'{"format": 1}', "other.json")


def test_long_feature_names_leave_their_bars_the_width_of_the_chart():
    axes = Figure(figsize=(4, 4)).add_subplot()
    _features({"merchant_hours_since_lowamount_fraud": 2.0, "speed_kmh": 1.0}, axes)
    assert [text.get_text() for text in axes.texts] == ["speed_kmh", "merchant_hours_since_lowamount_fraud"]
    assert list(axes.get_yticks()) == []
