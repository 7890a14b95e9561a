"""Move a stopped service, with its state, to more partitions.

Kafka never moves a record to another partition. Adding partitions would send the transactions of a card to one
partition while its profile stays in another. So inputs and scores continue in new topics, and every row of the state is
written to a new changelog, to the partition of its card. The old topics stay unchanged. The new topics begin at offset
1, like topics whose first records have expired.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, cast

from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewPartitions

from fraud_service.domain.errors import ConfigurationError, FatalStreamError, PreflightError
from fraud_service.domain.label_join_rows import LabelJoinRepartitioner
from fraud_service.domain.profile import decode_profile
from fraud_service.kafka import clients, consumer_groups, partitioner, sender, topics
from fraud_service.kafka.topic_reader import TopicReader
from fraud_service.processors.learner import EXAMPLES_KEY, JOIN_KEY, RATE_LIMIT_KEY
from fraud_service.processors.scorer import PROFILE
from fraud_service.runtime import changelogs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.runtime.changelogs import Row

NAME: Final = "fraud-repartition"
NEW_TOPICS: Final = ("transactions", "labels", "scores", "scorer_state", "learner_state")
FIRST_OFFSET: Final = 1  # of the new inputs


def repartition(old: Settings, new: Settings, *, really: bool) -> Iterator[str]:
    """Move the state of scorers and learner. Yields one line for each step.

    The new settings have other names for transactions, labels and scores, and more partitions.
    """
    for group in (old.scorer_group, old.learner_group):
        consumer_groups.require_stopped(old, group)
    specs = {spec.role: spec for spec in topics.topic_specs(new) if spec.role in NEW_TOPICS}
    with TopicReader(old, NAME) as reader:
        before = len(reader.offset_ranges(old.topics.transactions))
        _require_valid(old, new, before)
        require_all_read(old, reader)
        _require_unused(new, specs)
        for spec in specs.values():
            yield f"topic {spec.name}: create with {spec.partitions} partitions"
        yield f"topic {new.topics.alerts}: raise to {new.partitions} partitions"
        if not really:
            yield "nothing was done: add --yes to do it"
            return
        _create(old, new, specs)
        kept = {spec.role: spec.name for spec in topics.topic_specs(old)}
        profiles = MovedProfiles(
            lambda: changelogs.last_rows(old, reader, kept["scorer_state"]), before, new.partitions
        )
        count = _move(new, reader, profiles, specs["scorer_state"].name, [new.topics.transactions])
        yield f"profiles: {count:,} moved and read back{profiles}"
        of_learner = _learner_rows(changelogs.last_rows(old, reader, kept["learner_state"]), new.partitions)
        inputs = [new.topics.scores, new.topics.labels]
        count = _move(new, reader, of_learner, specs["learner_state"].name, inputs)
        yield f"rows of the learner: {count:,} moved and read back"
    _set_first_offsets(new)
    yield f"done: start with FRAUD_PARTITIONS={new.partitions} FRAUD_TOPICS__TRANSACTIONS={new.topics.transactions} "
    yield f"  FRAUD_TOPICS__LABELS={new.topics.labels} FRAUD_TOPICS__SCORES={new.topics.scores}"


def _require_valid(old: Settings, new: Settings, before: int) -> None:
    if new.partitions <= before:
        raise ConfigurationError(f"--partitions {new.partitions} is not above the present {before}: give more")
    for role in ("transactions", "labels", "scores"):
        if getattr(new.topics, role) == getattr(old.topics, role):
            raise ConfigurationError(f"--{role} {getattr(new.topics, role)} is the present topic: give another name")


def require_all_read(old: Settings, reader: TopicReader) -> None:
    """Raise `PreflightError` when an old topic has unread records, because the service would never read them."""
    names = old.topics
    for group, topic in (
        (old.scorer_group, names.transactions),
        (old.learner_group, names.labels),
        (old.learner_group, names.scores),
    ):
        read = consumer_groups.committed_offsets(old, group, reader, topic)
        for number, span in consumer_groups.stable_ranges(old, reader, topic).items():
            begin = read[number] or 0
            if next(reader.read(topic, number, begin, span.end), None) is not None:  # markers do not count
                raise PreflightError(
                    f"{topic}[{number}] ends at {span.end}, and group {group} has read it up to {begin}: "
                    "stop the producers, let the service read everything, then stop it"
                )


def _require_unused(new: Settings, specs: dict[str, topics.TopicSpec]) -> None:
    existing = clients.admin(new).list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics
    used = [spec.name for spec in specs.values() if spec.name in existing]
    if used:
        raise PreflightError(
            f"topics that already exist: {', '.join(used)}. Choose other names, or delete those of an earlier attempt"
        )


def _create(old: Settings, new: Settings, specs: dict[str, topics.TopicSpec]) -> None:
    admin = clients.admin(new)
    existing = admin.list_topics(timeout=clients.REQUEST_TIMEOUT_S).topics
    topics.create(admin, [*specs.values()], len(existing[old.topics.transactions].partitions[0].replicas))
    alerts = new.topics.alerts
    if len(existing[alerts].partitions) < new.partitions:
        (answer,) = admin.create_partitions([NewPartitions(alerts, new.partitions)]).values()
        with clients.kafka_errors_as(PreflightError, f"topic {alerts} cannot have more partitions"):
            answer.result(clients.REQUEST_TIMEOUT_S)


class MovedProfiles:
    """The profiles of cards, each in the new partition of its card. Iterate once; the figures are valid afterwards.

    A producer with another partitioner leaves profiles in other partitions than that of their card. If a card has
    several profiles, the one with the newest payment stays. `read` returns an iterator over the old rows.
    """

    def __init__(self, read: Callable[[], Iterator[Row]], old: int, new: int) -> None:
        self._read = read
        self._old = old
        self._new = new
        self.misplaced = 0
        self.dropped = 0

    def __iter__(self) -> Iterator[Row]:
        """Yield the new partition, key and value of each row."""
        with changelogs.temporary_rows() as apart:
            for key, value in self._rows(is_home=False):
                self.misplaced += 1
                apart[key] = self._newest(value, apart.get(key))
            for key, value in self._rows(is_home=True):
                yield self._row(key, self._newest(value, apart.get(key)))
                apart.delete(key)
            for card_key, profile in apart.items():
                yield self._row(cast("bytes", card_key), profile)

    def _rows(self, *, is_home: bool) -> Iterator[tuple[bytes, bytes]]:
        """Read the rows that are in the partition of their card, or the others."""
        for partition, key, value in self._read():
            if not key.endswith(changelogs.key_suffix(PROFILE)):
                raise FatalStreamError(f"the scorer's changelog has a row that is not a profile: key {_text(key)}")
            if (self._partition(key, self._old) == partition) == is_home:
                yield key, value

    def _partition(self, key: bytes, count: int) -> int:
        return partitioner.murmur2_partition(key.removesuffix(changelogs.key_suffix(PROFILE)), count)

    def _row(self, key: bytes, value: bytes) -> Row:
        return self._partition(key, self._new), key, value

    def _newest(self, value: bytes, other: bytes | None) -> bytes:
        if other is None:
            return value
        self.dropped += 1
        return max(value, other, key=lambda data: decode_profile(data).last_seen)

    def __str__(self) -> str:
        """Say what was wrong with the old profiles; nothing if nothing was."""
        said = f"; {self.misplaced:,} were outside the partition of their card" if self.misplaced else ""
        if self.dropped:
            said += f", and {self.dropped:,} older ones of the same cards were left out"
        return f"{said}. Set partitioner=murmur2 on the producers of payments" if said else ""


def _learner_rows(rows: Iterator[Row], partitions: int) -> Iterator[Row]:
    repartitioner = LabelJoinRepartitioner(lambda card_id: partitioner.murmur2_partition(card_id.encode(), partitions))
    for _, key, value in rows:
        prefix, _, name = key.partition(b"|")
        if prefix == EXAMPLES_KEY:
            yield 0, key, value
        elif prefix == JOIN_KEY:
            row = repartitioner.move(json.loads(name), value)
            if row is not None:
                yield _row(*row)
        elif prefix != RATE_LIMIT_KEY:  # rate limits count one hour, and start again at zero
            raise FatalStreamError(f"the learner's changelog has a row of an unknown kind, key {_text(key)}")
    for row in repartitioner.counts():
        yield _row(*row)


def _row(partition: int, key: str, value: bytes) -> Row:
    return partition, JOIN_KEY + b"|" + json.dumps(key).encode(), value


def _move(new: Settings, reader: TopicReader, rows: Iterable[Row], changelog: str, inputs: list[str]) -> int:
    """Write rows as checkpoints do, read them back to compare, and return their number."""
    headers = changelogs.row_headers(inputs, FIRST_OFFSET - 1)
    written = [blake2b() for _ in range(new.partitions)]
    count = 0

    def records() -> Iterator[sender.OutgoingRecord]:
        nonlocal count
        for partition, key, value in rows:
            count += 1
            _add_to_digest(written[partition], key, value)
            yield sender.OutgoingRecord(changelog, key, value, headers, partition)

    sender.produce_all(new, records())
    for partition in range(new.partitions):
        found = blake2b()
        for entry in reader.read(changelog, partition):
            _add_to_digest(found, entry.key or b"", entry.value or b"")
        if found.digest() != written[partition].digest():
            raise FatalStreamError(
                f"{changelog}[{partition}] does not hold the rows that were written: delete the new topics and repeat"
            )
    return count


def _add_to_digest(digest: blake2b, key: bytes, value: bytes) -> None:
    digest.update(b"%d/%d/" % (len(key), len(value)) + key + value)


def _set_first_offsets(new: Settings) -> None:
    """Make the new topics begin at offset 1, and commit it for both groups. The service can start after this."""
    names = new.topics
    moved = (names.transactions, names.labels, names.scores)
    places = [TopicPartition(topic, number, FIRST_OFFSET) for topic in moved for number in range(new.partitions)]
    sender.produce_all(new, [sender.OutgoingRecord(place.topic, None, None, [], place.partition) for place in places])
    topics.delete_records(new, places)
    for group in (new.scorer_group, new.learner_group):
        mine = [place for place in places if (place.topic == names.transactions) == (group == new.scorer_group)]
        consumer = clients.reader(new, group)
        try:
            consumer.commit(offsets=mine, asynchronous=False)
        finally:
            consumer.close()


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")
