"""Define the topics with partitions and configuration, create them, and compare them with the cluster.

`topics create`, the check at start-up, the documentation and AsyncAPI all use this table.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType

from fraud_service.domain.errors import ClusterUnavailable, PreflightError
from fraud_service.kafka import clients
from fraud_service.kafka.clients import REQUEST_TIMEOUT_S
from fraud_service.kafka.waiting import TRANSIENT_CODES, wait_until

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from fraud_service.config.settings import Settings

DAY_MS: Final = 86_400_000
AUDIT_MS: Final = 400 * DAY_MS  # a year, and the time for disputes about its last days
FOREVER: Final = -1
# Event times are checked against the broker's clock, because a producer's clock can be as wrong as its events.
ON_APPEND: Final = {"message.timestamp.type": "LogAppendTime"}
# Settings that change results; the service does not start without them. `topics check` also compares the others.
ESSENTIAL: Final = frozenset({"cleanup.policy", "message.timestamp.type"})
RETENTION: Final = frozenset({"retention.ms", "retention.bytes"})
MAX_MODEL_BYTES: Final = 16 << 20  # of a model, before compression
AT_LEAST: Final = frozenset({"max.message.bytes"})  # a larger value is as good
PARTITIONS_ADDED: Final = (
    "Kafka cannot take partitions away, and the state of a card stays in its old one. Without state yet, delete these "
    "topics and create them again with FRAUD_PARTITIONS. Otherwise stop the producers and rebuild the service on new "
    "topics with `fraud-service recover`, which sends every record to the partition of its card"
)
JOINED: Final = frozenset({"transactions", "labels", "scores", "scorer_state", "learner_state"})  # by card
STORE: Final = "default"  # Quix's name for the store of stateful functions, a part of the changelog's name
LEADER_POLL_S: Final = 0.05


class TopicSpec(msgspec.Struct, frozen=True):
    """One topic: its role in the service, its name, and its configuration."""

    role: str
    name: str
    key: str
    content: str
    partitions: int
    cleanup: str = "delete"
    retention_ms: int = 30 * DAY_MS
    extra: Mapping[str, str] = {}

    def config(self) -> dict[str, str]:
        """Return the settings on the broker. Retention is always set, because Quix cannot start without it."""
        return {"cleanup.policy": self.cleanup, "retention.ms": str(self.retention_ms), **self.extra}


def topic_specs(settings: Settings) -> list[TopicSpec]:
    """Return the topics of the service, the changelogs of its state included.

    Only a process with tokenizer keys has the topics with card numbers.
    """
    names, partitions = settings.topics, settings.partitions
    raw = [
        TopicSpec(
            "raw_transactions", names.raw_transactions, "card", "card payments, card numbers included", partitions
        ),
        TopicSpec("raw_labels", names.raw_labels, "card", "labels, card numbers included", partitions),
    ]
    return [
        *(raw if settings.tokenizer_key_dir is not None else []),
        TopicSpec(
            "transactions", names.transactions, "card_id", "input: card payments", partitions, extra=ON_APPEND
        ),
        TopicSpec(
            "labels", names.labels, "card_id", "input: labels, fraud or legitimate", partitions, extra=ON_APPEND
        ),
        TopicSpec(
            "scores", names.scores, "card_id", "every decision: the audit log", partitions, retention_ms=AUDIT_MS
        ),
        TopicSpec("alerts", names.alerts, "card_id", "flagged transactions, with CloudEvents headers", partitions),
        TopicSpec("labelled", names.labelled, "merchant_id", "labelled examples", partitions, retention_ms=AUDIT_MS),
        *_broadcasts(settings),
        TopicSpec(
            "dead_letters", names.dead_letters, "as the source", "rejected records, reason in headers", partitions,
            retention_ms=AUDIT_MS,
        ),
        _changelog("scorer_state", settings.scorer_group, names.transactions, "profiles of cards", partitions),
        _changelog("learner_state", settings.learner_group, names.scores, "label join, risk and progress", partitions),
    ]  # fmt: skip


def _broadcasts(settings: Settings) -> list[TopicSpec]:
    """Return the topics that every scorer reads as a whole: one partition each."""
    names = settings.topics
    return [
        TopicSpec(
            "snapshots", names.snapshots, "version", "online model, weight, risk digest", 1, retention_ms=AUDIT_MS
        ),
        TopicSpec(
            "models",
            names.models,
            "version",
            "promoted models, and the switch of the online model",
            1,
            # The newest model and the newest switch must never expire. Compaction would keep only the last record of
            # a key, so anyone with write access could make it delete the signed record before.
            retention_ms=FOREVER,
            extra={"max.message.bytes": str(settings.max_model_bytes), "retention.bytes": str(FOREVER), **ON_APPEND},
        ),
        TopicSpec(
            "risk",
            names.risk,
            "merchant:<id>, card:<id>",
            "fraud history of merchants and cards, from labels",
            1,
            cleanup="compact",
            retention_ms=FOREVER,
            # Rows of older snapshots stay readable for a week, so that scorers can catch up by event time. With the
            # producer's timestamp, a backdated row could make the broker remove the row before it at once.
            extra={"min.compaction.lag.ms": str(7 * DAY_MS), **ON_APPEND},
        ),
    ]


def _changelog(role: str, group: str, source: str, content: str, partitions: int) -> TopicSpec:
    name = f"changelog__{group}--{source}--{STORE}"
    return TopicSpec(role, name, "state key", f"changelog: {content}", partitions, "compact", FOREVER)


def create(admin: AdminClient, specs: list[TopicSpec], replication: int) -> list[str]:
    """Create the missing topics, and return their names. Raises `PreflightError` when the cluster refuses one."""
    existing = _existing(admin)
    missing = [spec for spec in specs if spec.name not in existing]
    if not missing:
        return []
    _require_same_partitions(existing, specs, missing)
    wanted = [
        NewTopic(spec.name, num_partitions=spec.partitions, replication_factor=replication, config=spec.config())
        for spec in missing
    ]
    refused: dict[str, str] = {}
    for name, future in admin.create_topics(wanted, request_timeout=REQUEST_TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            refused[name] = _refusal(next(spec for spec in missing if spec.name == name), error.args[0])
    created = {spec.name: spec.partitions for spec in missing if spec.name not in refused}
    _await_leaders(admin, created)
    if refused:
        raise PreflightError("; ".join(refused.values()))
    return list(created)


def _require_same_partitions(existing: dict[str, Any], specs: list[TopicSpec], missing: list[TopicSpec]) -> None:
    """Refuse to add a topic with another number of partitions to those that it is joined with."""
    wanted = next((spec.partitions for spec in missing if spec.role in JOINED), None)
    for spec in specs:
        count = len(existing[spec.name].partitions) if spec.name in existing else wanted
        if wanted is not None and spec.role in JOINED and count != wanted:
            raise PreflightError(
                f"topic {spec.name} has {count} partitions, FRAUD_PARTITIONS is {wanted}, and topics that are joined "
                f"by card need equally many: set FRAUD_PARTITIONS={count}. Nothing was created"
            )


def _refusal(spec: TopicSpec, error: KafkaError) -> str:
    """Say why the cluster refuses a topic, and which setting mends it."""
    code = error.code()
    if code in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}:
        remedy = (
            "give this user the right to create topics, or let an administrator create those that "
            "`fraud-service topics list --json` prints"
        )
    elif code == KafkaError.INVALID_REPLICATION_FACTOR:
        remedy = "set FRAUD_REPLICATION_FACTOR to a number that the cluster allows; hosted clusters usually want 3"
    elif code == KafkaError.INVALID_PARTITIONS:
        remedy = "set FRAUD_PARTITIONS to a number that the cluster allows"
    elif spec.role == "models":
        size = spec.extra["max.message.bytes"]
        remedy = (
            f"the topic asks for max.message.bytes={size}. If that is above the limit of the cluster, set "
            "FRAUD_MAX_MODEL_BYTES to the limit, and run `fraud-service topics create` again"
        )
    else:
        remedy = "`fraud-service topics list --json` prints its settings. The cluster must allow them"
    return f"topic {spec.name} cannot be created: {error.str()}. To mend it: {remedy}"


def _existing(admin: AdminClient) -> dict[str, Any]:
    try:
        topics: dict[str, Any] = admin.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException as error:
        kind = ClusterUnavailable if error.args[0].code() in TRANSIENT_CODES else PreflightError
        raise kind(f"no broker listed its topics: {error.args[0].str()}. {clients.UNREACHABLE}") from None
    return topics


def _await_leaders(admin: AdminClient, partitions: dict[str, int]) -> None:
    """Wait until every new partition has a leader, because clients see errors before."""

    def have_leaders() -> bool:
        existing = _existing(admin)
        return all(
            name in existing
            and len(existing[name].partitions) == count
            and all(partition.leader >= 0 for partition in existing[name].partitions.values())
            for name, count in partitions.items()
        )

    if not wait_until(have_leaders, REQUEST_TIMEOUT_S, LEADER_POLL_S):
        raise PreflightError(
            f"after {REQUEST_TIMEOUT_S:.0f} s some of the new topics have no leader: {', '.join(partitions)}. Look "
            "after the brokers"
        )


def findings(admin: AdminClient, specs: list[TopicSpec], replication: int | None = None) -> list[str]:
    """Compare the cluster with the table; return one sentence with the fix for each difference.

    With `replication`, also compare retention and that replication factor. A process starts without them.
    """
    existing = _existing(admin)
    missing = [spec.name for spec in specs if spec.name not in existing]
    found = [f"topic {name} is missing: run `fraud-service topics create`" for name in missing]
    present = [spec for spec in specs if spec.name in existing]
    replicas = {
        spec.name: min(len(partition.replicas) for partition in existing[spec.name].partitions.values())
        for spec in present
    }
    for spec in present:
        count = len(existing[spec.name].partitions)
        if spec.partitions == 1 and count != 1:
            found.append(f"topic {spec.name} has {count} partitions, it needs exactly 1: delete and create it again")
        if replication is not None and replicas[spec.name] < replication:
            found.append(
                f"topic {spec.name} has {replicas[spec.name]} replicas, FRAUD_REPLICATION_FACTOR is {replication}: "
                "reassign it"
            )
    counts = {spec.role: len(existing[spec.name].partitions) for spec in present}
    found += _copartitioning(present, counts)
    if replication is not None and counts.get("alerts") != counts.get("transactions", counts.get("alerts")):
        found.append(
            f"the topic of alerts has {counts.get('alerts', 0)} partitions, that of transactions "
            f"{counts['transactions']}: `verify` needs equally many. Add partitions to the topic of alerts, or delete "
            "and create it again"
        )
    return found + _policies(admin, present, replicas, is_thorough=replication is not None)


def notes(admin: AdminClient, specs: list[TopicSpec], replication: int) -> list[str]:
    """Return a sentence for each difference with which the service works, but that may not be meant."""
    cluster = admin.list_topics(timeout=REQUEST_TIMEOUT_S)
    present = [(spec, cluster.topics[spec.name].partitions) for spec in specs if spec.name in cluster.topics]
    others = [(spec.partitions, len(found)) for spec, found in present if spec.role in JOINED]
    found = []
    if others and len(set(others)) == 1 and others[0][0] != others[0][1]:
        wanted, count = others[0]
        found.append(
            f"inputs, scores and changelogs have {count} partitions, and FRAUD_PARTITIONS is {wanted}: the service "
            f"uses all {count}. Set FRAUD_PARTITIONS={count}, so that `topics create` makes missing topics alike"
        )
    single = [spec.name for spec, found in present if min(len(one.replicas) for one in found.values()) == 1]
    if single and replication == 1 and len(cluster.brokers) > 1:
        found.append(
            f"{len(single)} topics have a single replica on a cluster of {len(cluster.brokers)} brokers, so a broken "
            f"disk loses records: set FRAUD_REPLICATION_FACTOR={min(len(cluster.brokers), 3)}, and reassign them"
        )
    return found


def require_inputs(settings: Settings) -> None:
    """Raise `PreflightError` unless both inputs exist, with equally many partitions as what they are joined with."""
    existing, specs = _existing(clients.admin(settings)), topic_specs(settings)
    wanted = {settings.topics.transactions, settings.topics.labels}
    found = [f"topic {name} is missing: run `fraud-service topics create`" for name in sorted(wanted - set(existing))]
    present = [spec for spec in specs if spec.name in existing]
    found += _copartitioning(present, {spec.role: len(existing[spec.name].partitions) for spec in present})
    if found:
        raise PreflightError("; ".join(found))


def _copartitioning(specs: list[TopicSpec], counts: dict[str, int]) -> list[str]:
    """Check that transactions, labels, scores and both changelogs have equally many partitions: they are joined."""
    joined = {spec.name: counts[spec.role] for spec in specs if spec.role in JOINED}
    if len(set(joined.values())) <= 1:
        return []
    listed = ", ".join(f"{name} has {count}" for name, count in joined.items())
    return [f"topics that are joined by card need equally many partitions, but {listed}. {PARTITIONS_ADDED}"]


def _policies(admin: AdminClient, specs: list[TopicSpec], replicas: dict[str, int], *, is_thorough: bool) -> list[str]:
    resources = {spec.name: ConfigResource(ResourceType.TOPIC, spec.name) for spec in specs}
    if not resources:
        return []
    futures = admin.describe_configs(list(resources.values()), request_timeout=REQUEST_TIMEOUT_S)
    actual = {resource.name: future.result() for resource, future in futures.items()}
    found = []
    for spec in specs:
        minimum = actual[spec.name].get("min.insync.replicas")
        if minimum is not None and int(minimum.value) > replicas[spec.name]:
            found.append(
                f"topic {spec.name} has {replicas[spec.name]} replicas and min.insync.replicas={minimum.value}, so no "
                "record can be written: reassign it with more replicas, or lower that setting"
            )
        is_kept_forever = spec.cleanup == "delete" and spec.retention_ms == FOREVER
        compared = ESSENTIAL | RETENTION if is_kept_forever else ESSENTIAL
        for name, wanted in spec.config().items():
            entry = actual[spec.name].get(name)
            if entry is None or entry.value == wanted or not (is_thorough or name in compared):
                continue
            if name in AT_LEAST and int(entry.value) > int(wanted):
                continue
            if name == "max.message.bytes":
                found.append(
                    f"topic {spec.name} has {name}={entry.value}, and FRAUD_MAX_MODEL_BYTES is {wanted}. Make them "
                    f"equal. Set FRAUD_MAX_MODEL_BYTES={entry.value} if the cluster allows no more"
                )
            else:
                found.append(
                    f"topic {spec.name} has {name}={entry.value}, it needs {wanted}: "
                    f"set it with `kafka-configs --bootstrap-server BROKER --alter --topic {spec.name} "
                    f"--add-config {name}={wanted}`"
                )
    return found


def require(admin: AdminClient, specs: list[TopicSpec]) -> None:
    """Raise `PreflightError` with all findings."""
    found = findings(admin, specs)
    if found:
        raise PreflightError("; ".join(found))


def delete_records(settings: Settings, before: list[TopicPartition]) -> None:
    """Delete the records of partitions before the given offsets, as retention does. Raises `PreflightError`."""
    partitions = [TopicPartition(place.topic, place.partition, place.offset) for place in before]
    # confluent-kafka before 2.16 releases one reference to the list too many (issue 2275), which crashes the process.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(partitions))
    admin = clients.admin(settings)  # keep the client: without it, its answers never come
    with clients.kafka_errors_as(PreflightError, "records cannot be deleted"):
        for answer in admin.delete_records(partitions).values():
            answer.result(REQUEST_TIMEOUT_S)
