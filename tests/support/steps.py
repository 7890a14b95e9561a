"""Run the real steps of scorer, learner and tokenizer, and check that every output fits a topic."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Final

from support.audited import Store
from support.malformed import BROKER_TIME
from support.worlds import CountingLearner, DictStore, LinearModel, online_model

from fraud_service.config.settings import Settings
from fraud_service.domain.decision import Policy
from fraud_service.domain.detector import Detector
from fraud_service.domain.snapshot import SnapshotStore, untrained
from fraud_service.kafka.messages import Received
from fraud_service.models.registry import ModelRegistry
from fraud_service.processors.learner import LearnerModels, LearnerProcessor
from fraud_service.processors.scorer import ScorerProcessor
from fraud_service.processors.tokenizer import TokenizerProcessor
from fraud_service.runtime.metrics.learner import LearnerMetrics
from fraud_service.runtime.metrics.scorer import ScorerMetrics
from fraud_service.runtime.metrics.stream import Metrics, TokenizerMetrics
from fraud_service.security.tokens import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fraud_service.kafka.messages import Output

SETTINGS: Final = Settings(partitions=1)
NAMES: Final = SETTINGS.topics
TOPICS: Final = (NAMES.transactions, NAMES.labels, NAMES.scores, NAMES.raw_transactions, NAMES.raw_labels)
LARGEST: Final = 1 << 22  # bytes of a message in these tests
FITS: Final = 1_000_000  # the default limit (bytes) of brokers and producers


def message(data: bytes) -> Received:
    """Create a message from bytes. The first selects the topic; the next two set how often key and value repeat."""
    head, rest = data[:3].ljust(3, b"\0"), data[3:]
    part, value = (rest[:9], rest[9:]) if head[1] % 2 else (b"card-1", rest)
    key, value = (_repeated(part, head[1] // 2), _repeated(value, head[2]))
    return Received(TOPICS[head[0] % len(TOPICS)], 0, 0, key or None, value or None, BROKER_TIME)


def _repeated(part: bytes, power: int) -> bytes:
    return (part * (1 << power % 21))[:LARGEST]


class Steps:
    """The steps of all three roles, each with its own state."""

    def __init__(self) -> None:
        model = LinearModel(base=-1.5, amount=6.0)
        knowledge = SnapshotStore(untrained(model.version, online_model()))
        scorer = ScorerProcessor(SETTINGS, Detector(model, Policy()), knowledge, ScorerMetrics(Metrics()))
        stores: defaultdict[tuple[int, bytes], DictStore] = defaultdict(DictStore)
        stream = SimpleNamespace(store=lambda number, prefix: stores[number, prefix])
        learner = LearnerProcessor(
            SETTINGS,
            LearnerModels(ModelRegistry(model), lambda _: CountingLearner),
            stream,
            SimpleNamespace(partitions=1),
            LearnerMetrics(Metrics()),
        )
        tokenizer = TokenizerProcessor(
            SETTINGS, Tokenizer({"a": b"a" * 32, "b": b"b" * 32}, "b"), TokenizerMetrics(Metrics())
        )
        self._steps = {NAMES.transactions: scorer, NAMES.labels: learner, NAMES.scores: learner}
        self._steps |= {NAMES.raw_transactions: tokenizer, NAMES.raw_labels: tokenizer}
        self._learner, self._stores = learner, stores

    def take(self, received: Received) -> Sequence[Output]:
        """Process a message, check that each output fits its topic, and return the outputs."""
        for store in self._stores.values():
            store.clear()
        self._learner.on_assign([])
        (outputs,) = self._steps[received.topic]([received], lambda _: Store())
        for output in outputs:
            size = len(output.key or b"") + len(output.value or b"") + sum(len(part) for _, part in output.headers)
            assert size < FITS, f"{output.role} of {size} bytes"
        return outputs
