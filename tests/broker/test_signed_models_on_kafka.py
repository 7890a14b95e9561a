"""Signed models and snapshots, the switch of the online model and the rollback of models, on Apache Kafka."""

from __future__ import annotations

import json
import urllib.request
from datetime import timedelta

import msgspec
import pytest
from support.processes import Service, Tail, environment, fresh_settings, read_all
from support.worlds import HOUR, MONDAY, transaction
from typer.testing import CliRunner

from fraud_service.cli import app
from fraud_service.config import factories
from fraud_service.config.keyring import load_keyring
from fraud_service.domain.events import Label, LabelSource, encode
from fraud_service.domain.records import decode_score
from fraud_service.domain.snapshot import SWITCHED_OFF, decode_snapshot, encode_snapshot
from fraud_service.kafka import clients
from fraud_service.security.signatures import Keyring
from fraud_service.verification import replay
from fraud_service.verification.decisions import TimeRange

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PART = 40  # payments, an hour apart


@pytest.fixture(scope="module")
def running(apache_kafka, tmp_path_factory):
    folder = tmp_path_factory.mktemp("signed")
    keys = folder / "keys"
    keys.mkdir()
    (keys / "2026").write_text("k" * 64)
    signed = {"signing_key_dir": keys, "deployment": "test", "label_maturity": timedelta(hours=12)}
    settings = fresh_settings(apache_kafka.bootstrap, folder).model_copy(update=signed)
    scorer, learner = Service(settings, "score", folder / "scorer"), Service(settings, "learn", folder / "learner")
    with scorer, learner:
        scorer.await_ready()
        learner.await_ready()
        yield settings, scorer, learner
        assert scorer.stop() == learner.stop() == 0


def play(settings, scorer, learner, number: int) -> list:
    """Send a part of the payments, each labelled two hours later; returns all scores so far in order of event time."""
    producer = clients.producer(settings)
    for place in range(number * PART, (number + 1) * PART):
        card = f"c-{place % 5}"
        paid = transaction(f"t-{place}", MONDAY + place * HOUR, card_id=card, amount=20.0 + 700 * (place % 8 == 0))
        producer.produce(settings.topics.transactions, key=card.encode(), value=encode(paid))
        label = Label(
            transaction_id=paid.transaction_id,
            card_id=card,
            is_fraud=place % 8 == 0,
            labelled_at=paid.timestamp + 2 * HOUR,
            source=LabelSource.CHARGEBACK,
        )
        producer.produce(settings.topics.labels, key=card.encode(), value=encode(label))
    assert producer.flush(30) == 0
    scores, snapshots = Tail(settings, settings.topics.scores), Tail(settings, settings.topics.snapshots)
    scorer.wait_until(lambda: len(scores.read()) == (number + 1) * PART, 60)
    last = MONDAY + ((number + 1) * PART - 1) * HOUR
    learner.wait_until(lambda: any(_as_of(m) >= last for m in snapshots.read()), 60)
    found = [decode_score(message.value()) for message in scores.read()]
    scores.close()
    snapshots.close()
    return sorted(found, key=lambda score: score.timestamp)


def _as_of(message) -> int:
    return msgspec.json.decode(message.value())["as_of"] if message.value() else 0


def metric(process, name: str) -> float:
    text = urllib.request.urlopen(f"http://127.0.0.1:{process.port}/metrics", timeout=10).read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


def command(settings, *words: str):
    found = CliRunner().invoke(app, [*words], env=environment(settings), catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_forged_snapshots_are_rejected_with_their_reason_and_real_ones_are_still_read(running):
    settings, scorer, learner = running
    play(settings, scorer, learner, 0)
    newest = decode_snapshot(read_all(settings, settings.topics.snapshots)[-1].value())
    later = msgspec.structs.replace(newest, as_of=newest.as_of + 900 * HOUR, online_weight=1.0).with_digest()
    value, key = encode_snapshot(later), later.version.encode()
    ring = load_keyring(settings)
    stranger = Keyring({"2026": b"s" * 32}, "2026", "test")
    staging = Keyring(ring.keys, "2026", "staging")
    forgeries = {
        "unsigned": [],
        "forged": stranger.sign_headers("snapshots", key, value, []),
        "another_deployment": staging.sign_headers("snapshots", key, value, []),
        "unknown_key": Keyring({"x": b"s" * 32}, "x").sign_headers("snapshots", key, value, []),
    }
    producer = clients.producer(settings)
    for headers in (*forgeries.values(), ring.sign_headers("risk", key, value, [])):
        producer.produce(settings.topics.snapshots, key=key, value=value, headers=headers)
    assert producer.flush(30) == 0
    scorer.wait_until(lambda: metric(scorer, "fraud_rejected_snapshots_total") == 5, 30)
    for rejection, count in {"unsigned": 1, "forged": 3, "unknown_key": 1}.items():
        assert metric(scorer, f'fraud_rejected_snapshots_total{{rejection="{rejection}"}}') == count
    scores = play(settings, scorer, learner, 1)
    used = {score.snapshot for score in scores[PART:]}
    assert used == {newest.version}


def test_the_switch_of_the_online_model_takes_effect_at_once_and_is_in_every_score(running):
    settings, scorer, learner = running
    assert command(settings, "online", "off") == "the online model is off\n"
    scorer.wait_until(lambda: metric(scorer, "fraud_online_switch") == 0, 30)
    off = play(settings, scorer, learner, 2)[2 * PART :]
    assert all(score.snapshot.endswith(SWITCHED_OFF) and score.online_weight == 0 for score in off)
    assert all(score.score == score.pretrained for score in off)
    command(settings, "online", "on")
    scorer.wait_until(lambda: metric(scorer, "fraud_online_switch") == 1, 30)
    on = play(settings, scorer, learner, 3)[3 * PART :]
    assert not any(score.snapshot.endswith(SWITCHED_OFF) for score in on)


def test_scores_with_and_without_the_online_model_are_replayed_bit_for_bit(running):
    settings, *_ = running
    found = replay.verify(settings, replay.plan(settings, TimeRange()))
    assert not found.findings
    assert found.counts["identical"] == 4 * PART


def test_one_command_rolls_back_to_an_earlier_model(running):
    settings, scorer, _ = running
    first = factories.pretrained(settings).version
    assert [one["version"] for one in json.loads(command(settings, "models", "list", "--json"))] == [first]
    assert command(settings, "models", "rollback", first) == f"promoted: {first}\n"
    (listed,) = json.loads(command(settings, "models", "list", "--json"))
    assert (listed["version"], listed["signed_with"], listed["is_active"]) == (first, "2026", True)
    assert metric(scorer, "fraud_signatures_demanded") == 1
    failed = CliRunner().invoke(app, ["models", "rollback", "forest-none"], env=environment(settings))
    assert "there is no model forest-none" in str(failed.exception)


def test_after_re_signing_no_record_needs_the_old_key(running):
    settings, scorer, learner = running
    (settings.signing_key_dir / "2027").write_text("n" * 64)
    failed = CliRunner().invoke(app, ["sign", "--yes"], env=environment(settings))
    assert f"group {settings.learner_group} still runs" in str(failed.exception)

    assert learner.stop() == 0
    before = len(read_all(settings, settings.topics.risk))
    assert "nothing was done" in command(settings, "sign")
    assert len(read_all(settings, settings.topics.risk)) == before
    assert command(settings, "sign", "--yes").endswith("done\n")
    assert len(read_all(settings, settings.topics.risk)) > before > 0

    assert scorer.stop() == 0
    (settings.signing_key_dir / "2026").unlink()
    scorer.start()
    learner.start()
    scorer.await_ready()
    learner.await_ready()
    newest = read_all(settings, settings.topics.snapshots)[-1].key().decode()
    scores = play(settings, scorer, learner, 4)
    assert scores[4 * PART].snapshot == newest
    (model,) = json.loads(command(settings, "models", "list", "--json"))
    assert model["signed_with"] == "2027"
