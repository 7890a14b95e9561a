"""Explain: a decision is found, shown in full and recomputed."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest
from support.replayed import copy

from fraud_service import cli
from fraud_service.domain.errors import TopicReadError
from fraud_service.domain.events import decode_label
from fraud_service.domain.records import decode_score, encode_record
from fraud_service.domain.time import instant, rfc3339
from fraud_service.verification.case_report import text
from fraud_service.verification.explain import explain


def scores(log):
    return [decode_score(entry.value) for entry in log.on("scores")]


@pytest.fixture
def command(log, monkeypatch, capsys):
    """Run one command on the log: gives exit code and stdout."""
    log.serve(monkeypatch)
    monkeypatch.setattr("fraud_service.config.settings.load", lambda **_: log.settings)
    monkeypatch.setattr("fraud_service.kafka.clients.require_connection", lambda _: None)

    def main(*arguments):
        monkeypatch.setattr(sys, "argv", ["fraud-service", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().out

    return main


def test_a_flagged_decision_is_explained_and_recomputed_to_the_last_bit(log, flagged, monkeypatch):
    log.serve(monkeypatch)
    case = explain(log.settings, flagged.transaction_id)
    assert (case.proof, case.score) == ("identical", flagged)
    total = case.base + sum(case.contributions.values())
    logit = (1 - flagged.online_weight) * flagged.pretrained_logit + flagged.online_weight * flagged.online_logit
    assert total == pytest.approx(logit, abs=1e-9)
    assert case.transaction.transaction_id == flagged.transaction_id
    assert case.profile["payments_30d"] == flagged.features.count_30d
    assert case.merchant_risk["labelled_30d"] == flagged.features.merchant_labelled_30d
    assert case.snapshot["version"] == flagged.snapshot


def test_every_decision_of_a_card_is_explained_whatever_its_outcome(log, monkeypatch):
    log.serve(monkeypatch)
    of_card = [one for one in scores(log) if one.card_id == "c-1" and not one.is_duplicate]
    for one in of_card[::10]:
        case = explain(log.settings, one.transaction_id, "c-1")
        assert (case.proof, case.score) == ("identical", one)
        assert case.contributions


def test_later_labels_are_shown(log, monkeypatch):
    log.serve(monkeypatch)
    fraud = next(one for one in scores(log) if one.transaction_id == "t-8")
    case = explain(log.settings, "t-8")
    (label,) = case.labels
    assert label.labelled_at > fraud.timestamp
    assert [one["is_fraud"] for one in case.examples] == [False, True]  # legitimate by maturity, until the label came


def test_a_label_that_became_a_dead_letter_is_left_out(log, monkeypatch):
    held_back = copy(log).serve(monkeypatch)
    (label,) = [one for one in held_back.on("labels") if decode_label(one.value).transaction_id == "t-8"]
    source = {"topic": label.topic, "partition": str(label.partition), "offset": str(label.offset)}
    headers = [("fraud-reason", b"label_flood")]
    headers += [(f"fraud-source-{name}", text.encode()) for name, text in source.items()]
    letter = label._replace(topic=held_back.settings.topics.dead_letters, offset=0, headers=headers)
    held_back.entries[letter.topic, letter.partition] = [letter]
    assert explain(held_back.settings, "t-8").labels == []


def test_an_altered_decision_is_shown_with_its_difference(log, flagged, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    entry = next(e for e in altered.on("scores") if decode_score(e.value) == flagged)
    altered.replace(entry, value=encode_record(msgspec.structs.replace(flagged, score=0.5)))
    case = explain(altered.settings, flagged.transaction_id)
    assert case.proof == "score"
    assert "score: logged 0.5, recomputed " in text(case)


def test_a_decision_of_a_card_with_expired_transactions_is_explained_from_its_features(log, flagged, monkeypatch):
    altered = copy(log).serve(monkeypatch)
    altered.cut("transactions", 0.5)
    case = explain(altered.settings, flagged.transaction_id)
    assert (case.proof, case.profile) == ("from_features", None)


def test_the_search_is_bounded_by_card_and_moment(log, flagged, monkeypatch):
    log.serve(monkeypatch)
    entry = next(e for e in log.on("scores") if decode_score(e.value) == flagged)
    name, card, moment = flagged.transaction_id, flagged.card_id, entry.timestamp
    assert explain(log.settings, name, card, moment).score == flagged
    with pytest.raises(TopicReadError, match=f"no decision on transaction '{name}'"):
        explain(log.settings, name, "c-unknown")
    with pytest.raises(TopicReadError, match="an hour around"):
        explain(log.settings, name, card, moment + 100_000_000)


def test_the_commands_print_the_proof_the_profile_and_the_risk(command, flagged, tmp_path):
    code, out = command("explain", flagged.transaction_id, "--json", "--html", tmp_path / "case.html")
    assert (code, json.loads(out)["proof"]) == (0, "identical")
    assert flagged.card_id in (tmp_path / "case.html").read_text()
    code, out = command("explain", flagged.transaction_id)
    assert (code, out.splitlines()[0]) == (
        0,
        "The decision recomputed from the card's transactions is identical to the last bit.",
    )
    code, out = command("state", "--card", flagged.card_id, "--at", rfc3339(flagged.timestamp))
    assert (code, instant(json.loads(out)["at"], "at")) == (0, flagged.timestamp)
    code, out = command("state", "--merchant", flagged.merchant_id, "--at", rfc3339(flagged.timestamp))
    assert json.loads(out)["snapshot"] == flagged.snapshot
    assert command("state", "--at", rfc3339(flagged.timestamp))[0] == 2
    assert command("explain", "t-unknown")[0] == 1


def test_a_decision_on_a_misplaced_transaction_is_explained_by_its_partition(log, monkeypatch):
    changed = copy(log)
    record = next(one for one in scores(log) if one.transaction_id == "t-60")
    (entry, *_) = [one for one in changed.on("transactions") if f'"{record.transaction_id}"'.encode() in one.value]
    for one in [one for one in changed.on("transactions") if one.value == entry.value]:
        changed.remove(one)
    number = (entry.partition + 1) % log.partitions
    target = changed.entries[entry.topic, number]
    target.append(entry._replace(partition=number, offset=target[-1].offset + 1 if target else 0))
    changed.serve(monkeypatch)
    case = explain(changed.settings, record.transaction_id, record.card_id)
    assert case.proof == "wrong_partition"
    assert f"{entry.topic}[{number}]@" in case.detail
    assert "murmur2" in case.detail


def test_a_transaction_that_became_a_dead_letter_is_explained_by_its_reason(log, monkeypatch):
    changed = copy(log)
    names = changed.settings.topics
    headers = [("fraud-reason", b"wrong_partition"), ("fraud-detail", b"set partitioner=murmur2")]
    headers.append(("fraud-source-topic", names.transactions.encode()))
    letter = changed.on("transactions")[0]._replace(
        topic=names.dead_letters, partition=0, offset=0, value=b'{"transaction_id":"t-lost"}', headers=headers
    )
    changed.entries[names.dead_letters, 0] = [letter]
    changed.serve(monkeypatch)
    with pytest.raises(TopicReadError, match=r"t-lost.* is a dead letter \(wrong_partition: set partitioner=murmur2\)"):
        explain(changed.settings, "t-lost")
