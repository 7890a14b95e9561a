"""The oracle: one detector processes the log in order. The service must have the same results once, bit for bit."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from simulation.process import detector, knowledge

from fraud_service.config.duration import to_ms
from fraud_service.domain.errors import InvalidEvent
from fraud_service.domain.profile import RECENT_KEPT, encode_profile
from fraud_service.domain.records import decode_score
from fraud_service.kafka import topics
from fraud_service.kafka.dead_letters import dead_letter
from fraud_service.kafka.messages import Received, bounded, require_content
from fraud_service.processors.scorer import _outputs, decode_message
from fraud_service.security.card_data import reject_card_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from simulation.log import Record
    from simulation.world import World

    from fraud_service.config.settings import Settings
    from fraud_service.domain.records import ScoreRecord
    from fraud_service.kafka.messages import Output

Written = tuple[bytes | None, bytes | None, list[tuple[str, bytes]], int]


class Expected:
    """The expected result of a partition: outputs by role, and the final profiles."""

    def __init__(self, settings: Settings, partition: int, inputs: list[tuple[int, Record]]) -> None:
        self._settings = settings
        self._partition = partition
        self._detector, self._knowledge = detector(settings), knowledge()
        self._profiles: dict[str, object] = {}
        self.outputs: dict[str, list[Written]] = defaultdict(list)
        for offset, record in inputs:
            for output in self._process(offset, record):
                self.outputs[output.role].append((output.key, output.value, output.headers, record.timestamp))
        self.state = {
            b'%s|"profile"' % card.encode(): encode_profile(profile) for card, profile in self._profiles.items()
        }

    def _process(self, offset: int, record: Record) -> Iterator[Output]:
        name = self._settings.topics.transactions
        received = bounded(Received(name, self._partition, offset, record.key, record.value, record.timestamp))
        try:
            require_content(received)
            reject_card_data(record.value, record.key)
            transaction = decode_message(received, to_ms(self._settings.max_clock_skew))
        except InvalidEvent as error:
            yield dead_letter(received, error)
            return
        (verdict,) = self._detector.assess([transaction], self._profiles, self._knowledge)
        yield from _outputs(verdict, record.key)


def check(world: World) -> list[str]:
    """Return the anomalies, one sentence each."""
    found = [*offsets(world)]
    names = world.settings.topics
    for number, inputs in world.broker.committed(names.transactions).items():
        expected = Expected(world.settings, number, inputs)
        for role in ("scores", "alerts"):
            written = [tuple(record) for _, record in world.broker.committed(getattr(names, role))[number]]
            found += compare(f"{role}[{number}]", written, expected.outputs[role])
        scores = [decode_score(record.value) for _, record in world.broker.committed(names.scores)[number]]
        found += payments(f"scores[{number}]", scores)
        letters = _letters(world, number)
        found += compare(f"dead letters of [{number}]", letters, expected.outputs["dead_letters"])
        found += state(f"changelog[{number}]", _rebuilt(world, number), expected.state)
        found += _local(world, number, expected)
    return found


def payments(where: str, scores: list[ScoreRecord]) -> Iterator[str]:
    """Check that a remembered payment has one decision, and that only its duplicates repeat the decision."""
    decided: dict[str, list[ScoreRecord]] = defaultdict(list)
    for record in scores:
        recent = decided[record.card_id][-RECENT_KEPT:]
        same = [one for one in recent if _payment(one) == _payment(record)]
        if record.is_duplicate != bool(same):
            yield f"{where}: {_payment(record)} has the wrong is_duplicate={record.is_duplicate}"
        if same and (same[0].score, same[0].outcome) != (record.score, record.outcome):
            yield f"{where}: {_payment(record)} repeats the decision on another payment"
        if not record.is_duplicate:
            is_used = any(one.transaction_id == record.transaction_id for one in recent)
            if record.is_id_reused != is_used or (is_used and record.outcome == "approve"):
                yield f"{where}: {_payment(record)} has the wrong is_id_reused={record.is_id_reused}"
            decided[record.card_id].append(record)


def _payment(record: ScoreRecord) -> tuple[object, ...]:
    return record.transaction_id, record.timestamp, record.amount, record.currency, record.merchant_id


def _letters(world: World, number: int) -> list[Written]:
    """Return the dead letters of an input partition in its order. Masked keys can put them into any partition."""
    letters = [
        (dict(record.headers), tuple(record))
        for records in world.broker.committed(world.settings.topics.dead_letters).values()
        for _, record in records
    ]
    own = [one for one in letters if one[0]["fraud-source-partition"] == b"%d" % number]
    return [letter for _, letter in sorted(own, key=lambda one: int(one[0]["fraud-source-offset"]))]


def offsets(world: World) -> Iterator[str]:
    """Check that committed offsets never go back."""
    last: dict[object, int] = {}
    for group, place, offset in world.broker.groups.history:
        if offset < last.get((group, place), 0):
            yield f"the offset of {group} in {place} went back from {last[group, place]} to {offset}"
        last[group, place] = offset


def compare(where: str, written: list[Written], expected: list[Written]) -> Iterator[str]:
    if written == expected:
        return
    at = next(
        (n for n, (a, b) in enumerate(zip(written, expected, strict=False)) if a != b), min(len(written), len(expected))
    )
    yield (
        f"{where}: {len(written)} records, {len(expected)} expected, different from record {at} on: "
        f"{written[at : at + 1]} is not {expected[at : at + 1]}"
    )


def state(where: str, found: dict[bytes, bytes], expected: dict[bytes, bytes]) -> Iterator[str]:
    wrong = {key for key in {*found, *expected} if found.get(key) != expected.get(key)}
    if wrong:
        yield f"{where}: the state of {sorted(wrong)} differs from the state computed from the log"


def _rebuilt(world: World, number: int) -> dict[bytes, bytes]:
    """Return the state rebuilt from the changelog alone."""
    (name,) = (spec.name for spec in topics.topic_specs(world.settings) if spec.role == "scorer_state")
    state = {record.key: record.value for _, record in world.broker.committed(name)[number]}
    return {key: value for key, value in state.items() if value is not None}


def _local(world: World, number: int, expected: Expected) -> Iterator[str]:
    """Check the state on the volume of the partition's owner."""
    for instance, rows in world.stored(number):
        yield from state(f"volume of {instance}[{number}]", rows, expected.state)
