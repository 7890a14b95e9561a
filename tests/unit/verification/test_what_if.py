"""What-if replay: the decisions of a candidate are compared with the log on the known labels."""

from __future__ import annotations

import re

import msgspec
import pytest

from fraud_service.domain.decision import Outcome, Policy
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.records import decode_score
from fraud_service.verification import replay, what_if
from fraud_service.verification.comparison import ChangedDecision, Truth, payment_identity, summarise
from fraud_service.verification.decisions import TimeRange


@pytest.fixture
def compared(log, monkeypatch):
    log.serve(monkeypatch)

    def compare(policy=None, **candidate):
        chosen = what_if.Candidate(policy or Policy(), **candidate)
        return what_if.compare(log.settings, replay.plan(log.settings, TimeRange()), chosen)

    return compare


def decided(log):
    return [one for entry in log.on("scores") if not (one := decode_score(entry.value)).is_duplicate]


def test_the_same_thresholds_change_nothing(log, compared):
    figures = compared().figures
    assert figures.transactions == len(decided(log))
    assert (figures.all.gained.alerts, figures.all.lost.alerts, figures.left_out) == (0, 0, 0)
    assert figures.as_decided == figures.as_candidate
    assert figures.as_decided.alerts == sum(one.outcome != "approve" for one in decided(log)) > 0


@pytest.mark.parametrize("review", [0.01, 0.05, 0.6])
def test_another_threshold_gives_the_alerts_that_follow_from_the_scores(log, compared, review):
    figures = compared(Policy(review=review, decline=0.95)).figures
    expected = [one for one in decided(log) if one.score >= review]
    assert figures.as_candidate.alerts == len(expected)
    assert figures.as_candidate.declined == sum(one.score >= 0.95 for one in expected)
    assert figures.as_decided.alerts + figures.all.gained.alerts - figures.all.lost.alerts == len(expected)
    for part in (figures.by_reason, figures.by_country, figures.by_amount):
        assert sum(one.gained.alerts for one in part.values()) == figures.all.gained.alerts


def test_the_shipped_model_alone_scores_as_its_component_in_the_log(log, compared):
    version = decided(log)[0].model
    rows = {row.transaction_id: row for row in compared(version=version).rows}
    of_other = [one for one in decided(log) if one.model != version]
    assert of_other
    assert all(rows[one.transaction_id].candidate_score == one.pretrained for one in of_other)
    ours = [one for one in decided(log) if one.model == version]
    assert all(rows[one.transaction_id].candidate_score == one.score for one in ours)


def test_an_unknown_version_is_rejected_with_the_known_ones(compared):
    with pytest.raises(ConfigurationError, match=r"--version nothing: there are only .*forest-promoted"):
        compared(version="nothing")


def test_the_page_has_the_figures_of_a_backtest_and_the_changes(log, compared):
    page = what_if.page(log.settings, compared(Policy(review=0.05)))
    assert "What would have changed" in page
    assert "<title>What if: fraud.scores.v1 with other decisions</title>" in page
    assert "Backtest" not in page
    assert re.search(r"<td>[\d,]+\.\d\d EUR</td>", page)
    assert not re.search(r"<td>\d{2,}\.\d{4}</td>", page)
    assert "CP@100" in page
    assert re.search(r'<p class="answer">(Caught|Raised) [^<]+alerts a day', page)
    assert '<tr class="set"><td>0.05</td>' in page
    assert "<script" not in page


def test_value_and_bothered_cards_are_counted_on_known_labels():
    def row(name, card, amount, outcomes):
        was, would = (Outcome.REVIEW if flagged == "!" else Outcome.APPROVE for flagged in outcomes)
        reasons = ["A" if flagged == "!" else "" for flagged in outcomes]
        return ChangedDecision(0, card, name, "m", amount, "EUR", "DE", 0.5, was, reasons[0], 0.5, would, reasons[1])

    rows = [
        row("1", "a", 10.0, "-!"),
        row("2", "b", 20.0, "-!"),
        row("3", "b", 30.0, "-!"),
        row("4", "c", 2000.0, "!-"),
        row("5", "d", 5.0, "!!"),
        row("6", "e", 6.0, "-!"),
    ]
    truth = {("a", "1"): True, ("b", "2"): False, ("b", "3"): False, ("c", "4"): True, ("d", "5"): False}
    figures = summarise(rows, Truth({}, truth), {}, 0)
    gained, lost = figures.all.gained, figures.all.lost
    assert (gained.alerts, gained.frauds, gained.cards_bothered, gained.unlabelled) == (4, 1, 1, 1)
    assert (lost.alerts, lost.frauds, lost.cards_bothered) == (1, 1, 0)
    assert (gained.value, lost.value, figures.value) == ({"EUR": 10.0}, {"EUR": 2000.0}, {"EUR": 2010.0})
    assert (figures.frauds, figures.labelled) == (2, 5)
    assert set(figures.by_reason) == {"A"}


def test_amount_bands_come_in_the_order_of_amounts():
    amounts = (5000.0, 7.0, 999.0, 60.0, 10.0)
    rows = [
        ChangedDecision(0, "c", str(n), "m", amount, "EUR", "DE", 0.5, Outcome.APPROVE, "", 0.5, Outcome.REVIEW, "A")
        for n, amount in enumerate(amounts)
    ]
    bands = ["0 to 10", "10 to 50", "50 to 200", "200 to 1000", "from 1000"]
    assert list(summarise(rows, Truth({}, {}), {}, 0).by_amount) == bands


def test_an_example_of_one_payment_does_not_label_another_under_its_id():
    cheap, dear = (
        ChangedDecision(0, "c", "t", "m", amount, "EUR", "DE", 0.5, Outcome.APPROVE, "", 0.5, Outcome.REVIEW, "A")
        for amount in (1.0, 9999.0)
    )
    truth = Truth({payment_identity(dear): True}, {("c", "t"): False})
    assert (truth.of(cheap), truth.of(dear)) == (False, True)


def test_values_of_several_currencies_are_said_for_each(log, compared):
    found = compared(Policy(review=0.05))
    rows = [row._replace(currency="JPY") if n % 16 else row for n, row in enumerate(found.rows)]
    figures = summarise(rows, found.truth, {}, 0)
    assert set(figures.value) == {"EUR", "JPY"}
    page = what_if.page(log.settings, msgspec.structs.replace(found, rows=rows, figures=figures))
    assert re.search(r"<td>[\d,]+\.\d\d EUR, [\d,]+ JPY</td>", page)
    assert "<th>value JPY</th>" in page
