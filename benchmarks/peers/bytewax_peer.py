"""A peer of the scorer: the same job as a Bytewax dataflow, around the same domain functions.

`python benchmarks/peers/bytewax_peer.py BOOTSTRAP SOURCE SCORES GROUP FOLDER GUARANTEE [EPOCH_MS [SNAPSHOT]]` runs
until a signal ends it. Features, models and records come from `fraud_service`, so that only the framework differs.
Bytewax reads, keeps a profile for each card in a keyed stateful operator, snapshots it into SQLite, and writes.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from bytewax import operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from confluent_kafka.admin import AdminClient, NewTopic

from fraud_service.domain.decision import Decision, Outcome, Policy
from fraud_service.domain.detector import Assessment
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.events import Transaction, decode_transaction
from fraud_service.domain.features import Features, extract
from fraud_service.domain.profile import Profile, decode_profile, encode_profile, fingerprint64
from fraud_service.domain.reasons import reasons
from fraud_service.domain.records import alert_id, alert_record, encode_record, score_record
from fraud_service.domain.scoring import blend, contributions
from fraud_service.domain.snapshot import SnapshotStore, SnapshotView, decode_snapshot, untrained
from fraud_service.domain.time import rfc3339
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Received
from fraud_service.kafka.partitioner import PARTITIONER
from fraud_service.models.artifact import shipped_folder
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.processors.scorer import check_key, check_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bytewax.connectors.kafka import KafkaSourceMessage

    from fraud_service.domain.online_model import ModelInput

TIMEOUT: Final = 30.0  # seconds
FUTURE_TOLERANCE: Final = 300_000  # milliseconds
BATCH: Final = 1000  # messages of a partition in one batch
DEFAULT_EPOCH: Final = "1000"  # milliseconds between snapshots; equals the commit interval of the other peers


Resumed = tuple[bytes, dict[bytes, Features], int]  # profile, features of undecided transactions, number of new ones


class Case(msgspec.Struct, gc=False, frozen=True):
    """A transaction before its decision, which `card` will store.

    For a duplicate, `ago` is the number of the card's transactions since the first one. A duplicate has no features,
    unless the snapshot of its card came before the decision.
    """

    transaction: Transaction
    key: bytes
    timestamp: int
    card: Card
    ago: int
    features: Features | None
    view: SnapshotView


class Card(StatefulBatchLogic[Any, Any, Any]):
    """The keyed state: one card's profile.

    A later step decides for many cards at once and stores the decision in the profile by reference, which is the same
    object within a worker. A snapshot in between also holds the features of undecided transactions, so that a duplicate
    after a restart gets the same decision.
    """

    def __init__(self, knowledge: SnapshotStore, resumed: Resumed | None) -> None:
        self._knowledge = knowledge
        self._profile = Profile()
        self._open: dict[bytes, Features] = {}  # transactions with a pending decision, in order
        self._lost: dict[bytes, Features] = {}  # transactions whose decision was lost in a restart
        if resumed is not None:
            data, self._lost, undecided = resumed
            self._profile = decode_profile(data)
            self._profile.decisions += [b""] * undecided

    def on_batch(self, values: list[tuple[Transaction, bytes, int]]) -> tuple[list[Case], bool]:
        """Compute the features of each transaction from the profile before it, then update the profile."""
        return [self._observe(*value) for value in values], StatefulBatchLogic.RETAIN

    def snapshot(self) -> Resumed:
        """Return the state as bytes, which later updates cannot change during the write."""
        return encode_profile(self._profile), self._lost | self._open, len(self._open)

    def decided(self, case: Case, decision: Decision) -> None:
        """Store a decision. Decisions come back in order."""
        if case.ago:
            self._profile.decisions[-case.ago] = msgspec.msgpack.encode(decision)
        else:
            self._profile.add_decision(decision)
            del self._open[next(iter(self._open))]

    def decision(self, ago: int) -> Decision:
        """Return the decision of `ago` transactions before."""
        return self._profile.decision(ago)

    def _observe(self, transaction: Transaction, key: bytes, timestamp: int) -> Case:
        profile, view = self._profile, self._knowledge.at(transaction.timestamp)
        identity = fingerprint64(transaction.transaction_id)
        ago = profile.find_duplicate(transaction).age
        if ago:
            return Case(transaction, key, timestamp, self, ago, self._lost.get(identity), view)
        features = extract(
            transaction,
            profile,
            view.merchant(transaction.merchant_id),
            view.card(transaction.card_id),
            view.snapshot.as_of,
        )
        profile.update(transaction)
        self._open[identity] = features
        return Case(transaction, key, timestamp, self, 0, features, view)


class Steps:
    """The stateless steps, each on whole batches."""

    def __init__(self, scores: str, pretrained: OnnxForest, knowledge: SnapshotStore) -> None:
        self._scores = scores
        self._pretrained = pretrained
        self._knowledge = knowledge
        self._policy = Policy()

    def read(self, batch: list[KafkaSourceMessage[bytes, bytes]]) -> list[Any]:
        """Decode transactions, and turn unreadable messages into dead letters."""
        return [self._read(message) for message in batch]

    def _read(self, message: KafkaSourceMessage[bytes, bytes]) -> Any:
        timestamp = message.timestamp[1]
        try:
            transaction = decode_transaction(message.value)
            check_key(message.key, transaction.card_id)
            check_time(transaction.timestamp, timestamp + FUTURE_TOLERANCE, "timestamp")
        except InvalidEvent as error:
            source = Received(message.topic, message.partition, message.offset, message.key, message.value, timestamp)
            letter = dead_letter(source, error)
            topic = f"{self._scores}.dead-letters"
            return KafkaSinkMessage(letter.key, letter.value, topic, list(letter.headers or ()), timestamp=timestamp)
        return transaction.card_id, (transaction, message.key, timestamp)

    def card(self, resumed: Any) -> Card:
        """Create or resume the state of one card."""
        return Card(self._knowledge, resumed)

    def score(self, batch: list[tuple[str, Case]]) -> Iterator[KafkaSinkMessage[bytes, bytes]]:
        """Decide on a batch with one run of the model for all rows."""
        cases = [case for _, case in batch]
        rows = [case.features for case in cases if case.features is not None]
        encoded = iter(self._pretrained.encode(rows) if rows else ())
        for case in cases:
            yield from self._messages(self._decide(case, encoded), case)

    def _decide(self, case: Case, encoded: Iterator[ModelInput]) -> Assessment:
        row, explanation = case.features, None
        if row is not None:
            ready, snapshot = next(encoded), case.view.snapshot
            online = snapshot.online.logit(ready, ready.logit)
            result = blend(ready.logit, online, snapshot.online_weight, self._pretrained.prior)
            outcome = self._policy.outcome(result.score)
            if outcome is not Outcome.APPROVE:
                explanation = contributions(row, ready, result, self._pretrained, snapshot.online)
            decision = Decision(
                outcome=outcome,
                score=result.score,
                pretrained_logit=result.pretrained_logit,
                online_logit=result.online_logit,
                online_weight=result.online_weight,
                model=self._pretrained.version,
                snapshot=snapshot.version,
                is_stale=snapshot.is_stale_at(case.transaction.timestamp),
                reasons=() if explanation is None else reasons(case.transaction, row, explanation.features),
            )
            case.card.decided(case, decision)
        else:
            decision = case.card.decision(case.ago)
        return Assessment(case.transaction, decision, None if case.ago else row, explanation)

    def _messages(self, verdict: Assessment, case: Case) -> Iterator[KafkaSinkMessage[bytes, bytes]]:
        record = encode_record(score_record(verdict))
        yield KafkaSinkMessage(case.key, record, self._scores, timestamp=case.timestamp)
        if verdict.decision.is_flagged and not verdict.is_duplicate:
            alert = encode_record(alert_record(verdict))
            headers = _cloud_event(verdict.transaction)
            yield KafkaSinkMessage(case.key, alert, f"{self._scores}.alerts", headers, timestamp=case.timestamp)


def _cloud_event(transaction: Transaction) -> list[tuple[str, bytes]]:
    """Headers of CloudEvents 1.0, as the scorer writes them."""
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", alert_id(transaction).encode()),
        ("ce_source", b"/fraud-service/scorer"),
        ("ce_type", b"fraud-service.alert.v1"),
        ("ce_time", rfc3339(transaction.timestamp).encode()),
        ("ce_subject", transaction.transaction_id.encode()),
        ("content-type", b"application/json"),
    ]


def dataflow(bootstrap: str, source: str, steps: Steps) -> Dataflow:
    """Build the dataflow: read, key by card, score, write."""
    flow = Dataflow("scorer")
    options = {"isolation.level": "read_committed", "fetch.wait.max.ms": "10", "fetch.queue.backoff.ms": "10"}
    messages = op.input("transactions", flow, KafkaSource([bootstrap], [source], add_config=options, batch_size=BATCH))
    read = op.flat_map_batch("read", messages, steps.read)
    sorts = op.branch("readable", read, lambda item: type(item) is tuple)
    cases = op.stateful_batch("profiles", sorts.trues, steps.card)
    scored = op.flat_map_batch("score", cases, steps.score)
    options = {"partitioner": PARTITIONER, "compression.type": "lz4", "enable.idempotence": "true", "linger.ms": "5"}
    # One sink for all three topics, because each sink waits for the broker after every batch.
    op.output("out", op.merge("written", scored, sorts.falses), KafkaSink([bootstrap], None, add_config=options))
    return flow


def create_topics(bootstrap: str, source: str, names: list[str]) -> None:
    """Create missing output topics, with as many partitions as the source."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    there = admin.list_topics(timeout=TIMEOUT).topics
    wanted = [NewTopic(name, len(there[source].partitions), 1) for name in names if name not in there]
    if wanted:
        for created in admin.create_topics(wanted, request_timeout=TIMEOUT).values():
            created.result()


def main(
    bootstrap: str,
    source: str,
    scores: str,
    group: str,
    folder: str,
    guarantee: str,
    *more: str,
) -> None:
    """Score until a signal ends the process."""
    if guarantee != "at-least-once":
        raise SystemExit("Bytewax's Kafka sink is at-least-once: it has no transactions")
    epoch, snapshot = (*more, DEFAULT_EPOCH, "")[0], more[1] if len(more) > 1 else ""
    pretrained = OnnxForest.load(shipped_folder())
    knowledge = SnapshotStore(untrained(pretrained.version, pretrained.untrained_online_model()))
    if snapshot:
        knowledge.receive_snapshot(decode_snapshot(Path(snapshot).read_bytes()))
        knowledge.apply_received()
    create_topics(bootstrap, source, [scores, f"{scores}.alerts", f"{scores}.dead-letters"])
    recovery = Path(folder) / group  # Bytewax commits nothing to Kafka, so the group only names its snapshots
    if not recovery.exists():
        recovery.mkdir(parents=True)
        init_db_dir(recovery, 1)
    cli_main(
        dataflow(bootstrap, source, Steps(scores, pretrained, knowledge)),
        workers_per_process=1,
        epoch_interval=timedelta(milliseconds=int(epoch)),
        recovery_config=RecoveryConfig(str(recovery)),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
