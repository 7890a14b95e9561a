"""A card pays again under a used id: every command distinguishes the payments, and finds a scorer that did not."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from support.archived import Log
from support.loop import looped
from support.replayed import QUICK, START, copy, payment, verified
from support.worlds import label

from fraud_service import cli
from fraud_service.domain.errors import ConfigurationError
from fraud_service.domain.profile import DuplicateCheck, Profile, fingerprint64
from fraud_service.domain.records import decode_labelled, decode_score
from fraud_service.domain.time import DAY, HOUR
from fraud_service.kafka.topic_reader import OffsetRange
from fraud_service.verification import replay, what_if
from fraud_service.verification.case_report import text
from fraud_service.verification.completeness import CompletenessCheck, PartitionScope, UnmatchedRecords
from fraud_service.verification.decisions import TimeRange
from fraud_service.verification.explain import explain
from fraud_service.verification.labels_and_snapshots import ExampleDuplicates
from fraud_service.verification.matching import pair, read_score
from fraud_service.verification.report import FindingKind, Findings
from fraud_service.verification.verify import VerifyOptions, rebuild_snapshots, verify

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.attack

CHEAP = payment(7, 1, 1, 20.0, 85)
EXPENSIVE = msgspec.structs.replace(CHEAP, timestamp=CHEAP.timestamp + HOUR, amount=9999.0, merchant_id="m-new")


def attacked(folder: Path) -> Log:
    """Play ordinary payments of a card, then a cheap one, an expensive one under its id, and both of them again."""
    with looped(folder, **QUICK) as loop:
        for number in range(60):
            loop.transaction(payment(1000 + number, number % 3, number % 2, 20.0, 24 + number))
        loop.tick()
        for one in (CHEAP, EXPENSIVE, CHEAP, EXPENSIVE):
            loop.transaction(one)
        loop.tick()
        loop.label(label(CHEAP.transaction_id, EXPENSIVE.timestamp + HOUR, card_id=CHEAP.card_id))
        for number in range(40):
            loop.transaction(payment(2000 + number, number % 3, number % 2, 20.0, 110 + 3 * number))
            loop.tick()
        return Log.of(loop)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return attacked(tmp_path_factory.mktemp("attacked"))


@pytest.fixture(scope="module")
def deceived(tmp_path_factory):
    """Give the log of a scorer that recognises a duplicate by its id alone."""

    def remembered(profile: Profile, transaction) -> DuplicateCheck:
        known = [profile.recent[at : at + 8] for at in range(0, len(profile.recent), 35)]
        identity = fingerprint64(transaction.transaction_id)
        return DuplicateCheck(len(known) - known.index(identity) if identity in known else 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Profile, "find_duplicate", remembered)
        return attacked(tmp_path_factory.mktemp("deceived"))


def scores(log: Log):
    return [one for entry in log.on("scores") if (one := decode_score(entry.value)).transaction_id == "t-7"]


def completeness(log: Log):
    """Return the findings about inputs, scores and alerts."""
    findings = Findings()
    names = log.settings.topics
    for number in range(log.partitions):
        ranges = OffsetRange(0, 1_000), OffsetRange(0, 1_000)
        scope = PartitionScope(names.transactions, number, *ranges, 1_000, 1_000)
        inputs, scores, alerts = (
            [one for one in log.on(role) if one.partition == number] for role in ("transactions", "scores", "alerts")
        )
        check = CompletenessCheck(scope, {}, alerts, UnmatchedRecords(), findings)
        for one in pair(check.inputs(inputs), scores, is_truncated=False, read=read_score):
            check.take(one)
        check.finish()
    return findings.report()


def test_the_expensive_payment_is_scored_reviewed_and_has_its_own_alert(log):
    cheap, expensive, cheap_again, expensive_again = scores(log)
    assert (cheap.outcome, cheap.is_id_reused, expensive.is_id_reused) == ("approve", False, True)
    assert expensive.outcome != "approve"
    assert expensive.reasons[0].code == "TRANSACTION_ID_REUSED"
    assert [one.is_duplicate for one in (cheap, expensive, cheap_again, expensive_again)] == [False, False, True, True]
    assert (cheap_again.score, expensive_again.score) == (cheap.score, expensive.score)
    about = [one for one in log.on("alerts") if json.loads(one.value)["transaction"]["transaction_id"] == "t-7"]
    assert [json.loads(one.value)["transaction"]["amount"] for one in about] == [9999.0]


def test_the_learner_trains_on_both_payments_with_the_label(log):
    examples = [one for entry in log.on("labelled") if (one := decode_labelled(entry.value)).transaction_id == "t-7"]
    assert sorted((one.amount, one.is_fraud) for one in examples) == [(20.0, True), (9999.0, True)]


def test_every_decision_and_snapshot_is_recomputed_and_nothing_is_wrong(log, monkeypatch):
    assert verified(log).differences == 0
    report = completeness(log)
    assert report.is_clean
    assert (report.counts["reused_ids"], report.counts["duplicates"]) == (1, 2)
    findings = Findings()
    duplicates = ExampleDuplicates(findings)
    duplicates.add(log.on("labelled"))
    duplicates.report(log.settings.topics.labelled)
    assert findings.report().is_clean
    log.serve(monkeypatch)
    rebuild_snapshots(log.settings, findings)
    assert findings.report().is_clean


def test_a_scorer_that_takes_a_used_id_for_a_duplicate_is_found(deceived, monkeypatch):
    assert [one.is_duplicate for one in scores(deceived)] == [False, True, True, True]
    (finding, *_), found = completeness(deceived).findings, completeness(deceived).found
    assert (finding.kind, found) == (FindingKind.DUPLICATE_FLAG, {"duplicate_flag": 2})
    assert "repeats the decision on another payment" in finding.detail
    deceived.serve(monkeypatch)
    report = verify(deceived.settings, VerifyOptions(replay=True))
    assert "is_duplicate: logged true, recomputed false" in [one.detail for one in report.findings]


def test_a_reused_id_is_verified_for_a_card_with_expired_transactions(log):
    shorter = copy(log)
    shorter.cut("transactions", 0.3)
    found = verified(shorter)
    assert found.findings == []
    assert found.counts["from_features"] > 0


@pytest.mark.parametrize(("number", "amount"), [(None, 9999.0), (1, 20.0), (2, 9999.0)])
def test_a_case_shows_all_payments_under_the_id_and_explains_the_chosen_one(log, monkeypatch, number, amount):
    log.serve(monkeypatch)
    case = explain(log.settings, "t-7", "c-1", number=number)
    assert (case.proof, case.score.amount, case.number) == ("identical", amount, number or 2)
    assert [(one.kind, one.amount) for one in case.uses] == [
        ("first", 20.0),
        ("reused id", 9999.0),
        ("duplicate", 20.0),
        ("duplicate", 9999.0),
    ]
    assert "Payments under this id; this is number" in text(case)
    assert all(one["is_fraud"] for one in case.examples)
    assert len(case.examples) == 1


def test_a_payment_number_that_does_not_exist_is_an_error(log, monkeypatch):
    log.serve(monkeypatch)
    with pytest.raises(ConfigurationError, match="--payment 3: 2 payments under this id were scored"):
        explain(log.settings, "t-7", "c-1", number=3)


def test_the_command_chooses_a_payment(log, monkeypatch, capsys):
    log.serve(monkeypatch)
    monkeypatch.setattr("fraud_service.config.settings.load", lambda **_: log.settings)
    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["fraud-service", "explain", "t-7", "--payment", "1", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert json.loads(capsys.readouterr().out)["score"]["amount"] == 20.0


def test_a_candidate_reviews_a_reused_id_too(log, monkeypatch):
    log.serve(monkeypatch)
    lenient = what_if.Candidate(msgspec.structs.replace(what_if.Policy(), review=1.0, decline=1.0))
    rows = what_if.compare(log.settings, replay.plan(log.settings, TimeRange()), lenient).rows
    assert [(row.amount, row.candidate_outcome) for row in rows if row.transaction_id == "t-7"] == [
        (20.0, "approve"),
        (9999.0, "review"),
    ]
    assert START < rows[0].timestamp < START + 30 * DAY
