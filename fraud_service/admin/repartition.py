"""A service moved to more partitions while it stands still, its state with it.

Kafka never moves a record to another partition, and more partitions alone would part cards from their profiles. So
inputs and scores go on in new topics, and the state is written to new changelogs, every row to the partition of its
card. The old topics stay as they are: the new ones begin at offset 1, as those do whose first records retention took.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions

from fraud_service.domain.errors import ConfigurationError, FatalStreamError, PreflightError
from fraud_service.domain.label_join_cards import RowCardResolver
from fraud_service.kafka import clients, consumer_groups, open_transactions, partitioner, sender, topics
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.learner import EXAMPLES_KEY, JOIN_KEY, RATE_LIMIT_KEY
from fraud_service.processors.scorer import PROFILE
from fraud_service.runtime import changelogs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.changelogs import Row

NAME: Final = "fraud-repartition"
ANEW: Final = ("transactions", "labels", "scores", "scorer_state", "learner_state")
BEGIN: Final = 1  # the first offset of the new inputs that is read


def repartition(old: Settings, new: Settings, *, really: bool) -> Iterator[str]:
    """Move what scorers and learner know; yields what is done, a line each.

    Parameters
    ----------
    new
        The settings afterwards: other names for transactions, labels and scores, and more partitions.

    Raises
    ------
    ConfigurationError
        When the new settings do not fit the old ones.
    PreflightError
        When something still runs, is not read to its end, or is there already.
    FatalStreamError
        When a row cannot be placed, or what was written is not what is read back.
    """
    for group in (old.scorer_group, old.learner_group):
        consumer_groups.require_stopped(old, group)
    specs = {spec.role: spec for spec in topics.topic_specs(new) if spec.role in ANEW}
    with TopicReader(old, NAME) as archive:
        before = len(archive.spans(old.topics.transactions))
        _require_sense(old, new, before)
        require_all_read(old, archive)
        _require_unused(new, specs)
        for spec in specs.values():
            yield f"topic {spec.name}: create with {spec.partitions} partitions"
        yield f"topic {new.topics.alerts}: raise to {new.partitions} partitions"
        if not really:
            yield "nothing was done: add --yes to do it"
            return
        _create(old, new, specs)
        kept = {spec.role: spec.name for spec in topics.topic_specs(old)}
        of_scorer = _profiles(changelogs.rows(old, archive, kept["scorer_state"]), before, new.partitions)
        count = _move(new, archive, of_scorer, specs["scorer_state"].name, [new.topics.transactions])
        yield f"profiles: {count:,} moved and read back"
        of_learner = _lessons(changelogs.rows(old, archive, kept["learner_state"]), new.partitions)
        inputs = [new.topics.scores, new.topics.labels]
        count = _move(new, archive, of_learner, specs["learner_state"].name, inputs)
        yield f"rows of the learner: {count:,} moved and read back"
    _begin(new)
    yield f"done: start with FRAUD_PARTITIONS={new.partitions} FRAUD_TOPICS__TRANSACTIONS={new.topics.transactions} "
    yield f"  FRAUD_TOPICS__LABELS={new.topics.labels} FRAUD_TOPICS__SCORES={new.topics.scores}"


def _require_sense(old: Settings, new: Settings, before: int) -> None:
    if new.partitions <= before:
        raise ConfigurationError(f"--partitions {new.partitions}: there are {before} now; give more")
    for role in ("transactions", "labels", "scores"):
        if getattr(new.topics, role) == getattr(old.topics, role):
            raise ConfigurationError(f"--{role} {getattr(new.topics, role)}: is the topic of now; give another name")


def require_all_read(old: Settings, archive: TopicReader) -> None:
    """Whatever lies unread on an old topic would never be read: producers must have stopped."""
    names = old.topics
    for group, topic in (
        (old.scorer_group, names.transactions),
        (old.learner_group, names.labels),
        (old.learner_group, names.scores),
    ):
        read = consumer_groups.committed_offsets(old, group, archive, topic)
        for number, span in open_transactions.stable_ranges(old, archive, topic).items():
            begin = read[number] or 0
            if next(archive.read(topic, number, begin, span.end), None) is not None:  # markers of transactions are none
                raise PreflightError(
                    f"{topic}[{number}] ends at {span.end}, and group {group} has read it up to {begin}: "
                    "stop the producers, let the service read everything, then stop it"
                )


def _require_unused(new: Settings, specs: dict[str, topics.TopicSpec]) -> None:
    there = clients.admin(new).list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics
    used = [spec.name for spec in specs.values() if spec.name in there]
    if used:
        raise PreflightError(
            f"there already: {', '.join(used)}. Choose other names, or delete what an attempt that was cut off has left"
        )


def _create(old: Settings, new: Settings, specs: dict[str, topics.TopicSpec]) -> None:
    admin = clients.admin(new)
    there = admin.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics
    topics.create(admin, [*specs.values()], len(there[old.topics.transactions].partitions[0].replicas))
    alerts = new.topics.alerts
    if len(there[alerts].partitions) < new.partitions:
        (raised,) = admin.create_partitions([NewPartitions(alerts, new.partitions)]).values()
        try:
            raised.result(clients.REQUEST_TIMEOUT_S)
        except KafkaException as error:
            raise PreflightError(f"topic {alerts} cannot have more partitions: {error.args[0].str()}") from error


def _profiles(rows: Iterator[Row], old: int, new: int) -> Iterator[Row]:
    suffix = changelogs.suffix(PROFILE)
    for partition, key, value in rows:
        card_id = key.removesuffix(suffix)
        if card_id == key:
            raise FatalStreamError(f"the scorer's changelog has a row that is no profile: {key!r}")
        if partitioner.murmur2_partition(card_id, old) != partition:
            raise FatalStreamError(
                f"a profile is in partition {partition}, but its card belongs to partition "
                f"{partitioner.murmur2_partition(card_id, old)}: set partitioner=murmur2 on the producers of payments"
            )
        yield partitioner.murmur2_partition(card_id, new), key, value


def _lessons(rows: Iterator[Row], partitions: int) -> Iterator[Row]:
    dealing = RowCardResolver(lambda card_id: partitioner.murmur2_partition(card_id.encode(), partitions))
    for _, key, value in rows:
        prefix, _, name = key.partition(b"|")
        if prefix == EXAMPLES_KEY:
            yield 0, key, value
        elif prefix == JOIN_KEY:
            dealt = dealing.take(json.loads(name), value)
            if dealt is not None:
                yield _row(*dealt)
        elif prefix != RATE_LIMIT_KEY:  # those count an hour, and begin anew
            raise FatalStreamError(f"the learner's changelog has a row of an unknown kind: {key!r}")
    for dealt in dealing.counts():
        yield _row(*dealt)


def _row(partition: int, key: str, value: bytes) -> Row:
    return partition, JOIN_KEY + b"|" + json.dumps(key).encode(), value


def _move(new: Settings, archive: TopicReader, rows: Iterable[Row], changelog: str, inputs: list[str]) -> int:
    """Write rows as checkpoints would have, and read them back; returns their number."""
    headers = changelogs.headers(inputs, BEGIN - 1)
    written = [blake2b() for _ in range(new.partitions)]
    count = 0

    def records() -> Iterator[sender.OutgoingRecord]:
        nonlocal count
        for partition, key, value in rows:
            count += 1
            _sum(written[partition], key, value)
            yield sender.OutgoingRecord(changelog, key, value, headers, partition)

    sender.produce_all(new, records())
    for partition in range(new.partitions):
        found = blake2b()
        for entry in archive.read(changelog, partition):
            _sum(found, entry.key or b"", entry.value or b"")
        if found.digest() != written[partition].digest():
            raise FatalStreamError(f"{changelog}[{partition}] does not hold what was written to it")
    return count


def _sum(digest: blake2b, key: bytes, value: bytes) -> None:
    digest.update(b"%d/%d/" % (len(key), len(value)) + key + value)


def _begin(new: Settings) -> None:
    """Let the new logs begin at offset 1, and the groups stand there; from here on the service may start."""
    names, numbers = new.topics, range(new.partitions)
    for topic in (names.transactions, names.labels, names.scores):
        sender.produce_all(new, [sender.OutgoingRecord(topic, None, None, [], number) for number in numbers])
    places = [
        TopicPartition(topic, number, BEGIN)
        for topic in (names.transactions, names.labels, names.scores)
        for number in numbers
    ]
    topics.delete_records(new, places)
    for group in (new.scorer_group, new.learner_group):
        mine = [place for place in places if (place.topic == names.transactions) == (group == new.scorer_group)]
        consumer = clients.reader(new, group)
        try:
            consumer.commit(offsets=mine, asynchronous=False)
        finally:
            consumer.close()
