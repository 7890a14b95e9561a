"""Send card numbers to the raw topics. Behind the tokenizer there are only tokens."""

from __future__ import annotations

import json
from datetime import timedelta

import msgspec
import pytest
from support.processes import Service, fresh_settings, read_all
from support.worlds import HOUR, MONDAY, transaction

from fraud_service.domain.events import Label, LabelSource, encode
from fraud_service.domain.records import decode_score
from fraud_service.kafka import clients, topics
from fraud_service.processors.tokenizer import tokenizer

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

CARDS = ("4242424242424242", "5555555555554444", "378282246310005")
OWN_ID = "customer-0815"
SECRET = "k" * 64
VERIFICATION_VALUE = "739507395"  # four digits would be in the time stamps of any log


@pytest.fixture(scope="module")
def outcome(apache_kafka, tmp_path_factory):
    """Send payments under one key, rotate the key, and send payments and late labels under both."""
    folder = tmp_path_factory.mktemp("tokens")
    keys = folder / "keys"
    keys.mkdir()
    (keys / "a2025").write_text(SECRET)
    settings = fresh_settings(apache_kafka.bootstrap, folder).model_copy(update={"label_maturity": timedelta(days=30)})
    inside = settings.model_copy(update={"tokenizer_key_dir": keys})
    raw = [spec for spec in topics.topic_specs(inside) if spec.role.startswith("raw_")]
    topics.create(clients.admin(settings), raw, 1)
    scorer, learner = Service(settings, "score", folder / "scorer"), Service(settings, "learn", folder / "learner")
    edge = Service(inside, "tokenize", folder / "edge")
    producer = clients.producer(settings)

    def pay(numbers: range) -> None:
        for number in numbers:
            card = CARDS[number % 3]
            paid = transaction(f"t-{number}", MONDAY + number * HOUR, card_id=card)
            producer.produce(settings.topics.raw_transactions, key=card, value=encode(paid))
        assert producer.flush(30) == 0

    with scorer, learner, edge:
        for process in (scorer, learner, edge):
            process.await_ready()
        pay(range(30))
        spoiled = {"card_id": CARDS[0], "cvv": VERIFICATION_VALUE}
        producer.produce(settings.topics.raw_transactions, key=CARDS[0], value=json.dumps(spoiled))
        own = transaction("t-own", MONDAY, card_id=OWN_ID)
        producer.produce(settings.topics.raw_transactions, key=OWN_ID, value=encode(own))
        producer.produce(settings.topics.raw_transactions, key=OWN_ID, value=f"no JSON, and {CARDS[0]}")
        assert producer.flush(30) == 0
        scorer.wait_until(lambda: len(read_all(settings, settings.topics.scores)) >= 31, 60)
        assert edge.stop() == 0
        (keys / "b2026").write_text(SECRET[::-1] + "x")
        edge.start()
        edge.await_ready()
        pay(range(30, 60))
        for number in (3, 40):
            label = Label(
                transaction_id=f"t-{number}",
                card_id=CARDS[number % 3],
                is_fraud=True,
                labelled_at=MONDAY + (number + 5) * HOUR,
                source=LabelSource.CHARGEBACK,
            )
            producer.produce(settings.topics.raw_labels, key=label.card_id, value=encode(label))
        scorer.wait_until(lambda: len(read_all(settings, settings.topics.scores)) >= 61, 60)
        learner.wait_until(lambda: len(read_all(settings, settings.topics.labels)) >= 4, 60)
        pay(range(60, 62))  # event time passes, and the learner learns the due labels
        learner.wait_until(lambda: len(read_all(settings, settings.topics.labelled)) >= 2, 60)
        assert scorer.stop() == learner.stop() == edge.stop() == 0
    return settings, inside, [scorer, learner, edge]


def test_each_card_has_its_own_token_which_names_its_key(outcome):
    settings, inside, _ = outcome
    made = tokenizer(inside)
    scores = {score.transaction_id: score for score in map(_score, read_all(settings, settings.topics.scores))}
    for number in range(60):
        key = "a2025" if number < 30 else "b2026"
        assert scores[f"t-{number}"].card_id == made.token(CARDS[number % 3].encode(), key).decode()
    assert scores["t-29"].features.count_30d == 9


def _score(message):
    return decode_score(message.value())


def test_a_label_joins_its_payment_before_and_after_a_key_rotation(outcome):
    settings, *_ = outcome
    examples = [msgspec.json.decode(message.value()) for message in read_all(settings, settings.topics.labelled)]
    assert {example["transaction_id"] for example in examples} == {"t-3", "t-40"}
    assert all(example["is_fraud"] for example in examples)


def test_no_output_contains_a_card_number_or_key(outcome):
    settings, inside, processes = outcome
    everything = {f"log of {one.verb}": (one.folder / "log").read_bytes() for one in processes}
    for spec in topics.topic_specs(settings):
        for message in read_all(settings, spec.name):
            everything[f"{spec.name}@{message.partition()}/{message.offset()}"] = b"\n".join(
                [
                    message.key() or b"",
                    message.value() or b"",
                    *(content or b"" for _, content in message.headers() or []),
                ]
            )
    for process in processes[:2]:
        for path in (process.folder / "state").rglob("*"):
            if path.is_file():
                everything[str(path)] = path.read_bytes()
    secrets = [card.encode() for card in CARDS] + [SECRET.encode(), VERIFICATION_VALUE.encode()]
    assert not {name for name, content in everything.items() if any(secret in content for secret in secrets)}
    letters = [dict(letter.headers()) for letter in read_all(settings, settings.topics.dead_letters)]
    assert {letter["fraud-source-topic"] for letter in letters} == {inside.topics.raw_transactions.encode()}
    assert sorted(letter["fraud-reason"] for letter in letters) == [b"not_json", b"sensitive_data"]


def test_an_id_that_is_no_card_number_becomes_a_token_too(outcome):
    settings, inside, _ = outcome
    token = tokenizer(inside).token(OWN_ID.encode(), "a2025").decode()
    scored = [score for score in map(_score, read_all(settings, settings.topics.scores)) if score.card_id == token]
    assert [score.transaction_id for score in scored] == ["t-own"]
