"""Measure the stages of a decision: microseconds of processor time per transaction, in process, on one core.

The stages are the calls that the scorer makes, one after the other on the same payments. The benchmark also measures
the whole step and the whole tick of the application (state in RocksDB, checkpoint, no broker), which shows the cost
outside the stages. A batch of one stands for an idle stream, and one of 256 for a stream under load.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import Producer
from harness import Broker, Payment, Results, broker, payments
from support.driver import Driver
from support.processes import fresh_settings

from fraud_service.cli import GARBAGE_THRESHOLD
from fraud_service.config import factories
from fraud_service.config.settings import Settings
from fraud_service.domain.decision import Decision, Outcome
from fraud_service.domain.detector import Detector
from fraud_service.domain.events import Transaction, decode_transaction
from fraud_service.domain.features import Features, extract
from fraud_service.domain.profile import Profile, decode_profile, encode_profile
from fraud_service.domain.records import encode_record, score_record
from fraud_service.domain.scoring import Blend, blend
from fraud_service.domain.snapshot import SnapshotStore
from fraud_service.kafka import partitioner
from fraud_service.kafka.messages import Received
from fraud_service.processors import scorer
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics
from fraud_service.runtime.stream import Processing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fraud_service.domain.detector import Assessment
    from fraud_service.domain.online_model import ModelInputs

BATCHES: Final = (1, 256)
WARM: Final = 60_000  # payments that fill the profiles before the measurement
LATER: Final = 2_000_000_000_000  # broker timestamp after all payments, epoch milliseconds
HISTORIES: Final = (10, 1_000, 100_000)  # earlier transactions of a card
PARTITIONS: Final = 4
STEP: Final = "the whole step"
TURN: Final = "the whole tick"


class Sizes(msgspec.Struct, frozen=True):
    """The number of payments to time, and the number of runs."""

    payments: int = 10_240
    runs: int = 3


@dataclass
class Bench:
    """A detector, the profiles it has filled, and the time of each stage so far."""

    settings: Settings
    detector: Detector
    knowledge: SnapshotStore
    profiles: dict[str, bytes] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    scores: list[tuple[bytes, bytes]] = field(default_factory=list)

    def timed(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function and add its time to the stage."""
        began = time.process_time_ns()
        result = function(*arguments)
        self.spent[stage] = self.spent.get(stage, 0) + (time.process_time_ns() - began) / 1000
        return result


def bench(warm: Sequence[Payment]) -> Bench:
    """Create a detector and fill the profiles of its cards."""
    settings = Settings(bootstrap_servers="none:1")
    model = factories.pretrained(settings)
    found = Bench(settings, Detector(model, factories.policy(settings)), SnapshotStore(factories.first_snapshot(model)))
    known: dict[str, Profile] = {}
    for start in range(0, len(warm), 256):
        batch = [decode_transaction(value) for _, value in warm[start : start + 256]]
        found.detector.assess(batch, known, found.knowledge)
    found.profiles = {card_id: encode_profile(profile) for card_id, profile in known.items()}
    return found


def _decode(batch: Sequence[Received]) -> list[Transaction]:
    return [decode_transaction(message.value) for message in batch]


def _check(batch: Sequence[Received], transactions: Sequence[Transaction]) -> None:
    for message, transaction in zip(batch, transactions, strict=True):
        scorer.check_key(message.key, transaction.card_id)
        scorer.check_time(transaction.timestamp, message.timestamp, "timestamp")


def _read(known: dict[str, bytes], transactions: Sequence[Transaction]) -> dict[str, Profile]:
    cards = {transaction.card_id: None for transaction in transactions}
    return {card_id: decode_profile(known[card_id]) if card_id in known else Profile() for card_id in cards}


def _features(
    knowledge: SnapshotStore, profiles: dict[str, Profile], transactions: Sequence[Transaction]
) -> tuple[list[Features], list[Profile]]:
    rows, folded = [], []
    for transaction in transactions:
        profile = profiles[transaction.card_id]
        profile.find_duplicate(transaction)
        view = knowledge.at(transaction.timestamp)
        merchant, card = view.merchant(transaction.merchant_id), view.card(transaction.card_id)
        rows.append(extract(transaction, profile, merchant, card, view.snapshot.as_of))
        profile.update(transaction)
        folded.append(profile)
    return rows, folded


def _online(bench: Bench, encoded: ModelInputs) -> list[float]:
    online = bench.knowledge.newest.online
    return encoded.online(online, encoded.logits)


def _decide(bench: Bench, encoded: ModelInputs, online: Sequence[float], folded: Sequence[Profile]) -> list[Blend]:
    snapshot, model, found = bench.knowledge.newest, bench.detector.pretrained, []
    for known, logit, profile in zip(encoded.logits, online, folded, strict=True):
        result = blend(known, logit, snapshot.online_weight, model.prior)
        outcome = bench.detector.policy.outcome(result.score)
        pair = result.pretrained_logit, result.online_logit
        weight = result.online_weight
        profile.add_decision(Decision(outcome, result.score, *pair, weight, model.version, snapshot.version, False, ()))  # noqa: FBT003
        found.append(result)
    return found


def _write(known: dict[str, bytes], profiles: dict[str, Profile]) -> None:
    known.update({card_id: encode_profile(profile) for card_id, profile in profiles.items()})


def _encode(verdicts: Sequence[Assessment]) -> list[bytes]:
    return [encode_record(score_record(verdict)) for verdict in verdicts]


def stages(bench: Bench, messages: Sequence[Received], size: int) -> dict[str, float]:
    """Time the stages over the messages in batches; returns microseconds per transaction."""
    bench.spent = {}
    for start in range(0, len(messages), size):
        batch = messages[start : start + size]
        transactions = bench.timed("decode the payment", _decode, batch)
        bench.timed("check key and time", _check, batch, transactions)
        profiles = bench.timed("decode the profiles", _read, bench.profiles, transactions)
        rows, places = bench.timed("features and profile update", _features, bench.knowledge, profiles, transactions)
        encoded = bench.timed("pretrained model and encoding", bench.detector.pretrained.encode, rows)
        online = bench.timed("online model", _online, bench, encoded)
        bench.timed("blend and decide", _decide, bench, encoded, online, places)
        bench.timed("encode the profiles", _write, bench.profiles, profiles)
    return {stage: spent / len(messages) for stage, spent in bench.spent.items()}


def records(bench: Bench, messages: Sequence[Received], size: int) -> dict[str, float]:
    """Time the encoding of score records and keep them for `produce`. The profiles are as `stages` left them."""
    bench.spent = {}
    for start in range(0, len(messages), size):
        batch = messages[start : start + size]
        transactions = _decode(batch)
        verdicts = bench.detector.assess(transactions, _read(bench.profiles, transactions), bench.knowledge)
        values = bench.timed("encode the score record", _encode, verdicts)
        bench.scores += [(message.key or b"", value) for message, value in zip(batch, values, strict=True)]
    return {stage: spent / len(messages) for stage, spent in bench.spent.items()}


class Kept:
    """The state of one card in a dictionary."""

    def __init__(self, values: dict[str, bytes], card_id: str) -> None:
        self._values, self._card_id = values, card_id

    def get_bytes(self, _key: str) -> bytes | None:
        """Return the encoded profile of the card."""
        return self._values.get(self._card_id)

    def set_bytes(self, _key: str, value: bytes) -> None:
        """Store the encoded profile of the card."""
        self._values[self._card_id] = value


def step(bench: Bench, messages: Sequence[Received], size: int) -> float:
    """Time the scorer's whole step, metrics included, with state in memory."""
    state: Any = lambda message: Kept(bench.profiles, (message.key or b"").decode())  # noqa: E731
    whole = scorer.ScorerProcessor(bench.settings, bench.detector, bench.knowledge, ScorerMetrics(Metrics()))
    bench.spent = {}
    for start in range(0, len(messages), size):
        bench.timed("step", whole, messages[start : start + size], state)
    return bench.spent["step"] / len(messages)


def turns(bench: Bench, warm: Sequence[Received], messages: Sequence[Received], size: int) -> float:
    """Time the whole application: the step, state in RocksDB, outputs to a list, a checkpoint every 1,024 messages."""
    with tempfile.TemporaryDirectory() as name:
        settings = bench.settings.model_copy(update={"state_dir": Path(name)})
        metrics = ScorerMetrics(Metrics())
        whole = scorer.ScorerProcessor(settings, bench.detector, bench.knowledge, metrics)
        driver = Driver(settings, scorer.stream_spec(settings), lambda _: Processing(whole), metrics, PARTITIONS)
        driver.batch = BATCHES[-1]
        _drive(driver, warm)
        driver.batch = size
        began = time.process_time()
        _drive(driver, messages)
        spent = time.process_time() - began
        driver.close()
    return spent / len(messages) * 1e6


def _drive(driver: Driver, messages: Sequence[Received]) -> None:
    for number, message in enumerate(messages):
        driver.send(message.topic, message.key, message.value, message.timestamp, message.partition)
        if number % 1024 == 1023:  # noqa: PLR2004
            driver.commit()
    driver.commit()


def produce(bench: Bench, bootstrap: str, topic: str) -> float:
    """Time producing score records with the scorer's client options, the client's threads included."""
    options = {"bootstrap.servers": bootstrap, "partitioner": partitioner.PARTITIONER, "compression.type": "lz4"}
    producer = Producer({**options, "linger.ms": 0, "enable.idempotence": True})
    producer.list_topics(topic, timeout=30)
    began = time.process_time()
    for number, (key, value) in enumerate(bench.scores):
        producer.produce(topic, value, key)
        if not number % 256:
            producer.poll(0)
    producer.flush(60)
    return (time.process_time() - began) / len(bench.scores) * 1e6


def by_history(earlier: int, bench: Bench) -> dict[str, float]:
    """Return the cost of a transaction of a card with `earlier` transactions in the last thirty days."""
    month = 30 * 86_400_000
    begun = 1_700_000_000_000
    card = [
        Transaction(
            transaction_id=f"t-{number}",
            timestamp=begun + number * month // earlier,
            card_id="card",
            merchant_id=f"m-{number * 7 % 50}",
            amount=10.0 + number % 90,
            currency="EUR",
        )
        for number in range(earlier + 2_000)
    ]
    known: dict[str, Profile] = {}
    profile = known.setdefault("card", Profile())
    for transaction in card[:earlier]:
        profile.update(transaction)
        profile.add_decision(_ANY)
    data = encode_profile(profile)
    newest = card[earlier - 1].timestamp
    later = [msgspec.structs.replace(one, timestamp=newest + place) for place, one in enumerate(card[earlier:])]
    bench.spent = {}
    for transaction in later:
        read = {"card": bench.timed("profile", decode_profile, data)}
        bench.timed("features", _features, bench.knowledge, read, [transaction])
        read["card"].add_decision(_ANY)
        bench.timed("profile", encode_profile, read["card"])
    return {stage: spent / len(later) for stage, spent in bench.spent.items()} | {"bytes": len(data)}


_ANY: Final = Decision(Outcome.APPROVE, 0.01, -4.5, -4.6, 0.5, "model", "snapshot", False, ())  # noqa: FBT003


def _once(place: Broker, sizes: Sizes, size: int) -> dict[str, float]:
    settings = fresh_settings(place.bootstrap, place.folder, PARTITIONS)
    chosen = payments(WARM + sizes.payments)
    everything = [
        Received(
            settings.topics.transactions, partitioner.murmur2_partition(key, PARTITIONS), number, key, value, LATER
        )
        for number, (key, value) in enumerate(chosen)
    ]
    warm, messages = everything[:WARM], everything[WARM:]
    whole = bench(chosen[:WARM])
    before = dict(whole.profiles)
    found = stages(whole, messages, size)
    whole.profiles = dict(before)
    found |= records(whole, messages, size)
    whole.profiles = dict(before)
    found[STEP] = step(whole, messages, size)
    found[TURN] = turns(whole, warm, messages, size)
    found["produce"] = produce(whole, place.bootstrap, settings.topics.scores)
    return found


def run(sizes: Sizes) -> dict[str, Any]:
    """Time all stages for all batch sizes, several times."""
    gc.set_threshold(GARBAGE_THRESHOLD)  # as every command does; the default would add collections to random stages
    found = Results("stages", msgspec.to_builtins(sizes))
    names = {f"batches of {size} #{number}": size for number in range(sizes.runs) for size in BATCHES}
    if not names.keys() <= found.found.keys():
        with broker() as place:
            for name, size in names.items():
                found.measured(name, lambda size=size: _once(place, sizes, size))
    for earlier in HISTORIES:
        found.measured(f"history {earlier}", lambda earlier=earlier: by_history(earlier, bench([])))
    return found.found


def medians(found: dict[str, Any], size: int) -> dict[str, float]:
    """Return the median time of each stage."""
    runs = [one for name, one in found.items() if name.startswith(f"batches of {size} #")]
    return {stage: statistics.median(one[stage] for one in runs) for stage in runs[0]} if runs else {}
