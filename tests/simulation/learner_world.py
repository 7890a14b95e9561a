"""Simulate a learner that gets scores and labels in any order, can crash at any call, and learns each label once."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

from simulation.broker import START
from simulation.check import compare, offsets, state
from simulation.host import here
from simulation.process import detector, knowledge, learn
from simulation.producer import Producer
from simulation.world import World
from support.malformed import MALFORMED
from support.worlds import CountingLearner, LinearModel, transaction

from fraud_service.config import factories
from fraud_service.config.duration import to_ms
from fraud_service.domain.events import InvalidEvent, Label, LabelSource, decode_label, encode, facts
from fraud_service.domain.in_memory import MemoryStore
from fraud_service.domain.label_join import MAX_PAYMENTS
from fraud_service.domain.label_join_rows import LabelEvent
from fraud_service.domain.online_training import LearnerState, NegativeSampler, OnlineTrainer
from fraud_service.domain.records import decode_labelled, decode_score, encode_record, score_record
from fraud_service.domain.snapshot import decode_snapshot
from fraud_service.domain.time import DAY, HOUR
from fraud_service.kafka import topics
from fraud_service.processors.snapshot_reader import VERSION_HEADER
from fraud_service.verification.snapshot_rebuild import LearnedLog, rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fraud_service.config.settings import Settings
    from fraud_service.domain.records import LabelledRecord, ScoreRecord
    from fraud_service.runtime.application import FraudApplication

CARDS = 5
BEGIN = int(START * 1000) - 60 * DAY
MINUTE = 60_000


class LearnerWorld(World):
    """A world with one learner. The feed stands for the scorers too."""

    ROLE = "learner"
    PODS = (1,)

    def options(self) -> dict[str, object]:
        """Return settings with a label maturity within the few hours of a seed, and frequent snapshots."""
        return {
            "label_maturity": timedelta(days=0.2),
            "snapshot_interval": timedelta(hours=1),
            "snapshot_activation_delay": timedelta(minutes=15),
        }

    @property
    def read(self) -> tuple[str, list[str]]:
        """Return the learner's group and its input topics."""
        return self.settings.learner_group, [self.settings.topics.scores, self.settings.topics.labels]

    def live(self, settings: Settings, started: Callable[[FraudApplication], None]) -> None:
        """Run the learner."""
        learn(settings, started)

    def feed(self) -> None:
        """Send scores in the order of event time, and labels early, late, twice, wrong or never."""
        luck, names = self.luck, self.settings.topics
        producer = Producer({"transactional.id": "upstream"})
        producer.init_transactions()
        judge, known, profiles = detector(self.settings), knowledge(), {}
        now, labels, payments = BEGIN, [], []
        for number in range(luck.randint(15, 40)):
            now += luck.choice([0, MINUTE, 20 * MINUTE, 2 * HOUR])
            used = luck.choice(payments) if payments and luck.random() < 0.15 else None
            card = f"card-{luck.randrange(CARDS)}" if used is None else used.card_id
            paid = transaction(
                f"t-{number}" if used is None else used.transaction_id,
                now,
                card_id=card,
                merchant_id=f"m-{luck.randrange(3)}",
                amount=luck.choice([5.0, 400.0]),
            )
            payments.append(paid)
            (verdict,) = judge.assess([paid], profiles, known)
            labels += [self._label(paid) for _ in range(luck.choice([0, 1, 1, 2]))]
            producer.begin_transaction()
            producer.produce(names.scores, encode_record(score_record(verdict)), card.encode())
            while labels and luck.random() < 0.5:
                label = labels.pop(luck.randrange(len(labels)))
                producer.produce(names.labels, encode(label), label.card_id.encode())
            if luck.random() < 0.1:
                value, key, _ = luck.choice(MALFORMED)
                producer.produce(names.labels, value, key)
            producer.commit_transaction()
            here.get().pause(luck.choice([0.01, 0.3, 1, 3]))
        producer.begin_transaction()
        for label in labels:
            producer.produce(names.labels, encode(label), label.card_id.encode())
        producer.commit_transaction()
        while not self.broker.transactions.are_settled:  # a label that is not visible yet belongs to the next boundary
            here.get().pause(1)
        producer.begin_transaction()
        (verdict,) = judge.assess([transaction("last", now + DAY, card_id="card-0")], profiles, known)
        producer.produce(names.scores, encode_record(score_record(verdict)), b"card-0")
        producer.commit_transaction()

    def _label(self, paid) -> Label:
        return Label(
            transaction_id=paid.transaction_id,
            card_id=paid.card_id,
            is_fraud=self.luck.random() < 0.5,
            labelled_at=paid.timestamp + self.luck.choice([MINUTE, HOUR, 7 * HOUR]),
            source=LabelSource.ANALYST,
        )

    @property
    def is_settled(self) -> bool:
        """Whether all inputs are processed and the last boundary is closed."""
        return super().is_settled and bool(self.snapshots) and max(self.snapshots) == self.last_boundary

    @property
    def last_boundary(self) -> int:
        """Event time of the boundary before the newest score, epoch milliseconds."""
        newest = max(one.timestamp for one in self.scores)
        return newest - newest % HOUR

    @property
    def scores(self) -> list[ScoreRecord]:
        """The scores that the feed has sent."""
        return [decode_score(value) for value in self._values("scores")]

    @property
    def snapshots(self) -> dict[int, bytes]:
        """The snapshots by boundary; the last one if there are several."""
        return {decode_snapshot(value).as_of: value for value in self._values("snapshots")}

    def _values(self, role: str) -> list[bytes]:
        logs = self.broker.committed(getattr(self.settings.topics, role))
        return [record.value for records in logs.values() for _, record in records]

    def check(self) -> list[str]:
        """Check that each label was learned once, and that snapshots, dead letters and state match."""
        return [*offsets(self), *self._learned_labels(), *self._rebuilt(), *self._letters(), *self._state()]

    def _learned_labels(self) -> Iterator[str]:
        """Check that the last learned label of each transaction is the latest one, and that no label comes twice."""
        events, learned = self._label_events(), defaultdict(list)
        for record in map(decode_labelled, self._values("labelled")):
            learned[facts(record)].append(record)
        used: Counter[str] = Counter()
        for score in self.scores:
            if score.is_duplicate:
                continue
            is_first = not used[score.transaction_id]
            used[score.transaction_id] += 1
            if used[score.transaction_id] > MAX_PAYMENTS:
                continue  # the check below reports it if the learner learned it
            known = [event for event in events[score.transaction_id] if is_first or event.known_at >= score.timestamp]
            examples = learned.pop(facts(score), [])
            is_mature = score.timestamp + to_ms(self.settings.label_maturity) <= self.last_boundary
            last = max(known).is_fraud if known else (False if is_mature else None)
            labels = [example.is_fraud for example in examples]
            if (labels[-1] if labels else None) != last:
                yield f"{score.transaction_id}: learned {labels}, but the latest label is {last}"
            if any(one == other for one, other in pairwise(labels)):
                yield f"{score.transaction_id}: learned the same label twice in a row: {labels}"
            if any(example.corrects != (number > 0) for number, example in enumerate(examples)):
                yield f"{score.transaction_id}: a correction is not marked as one, or another example is"
            if any(example.features != score.features for example in examples):
                yield f"{score.transaction_id}: learned with other features than the score has"
        if learned:
            yield f"learned, but never scored: {sorted(learned)}"

    def _label_events(self) -> dict[str, list[LabelEvent]]:
        """The labels of each transaction up to the last boundary."""
        events = defaultdict(list)
        for value in self._values("labels"):
            with suppress(InvalidEvent):
                label = decode_label(value)
                if label.labelled_at <= self.last_boundary:
                    events[label.transaction_id].append(LabelEvent(label.labelled_at, label.is_fraud, label.source))
        return events

    def _rebuilt(self) -> Iterator[str]:
        """Check that the examples give the published snapshots again, bit for bit, one for each boundary."""
        published = [decode_snapshot(value) for value in self._values("snapshots")]
        first = published[0].as_of - HOUR  # the first boundary is that of the first score that the learner read
        boundaries = [*range(first + HOUR, self.last_boundary + 1, HOUR)]
        if [one.as_of for one in published] != boundaries:
            yield f"snapshots of {[one.as_of for one in published]}, not of {boundaries}"
        rows: dict[str, dict[str, bytes | None]] = defaultdict(dict)
        for records in self.broker.committed(self.settings.topics.risk).values():
            for _, record in records:
                rows[dict(record.headers)[VERSION_HEADER].decode()][record.key.decode()] = record.value
        model = LinearModel()
        examples: dict[int, list[LabelledRecord]] = defaultdict(list)
        for value in self._values("labelled"):
            record = decode_labelled(value)
            examples[record.boundary_ms // HOUR].append(record)
        trainer = OnlineTrainer(MemoryStore(), factories.learning_schedule(self.settings), NegativeSampler(), model)
        log = LearnedLog(examples, {one.as_of // HOUR: one for one in published}, rows)
        state, models = LearnerState.starting_at(first // HOUR), {model.version: model}
        for one in rebuild(trainer, state, models, lambda _: CountingLearner, log):
            if one.differences:
                yield f"the snapshot of {one.result.as_of}: {one.differences}"

    def _letters(self) -> Iterator[str]:
        """Check that each invalid label is a dead letter once."""
        expected = []
        for number, records in self.broker.committed(self.settings.topics.labels).items():
            for offset, record in records:
                try:
                    decode_label(record.value)
                except InvalidEvent:
                    expected.append((number, offset))
        heads = [
            dict(record.headers)
            for records in self.broker.committed(self.settings.topics.dead_letters).values()
            for _, record in records
        ]
        found = [(int(head["fraud-source-partition"]), int(head["fraud-source-offset"])) for head in heads]
        yield from compare("dead letters", sorted(found), sorted(expected))

    def _state(self) -> Iterator[str]:
        """Check that the state on the volume matches the changelog."""
        (name,) = (spec.name for spec in topics.topic_specs(self.settings) if spec.role == "learner_state")
        for number in range(self.settings.partitions):
            written = {one.key: one.value for _, one in self.broker.committed(name)[number]}
            kept = {key: value for key, value in written.items() if value is not None}
            for instance, rows in self.stored(number):
                yield from state(f"volume of {instance}[{number}]", rows, kept)
