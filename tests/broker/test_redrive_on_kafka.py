"""List and redrive dead letters on Apache Kafka. Each is sent once, also by concurrent redrives."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from support.processes import Service, fresh_settings, read_all
from typer.testing import CliRunner

from fraud_service.admin import redrive
from fraud_service.admin.redrive import RedriveOptions
from fraud_service.cli import app
from fraud_service.domain.errors import ConfigurationError, FatalStreamError
from fraud_service.domain.records import decode_score
from fraud_service.kafka import clients
from fraud_service.kafka.dead_letters import DeadLetterFilter, find_dead_letters
from fraud_service.verification.verify import verify

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

GOOD = {"timestamp": 1_700_000_000_000, "merchant_id": "m-1", "amount": "12.50", "currency": "EUR"}


def payment(number: int, **facts) -> bytes:
    return json.dumps({**GOOD, "transaction_id": f"t-{number}", "card_id": f"c-{number % 3}", **facts}).encode()


def scored(settings) -> Counter:
    return Counter(decode_score(m.value()).transaction_id for m in read_all(settings, settings.topics.scores))


@pytest.fixture(scope="module")
def running(apache_kafka, tmp_path_factory):
    """Run a scorer on nine payments without a key, one that is no JSON, and one with a card number."""
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path_factory.mktemp("redrive"))
    with Service(settings, "score", settings.state_dir / "scorer") as scorer:
        scorer.await_ready()
        producer = clients.producer(settings)
        for number in range(9):
            producer.produce(settings.topics.transactions, value=payment(number))
        producer.produce(settings.topics.transactions, value=b"{", key=b"c-1")
        producer.produce(settings.topics.transactions, value=payment(10, note="4242424242424242"), key=b"c-1")
        assert producer.flush(30) == 0
        scorer.wait_until(lambda: len(find_dead_letters(settings, DeadLetterFilter())) == 11, 60)
        yield settings, scorer
        assert scorer.stop() == 0


def only_sent(checks) -> list:
    return [check for check in checks if check.hindrance is None]


def command(settings, *words: str):
    names = {f"FRAUD_TOPICS__{role.upper()}": name for role, name in settings.topics}
    env = {**names, "FRAUD_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "FRAUD_SCORER_GROUP": settings.scorer_group}
    return CliRunner().invoke(app, ["dead-letters", *words], env=env, catch_exceptions=False)


def test_dead_letters_are_listed_and_shown_without_card_data(running):
    settings, _ = running
    listed = [json.loads(line) for line in command(settings, "list", "--json").stdout.splitlines()]
    assert Counter(row["reason"] for row in listed) == {"missing_key": 9, "not_json": 1, "card_number": 1}
    assert not any(row["redriven"] for row in listed)
    (numbered,) = (row for row in listed if row["reason"] == "card_number")
    shown = command(settings, "show", str(numbered["partition"]), str(numbered["offset"])).stdout
    assert "[card number]" in shown
    assert "4242" not in shown


def test_a_dry_run_does_nothing(running):
    settings, _ = running
    output = command(settings, "redrive").stdout
    assert output.count("its original bytes were not kept") == 1
    assert output.endswith("nothing was done: add --yes to do it\n")
    assert not any(found.is_redriven for found in find_dead_letters(settings, DeadLetterFilter()))


def test_of_two_concurrent_redrives_one_is_fenced_and_every_dead_letter_is_sent_once(running, monkeypatch):
    settings, scorer = running
    monkeypatch.setattr(redrive, "MAX_TRANSACTION_LETTERS", 2)
    first = redrive.redrive(settings, DeadLetterFilter(reason="missing_key"))
    sent = [next(first), next(first)]
    sent += only_sent(redrive.redrive(settings, DeadLetterFilter(reason="missing_key")))
    with pytest.raises(FatalStreamError, match="could not be sent again"):
        list(first)
    assert len(sent) == 9
    assert only_sent(redrive.redrive(settings, DeadLetterFilter(reason="missing_key"))) == []
    scorer.wait_until(lambda: len(scored(settings)) >= 9, 60)
    assert scored(settings) == {f"t-{number}": 1 for number in range(9)}


def test_repaired_bytes_are_sent_once_for_one_dead_letter(running, tmp_path):
    settings, scorer = running
    repaired = tmp_path / "repaired.json"
    repaired.write_bytes(payment(11))
    with pytest.raises(ConfigurationError, match="is for one dead letter"):
        list(redrive.redrive(settings, DeadLetterFilter(), RedriveOptions(payment(11))))
    for expected in ("sent again: 1, left: 0, forged: 0\n", "sent again: 0, left: 1, forged: 0\n"):
        output = command(settings, "redrive", "--reason", "not_json", "--value-from", str(repaired), "--yes").stdout
        assert output == expected
    scorer.wait_until(lambda: scored(settings)["t-11"] == 1, 60)


def test_the_verifier_has_no_findings_after_a_redrive(running):
    settings, _ = running
    report = verify(settings)
    assert report.findings == ()
    assert report.counts["redriven"] == 10
