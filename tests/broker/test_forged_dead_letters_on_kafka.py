"""Redrive with forged dead letters on Apache Kafka: `redrive --yes` sends only proved ones."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from structlog.testing import capture_logs
from support.processes import Service, fresh_settings, read_all
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.domain.errors import TopicReadError
from fraud_service.domain.records import SwitchRecord, decode_score, encode_record
from fraud_service.kafka import clients, topics
from fraud_service.kafka.dead_letters import DeadLetterFilter, find_dead_letters
from fraud_service.kafka.model_topic import SWITCH_KEY
from fraud_service.verification import log_reader

if TYPE_CHECKING:
    from fraud_service.config.settings import Settings
    from fraud_service.kafka.dead_letters import DeadLetter

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

CARD = b"c-1"


def payment(name: str, amount: str = "1.00") -> bytes:
    facts = {"timestamp": 1_700_000_000_000, "merchant_id": "m-1", "amount": amount, "currency": "EUR"}
    return json.dumps({**facts, "transaction_id": name, "card_id": CARD.decode()}).encode()


def source(topic: str, partition: object, offset: object) -> list[tuple[str, bytes]]:
    named = {"topic": topic, "partition": partition, "offset": offset}
    return [("fraud-reason", b"not_json"), *((f"fraud-source-{n}", str(v).encode()) for n, v in named.items())]


def append(settings: Settings, records: list[tuple[bytes | None, bytes | None, list | None]]) -> None:
    """Write to the topic of dead letters as a stranger would, all into one partition."""
    producer = clients.producer(settings)
    for key, value, headers in records:
        producer.produce(settings.topics.dead_letters, key=key, value=value, headers=headers, partition=0)
    assert producer.flush(30) == 0


def command(settings: Settings, *words: str):
    names = {f"FRAUD_TOPICS__{role.upper()}": name for role, name in settings.topics}
    env = {**names, "FRAUD_BOOTSTRAP_SERVERS": settings.bootstrap_servers, "FRAUD_SCORER_GROUP": settings.scorer_group}
    return CliRunner().invoke(app, ["dead-letters", *words], env=env, catch_exceptions=False)


def scored(settings: Settings) -> Counter:
    return Counter(decode_score(m.value()).transaction_id for m in read_all(settings, settings.topics.scores))


def place_of(settings: Settings, topic: str, value: bytes) -> tuple[str, int, int]:
    (found,) = [m for m in read_all(settings, topic) if m.value() == value]
    return topic, found.partition(), found.offset()


@pytest.fixture(scope="module")
def running(apache_kafka, tmp_path_factory):
    """Run a scorer on a payment, and on one without a key, whose letter is real."""
    settings = fresh_settings(apache_kafka.bootstrap, tmp_path_factory.mktemp("forged"))
    with Service(settings, "score", settings.state_dir / "scorer") as scorer:
        scorer.await_ready()
        producer = clients.producer(settings)
        producer.produce(settings.topics.transactions, key=CARD, value=payment("scored"))
        producer.produce(settings.topics.transactions, value=payment("keyless"))
        assert producer.flush(30) == 0
        scorer.wait_until(
            lambda: len(find_dead_letters(settings, DeadLetterFilter())) == 1 and len(scored(settings)) == 1, 60
        )
        yield settings, scorer
        assert scorer.stop() == 0


def test_foreign_records_and_marks_neither_stop_a_command_nor_hide_a_dead_letter(running):
    settings, _ = running
    (real,) = find_dead_letters(settings, DeadLetterFilter())
    transactions = settings.topics.transactions
    append(
        settings,
        [
            (None, None, None),
            (b"\xff\x00", b"\x00" * 100_000, [("fraud-reason", None)]),
            (CARD, b"{}", source(transactions, 0, "²")),
            (CARD, b"{}", source(transactions, 0, "9" * 5_000)),
            (CARD, b"{}", source(transactions, 2**31, 0)),
            (CARD, b"{}", source("t" * 100_000, 0, 0)),
            (CARD, None, [("fraud-redriven-offset", b"x" * 100_000)]),
            (CARD, None, [("fraud-redriven-offset", b"7")]),
        ],
    )
    producer = clients.producer(settings)
    mark = [("fraud-redriven-offset", str(real.entry.offset).encode())]
    producer.produce(settings.topics.dead_letters, key=b"another", partition=real.entry.partition, headers=mark)
    assert producer.flush(30) == 0
    with capture_logs() as logs:
        looked = find_dead_letters(settings, DeadLetterFilter())
    assert [found.entry for found in looked] == [real.entry]
    assert [line["count"] for line in logs if line["event"] == "dead_letter_records_skipped"] == [9]
    assert not looked[0].is_redriven
    listed = command(settings, "list", "--json")
    assert [json.loads(line)["reason"] for line in listed.stdout.splitlines()] == ["missing_key"]
    assert command(settings, "show", str(real.entry.partition), str(real.entry.offset)).exit_code == 0
    with pytest.raises(TopicReadError, match="there is no dead letter"):
        command(settings, "show", "0", "0" if real.entry.partition else "1")
    with log_reader.open_reader(settings) as reader:
        letters = log_reader.index_dead_letters(reader, settings)
        found = {number: {*letters.of(real.letter.topic, number)} for number in reader.offset_ranges(real.letter.topic)}
        assert {number: offsets for number, offsets in found.items() if offsets} == {
            real.letter.partition: {real.letter.offset}
        }


def test_real_dead_letters_are_sent_and_forged_ones_are_not(running):
    settings, scorer = running
    names = settings.topics
    off = encode_record(SwitchRecord(online=False, at=1))
    score = read_all(settings, names.scores)[0]
    inner = place_of(settings, names.transactions, payment("scored"))
    append(
        settings,
        [
            (SWITCH_KEY.encode(), off, source(names.models, 0, 0)),
            (CARD, score.value(), source(names.scores, score.partition(), score.offset())),
            (CARD, b"{}", source(names.dead_letters, 0, 0)),
            (CARD, b"{}", source("changelog__scorer", 0, 0)),
            (CARD, payment("scored", "9999.00"), source(*inner)),
            (b"c-2", payment("scored"), source(*inner)),
            (CARD, payment("scored"), source(names.transactions, inner[1], 10**6)),
            (CARD, payment("scored"), source(names.transactions, 99, 0)),
            (CARD, payment("forged"), source(names.labels, 0, 0)),
            (CARD, payment("forged"), source(names.raw_transactions, 0, 0)),
            (CARD, b"{" + b" " * 70_000, source(*inner)),
        ],
    )
    dry = command(settings, "redrive")
    done = command(settings, "redrive", "--yes")
    for shown in (dry, done):
        assert shown.exit_code == 1
        for why, count in (("is not an input of the service", 4), ("it is forged", 5), ("it is unproved", 1)):
            assert shown.stdout.count(why) == count, shown.stdout
        assert shown.stdout.count("it has more than 65536 bytes") == 1
    assert done.stdout.endswith("sent again: 1, left: 6, forged: 5\n")
    scorer.wait_until(lambda: scored(settings)["keyless"] == 1, 60)
    assert scored(settings) == {"scored": 1, "keyless": 1}
    assert read_all(settings, names.models) == []
    assert read_all(settings, names.labels) == []
    assert command(settings, "redrive", "--yes").stdout.endswith("sent again: 0, left: 7, forged: 5\n")


def test_a_dead_letter_whose_source_has_expired_is_sent_only_on_demand(running):
    settings, _ = running
    labels, label = settings.topics.labels, b'{"transaction_id": "gone"}'
    producer = clients.producer(settings)
    producer.produce(labels, key=CARD, value=label, partition=2)
    assert producer.flush(30) == 0
    letter = (CARD, label, source(labels, 2, 0))
    append(settings, [letter, letter])
    topics.delete_records(settings, [TopicPartition(labels, 2, 1)])
    left = command(settings, "redrive", "--topic", labels, "--yes")
    assert left.stdout.count("it is unproved") == 2
    assert "--unproved" in left.stdout
    shown = command(settings, "redrive", "--topic", labels, "--unproved", "--yes").stdout
    assert "another dead letter" in shown  # two letters of one record are sent once
    with log_reader.open_reader(settings) as reader:
        assert [entry.value for entry in log_reader.read_all_partitions(reader, labels)] == [label]


def test_a_dead_letter_that_copies_a_scored_transaction_is_not_sent(running):
    settings, scorer = running
    inner = place_of(settings, settings.topics.transactions, payment("scored"))
    append(settings, [(CARD, payment("scored"), source(*inner))])
    assert "is accepted today, and may have been scored" in command(settings, "redrive", "--yes").stdout
    shown = command(settings, "redrive", "--topic", settings.topics.transactions, "--unproved", "--yes").stdout
    assert "sent again: 1," in shown
    scorer.wait_until(lambda: scored(settings)["scored"] == 2, 60)
    both = [decode_score(m.value()) for m in read_all(settings, settings.topics.scores)]
    assert Counter(one.is_duplicate for one in both if one.transaction_id == "scored") == {False: 1, True: 1}


def test_control_characters_are_escaped_on_a_terminal_and_unchanged_in_a_file(running):
    settings, scorer = running
    hostile = payment("\x1b]0;owned\x07\u202e") + "\x1b[2J\r\n\u202e".encode()
    producer = clients.producer(settings)
    producer.produce(settings.topics.transactions, key=CARD, value=hostile)
    assert producer.flush(30) == 0

    def hostile_letters() -> list[DeadLetter]:
        return [found for found in find_dead_letters(settings, DeadLetterFilter()) if found.entry.value == hostile]

    scorer.wait_until(lambda: hostile_letters() != [], 60)
    (found,) = hostile_letters()
    place = [str(number) for number in found.place]
    for words in (["list"], ["list", "--json"], ["show", *place]):
        shown = command(settings, *words).stdout
        assert all(cell.isprintable() for line in shown.split("\n") for cell in line.split("\t"))  # a table has tabs
    assert r"\x1b[2J\r\n\u202e" in shown
    assert command(settings, "show", *place, "--raw").stdout_bytes == hostile
