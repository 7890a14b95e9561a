"""The one table of topics: what they are called, how they are kept, and whether the cluster has them so.

Creation, preflight, documentation and AsyncAPI all come from here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from fraud_service.domain.errors import ClusterUnavailable, PreflightError
from fraud_service.kafka import clients
from fraud_service.kafka.clients import REQUEST_TIMEOUT_S
from fraud_service.kafka.retries import TRANSIENT_CODES
from fraud_service.kafka.waiting import wait_until

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from fraud_service.config.settings import Settings

DAY_MS: Final = 86_400_000
LONG: Final = 400 * DAY_MS  # a year and the disputes about its last days
FOREVER: Final = -1
# The broker's clock bounds event times: a producer's own would be as wrong as its events.
ON_APPEND: Final = {"message.timestamp.type": "LogAppendTime"}
# What results depend on; the rest is for `topics check`: who keeps records longer need not be stopped.
ESSENTIAL: Final = frozenset({"cleanup.policy", "message.timestamp.type"})
RETENTION: Final = frozenset({"retention.ms", "retention.bytes"})
MAX_MODEL_BYTES: Final = 16 << 20  # bytes
STORE: Final = "default"  # Quix's name of the store behind stateful functions: part of the changelog's name


class TopicSpec(msgspec.Struct, frozen=True):
    """One topic: its role in the service, its name, and how the broker keeps it. `retention` is in milliseconds."""

    role: str
    name: str
    key: str
    content: str
    partitions: int
    cleanup: str = "delete"
    retention: int = 30 * DAY_MS
    extra: Mapping[str, str] = {}

    @property
    def essential(self) -> frozenset[str]:
        """Names the settings without which the service does not start."""
        return ESSENTIAL | RETENTION if self.cleanup == "delete" and self.retention == FOREVER else ESSENTIAL

    def config(self) -> dict[str, str]:
        """Return the settings on the broker. Retention is always set: Quix cannot start on a topic without."""
        return {"cleanup.policy": self.cleanup, "retention.ms": str(self.retention), **self.extra}


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """Return the topics of the service, the changelogs of its state included."""
    names, partitions = settings.topics, settings.partitions
    return [
        *(_raw(settings) if settings.tokenizer_key_dir is not None else []),
        TopicSpec(
            "transactions", names.transactions, "card_id", "input: card payments", partitions, extra=ON_APPEND
        ),
        TopicSpec(
            "labels", names.labels, "card_id", "input: what became known of them", partitions, extra=ON_APPEND
        ),
        TopicSpec("scores", names.scores, "card_id", "every decision: the audit log", partitions, retention=LONG),
        TopicSpec("alerts", names.alerts, "card_id", "flagged transactions, CloudEvents headers", partitions),
        TopicSpec("labelled", names.labelled, "merchant_id", "labelled examples", partitions, retention=LONG),
        TopicSpec("snapshots", names.snapshots, "version", "what labels have taught", 1, retention=LONG),
        TopicSpec(
            "models",
            names.models,
            "version",
            "promoted models, and the switch of the online one",
            1,
            # The newest model and the newest switch hold for good. Compaction would keep them too, but the last record
            # of a key may be anybody's: it would take away the signed one before it.
            retention=FOREVER,
            extra={"max.message.bytes": str(MAX_MODEL_BYTES), "retention.bytes": str(FOREVER), **ON_APPEND},
        ),
        TopicSpec(
            "risk",
            names.risk,
            "merchant:<id>, card:<id>",
            "what delayed labels say of merchants and cards",
            1,
            cleanup="compact",
            retention=FOREVER,
            # Rows of superseded snapshots stay readable for a week, so that scorers can catch up by event time.
            # The broker's clock says how old a row is, or one dated back could have the row before it removed at once.
            extra={"min.compaction.lag.ms": str(7 * DAY_MS), **ON_APPEND},
        ),
        TopicSpec(
            "dead_letters", names.dead_letters, "as the source", "original bytes, reason in headers", partitions,
            retention=LONG,
        ),
        _changelog("scorer_state", settings.scorer_group, names.transactions, "profiles of cards", partitions),
        _changelog("learner_state", settings.learner_group, names.scores, "ledger and lessons", partitions),
    ]  # fmt: skip


def _raw(settings: Settings) -> list[TopicSpec]:
    """Return the topics with card numbers, which only a process with the keys of tokens knows."""
    names, partitions = settings.topics, settings.partitions
    return [
        TopicSpec(
            "raw_transactions", names.raw_transactions, "card", "card payments, card numbers included", partitions
        ),
        TopicSpec("raw_labels", names.raw_labels, "card", "what became known of them, likewise", partitions),
    ]


def _changelog(role: str, group: str, source: str, content: str, partitions: int) -> TopicSpec:
    name = f"changelog__{group}--{source}--{STORE}"
    return TopicSpec(role, name, "state key", f"changelog: {content}", partitions, "compact", FOREVER)


def create(admin: AdminClient, specs: list[TopicSpec], replication: int) -> list[str]:
    """Create the topics that are missing; returns their names.

    Raises
    ------
    PreflightError
        When the cluster refuses one, with its reason.
    """
    there = _existing(admin)
    missing = [spec for spec in specs if spec.name not in there]
    if not missing:
        return []
    wanted = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=replication, config=spec.config())
        for spec in missing
    ]
    for name, future in admin.create_topics(wanted, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            raise PreflightError(f"topic {name} cannot be created: {error.args[0].str()}") from error
    _await_leaders(admin, {spec.name: spec.partitions for spec in missing})
    return [spec.name for spec in missing]


def _existing(admin: AdminClient) -> dict[str, Any]:
    try:
        topics: dict[str, Any] = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException as error:
        kind = ClusterUnavailable if error.args[0].code() in TRANSIENT_CODES else PreflightError
        raise kind(
            f"the cluster does not answer: {error.args[0].str()}; check FRAUD_BOOTSTRAP_SERVERS, and whether the "
            "security.protocol of FRAUD_KAFKA_CONFIG is what the brokers speak there"
        ) from None
    return topics


def _await_leaders(admin: AdminClient, partitions: dict[str, int]) -> None:
    """Wait until every new partition has a leader: clients that come too early see errors."""

    def have_leaders() -> bool:
        there = _existing(admin)
        return all(
            name in there
            and len(there[name].partitions) == count
            and all(partition.leader >= 0 for partition in there[name].partitions.values())
            for name, count in partitions.items()
        )

    if not wait_until(have_leaders, REQUEST_TIMEOUT_S):
        raise PreflightError(
            f"after {REQUEST_TIMEOUT_S:.0f} s some of the new topics have no leader: {', '.join(partitions)}"
        )


def findings(admin: AdminClient, specs: list[TopicSpec], replication: int | None = None) -> list[str]:
    """Compare the cluster with the table; returns what is wrong, one sentence each with the fix.

    Parameters
    ----------
    replication
        With it, retention and replication are compared too: good to know, but no reason not to start.
    """
    there = _existing(admin)
    missing = [spec.name for spec in specs if spec.name not in there]
    found = [f"topic {name} is missing: run `fraud-service topics create`" for name in missing]
    present = [spec for spec in specs if spec.name in there]
    for spec in present:
        count = len(there[spec.name].partitions)
        if spec.partitions == 1 and count != 1:
            found.append(f"topic {spec.name} has {count} partitions, it needs exactly 1: delete and create it again")
        replicas = min(len(partition.replicas) for partition in there[spec.name].partitions.values())
        if replication is not None and replicas < replication:
            found.append(
                f"topic {spec.name} has {replicas} replicas, FRAUD_REPLICATION_FACTOR is {replication}: reassign it"
            )
    found += _copartitioning(present, {spec.name: len(there[spec.name].partitions) for spec in present})
    found += _policies(admin, present, is_thorough=replication is not None)
    return found


def _copartitioning(specs: list[TopicSpec], counts: dict[str, int]) -> list[str]:
    """Transactions, labels, scores and both changelogs meet by partition number, so all need as many."""
    together = {"transactions", "labels", "scores", "scorer_state", "learner_state"}
    joined = {spec.name: counts[spec.name] for spec in specs if spec.role in together}
    if len(set(joined.values())) <= 1:
        return []
    listed = ", ".join(f"{name} has {count}" for name, count in joined.items())
    return [f"topics that are joined by card need equally many partitions, but {listed}: create the odd ones again"]


def _policies(admin: AdminClient, specs: list[TopicSpec], *, is_thorough: bool) -> list[str]:
    resources = {spec.name: ConfigResource(ResourceType.TOPIC, spec.name) for spec in specs}
    if not resources:
        return []
    futures = admin.describe_configs(list(resources.values()), request_timeout=REQUEST_TIMEOUT_S)
    actual = {resource.name: future.result() for resource, future in futures.items()}
    found = []
    for spec in specs:
        for name, wanted in spec.config().items():
            entry = actual[spec.name].get(name)
            if entry is not None and entry.value != wanted and (is_thorough or name in spec.essential):
                found.append(
                    f"topic {spec.name} has {name}={entry.value}, it needs {wanted}: "
                    f"set it with `kafka-configs --bootstrap-server BROKER --alter --topic {spec.name} "
                    f"--add-config {name}={wanted}`"
                )
    return found


def require(admin: AdminClient, specs: list[TopicSpec]) -> None:
    """Raise `PreflightError` with all findings, if there are any."""
    found = findings(admin, specs)
    if found:
        raise PreflightError("; ".join(found))


def delete_records(settings: Settings, before: list[TopicPartition]) -> None:
    """Delete the records of partitions before the given offsets, as retention does.

    Raises
    ------
    PreflightError
        When the broker refuses.
    """
    partitions = [TopicPartition(place.topic, place.partition, place.offset) for place in before]
    # confluent-kafka before 2.16 releases one reference to the list too many (issue 2275), which crashes the process.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(partitions))
    admin = clients.admin(settings)  # keep the client: without it, its answers never come
    try:
        for answer in admin.delete_records(partitions).values():
            answer.result(REQUEST_TIMEOUT_S)
    except KafkaException as error:
        raise PreflightError(f"records cannot be deleted: {error.args[0].str()}") from error
