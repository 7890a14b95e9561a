"""Send unique card numbers through every path, and look for them in topics, state, logs and metrics."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from itertools import cycle

import pytest
from support.card_numbers import is_card_number
from support.processes import Service, fresh_settings, read_all

from fraud_service.domain.records import decode_score
from fraud_service.kafka import clients, topics

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

GOOD = {"merchant_id": "m-1", "amount": "12.50", "currency": "EUR"}
CODE = "7395"  # of a PIN; too short to look for, so it travels with a canary


SPELLINGS = ("000{}", "{}1228", "+{}", "{}.00", "fe{}ad", "9f02065A08{}5f2403", "5713{}D25122010000000000000F")


def canaries():
    """Yield card numbers that occur nowhere else."""
    for number in range(10**6):
        digits = f"4539{number:06d}71835"
        yield next(digits + last for last in "0123456789" if is_card_number((digits + last).encode()))


@dataclass
class Outcome:
    settings: object
    sent: int
    used: list[bytes]
    everything: dict[str, bytes]


@pytest.fixture(scope="module")
def outcome(apache_kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("canaries")
    settings = fresh_settings(apache_kafka.bootstrap, folder)
    scorer, learner = Service(settings, "score", folder / "scorer"), Service(settings, "learn", folder / "learner")
    options = {"FRAUD_LOG_LEVEL": "debug"}
    scorer.options, learner.options = options, options
    fresh, used = canaries(), []

    def canary() -> str:
        used.append(next(fresh))
        return used[-1]

    transactions, labels = (
        with_card_data(canary),
        with_card_data(canary, labelled_at=1_700_000_000_000, is_fraud=True, source="analyst"),
    )
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        producer = clients.producer(settings)
        spots = cycle(range(settings.partitions))
        for number in range(50):
            value = json.dumps(
                {**GOOD, "transaction_id": f"t-{number}", "timestamp": 1_700_000_000_000, "card_id": "c-1"}
            )
            producer.produce(settings.topics.transactions, value=value, key="c-1")
        for topic, messages in ((settings.topics.transactions, transactions), (settings.topics.labels, labels)):
            for value, key in messages:
                producer.produce(topic, value=value, key=key, partition=next(spots))
        # A forged score, on the other input of the learner.
        producer.produce(settings.topics.scores, value=f'{{"card_id": "{canary()}"}}', key="c-1", partition=0)
        assert producer.flush(30) == 0
        wanted = len(transactions) + len(labels) + 1
        scorer.wait_until(lambda: len(read_all(settings, settings.topics.dead_letters)) >= wanted, 60)
        scorer.wait_until(lambda: len(read_all(settings, settings.topics.scores)) >= 50, 60)
        everything = {
            f"metrics of {one.verb}": urllib.request.urlopen(f"http://127.0.0.1:{one.port}/metrics", timeout=10).read()
            for one in (scorer, learner)
        }
        assert scorer.stop() == learner.stop() == 0
    everything |= {f"log of {one.verb}": (one.folder / "log").read_bytes() for one in (scorer, learner)}
    for one in (scorer, learner):
        files = (path for path in (one.folder / "state").rglob("*") if path.is_file())
        everything |= {str(path.relative_to(folder)): path.read_bytes() for path in files}
    inputs = {settings.topics.transactions, settings.topics.labels}
    for spec in topics.topic_specs(settings):
        if spec.name not in inputs:
            everything[f"topic {spec.role}"] = b"\n".join(
                b"|".join([message.key() or b"", message.value() or b"", repr(message.headers()).encode()])
                for message in read_all(settings, spec.name)
                if spec.role != "scores" or b"outcome" in message.value()  # the forged one is an input
            )
    return Outcome(settings, wanted, [number.encode() for number in used], everything)


def with_card_data(canary, **facts) -> list[tuple[bytes | None, bytes | None]]:
    """Return messages with a unique card number at every possible place."""
    event = {**GOOD, "transaction_id": "t-1", "timestamp": 1_700_000_000_000, "card_id": "c-1", **facts}

    def text(**changes) -> bytes:
        return json.dumps({**event, **changes}).encode()

    grouped = " ".join(part for number in [canary()] for part in (number[:4], number[4:8], number[8:12], number[12:]))
    same = canary()
    return [
        (text(card_id=same), same.encode()),
        (text(), canary().encode()),
        (text(transaction_id=canary()), b"c-1"),
        (text(transaction_id=int(canary())), b"c-1"),
        (text(merchant_id=f"shop {canary()} east"), b"c-1"),
        (text(note=grouped), b"c-1"),
        (text(note={"deep": [canary()]}), b"c-1"),
        *((text(note=spelling.format(canary())), b"c-1") for spelling in SPELLINGS),
        (text(note="".join(chr(0xFF10 + int(digit)) for digit in canary())), b"c-1"),
        (text(**{canary(): 1}), b"c-1"),
        (text(currency=canary(), source=canary()), b"c-1"),
        (text(amount=canary(), labelled_at=canary()), b"c-1"),
        (text(timestamp=canary()), b"c-1"),
        (text(cvv="737", number=canary()), b"c-1"),
        (text(track2=f";{canary()}=25121011000012300000?"), b"c-1"),
        (text(padding=canary() + "x" * 70_000), b"c-1"),
        (text(padding="x" * 950_000 + canary()), b"c-1"),
        (b"{" + canary().encode(), b"c-1"),
        (b"\xff\xfe" + canary().encode("utf-16-le"), b"c-1"),
        (b"\xff" + canary().encode(), None),
        (text(note="".join(f"\\u00{ord(digit):02x}" for digit in canary())).replace(b"\\\\u", b"\\u"), b"c-1"),
    ]


def test_no_card_number_appears_in_any_output(outcome):
    assert len(outcome.used) > 40
    assert {"topic dead_letters", "topic scorer_state", "log of score", "metrics of learn"} <= outcome.everything.keys()
    assert any(name.endswith((".sst", ".log")) for name in outcome.everything)
    for where, data in outcome.everything.items():
        plain = data.replace(b"\0", b"").replace(b" ", b"")
        assert [number for number in outcome.used if number in plain] == [], where


def test_each_message_with_card_data_becomes_one_dead_letter_with_its_reason(outcome):
    letters = [dict(m.headers()) for m in read_all(outcome.settings, outcome.settings.topics.dead_letters)]
    assert len(letters) == outcome.sent
    large = [letter for letter in letters if letter["fraud-reason"] == b"too_large"]
    assert len(large) == 4
    assert all("fraud-content-sha256" in letter for letter in large)
    assert all(letter["fraud-masked"] == b"card data" for letter in letters if letter not in large)
    reasons = {letter["fraud-reason"] for letter in letters}
    assert reasons == {b"card_number", b"sensitive_data", b"invalid_record", b"too_large"}


def test_clean_messages_are_scored(outcome):
    scored = outcome.everything["topic scores"].splitlines()
    names = {decode_score(line.split(b"|")[1]).transaction_id for line in scored}
    assert names == {f"t-{number}" for number in range(50)}


def test_the_input_topics_keep_the_card_numbers(outcome):
    """Show that the search would find the numbers: an input topic keeps its records until its retention."""
    sent = b"".join(m.value() or b"" for m in read_all(outcome.settings, outcome.settings.topics.transactions))
    assert sum(number in sent for number in outcome.used) > 10
